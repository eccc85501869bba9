"""sptskm: long-term person re-identification from walking tracklets (SSIN, SMIN, gait and their fusion).

The functions of `sptskm.api` can be imported from here; PyTorch is imported when one of them is first asked for.
"""

from typing import TYPE_CHECKING

__version__ = "0.2.0"
__all__ = ["__version__", "evaluate", "extract", "load_config", "load_model", "search", "train"]

if TYPE_CHECKING:
    from sptskm.api import evaluate, extract, load_config, load_model, search, train


def __getattr__(name: str) -> object:
    """Return a function of `sptskm.api`."""
    if name in __all__:
        from sptskm import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
