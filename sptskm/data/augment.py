"""Augment frames and masks for training: one draw per clip, the same for all its frames.

Crops and flips are the published ones. A rectangle is erased on top where the configuration asks for it.
Legend: B clips, T frames, H rows, W columns, C channels, L places along H or W.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sptskm.common.imagenet import IMAGENET_MEAN
from sptskm.config import SsinClips

ENLARGEMENT = 1.125  # 256x128 becomes 288x144 before cropping
_WEIGHT_BITS = 11  # of cv2.resize


ERASED_AREA, ERASED_RATIO, ERASING_TRIES = (0.02, 0.4), 0.3, 100  # Zhong et al. 2020


class View(NamedTuple):
    """The crop, flip and erased rectangle of a clip, as whole numbers, so that a batch of views is a tensor (B, 8)."""

    enlarged: int
    """Whether the clip is resized to 9/8 of the size and cropped, rather than resized to the size."""
    top: int
    left: int
    flipped: int
    erased_top: int = 0
    erased_left: int = 0
    erased_height: int = 0
    erased_width: int = 0

    def shown(self) -> "View":
        """Return what is left to do when the clip has been cropped and flipped."""
        return self._replace(enlarged=0, top=0, left=0, flipped=0)


CROP = 4
"""Number of the first fields of a view, which place and flip the clip."""
PLAIN = View(0, 0, 0, 0)


def draw_view(height: int, width: int, rng: np.random.Generator) -> View:
    """Draw a view: enlarged and cropped at a random place with probability 1/2, flipped with probability 1/2."""
    enlarged, top, left = rng.random() >= 0.5, 0, 0
    if enlarged:
        tall, wide = enlarged_size(height, width)
        top, left = int(rng.integers(tall - height + 1)), int(rng.integers(wide - width + 1))
    return View(int(enlarged), top, left, int(rng.random() < 0.5))


def draw_erased(view: View, clips: SsinClips, rng: np.random.Generator) -> View:
    """Draw the rectangle that is erased from a clip, in a share `clips.erase` of the clips; for 0 nothing is drawn.

    It has a uniform share of the area and a uniform ratio of height to width, drawn again until it is smaller than the
    clip, as published for random erasing.
    """
    if clips.erase and rng.random() < clips.erase:
        return view._replace(**_rectangle(clips.height, clips.width, rng))
    return view


def _rectangle(height: int, width: int, rng: np.random.Generator) -> dict[str, int]:
    for _ in range(ERASING_TRIES):
        area = height * width * rng.uniform(*ERASED_AREA)
        ratio = rng.uniform(ERASED_RATIO, 1 / ERASED_RATIO)
        tall, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < tall < height and 0 < wide < width:
            top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
            return {"erased_top": top, "erased_left": left, "erased_height": tall, "erased_width": wide}
    return {}


def erase(frames_BTCHW: Tensor, masks_BTHW: Tensor, views_BV: Tensor) -> tuple[Tensor, Tensor]:
    """Erase the rectangles of clips in [0, 1], already cropped and flipped, on any device.

    A rectangle becomes ImageNet's mean colour in every frame and 0 in every mask.
    """
    fields = dict(zip(View._fields, views_BV.unbind(1), strict=True))
    inside_BHW = _within(fields["erased_top"], fields["erased_height"], frames_BTCHW.shape[3])[:, :, None]
    inside_BHW = inside_BHW & _within(fields["erased_left"], fields["erased_width"], frames_BTCHW.shape[4])[:, None, :]
    mean_C = frames_BTCHW.new_tensor(IMAGENET_MEAN).view(1, 1, 3, 1, 1)
    frames = torch.where(inside_BHW[:, None, None], mean_C, frames_BTCHW)
    return frames, masks_BTHW.masked_fill(inside_BHW[:, None], 0)


def _within(first_B: Tensor, count_B: Tensor, size: int) -> Tensor:
    """Return which of `size` places lie in a range (B, size)."""
    places_L = torch.arange(size, device=first_B.device)
    return (places_L >= first_B[:, None]) & (places_L < (first_B + count_B)[:, None])


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


def show_together(pixels_BTHWC: Tensor, views_BV: Tensor) -> Tensor:
    """Augment a batch of clips, already of their final size, on their device, as `show` would augment each clip.

    The result equals that of cv2.resize bit for bit: weights of 11 bits, columns before rows, and the same bits dropped
    between the two steps.
    """
    height, width = pixels_BTHWC.shape[2:4]
    tall, wide = enlarged_size(height, width)
    enlarged_B1, top_B1, left_B1, flipped_B1 = views_BV[:, :CROP, None].unbind(1)
    rows_L, columns_L = (torch.arange(size, device=views_BV.device) for size in (height, width))
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
