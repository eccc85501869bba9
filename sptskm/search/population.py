"""Population based training (Jaderberg et al., 2017): between generations the worst take over from the best.

All members of a population have trained equally long when it happens, so that what follows depends on their records
and the seed alone, and on no order of events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sptskm.search.records import Trial
from sptskm.search.space import Draw, Search, Settings, ordered, random

AFRESH = 0.25  # probability that a setting is drawn anew
FACTORS = (0.8, 1.2)  # by one of which a number is multiplied otherwise


@dataclass(frozen=True)
class Succession:
    """A member that takes over weights and settings of a better one, and varies the settings."""

    number: int
    donor: int
    settings: Settings


def successions(members: Sequence[Trial], search: Search) -> list[Succession]:
    """Who takes over from whom among a stream's members, all trained equally long or failed.

    Each of the worst 1 / reduction, and whoever has failed, from one of the best 1 / reduction.
    """
    able = [member for member in members if member.scores and member.end != "failed"]
    able.sort(key=lambda member: (-member.scores[-1].mAP, member.number))
    failed = [member for member in members if member not in able]
    count = len(members) // search.reduction
    best, rest = able[: max(count, 1)], able[max(count, 1) :]
    worst = rest[len(rest) - max(count - len(failed), 0) :] if count > len(failed) else []
    return [_succeed(member, best, search) for member in (*worst, *failed)] if best else []


def _succeed(member: Trial, best: Sequence[Trial], search: Search) -> Succession:
    rng = search.generator(member.number, best[0].epochs)
    donor = best[int(rng.integers(len(best)))]
    return Succession(member.number, donor.number, vary(donor.settings, search.space, rng))


def vary(settings: Settings, space: Mapping[str, Draw], rng: np.random.Generator) -> Settings:
    """Settings near others: each drawn anew, or moved a little within its range."""
    afresh = random(space, rng)
    varied: Settings = {}
    for name in ordered(space):
        if not space[name].applies(varied):
            continue
        draw_anew = rng.random() < AFRESH or name not in settings or not space[name].holds(settings[name])
        # what depends on another setting may not have been drawn with it
        new = afresh.get(name, space[name].at(rng.random()))
        varied[name] = new if draw_anew else _moved(settings[name], space[name], rng)
    return varied


def _moved(value: Any, draw: Draw, rng: np.random.Generator) -> Any:
    """A neighbour of a value: the member of a choice beside it, or the number that is a fifth less or more."""
    if draw.kind != "choice":
        return draw.nearest(value * rng.choice(FACTORS))
    place = draw.values.index(value) + rng.choice((-1, 1))
    return draw.values[int(np.clip(place, 0, len(draw.values) - 1))]
