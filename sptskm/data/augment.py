"""Augment frames and masks for training as published: one draw per clip, the same for all its frames.

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
    """The crop and flip of a clip, as numbers, so that a batch of views is a tensor (B, 4)."""

    enlarged: int
    """Whether the clip is resized to 9/8 of the size and cropped, rather than resized to the size."""
    top: int
    left: int
    flipped: int


PLAIN = View(0, 0, 0, 0)


def draw_view(height: int, width: int, rng: np.random.Generator) -> View:
    """Draw a view: enlarged and cropped at a random place with probability 1/2, flipped with probability 1/2."""
    enlarged, top, left = rng.random() >= 0.5, 0, 0
    if enlarged:
        tall, wide = enlarged_size(height, width)
        top, left = int(rng.integers(tall - height + 1)), int(rng.integers(wide - width + 1))
    return View(int(enlarged), top, left, int(rng.random() < 0.5))


def enlarged_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and width before cropping."""
    return round(height * ENLARGEMENT), round(width * ENLARGEMENT)


def show(image: NDArray[np.uint8], view: View, out: NDArray[np.uint8]) -> None:
    """Resize, crop and flip a frame (any, any, 3) or mask (any, any) into `out` (H, W, 3) or (H, W).

    The resizing is bilinear, in uint8; masks get soft borders, as published.
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
    """Augment a batch of clips, already of their final size, on their device, as `show` would augment each clip.

    The result equals that of cv2.resize bit for bit: weights of 11 bits, columns before rows, and the same bits dropped
    between the two steps.
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
    """The two neighbouring pixels of each place, and their weights."""

    pixels: tuple[Tensor, Tensor]
    weights: tuple[Tensor, Tensor]


def _between(places_BL: Tensor, enlarged_B1: Tensor, size: int, larger: int) -> _Between:
    """Map places of the enlarged image, or of the image itself if not enlarged, to pixels of the image."""
    inside_BL = ((places_BL.double() + 0.5) * (size / larger) - 0.5).float()
    at_BL = torch.where(enlarged_B1, inside_BL, places_BL.float())
    first_BL = at_BL.floor()
    share_BL, first_BL = at_BL - first_BL, first_BL.long()
    pixels = first_BL.clamp(min=0), (first_BL + 1).clamp(max=size - 1)
    one = 2**_WEIGHT_BITS
    return _Between(pixels, (((1 - share_BL) * one).round().int(), (share_BL * one).round().int()))


def _weighed(x_BTHWC: Tensor, dim: int, between: _Between, drop: int) -> Tensor:
    """Return the weighted sum of two neighbours along a dimension, each term without its last `drop` bits."""
    shape = [len(x_BTHWC), 1, 1, 1, 1]
    shape[dim] = -1
    terms = [
        x_BTHWC.take_along_dim(pixels.view(shape), dim) * weights.view(shape) >> drop
        for pixels, weights in zip(*between, strict=True)
    ]
    return terms[0] + terms[1]
