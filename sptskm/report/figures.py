"""Sheets for TensorBoard: inputs of the networks as they see them.

Every function returns an RGB picture (H, W, 3) in uint8. Shapes: B clips, T frames, V = 14 joints.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sptskm.report import strips
from sptskm.report.colours import LEFT_LIMBS, OUTLINE, RIGHT_LIMBS, SOFT, Colour
from sptskm.report.strips import Box, Canvas, Floats
from sptskm.report.style import Image

CLIPS_SHOWN: Final = 8
SEQUENCES_SHOWN: Final = 6
MOMENTS_SHOWN: Final = 8

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
        cells = [_cell(row, column, _CELL) for column in range(len(moments))]
        strips.draw_skeletons(canvas, cells, skeletons_BTV4[row, moments], drawn[row, moments])
    _captions(canvas, rows, moments.tolist(), _CELL)
    return canvas.picture()


def _sheet(title: str, rows: int, columns: int, size: tuple[int, int]) -> Canvas:
    corner = _cell(rows, columns, size)
    return Canvas(corner.y + 6, max(corner.x, _TITLE_WIDTH) + 8, title)


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
