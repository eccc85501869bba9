"""Pictures for TensorBoard and the report: inputs of the networks, and curves of scores.

Every function returns an RGB picture (H, W, 3) in uint8, without a display and without pyplot's global state.
Shapes: B clips, T frames, V = 14 joints, W weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sptskm.config import PAIR
from sptskm.evaluation.results import title_of
from sptskm.report import strips
from sptskm.report.colours import GREEN, colour_of
from sptskm.report.strips import (
    DPI,
    INK,
    LEFT_LIMBS,
    LINE,
    OUTLINE,
    PALE,
    RIGHT_LIMBS,
    SOFT,
    Box,
    Canvas,
    Colour,
    Floats,
    Image,
    hexadecimal,
)

CLIPS_SHOWN: Final = 8
SEQUENCES_SHOWN: Final = 6
MOMENTS_SHOWN: Final = 8
RANKS_SHOWN: Final = 20

_HEAD = 70  # title, legend and column captions
_LEFT_MARGIN = 62
_GAP = 6
_CLIP_HEIGHT = 160
_CELL = (152, 168)  # width, height
_TITLE_WIDTH = 260


def clip_sheet(frames_BT3HW: Floats, masks_BTHW: Floats) -> Image:
    """Draw the first eight clips as rows and their frames (in 0..1) as columns, with mask outlines (masks in 0..1)."""
    frames, masks = frames_BT3HW[:CLIPS_SHOWN], masks_BTHW[:CLIPS_SHOWN]
    rows, moments, _, tall, wide = frames.shape
    size = (max(24, round(_CLIP_HEIGHT * wide / tall)), _CLIP_HEIGHT)
    canvas = _sheet("Clips as the network sees them", rows, moments, size)
    legend(canvas, [("mask outline", OUTLINE)])
    for row, column in np.ndindex(rows, moments):
        box = _cell(row, column, size)
        image = (np.clip(np.moveaxis(frames[row, column], 0, 2), 0, 1) * 255 + 0.5).astype(np.uint8)
        image = strips.fitted(image, box.height, box.width)
        canvas.paste(strips.outlined(image, masks[row, column]), box.x, box.y)
    _captions(canvas, rows, range(moments), size)
    return canvas.picture()


def silhouette_sheet(silhouettes_BTHW: Floats) -> Image:
    """Draw the first eight clips as rows and up to eight of their silhouettes (in 0..1) as columns."""
    rows, length, tall, wide = silhouettes_BTHW[:CLIPS_SHOWN].shape
    moments = np.unique(np.linspace(0, length - 1, MOMENTS_SHOWN).round().astype(int))
    size = (max(24, round(_CLIP_HEIGHT * wide / tall)), _CLIP_HEIGHT)
    canvas = _sheet("Silhouettes as the network sees them", rows, max(len(moments), 3), size)
    for row, column in np.ndindex(rows, len(moments)):
        box = _cell(row, column, size)
        grey_HW = (np.clip(silhouettes_BTHW[row, moments[column]], 0, 1) * 255 + 0.5).astype(np.uint8)
        canvas.paste(strips.fitted(np.repeat(grey_HW[..., None], 3, axis=2), box.height, box.width), box.x, box.y)
    _captions(canvas, rows, moments.tolist(), size)
    return canvas.picture()


def skeleton_sheet(skeletons_B4TV: Floats, valid_BT: NDArray[np.bool_] | None) -> Image:
    """Draw the first six clips as rows, eight moments as columns: each from the front and, fainter, from the side.

    Frames that are not valid (or hold a NaN or only zeros) are empty boxes. Every skeleton is centred at its hips;
    every row has its own scale.
    """
    skeletons_BTV4 = np.moveaxis(np.asarray(skeletons_B4TV[:SEQUENCES_SHOWN], np.float64), 1, 3)
    rows, length = skeletons_BTV4.shape[:2]
    moments = np.unique(np.linspace(0, length - 1, MOMENTS_SHOWN).round().astype(int))
    drawn = strips.usable(skeletons_BTV4)
    drawn = drawn if valid_BT is None else drawn & np.asarray(valid_BT[:SEQUENCES_SHOWN], bool)
    canvas = _sheet("Skeletons as the network sees them", rows, max(len(moments), 3), _CELL)
    remark = "front and, fainter, side view; joint size: confidence"
    legend(canvas, [("left", LEFT_LIMBS), ("right", RIGHT_LIMBS)], remark)
    for row in range(rows):
        _skeleton_row(canvas, row, skeletons_BTV4[row, moments], drawn[row, moments])
    _captions(canvas, rows, moments.tolist(), _CELL)
    return canvas.picture()


def _skeleton_row(canvas: Canvas, row: int, skeletons_KV4: Floats, drawn_K: NDArray[np.bool_]) -> None:
    views = strips.Views(skeletons_KV4[drawn_K], *_CELL) if drawn_K.any() else None
    for column, (skeleton_V4, drawn) in enumerate(zip(skeletons_KV4, drawn_K, strict=True)):
        box = _cell(row, column, _CELL)
        canvas.fill(box, strips.WHITE if drawn else PALE)
        canvas.frame(box, LINE)
        if views is not None and drawn:
            views.draw(canvas, box, skeleton_V4)
        else:
            canvas.text(*box.middle, "no skeleton", 12, SOFT, "center")


def _sheet(title: str, rows: int, columns: int, size: tuple[int, int]) -> Canvas:
    corner = _cell(rows, columns, size)
    canvas = Canvas(corner.y + 6, max(corner.x, _TITLE_WIDTH) + 8)
    canvas.text(14, 18, title, 15)
    return canvas


def _cell(row: int, column: int, size: tuple[int, int]) -> Box:
    width, height = size
    return Box(_LEFT_MARGIN + column * (width + _GAP), _HEAD + row * (height + _GAP), width, height)


def legend(canvas: Canvas, entries: Sequence[tuple[str, Colour]], remark: str = "") -> None:
    """Draw the legend of a sheet's colours below its title."""
    x = 14
    for words, colour in entries:
        canvas.fill(Box(x, 35, 14, 5), colour)
        canvas.text(x + 19, 37, words, 11, SOFT)
        x += 36 + 7 * len(words)
    canvas.text(x, 37, remark, 11, SOFT)


