"""How figures look, on screen and in a paper, and how they become pixels and files.

A figure is drawn by a function without arguments in a style, which is a set of matplotlib's settings (rcParams): font
sizes in it are relative. No display and none of pyplot's global state is used.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import numpy as np
from matplotlib import font_manager, rc_context, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sptskm.report.colours import INK, LINE, SOFT, hexadecimal
from sptskm.report.photograph import Photograph

log = logging.getLogger(__name__)

Image = NDArray[np.uint8]
Draw = Callable[[], Figure]

DPI: Final = 128  # a power of two, so that a size in pixels survives the way through inches
WIDEST: Final = 9.8  # inches
PAGE: Final = 7.0  # inches between the margins of a page

_COMMON: Final[Mapping[str, Any]] = {
    "axes.axisbelow": True,
    "axes.edgecolor": hexadecimal(LINE),
    "axes.grid": True,
    "axes.labelcolor": hexadecimal(SOFT),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.dpi": DPI,
    "figure.titlesize": "large",
    "grid.color": hexadecimal(LINE),
    "grid.linewidth": 0.6,
    "legend.borderaxespad": 0.2,
    "legend.columnspacing": 1.4,
    "legend.fontsize": "medium",
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "text.color": hexadecimal(INK),
    "text.parse_math": False,  # names of people and cameras may have a $
    "xtick.color": hexadecimal(LINE),
    "xtick.labelcolor": hexadecimal(SOFT),
    "xtick.labelsize": "medium",
    "ytick.color": hexadecimal(LINE),
    "ytick.labelcolor": hexadecimal(SOFT),
    "ytick.labelsize": "medium",
}
SCREEN: Final[Mapping[str, Any]] = {
    **_COMMON,
    "figure.figsize": (7.5, 4.7),
    "font.family": [],
    "font.size": 9,
    "lines.linewidth": 2,
    "lines.markersize": 4,
}
PAPER: Final[Mapping[str, Any]] = {
    **_COMMON,
    "axes.linewidth": 0.6,
    "font.family": ["STIXGeneral"],  # like Times, and comes with matplotlib
    "figure.figsize": (3.4, 2.13),  # a column of two; a figure of two panels has both
    "font.size": 8,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 2.2,
    "pdf.fonttype": 42,  # fonts are embedded as TrueType: publishers refuse Type 3
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sptskm",  # the same figure is the same file
}

OTHER_SCRIPTS: Final = (
    *(f"Noto Sans CJK {region}" for region in ("SC", "TC", "JP", "KR", "HK")),
    *("Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Unifont"),
    *("Arial Unicode MS", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei"),
    *(f"Noto Sans {script}" for script in ("Arabic", "Devanagari", "Hebrew", "Thai")),
)
"""Fonts with letters that are missing in DejaVu Sans, the font that comes with matplotlib."""


def new_figure(title: str, height: float = 0.63, panels: int = 1) -> Figure:
    """Return an empty figure with a title in the style in force, `height` times as high as it is wide."""
    width = min(panels * rcParams["figure.figsize"][0], WIDEST)
    figure = Figure((width, height * width))
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def legend_above(axes: Any, width: float = 1.0) -> None:
    """Draw the legend above the axes, in as many columns as fit into this share of the width of the figure."""
    _, words = axes.get_legend_handles_labels()
    if not words:
        return
    size = rcParams["font.size"]
    longest = max(text_width(one, size * DPI / 72) for one in words) / DPI + 3.4 * size / 72  # inches, with its line
    columns = max(1, int((width * axes.figure.get_figwidth() - 4 * size / 72) / longest))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(columns, len(words)))
    if min(columns, len(words)) * longest > 0.6 * width * axes.figure.get_figwidth():
        axes.figure.get_layout_engine().execute(axes.figure)  # or the axes would be kept as narrow as they begin


def pixels(draw: Draw) -> Image:
    """Draw a figure in the style for screens and render it to pixels (H, W, 3)."""
    with _style(SCREEN):
        agg = FigureCanvasAgg(draw())
        agg.draw()
        return np.ascontiguousarray(np.asarray(agg.buffer_rgba())[..., :3], np.uint8)


def vectors(draw: Draw) -> dict[str, bytes]:
    """Draw a figure in the style for papers; return it as files by their ending, "pdf" and "svg".

    It has no title, as the caption says in a paper what it shows.
    """
    with _style(PAPER):
        figure = draw()
        if figure.get_suptitle():
            figure.suptitle("")
        found = _saved(figure)
        for one in figure.findobj(Photograph):
            if (smaller := one.within(found)) is None:
                one.lossless = True
                smaller = _saved(figure)
            found = smaller
    return found


def _saved(figure: Figure) -> dict[str, bytes]:
    """Return a figure as files by their ending, "pdf" and "svg"."""
    found = {}
    for kind, about in (("pdf", {"CreationDate": None}), ("svg", {"Date": None})):
        file = io.BytesIO()
        figure.savefig(file, format=kind, dpi=DPI, metadata=about)
        figure.set_layout_engine("none")  # its places are known now
        found[kind] = file.getvalue()
    return found


def in_paper() -> bool:
    """Return whether the style in force is that for papers."""
    return tuple(rcParams["figure.figsize"]) == PAPER["figure.figsize"]


@contextmanager
def _style(settings: Mapping[str, Any]) -> Iterator[None]:
    rc: Any = {**settings, "font.family": [*settings["font.family"], *families()]}
    with rc_context(rc), _boxes_told_once():
        yield


@cache
def families() -> list[str]:
    """Return the fonts in the order in which a letter is looked up: matplotlib's own, then those for other scripts."""
    known = {font.name for font in font_manager.fontManager.ttflist}
    return ["sans-serif", *(name for name in OTHER_SCRIPTS if name in known)]


@contextmanager
def _boxes_told_once() -> Iterator[None]:
    """Log one line for letters that no font has; matplotlib would warn for each of them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message="Glyph ")
        yield
    for one in caught:
        if str(one.message).startswith("Glyph "):
            _tell_of_boxes()
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


@cache
def _tell_of_boxes() -> None:
    log.warning("no font of this machine has some letters of the names, which are boxes: install %s", OTHER_SCRIPTS[0])


def text_width(words: str, size: float) -> float:
    """Estimate the width in pixels of words whose font, that of the style in force, is `size` pixels high."""
    family = (rcParams["font.family"][0], *families())
    return sum(_letter_width(letter, size, family) for letter in words)


@cache
def _letter_width(letter: str, size: float, family: tuple[str, ...]) -> float:
    font = font_manager.FontProperties(family=list(family), size=size * 72 / DPI)
    with _boxes_told_once():
        width, _, _ = RendererAgg(1, 1, DPI).get_text_width_height_descent(20 * letter, font, ismath=False)
    return float(width) / 20
