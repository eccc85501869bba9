"""Hyper-parameter searches: the space of settings, and the scores of the trials."""

from sptskm.tuning.space import (
    Distribution,
    Search,
    Settings,
    check_search,
    configured,
    encoded,
    grid_points,
    load_search,
    ordered,
    present,
    settings_of,
)
from sptskm.tuning.trials import SEARCHES, Score, Trial, name_of, rank_trials

__all__ = [
    "SEARCHES",
    "Distribution",
    "Score",
    "Search",
    "Settings",
    "Trial",
    "check_search",
    "configured",
    "encoded",
    "grid_points",
    "load_search",
    "name_of",
    "ordered",
    "present",
    "rank_trials",
    "settings_of",
]
