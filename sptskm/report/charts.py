"""Charts of a report: camera pairs, distances of same and different persons, and training curves.

Every function returns an RGB picture (H, W, 3) in uint8. Shapes: C cameras.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sptskm.evaluation import CameraPairs
from sptskm.evaluation.results import title_of
from sptskm.report.colours import BLUE, GREEN, colour_of
from sptskm.report.figures import axes_of, legend_row, plain_axes
from sptskm.report.ranked import COLOURS
from sptskm.report.strips import DPI, INK, LINE, SOFT, Floats, Image, hexadecimal, rendered, shortened

Curves = Mapping[str, Floats]  # steps and values (2, points) by TensorBoard tag

BINS: Final = 60
POINTS_READ: Final = 2000  # of each curve
NUMBERED: Final = 12  # cameras up to which every cell tells its number
_DARK = 60  # percent above which a cell has white text


def camera_figure(pairs: CameraPairs, names: Sequence[str], title: str) -> Image:
    """Draw rank-1 and mAP in percent for every query camera (rows) and gallery camera (columns)."""
    figure = Figure((9.8, 5.2), dpi=DPI)
    figure.text(0.02, 0.955, title, fontsize=11, color=hexadecimal(INK), va="center", parse_math=False)
    for left, name, matrix_CC in ((0.09, "rank-1 (%)", pairs.rank1_CC), (0.59, "mAP (%)", pairs.ap_CC)):
        axes = figure.add_axes((left, 0.14, 0.4, 0.7))
        plain_axes(axes, "camera of the gallery", "camera of the query" if left < 0.5 else "")
        axes.set_title(name, fontsize=10, color=hexadecimal(INK))
        axes.grid(visible=False)
        axes.set_facecolor(hexadecimal(LINE))
        axes.imshow(100 * matrix_CC, vmin=0, vmax=100, cmap="Blues")
        labels = [shortened(one, 8) for one in names]
        axes.set_xticks(range(len(names)), labels, parse_math=False)
        axes.set_yticks(range(len(names)), labels, parse_math=False)
        for at, value in np.ndenumerate(100 * matrix_CC):
            if len(names) <= NUMBERED:
                _number(axes, at, float(value))
    return rendered(figure)


def _number(axes: Any, at: tuple[int, ...], value: float) -> None:
    words = "-" if np.isnan(value) else f"{value:.0f}"
    colour = "white" if value > _DARK else hexadecimal(INK)
    axes.text(at[1], at[0], words, ha="center", va="center", fontsize=9, color=colour)


def distance_figure(same: Floats, different: Floats, title: str) -> Image:
    """Draw histograms of the distances of same-person and different-person pairs, each in percent of its own pairs."""
    figure, axes = axes_of(title, "distance", "share of the pairs (%)")
    both = np.concatenate([same, different])
    edges = np.linspace(both.min(), max(both.max(), both.min() + 1e-9), BINS + 1) if both.size else np.arange(2)
    for name, values, colour, filled in (
        ("the same person", same, COLOURS["right"], True),
        ("different persons", different, COLOURS["wrong"], False),
    ):
        share = 100 * np.histogram(values, edges)[0] / max(1, len(values))
        axes.stairs(share, edges, label=name, color=hexadecimal(colour), fill=filled, alpha=0.5 if filled else 1, lw=2)
    axes.set_ylim(0, None)
    legend_row(figure)
    return rendered(figure)


def read_curves(run: Path) -> dict[str, Floats]:
    """Read the scalars logged in training; return nothing where the folder or its event files do not exist."""
    if not run.is_dir() or not list(run.glob("events.out.tfevents.*")):
        return {}
    events = EventAccumulator(str(run), size_guidance={"scalars": POINTS_READ, "images": 1, "tensors": 1})
    with _quiet(logging.getLogger("tensorboard")):
        events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: np.array([(one.step, one.value) for one in events.Scalars(tag)], np.float64).T for tag in tags}


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Hide warnings of this logger: it is harmless that a run was continued."""
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def training_figure(curves: Curves, stream: str) -> Image:
    """Draw the losses over the steps (left) and the scores on held-out identities (right)."""
    figure = Figure((9.8, 4.4), dpi=DPI)
    figure.text(0.02, 0.955, f"{title_of(stream)}: training", fontsize=11, color=hexadecimal(INK), va="center")
    losses = figure.add_axes((0.07, 0.13, 0.4, 0.74))
    plain_axes(losses, "step", "loss")
    shades = [colour_of(stream), SOFT, (60, 150, 200), (170, 110, 180), (150, 160, 60)]
    names = sorted((tag for tag in curves if tag.startswith("loss/")), key=lambda tag: (tag != "loss/total", tag))
    for number, tag in enumerate(names):
        colour = hexadecimal(shades[number % len(shades)])
        losses.plot(*curves[tag], color=colour, lw=1 if number else 2, label=tag.removeprefix("loss/"))
    scores = figure.add_axes((0.57, 0.13, 0.4, 0.74))
    plain_axes(scores, "step", "held-out identities (%)")
    for tag, shade in (("validation/mAP", GREEN), ("validation/rank-1", BLUE)):
        if tag in curves:
            steps, values = curves[tag]
            name = tag.removeprefix("validation/")
            scores.plot(steps, 100 * values, "o-", color=hexadecimal(shade), lw=2, ms=4, label=name)
    for axes in (losses, scores):
        if axes.lines:
            style = {"fontsize": 8, "frameon": False, "labelcolor": hexadecimal(INK), "handlelength": 1.2}
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=5, **style)
    return rendered(figure)
