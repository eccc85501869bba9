"""Ranked results as pictures: one query per row, with its nearest tracklets beside it.

Positions and sizes are in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isinf
from typing import Final, Literal

from matplotlib.figure import Figure

from sptskm.data import Tracklets
from sptskm.report import strips
from sptskm.report.colours import BLUE, INK, LINE, OUTLINE, SOFT, Colour
from sptskm.report.figures import legend
from sptskm.report.strips import Box, Canvas
from sptskm.report.style import in_paper, text_width

Outcome = Literal["right", "wrong", "junk", "unknown"]
RESULTS_SHOWN: Final = 8
SHOWN_IN_PAPER: Final = 5  # or the words would be too small on a page
QUERY: Final[Colour] = BLUE
GREY: Final[Colour] = (140, 150, 156)
COLOURS: Final[Mapping[Outcome, Colour]] = {
    "right": (40, 160, 75),
    "wrong": (210, 52, 52),
    "junk": GREY,
    "unknown": GREY,
}
SIGNS: Final[Mapping[Outcome, str]] = {"right": "✓", "wrong": "✗", "junk": "not ranked", "unknown": ""}

UNKNOWN: Final = "-"  # name of a person whom nobody has named, shown by the name of the tracklet

_HEAD = 56  # title and legend
_GAP = 6
_BORDER = 4
_STRIP = (strips.FRAMES_SHOWN * strips.FRAME[0], strips.FRAME[1])
_SKELETON_HEIGHT = 60
_LINE = 14
_LINES = 3  # of text below a tracklet at least, and one more where outfits are known
_LONGEST = 12  # name of an identity or camera
_SPACE = 3 * "\N{NO-BREAK SPACE}"  # an SVG would make one of several spaces
_SIZE, _SMALL = 11, 10.5  # of the first of these lines, and of the others


@dataclass(frozen=True)
class Result:
    """A tracklet in a ranking; junk and other rows that a protocol does not rank have rank 0."""

    row: int
    """Of the table."""
    outcome: Outcome
    rank: int
    distances: Mapping[str, float]
    """Distances by the name of the stream or fusion; the one that ranks comes first."""


@dataclass(frozen=True)
class Ranked:
    """A query with its nearest tracklets, nearest first."""

    row: int
    """Of the query in the table."""
    remarks: Sequence[str]
    """Up to two short lines below the query."""
    results: Sequence[Result]


def ranked_grid(table: Tracklets, queries: Sequence[Ranked], title: str) -> Figure:
    """Draw one query per row with its first results: green is right, red is wrong, grey is not ranked.

    They are eight, and five in a paper.

    A tracklet is shown as three of its frames with mask outlines, above the skeleton nearest to its middle. Where no
    frame can be read, the skeleton is shown alone.
    """
    most = SHOWN_IN_PAPER if in_paper() else RESULTS_SHOWN
    queries = [replace(query, results=query.results[:most]) for query in queries]
    rows = {row for query in queries for row in (query.row, *(result.row for result in query.results))}
    told = max((len(_distances(result.distances)) for query in queries for result in query.results), default=0)
    grid = _Grid(table, {row: strips.read_footage(table, row) for row in sorted(rows)}, told)
    columns = max((len(query.results) for query in queries), default=0)
    outcomes = {result.outcome for query in queries for result in query.results}
    canvas = grid.canvas(len(queries), columns, title, "nobody known" if "unknown" in outcomes else "not ranked")
    for line, query in enumerate(queries):
        grid.draw(canvas, (line, 0), query.row, QUERY, ["query", *query.remarks])
        for column, result in enumerate(query.results, start=1):
            place = f"{SIGNS[result.outcome]} {result.rank or ''}".strip()
            words = [place, *_distances(result.distances)]
            grid.draw(canvas, (line, column), result.row, COLOURS[result.outcome], words)
    return canvas.figure()


def _distances(distances: Mapping[str, float]) -> list[str]:
    """Return one line for the distance that ranks, and one for every two other distances, as there is room for."""
    told = [f"{name} {_short(value)}" for name, value in distances.items()]
    return [*told[:1], *(" · ".join(told[first : first + 2]) for first in range(1, len(told), 2))]


def _short(distance: float) -> str:
    if isinf(distance):
        return "-"
    return f"{distance:.{3 if abs(distance) < 1 else 2 if abs(distance) < 100 else 0}f}"


class _Grid:
    """Layout and drawing of the tracklets in a ranked grid."""

    def __init__(self, table: Tracklets, footage: Mapping[int, strips.Footage], distances: int) -> None:
        self._table, self._footage = table, footage
        images = any(f.images for f in footage.values())
        skeletons = any(f.skeleton_V4 is not None for f in footage.values())
        self._skeleton_height = _SKELETON_HEIGHT if images and skeletons else 0
        self._caption_height = _LINE * (max(_LINES, 1 + distances) + table.has_clothes) + 8

    def _box(self, place: tuple[int, int]) -> Box:
        line, column = place
        width, height = _STRIP[0] + 2 * _BORDER, _STRIP[1] + 2 * _BORDER + self._skeleton_height
        left = 14 if column == 0 else 28
        return Box(left + column * (width + _GAP), _HEAD + line * (height + self._caption_height + _GAP), width, height)

    def canvas(self, lines: int, columns: int, title: str, grey: str) -> Canvas:
        """Create the canvas with title, legend (what is `grey`) and a thin line beside the queries."""
        end = self._box((lines, max(columns + 1, 4)))
        canvas = Canvas(end.y, end.x + 2, title)
        entries = [("query", QUERY), *((name, COLOURS[name]) for name in ("right", "wrong"))]
        remark = "below: rank, identity · camera, distance (p: probability of one person at even odds)"
        legend(canvas, [*entries, (grey, GREY), ("mask outline", OUTLINE)], remark)
        canvas.fill(Box(self._box((0, 1)).x - 10, _HEAD, 1, end.y - _HEAD - _GAP), LINE)
        return canvas

    def draw(self, canvas: Canvas, place: tuple[int, int], row: int, colour: Colour, words: Sequence[str]) -> None:
        """Draw a framed tracklet with lines of text below it.

        The first line holds the first of `words` with identity and camera; the outfit and the other words follow.
        """
        box, table = self._box(place), self._table
        strips.draw_footage(canvas, box.within(_BORDER), self._footage[row], self._skeleton_height)
        canvas.frame(box, colour, _BORDER)
        outfit = [table.clothes_name(row) or "-"] if table.has_clothes else []
        others = [strips.fitting(text, _SMALL, box.width) for text in (*outfit, *words[1:])]
        for number, text in enumerate([self._first(words[0], row, box.width), *others]):
            size, ink = (_SMALL, SOFT) if number else (_SIZE, INK)
            canvas.text(box.middle[0], box.y + box.height + 11 + number * _LINE, text, size, ink, "center")

    def _first(self, place: str, row: int, width: int) -> str:
        """Return the first line with identity (else tracklet) and camera, their names as long as the width allows."""
        person = self._table.pid_name(row)
        names = str(self._table.keys_N[row]) if person == UNKNOWN else person, self._table.camera_name(row)
        line = ""
        for what, least in (("cam ", 6), ("", 2)):
            for length in range(_LONGEST, least - 1, -1):
                who, where = (strips.shortened(name, length) for name in names)
                line = f"{place}{_SPACE}{who} · {what}{where}"
                if text_width(line, _SIZE) <= width:
                    return line
        return line
