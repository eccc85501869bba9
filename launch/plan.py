"""Names that programs of users import from here; they live in `sptskm.launching.plan` and `sptskm.config`."""

from sptskm.config import STREAMS
from sptskm.launching.plan import Plan, check, make_plan, parser

__all__ = ["STREAMS", "Plan", "check", "make_plan", "parser"]
