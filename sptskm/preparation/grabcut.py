"""Segment a person without any weights: GrabCut (Rother et al. 2004), started from a typical standing person.

Detectors' crops, also those of MARS, show one standing person who fills the height and does not touch the sides.
Legend: H rows, W columns.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]

ITERATIONS = 2  # more do not help: on the generated walkers 5 are slightly worse
SMALLEST = (16, 8)  # rows and columns; fewer pixels do not suffice for two colour mixtures
_NO_BOX = (0, 0, 0, 0)
# A mask with less or more than these shares of the prior's area is rejected.
BELIEVED = (0.25, 2.0)

# Ellipses (centre x, y, half axes x, y) in shares of the width and height: what a standing person covers, ...
BODY = ((0.5, 0.14, 0.11, 0.09), (0.5, 0.37, 0.25, 0.19), (0.5, 0.71, 0.24, 0.26))
# ... where one may stand who leans, strides or swings the arms, ...
REACH = ((0.5, 0.14, 0.15, 0.11), (0.5, 0.38, 0.32, 0.21), (0.5, 0.71, 0.32, 0.28))
# ... and what is the person in nearly every crop: the face, and the line from the chest to the hips.
CORE = ((0.5, 0.14, 0.05, 0.04), (0.5, 0.38, 0.07, 0.14))
# Strips at the left, right and upper border that are background.
SIDES, TOP = 0.06, 0.02


def body_prior(height: int, width: int) -> Bytes:
    """Return (H, W): 255 where a standing person who fills the crop is expected, 0 elsewhere."""
    return _ellipses(height, width, BODY)


def person_mask(frame_HW3: Bytes) -> Bytes:
    """Segment the person in a crop (H, W, 3) with any channel order: (H, W), 255 on the person, never empty.

    Keeps the parts of GrabCut's foreground that are connected to the middle of the body. If the colours separate
    nothing of a person's size, the result is the prior. It depends on the frame alone; OpenCV's random generator
    stays seeded. Raises ValueError for other arrays and for frames below 16 x 8.
    """
    if frame_HW3.ndim != 3 or frame_HW3.shape[2] != 3 or frame_HW3.dtype != np.uint8:
        raise DataError(f"frame is {frame_HW3.dtype} {frame_HW3.shape}, wanted uint8 (height, width, 3)")
    height, width = frame_HW3.shape[:2]
    if height < SMALLEST[0] or width < SMALLEST[1]:
        raise DataError(f"frame is {height}x{width}, wanted at least {SMALLEST[0]}x{SMALLEST[1]}")
    labels_HW = _first_labels(height, width)
    cv2.setRNGSeed(0)
    colours = np.zeros((1, 65)), np.zeros((1, 65))  # of background and foreground, filled by GrabCut
    cv2.grabCut(frame_HW3, labels_HW, _NO_BOX, *colours, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    foreground_HW = (labels_HW == cv2.GC_FGD) | (labels_HW == cv2.GC_PR_FGD)
    mask_HW = _touching(foreground_HW, _ellipses(height, width, CORE) > 0)
    prior_HW = body_prior(height, width)
    share = np.count_nonzero(mask_HW) / np.count_nonzero(prior_HW)
    return mask_HW if BELIEVED[0] <= share <= BELIEVED[1] else prior_HW


def _first_labels(height: int, width: int) -> Bytes:
    """Return GrabCut's initial labels: certain at the sides and in the core, probable elsewhere."""
    labels_HW = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    labels_HW[_ellipses(height, width, REACH) > 0] = cv2.GC_PR_FGD
    side, top = max(1, round(SIDES * width)), max(1, round(TOP * height))
    labels_HW[:, :side] = labels_HW[:, -side:] = labels_HW[:top] = cv2.GC_BGD
    labels_HW[_ellipses(height, width, CORE) > 0] = cv2.GC_FGD
    return labels_HW


def _ellipses(height: int, width: int, shares: tuple[tuple[float, float, float, float], ...]) -> Bytes:
    y_H1, x_1W = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width)[None] + 0.5) / width
    inside = [((x_1W - x) / a) ** 2 + ((y_H1 - y) / b) ** 2 <= 1 for x, y, a, b in shares]
    return np.where(np.any(inside, axis=0), 255, 0).astype(np.uint8)


def _touching(foreground_HW: Flags, core_HW: Flags) -> Bytes:
    """Return 255 on the 4-connected parts of the foreground that the core touches, else 0."""
    _, part_HW = cv2.connectedComponents(foreground_HW.astype(np.uint8), connectivity=4)
    kept = np.unique(part_HW[core_HW & foreground_HW])
    return np.where(np.isin(part_HW, kept), 255, 0).astype(np.uint8)
