"""Colours of streams, and of the rankings made of them, in tables, pictures and reports."""

from collections.abc import Sequence
from typing import Final

from sptskm.config import STREAMS
from sptskm.report.strips import TRUNK, Colour

BLUE: Final[Colour] = (31, 100, 190)
ORANGE: Final[Colour] = (226, 122, 24)
GREEN: Final[Colour] = (38, 140, 84)
PURPLE: Final[Colour] = (128, 70, 170)
OF_STREAMS: Final[Sequence[Colour]] = (BLUE, ORANGE, (190, 40, 90), (20, 150, 165), (125, 95, 60))
MADE: Final = {"fused": GREEN, "reranked": PURPLE}
"""Rankings that are made of those of streams."""


def colour_of(ranking: str) -> Colour:
    """Return the colour of a stream, by its place among all streams, or of a ranking made of streams."""
    if ranking in STREAMS:
        return OF_STREAMS[list(STREAMS).index(ranking) % len(OF_STREAMS)]
    return MADE.get(ranking, TRUNK)
