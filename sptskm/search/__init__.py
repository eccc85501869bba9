"""Searches for settings: what is drawn, and what the trials have reached."""

from sptskm.search.population import Succession, successions
from sptskm.search.records import DONE, Recorder, Score, Trial, folder_of, name_of, ranked, read_trial, read_trials
from sptskm.search.space import Draw, Search, Settings, check, configured, load_search, ordered, present
from sptskm.search.stopping import goes_on

__all__ = [
    "DONE",
    "Draw",
    "Recorder",
    "Score",
    "Search",
    "Settings",
    "Succession",
    "Trial",
    "check",
    "configured",
    "folder_of",
    "goes_on",
    "load_search",
    "name_of",
    "ordered",
    "present",
    "ranked",
    "read_trial",
    "read_trials",
    "successions",
]