def _captions(canvas: Canvas, rows: int, moments: Sequence[int], size: tuple[int, int]) -> None:
    for column, moment in enumerate(moments):
        canvas.text(_cell(0, column, size).middle[0], _HEAD - 9, f"t = {moment}", 11, SOFT, "center")
    for row in range(rows):
        canvas.text(14, _cell(row, 0, size).middle[1], f"clip {row + 1}", 12, SOFT)


def cmc_figure(curves: Mapping[str, Floats], title: str) -> Image:
    """Draw the CMC of every ranking from rank 1 to 20 in percent; curves are in 0..1 and start with rank-1."""
    figure, axes = axes_of(title, "rank k", "queries found within rank k (%)")
    lowest = 100.0
    for name, cmc in curves.items():
        percent = 100 * np.asarray(cmc, np.float64)[:RANKS_SHOWN]
        colour = hexadecimal(colour_of(name))
        label = f"{title_of(name)}: rank-1 {percent[0]:.1f} %"
        axes.plot(np.arange(1, len(percent) + 1), percent, "o-", color=colour, label=label, linewidth=2, markersize=4)
        lowest = min(lowest, np.nanmin(percent, initial=100.0))
    axes.set_xlim(0.6, RANKS_SHOWN + 0.4)
    axes.set_xticks([1, 5, 10, 15, 20])
    axes.set_ylim(max(0, 10 * np.floor((lowest - 4) / 10)), 101)
    legend_row(figure)
    return strips.rendered(figure)


def weight_figure(curve_W2: Floats, chosen: float, title: str, pair: Sequence[str] = PAIR) -> Image:
    """Draw mAP in percent over the share of the second of two streams, the chosen one marked.

    The curve holds share and mAP, in 0..1.
    """
    weight_W, score_W = np.asarray(sorted(map(tuple, curve_W2)), np.float64).T * [[1], [100]]
    figure, axes = axes_of(title, f"fusion weight (share of {title_of(pair[1])})", "mAP (%)", top=0.92)
    axes.plot(weight_W, score_W, "-", color=hexadecimal(GREEN), linewidth=2)
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
    return strips.rendered(figure)


def _labelled(
    axes: Any, point: tuple[float, float], y: float, words: str, colour: Colour, place: Mapping[str, str]
) -> None:
    """Draw a marked point and its label, at height y at the end of a dotted line."""
    x, shade = point[0], hexadecimal(colour)
    axes.plot([x, x], [point[1], y], ":", color=shade, linewidth=1.2)
    axes.plot(*point, "o", color=shade, markersize=8, markeredgecolor="white", markeredgewidth=1.5, zorder=5)
    axes.text(x, y, words, color=shade, fontsize=9, **place)


def axes_of(title: str, xlabel: str, ylabel: str, top: float = 0.86) -> tuple[Figure, Any]:
    """Create an empty plot in the common style, with room for a title and, with `top` at 0.86, for a legend."""
    figure = Figure((7.5, 4.7), dpi=DPI)
    axes = figure.add_axes((0.1, 0.12, 0.87, top - 0.12))
    figure.text(0.02, 0.955, title, fontsize=11, color=hexadecimal(INK), va="center", parse_math=False)
    plain_axes(axes, xlabel, ylabel)
    return figure, axes


def plain_axes(axes: Any, xlabel: str, ylabel: str) -> None:
    """Format axes in the common style."""
    axes.set_xlabel(xlabel, fontsize=9, color=hexadecimal(SOFT))
    axes.set_ylabel(ylabel, fontsize=9, color=hexadecimal(SOFT))
    axes.tick_params(labelsize=9, labelcolor=hexadecimal(SOFT), color=hexadecimal(LINE))
    axes.grid(color=hexadecimal(LINE), linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(hexadecimal(LINE))


def legend_row(figure: Figure) -> None:
    """Draw the legend in one row below the title."""
    shade = hexadecimal(INK)
    style = {"frameon": False, "fontsize": 9, "labelcolor": shade, "handlelength": 1.5, "columnspacing": 1.4}
    figure.legend(loc="center left", bbox_to_anchor=(0.01, 0.9), ncols=4, **style)
