"""Pictures of what trained streams go by: SSIN's attention, and the joints that matter to SMIN.

Shapes: T frames, H rows, W columns of a frame, h and w those of an attention map, V = 14 joints.
"""

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure

from sptskm.common.errors import DataError
from sptskm.data.skeletons import EDGES, JOINTS
from sptskm.evaluation.insight import Attention, Joints
from sptskm.report import strips
from sptskm.report.colours import LINE, ORANGE, OUTLINE, SOFT, hexadecimal
from sptskm.report.strips import Box, Canvas, Floats
from sptskm.report.style import Image, new_figure

ATTENDED_FRAMES: Final = 4
_CELL = (80, 160)  # width, height
_GAP = 6
_PAIR = 2 * _CELL[0] + 2 * _GAP
_HEAD, _LEFT_MARGIN = 64, 150
_SCALE = Box(14, 33, 120, 9)  # of the colours
_OPAQUE = 0.6  # of the colours over the frame
_FAINT = 0.1  # a difference from an even spread that is never shown stronger than it is


def attention_sheet(found: Sequence[Attention]) -> Figure:
    """Draw a row for each tracklet: up to four frames with mask outlines, each beside its attention map.

    The whole picture has one colour scale, shown above; it always covers at least 0.9 to 1.1. Raises DataError without
    a tracklet.
    """
    if not found:
        raise DataError("no attention map to show, wanted at least one")
    low = min(float(one.attention_Thw.min()) for one in found)
    high = max(float(one.attention_Thw.max()) for one in found)
    limits = min(low, 1 - _FAINT), max(high, 1 + _FAINT)
    columns = min(ATTENDED_FRAMES, max(len(one.frames_T3HW) for one in found))
    height = _CELL[1] + _GAP
    width = max(_LEFT_MARGIN + columns * _PAIR, 690)
    canvas = Canvas(_HEAD + len(found) * height, width, "SSIN: where its attention lies")
    _draw_scale(canvas, limits, (low, high))
    for line, one in enumerate(found):
        y = _HEAD + line * height
        canvas.text(14, y + _CELL[1] / 2, strips.shortened(one.name, 22), 11, SOFT)
        for column, t in enumerate(strips.spread(len(one.frames_T3HW), ATTENDED_FRAMES)):
            _draw_pair(canvas, (_LEFT_MARGIN + column * _PAIR, y), one, t, limits)
    return canvas.figure()


def _draw_scale(canvas: Canvas, limits: tuple[float, float], found: tuple[float, float]) -> None:
    canvas.paste(_coloured(np.tile(np.linspace(0, 1, _SCALE.width), (_SCALE.height, 1))), _SCALE.x, _SCALE.y)
    words = f"{limits[0]:.2f} to {limits[1]:.2f} times an even spread (found: {found[0]:.3f} to {found[1]:.3f})"
    canvas.text(_SCALE.x + _SCALE.width + 8, _SCALE.middle[1], words, 11, SOFT)
    canvas.fill(Box(560, 35, 14, 5), OUTLINE)
    canvas.text(579, 37, "mask outline", 11, SOFT)


def _draw_pair(canvas: Canvas, at: tuple[int, int], one: Attention, t: int, limits: tuple[float, float]) -> None:
    """Draw a frame and, to its right, the frame under its attention map."""
    width, height = _CELL
    image = (np.clip(np.moveaxis(one.frames_T3HW[t], 0, 2), 0, 1) * 255 + 0.5).astype(np.uint8)
    image = strips.fitted(image, height, width)
    canvas.paste(strips.outlined(image.copy(), one.masks_THW[t]), *at)
    large_HW = cv2.resize(one.attention_Thw[t].astype(np.float32), _CELL, interpolation=cv2.INTER_LINEAR)
    share_HW = (np.asarray(large_HW) - limits[0]) / max(limits[1] - limits[0], 1e-9)
    mixed = _OPAQUE * _coloured(share_HW) + (1 - _OPAQUE) * image
    canvas.paste((mixed + 0.5).astype(np.uint8), at[0] + width + 2, at[1])


def _coloured(share_HW: Floats) -> Image:
    """Map 0 to dark and 1 to bright colours."""
    grey = (np.clip(share_HW, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1])


def joint_figure(joints: Joints) -> Figure:
    """Draw a skeleton whose joints grow with their importance, and a bar with standard error per joint, in percent."""
    figure = new_figure("SMIN: the joints that it needs", height=0.5, panels=2)
    person, axes = figure.subplots(1, 2, width_ratios=(1, 1.4))
    _draw_person(person, joints)
    axes.set_xlabel("increase of the distance to the same person without the joint (%)")
    order_V = np.argsort(joints.change_V, kind="stable")
    change_V, error_V = (100 * values[order_V] for values in (joints.change_V, np.nan_to_num(joints.error_V)))
    names = [JOINTS[joint] for joint in order_V.tolist()]
    axes.barh(names, change_V, xerr=error_V, height=0.6, color=hexadecimal(ORANGE), ecolor=hexadecimal(SOFT))
    axes.axvline(0, color=hexadecimal(SOFT), linewidth=0.8)
    return figure


def _draw_person(axes: Any, joints: Joints) -> None:
    """Draw the skeleton from the front, in the orientation of the network's input."""
    area = 53 * rcParams["font.size"]  # of the largest joint
    x_V, y_V = joints.skeleton_V4[:, 0], joints.skeleton_V4[:, 1]
    for start, end in EDGES:
        axes.plot(x_V[[start, end]], y_V[[start, end]], "-", color=hexadecimal(LINE), linewidth=3, zorder=1)
    share_V = np.clip(joints.change_V, 0, None) / max(float(joints.change_V.max()), 1e-9)
    axes.scatter(x_V, y_V, s=0.04 * area + area * share_V, color=hexadecimal(ORANGE), edgecolor="white", zorder=2)
    axes.set_aspect("equal")
    axes.margins(0.25, 0.08)
    axes.invert_yaxis()
    axes.axis("off")
