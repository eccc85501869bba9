"""Searches for settings: what is drawn, and what the trials have reached."""

from sptskm.search.records import Recorder, Score, Trial, ranked, read_trial, read_trials
from sptskm.search.space import Draw, Search, Settings, check, configured, load_search, ordered
from sptskm.search.stopping import goes_on

__all__ = [
    "Draw",
    "Recorder",
    "Score",
    "Search",
    "Settings",
    "Trial",
    "check",
    "configured",
    "goes_on",
    "load_search",
    "ordered",
    "ranked",
    "read_trial",
    "read_trials",
]
