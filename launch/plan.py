"""Names that programs of users import from here; they live in `sptskm.launching.plan`."""

from sptskm.launching.plan import STREAMS, Plan, check, make_plan, parser

__all__ = ["STREAMS", "Plan", "check", "make_plan", "parser"]
