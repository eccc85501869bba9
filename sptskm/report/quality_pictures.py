"""Pictures of the quality of masks and skeletons: the worst frames, and skeletons before and after normalisation.

Every function returns an RGB picture (H, W, 3) in uint8. Positions and sizes are in pixels.
Shapes: F frames of a tracklet, K skeletons, V = 14 joints, 4 = x, y, z, confidence.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from sptskm.data import Tracklets
from sptskm.data.files import read_frame, read_mask, read_or_none, read_skeletons
from sptskm.data.skeletons import EDGES, normalise
from sptskm.report import strips
from sptskm.report.colours import INK, LEFT_LIMBS, LINE, OUTLINE, PALE, RIGHT_LIMBS, SOFT, Colour
from sptskm.report.strips import Box, Canvas, Floats
from sptskm.report.style import Image

FRAMES_SHOWN: Final = 8
MOMENTS_SHOWN: Final = 6

_LEFT_MARGIN = 142
_HEAD = 56  # title and legend
_CELL = (124, 160)  # width and height of a frame
_SKELETON = (124, 110)
_MARGIN = 8  # around skeletons
_CAPTION = 48
_GAP = 6


def sheet(table: Tracklets, worst: Mapping[str, Sequence[tuple[int, int, float]]]) -> Image:
    """Draw a row for each measure with its worst frames (up to eight): the mask outline, and the skeleton below.

    `worst` maps each measure to (row of the table, 0-based frame, value), as `sptskm.preparation.quality.worst` returns
    it; the value is shown in percent. A missing or unreadable input is a grey box that says so.
    """
    columns = min(FRAMES_SHOWN, max((len(frames) for frames in worst.values()), default=0))
    height = _CELL[1] + _SKELETON[1] + _CAPTION + _GAP
    canvas = _canvas("The worst frames", max(1, len(worst)) * height, columns, [("mask outline", OUTLINE)])
    if not worst:
        canvas.text(14, _HEAD + height / 2, "no frame is above 0 by any measure", 13, SOFT)
    for line, (name, frames) in enumerate(worst.items()):
        y = _HEAD + line * height
        canvas.text(14, y + _CELL[1] / 2, name, 13)
        for column, (row, frame, value) in enumerate(frames[:FRAMES_SHOWN]):
            x = _x(column)
            _draw_frame(canvas, Box(x, y, *_CELL), table, row, frame)
            below = Box(x, y + _CELL[1], *_SKELETON)
            _draw_usable(canvas, [below], read_skeletons(table, row, [frame], strict=False))
            middle, bottom = below.middle[0], below.y + below.height
            named = (str(table.keys_N[row]), table.stems(row)[frame], f"{100 * value:.0f} %")
            for place, (text, ink) in enumerate(zip(named, (INK, SOFT, SOFT), strict=True)):
                shown = strips.fitting(text, 11, _CELL[0] + _GAP)
                canvas.text(middle, bottom + 10 + 14 * place, shown, 11, ink, "center")
    return canvas.picture()


def normalisation_sheet(tracklets: Mapping[str, Floats]) -> Image:
    """Draw two rows for each named tracklet (F, 14, 4): its skeletons before and after `normalise`.

    Up to six moments are shown, from the front and, fainter, from the side. Every row has its own scale and states the
    median over frames of the summed bone lengths, in its own units. Raises errors as `normalise`.
    """
    height = _SKELETON[1] + _GAP
    title = "Skeletons before and after normalisation"
    canvas = _canvas(title, 2 * max(1, len(tracklets)) * height, MOMENTS_SHOWN, [])
    for line, (name, raw_FV4) in enumerate(tracklets.items()):
        moments = np.unique(np.linspace(0, len(raw_FV4) - 1, MOMENTS_SHOWN).round().astype(int))
        for part, (words, skeletons_FV4) in enumerate((("before", raw_FV4), ("after", normalise(raw_FV4)))):
            y = _HEAD + (2 * line + part) * height
            for place, text in enumerate((name if part == 0 else "", words, f"bones {_bones(skeletons_FV4):.3g}")):
                canvas.text(14, y + 30 + 18 * place, text, 12, INK if place == 0 else SOFT)
            boxes = [Box(_x(column), y, *_SKELETON) for column in range(len(moments))]
            _draw_usable(canvas, boxes, np.asarray(skeletons_FV4[moments], np.float64))
    return canvas.picture()


def _canvas(title: str, height: int, columns: int, entries: list[tuple[str, Colour]]) -> Canvas:
    canvas = Canvas(_HEAD + height + 6, _x(max(columns, 3)) + 8, title)
    x = 14
    for words, colour in [*entries, ("left", LEFT_LIMBS), ("right", RIGHT_LIMBS)]:
        canvas.fill(Box(x, 35, 14, 5), colour)
        canvas.text(x + 19, 37, words, 11, SOFT)
        x += 36 + 7 * len(words)
    canvas.text(x, 37, "front and, fainter, side view", 11, SOFT)
    return canvas


def _x(column: int) -> int:
    return _LEFT_MARGIN + column * (_CELL[0] + _GAP)


def _draw_frame(canvas: Canvas, box: Box, table: Tracklets, row: int, frame: int) -> None:
    """Draw the frame in full height with its mask outline; without a frame the mask in white on black."""
    image = read_or_none(read_frame, *table.files(row, [frame], "frames"))
    mask_HW = read_or_none(read_mask, *table.files(row, [frame], "masks"))
    shown = image if image is not None else mask_HW
    canvas.fill(box, PALE)
    canvas.frame(box, LINE)
    if shown is None:
        canvas.text(*box.middle, "no frame", 12, SOFT, "center")
        return
    shown = shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=2)
    scale = min(box.height / shown.shape[0], box.width / shown.shape[1])
    tall, wide = (max(1, round(edge * scale)) for edge in shown.shape[:2])
    picture = strips.fitted(shown, tall, wide)
    picture = picture if mask_HW is None else strips.outlined(picture, mask_HW / 255)
    canvas.paste(picture, box.x + (box.width - wide) // 2, box.y + (box.height - tall) // 2)
    if mask_HW is None:
        canvas.fill(Box(box.x + 1, box.y + box.height - 20, box.width - 2, 19), PALE)
        canvas.text(box.middle[0], box.y + box.height - 10, "no mask", 12, SOFT, "center")


def _draw_usable(canvas: Canvas, boxes: Sequence[Box], skeletons_KV4: Floats) -> None:
    strips.draw_skeletons(canvas, boxes, skeletons_KV4, strips.usable(skeletons_KV4), _MARGIN)


def _bones(skeletons_FV4: Floats) -> float:
    """Return the median over the frames of the summed bone lengths; NaN without a skeleton."""
    ends = np.array(EDGES)
    points = skeletons_FV4[~np.isnan(skeletons_FV4).any(axis=(1, 2)), :, :3]
    sums = np.linalg.norm(points[:, ends[:, 0]] - points[:, ends[:, 1]], axis=2).sum(axis=1)
    return float(np.median(sums)) if len(sums) else np.nan
