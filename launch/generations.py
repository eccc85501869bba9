"""Populations on disk: which generation a search is in, and the exchange of runs and settings before each.

What is exchanged is written down first and done then, and doing it twice does no harm: a kill at any moment is made
good by the same command. A search without a population is one generation.
"""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

from launch import search as searches
from launch.plan import Plan
from sptskm.atomic import write_text
from sptskm.search import Recorder, Search, Succession, Trial, successions


def count(search: Search) -> int:
    """Generations of a search."""
    return math.ceil(search.epochs / search.grace_epochs) if search.scheduler == "pbt" else 1


def begin(plan: Plan, search: Search, generation: int) -> int:
    """Let the worst take over from the best before a 0-based generation; the epochs up to which all train in it.

    Every member must have trained up to the generation before, or failed.
    """
    if search.scheduler != "pbt":
        return search.epochs
    if 0 < generation < count(search):
        _exchange(plan, search, searches.folder(plan) / search.stream / f"generation-{generation:02d}.json")
    return min((generation + 1) * search.grace_epochs, search.epochs)


def _exchange(plan: Plan, search: Search, file: Path) -> None:
    members = {member.number: member for member in searches.own_trials(plan, search)}
    if file.exists():
        decided = json.loads(file.read_text())
    else:
        found = successions(list(members.values()), search)
        decided = {"done": False, "successions": [asdict(one) for one in found]}
        write_text(file, json.dumps(decided))
    if not decided["done"]:
        for one in decided["successions"]:
            _take_over(plan, search, members, Succession(**one))
        write_text(file, json.dumps({**decided, "done": True}))


def _take_over(plan: Plan, search: Search, members: dict[int, Trial], succession: Succession) -> None:
    from sptskm.training.takeover import take_over

    member, donor = members[succession.number], members[succession.donor]
    _, config = searches.trial(plan, search, succession.number, succession.settings, search.epochs)
    take_over(donor.folder, config)
    Recorder(member.folder).inherit(replace(member, settings=succession.settings), donor)
