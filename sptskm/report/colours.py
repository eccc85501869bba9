"""Colours of streams, of the rankings made of them, and of what surrounds them, in tables, pictures and reports."""

from collections.abc import Sequence
from typing import Final

from sptskm.config import STREAMS

Colour = tuple[int, int, int]

INK: Final[Colour] = (38, 50, 56)
SOFT: Final[Colour] = (104, 117, 125)
LINE: Final[Colour] = (207, 214, 219)
PALE: Final[Colour] = (241, 244, 245)
WHITE: Final[Colour] = (255, 255, 255)
OUTLINE: Final[Colour] = (255, 214, 10)
LEFT_LIMBS: Final[Colour] = (20, 150, 160)
RIGHT_LIMBS: Final[Colour] = (176, 48, 140)
TRUNK: Final[Colour] = (84, 96, 104)

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


def hexadecimal(colour: Colour) -> str:
    """Return the colour in the form that matplotlib reads."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
