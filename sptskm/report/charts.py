"""Charts of a report: CMC, fusion weight, camera pairs, distances of same and different persons, training curves.

Every function returns a matplotlib figure in the style in force (`report.style`). Shapes: C cameras, W weights.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sptskm.config import PAIR
from sptskm.evaluation import CameraPairs
from sptskm.evaluation.results import title_of
from sptskm.report.colours import BLUE, GREEN, INK, LINE, SOFT, Colour, colour_of, hexadecimal
from sptskm.report.ranked import COLOURS
from sptskm.report.strips import Floats, shortened
from sptskm.report.style import legend_above, new_figure

Curves = Mapping[str, Floats]  # steps and values (2, points) by TensorBoard tag

RANKS_SHOWN: Final = 20
BINS: Final = 60
POINTS_READ: Final = 2000  # of each curve
NUMBERED: Final = 12  # cameras up to which every cell tells its number and every row its name
_DARK = 60  # percent above which a cell has white text
_LONG = 4  # letters of a camera's name from which the names below a matrix are slanted


def cmc_figure(curves: Mapping[str, Floats], title: str) -> Figure:
    """Draw the CMC of every ranking from rank 1 to 20 in percent; curves are in 0..1 and start with rank-1."""
    figure = new_figure(title)
    axes = figure.add_subplot(xlabel="rank k", ylabel="queries found within rank k (%)")
    lowest = 100.0
    for name, cmc in curves.items():
        percent = 100 * np.asarray(cmc, np.float64)[:RANKS_SHOWN]
        label = f"{title_of(name)}: rank-1 {percent[0]:.1f} %"
        axes.plot(np.arange(1, len(percent) + 1), percent, "o-", color=hexadecimal(colour_of(name)), label=label)
        lowest = min(lowest, np.nanmin(percent, initial=100.0))
    axes.set_xlim(0.6, RANKS_SHOWN + 0.4)
    axes.set_xticks([1, 5, 10, 15, 20])
    axes.set_ylim(max(0, 10 * np.floor((lowest - 4) / 10)), 101)
    legend_above(axes)
    return figure


def weight_figure(curve_W2: Floats, chosen: float, title: str, pair: Sequence[str] = PAIR) -> Figure:
    """Draw mAP in percent over the share of the second of two streams, the chosen one marked.

    The curve holds share and mAP, in 0..1.
    """
    weight_W, score_W = np.asarray(sorted(map(tuple, curve_W2)), np.float64).T * [[1], [100]]
    figure = new_figure(title)
    axes = figure.add_subplot(xlabel=f"fusion weight (share of {title_of(pair[1])})", ylabel="mAP (%)")
    axes.plot(weight_W, score_W, "-", color=hexadecimal(GREEN))
    span = max(score_W.max() - score_W.min(), 2.0)
    middle = (score_W.max() + score_W.min()) / 2
    bottom, top = middle - 0.85 * span, middle + 0.8 * span
    best = float(np.interp(chosen, weight_W, score_W))
    # labels hang in bands above and below the curve, so that they cannot cross it
    place = {"ha": "left" if chosen < 0.5 else "right", "va": "top"}
    label = f"  chosen: {chosen:.2f}, mAP {best:.1f} %  "
    _labelled(axes, (chosen, best), top - 0.03 * span, label, GREEN, place)
    for stream, end, alone, side in zip(pair, (0, -1), (0.0, 1.0), ("left", "right"), strict=True):
        if weight_W[end] == alone:
            label = f"  {title_of(stream)} alone: {score_W[end]:.1f} %  "
            place = {"ha": side, "va": "bottom"}
            _labelled(axes, (alone, score_W[end]), bottom + 0.04 * span, label, colour_of(stream), place)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(bottom, top)
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 100 and bottom <= tick <= top])
    return figure


def _labelled(
    axes: Any, point: tuple[float, float], y: float, words: str, colour: Colour, place: Mapping[str, str]
) -> None:
    """Draw a marked point and its label, at height y at the end of a dotted line."""
    x, shade = point[0], hexadecimal(colour)
    axes.plot([x, x], [point[1], y], ":", color=shade, linewidth=1.2)
    axes.plot(*point, "o", color=shade, markersize=7, markeredgecolor="white", markeredgewidth=1.2, zorder=5)
    axes.text(x, y, words, color=shade, **place)


def camera_figure(pairs: CameraPairs, names: Sequence[str], title: str) -> Figure:
    """Draw rank-1 and mAP in percent for every query camera (rows) and gallery camera (columns)."""
    figure = new_figure(title, height=0.55, panels=2)
    figure.set_layout_engine("compressed")  # whose second pass knows that cells are square
    labels = [shortened(one, 8) for one in names]
    shown = range(0, len(labels), -(-len(labels) // NUMBERED))
    slanted: dict[str, Any] = {"rotation": 45, "ha": "right"} if max(map(len, labels), default=0) >= _LONG else {}
    for place, (name, matrix_CC) in enumerate({"rank-1 (%)": pairs.rank1_CC, "mAP (%)": pairs.ap_CC}.items()):
        axes = figure.add_subplot(1, 2, place + 1, title=name, xlabel="camera of the gallery")
        axes.set_ylabel("" if place else "camera of the query")
        axes.grid(visible=False)
        axes.set_facecolor(hexadecimal(LINE))
        axes.imshow(100 * matrix_CC, vmin=0, vmax=100, cmap="Blues")
        axes.set_xticks(shown, [labels[camera] for camera in shown], **slanted)
        axes.set_yticks(shown, [labels[camera] for camera in shown])
        for at, value in np.ndenumerate(100 * matrix_CC):
            if len(names) <= NUMBERED:
                _number(axes, at, float(value))
    return figure


def _number(axes: Any, at: tuple[int, ...], value: float) -> None:
    words = "-" if np.isnan(value) else f"{value:.0f}"
    colour = "white" if value > _DARK else hexadecimal(INK)
    axes.text(at[1], at[0], words, ha="center", va="center", color=colour)


def distance_figure(same: Floats, different: Floats, title: str) -> Figure:
    """Draw histograms of the distances of same-person and different-person pairs, each in percent of its own pairs."""
    figure = new_figure(title)
    axes = figure.add_subplot(xlabel="distance", ylabel="share of the pairs (%)")
    both = np.concatenate([same, different])
    edges = np.linspace(both.min(), max(both.max(), both.min() + 1e-9), BINS + 1) if both.size else np.arange(2)
    for name, values, colour, filled in (
        ("the same person", same, COLOURS["right"], True),
        ("different persons", different, COLOURS["wrong"], False),
    ):
        share = 100 * np.histogram(values, edges)[0] / max(1, len(values))
        axes.stairs(share, edges, label=name, color=hexadecimal(colour), fill=filled, alpha=0.5 if filled else 1)
    axes.set_ylim(0, None)
    legend_above(axes)
    return figure


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


def training_figure(curves: Curves, stream: str) -> Figure:
    """Draw the losses over the steps and, beside them, the scores on held-out identities where there are any."""
    shown = (("mAP", GREEN), ("rank-1", BLUE))
    scored = [(name, shade) for name, shade in shown if f"validation/{name}" in curves]
    panels = 2 if scored else 1
    figure = new_figure(f"{title_of(stream)}: training", height=0.45, panels=panels)
    losses = figure.add_subplot(1, panels, 1, xlabel="step", ylabel="loss")
    shades = [colour_of(stream), SOFT, (60, 150, 200), (170, 110, 180), (150, 160, 60)]
    names = sorted((tag for tag in curves if tag.startswith("loss/")), key=lambda tag: (tag != "loss/total", tag))
    for number, tag in enumerate(names):
        look = "-" if len(curves[tag][0]) > 1 else "o"  # a line of one point cannot be seen
        colour = hexadecimal(shades[number % len(shades)])
        (line,) = losses.plot(*curves[tag], look, color=colour, label=tag.removeprefix("loss/"))
        if number:
            line.set_linewidth(0.5 * line.get_linewidth())
    legend_above(losses, 1 / panels)
    if scored:
        scores = figure.add_subplot(1, 2, 2, xlabel="step", ylabel="held-out identities (%)")
        for name, shade in scored:
            steps, values = curves[f"validation/{name}"]
            scores.plot(steps, 100 * values, "o-", color=hexadecimal(shade), label=name)
        legend_above(scores, 0.5)
    return figure
