"""Training augmentations of frames and masks as published: one draw per clip, the same for all its frames.

Legend: B clips, T frames, H rows, W columns, C channels, L places along H or W.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ENLARGEMENT = 1.125  # 256x128 becomes 288x144 before cropping
_WEIGHT_BITS = 11  # of cv2.resize


class View(NamedTuple):
    """What is shown of a clip; numbers, so that a batch of them is a tensor (B, 4)."""

    enlarged: int
    """Whether it is resized to 9/8 of the size and cut, rather than resized to the size."""
    top: int
    left: int
    flipped: int


PLAIN = View(0, 0, 0, 0)


def draw_view(height: int, width: int, rng: np.random.Generator) -> View:
    """With probability 1/2 enlarged and cut at a random place; flipped with probability 1/2."""
    enlarged, top, left = rng.random() >= 0.5, 0, 0
    if enlarged:
        tall, wide = enlarged_size(height, width)
        top, left = int(rng.integers(tall - height + 1)), int(rng.integers(wide - width + 1))
    return View(int(enlarged), top, left, int(rng.random() < 0.5))


def enlarged_size(height: int, width: int) -> tuple[int, int]:
    """Size before cropping."""
    return round(height * ENLARGEMENT), round(width * ENLARGEMENT)


def show(image: NDArray[np.uint8], view: View, out: NDArray[np.uint8]) -> None:
    """A frame (any, any, 3) or mask (any, any) as seen, written to `out` (H, W, 3) or (H, W).

    Bilinear, in uint8; masks get soft borders, as published.
    """
    height, width = out.shape[:2]
    if view.enlarged:
        larger = _resized(image, *enlarged_size(height, width))
        seen = larger[view.top : view.top + height, view.left : view.left + width]
    else:
        seen = _resized(image, height, width)
    out[...] = cv2.flip(seen, 1) if view.flipped else seen


def _resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def show_together(pixels_BTHWC: Tensor, views_B4: Tensor) -> Tensor:
    """What `show` gives for clips that have their size already, for a batch at once, on its device.

    Bit for bit that of cv2.resize: weights of 11 bits, columns before rows, and the same bits dropped between.
    """
    height, width = pixels_BTHWC.shape[2:4]
    tall, wide = enlarged_size(height, width)
    enlarged_B1, top_B1, left_B1, flipped_B1 = views_B4[:, :, None].unbind(1)
    rows_L, columns_L = (torch.arange(size, device=views_B4.device) for size in (height, width))
    columns_BL = torch.where(flipped_B1 > 0, columns_L.flip(0), columns_L) + left_B1
    columns = _between(columns_BL, enlarged_B1 > 0, width, wide)
    rows = _between(rows_L + top_B1, enlarged_B1 > 0, height, tall)
    wide_BTHWC = _weighed(pixels_BTHWC, 3, columns, drop=0) >> 4
    return ((_weighed(wide_BTHWC, 2, rows, drop=16) + 2) >> 2).to(torch.uint8)


class _Between(NamedTuple):
    """Between which two pixels places lie, and the weight of either."""

    pixels: tuple[Tensor, Tensor]
    weights: tuple[Tensor, Tensor]


def _between(places_BL: Tensor, enlarged_B1: Tensor, size: int, larger: int) -> _Between:
    """Where places of the enlarged image are in the image, and of the image itself where it is not enlarged."""
    inside_BL = ((places_BL.double() + 0.5) * (size / larger) - 0.5).float()
    at_BL = torch.where(enlarged_B1, inside_BL, places_BL.float())
    first_BL = at_BL.floor()
    share_BL, first_BL = at_BL - first_BL, first_BL.long()
    pixels = first_BL.clamp(min=0), (first_BL + 1).clamp(max=size - 1)
    one = 2**_WEIGHT_BITS
    return _Between(pixels, (((1 - share_BL) * one).round().int(), (share_BL * one).round().int()))


def _weighed(x_BTHWC: Tensor, dim: int, between: _Between, drop: int) -> Tensor:
    """The sum of two neighbours along a dimension, by their weights, each without its last `drop` bits."""
    shape = [len(x_BTHWC), 1, 1, 1, 1]
    shape[dim] = -1
    terms = [
        x_BTHWC.take_along_dim(pixels.view(shape), dim) * weights.view(shape) >> drop
        for pixels, weights in zip(*between, strict=True)
    ]
    return terms[0] + terms[1]
