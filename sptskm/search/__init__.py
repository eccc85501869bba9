"""Searches for settings: what is drawn, and what the trials have reached."""

from sptskm.search.records import Recorder, Score, Trial, read_trials
from sptskm.search.space import Draw, Search, Settings, check, configured, load_search

__all__ = [
    "Draw",
    "Recorder",
    "Score",
    "Search",
    "Settings",
    "Trial",
    "check",
    "configured",
    "load_search",
    "read_trials",
]
