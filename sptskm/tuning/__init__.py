"""Hyper-parameter searches: the space of settings, and the scores of the trials."""

from sptskm.tuning.space import (
    Distribution,
    Search,
    Settings,
    check,
    configured,
    encoded,
    grid,
    load_search,
    ordered,
    present,
    settings_of,
)
from sptskm.tuning.trials import Score, Trial, name_of, ranked

__all__ = [
    "Distribution",
    "Score",
    "Search",
    "Settings",
    "Trial",
    "check",
    "configured",
    "encoded",
    "grid",
    "load_search",
    "name_of",
    "ordered",
    "present",
    "ranked",
    "settings_of",
]
