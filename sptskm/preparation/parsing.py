"""Parse people with JPPNet: frames to label maps, averaged over scales and the mirror image as published.

Legend: N frames, H rows, W columns, 3 = blue, green, red as OpenCV reads them; V views (plain, and mirrored if asked
for), S rows and columns of the network's input, L = 20 labels, C channels in general.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sptskm.common.errors import DataError
from sptskm.models.jppnet import JPPNet

Bytes = NDArray[np.uint8]
Model = TypeVar("Model", bound=nn.Module)

MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)

LABELS = (
    "background",
    "hat",
    "hair",
    "glove",
    "sunglasses",
    "upper clothes",
    "dress",
    "coat",
    "socks",
    "pants",
    "jumpsuit",
    "scarf",
    "skirt",
    "face",
    "left arm",
    "right arm",
    "left leg",
    "right leg",
    "left shoe",
    "right shoe",
)

COLOURS = (
    (0, 0, 0),
    (128, 0, 0),
    (255, 0, 0),
    (0, 85, 0),
    (170, 0, 51),
    (255, 85, 0),
    (0, 0, 85),
    (0, 119, 221),
    (85, 85, 0),
    (0, 85, 85),
    (85, 51, 0),
    (52, 86, 128),
    (0, 128, 0),
    (0, 0, 255),
    (51, 170, 221),
    (0, 255, 255),
    (85, 255, 170),
    (170, 255, 85),
    (255, 255, 0),
    (255, 170, 0),
)
"""Red, green, blue of each label in the published pictures (`*_vis.png`)."""

# A mirror image exchanges left and right arms, legs and shoes.
_MIRRORED = [*range(14), 15, 14, 17, 16, 19, 18]


@dataclass(frozen=True)
class FrameViews:
    """Views of a frame whose logits are averaged: square inputs of int(size * scale) pixels, and their mirror images.

    Raises ValueError without any scale or for inputs of less than 8 pixels.
    """

    size: int = 384
    scales: tuple[float, ...] = (1.0, 0.75, 1.25)
    mirrored: bool = True

    def __post_init__(self) -> None:
        if not self.scales or min(self.sides) < 8:
            raise DataError(f"views of size {self.size} at scales {self.scales}, wanted scales of 8 pixels or more")

    @property
    def sides(self) -> tuple[int, ...]:
        """Return the side of each square input in pixels."""
        return tuple(int(self.size * scale) for scale in self.scales)


PUBLISHED = FrameViews()
FAST = FrameViews(scales=(1.0,), mirrored=False)
"""A sixth of the published cost, with slightly different results."""


def place_model(model: Model, device: torch.device, dtype: torch.dtype = torch.float32) -> Model:
    """Move the model to a device: on a GPU in half precision if asked for (see `halved`), else in float32 without TF32.

    Raises ValueError for half precision on a CPU, which is slow in it and accumulates in it.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    if device.type == "cpu":
        if half:
            raise DataError(f"{dtype} on the device {device}, wanted float32 there")
        return model.to(device, dtype)
    # cuDNN convolves float32 as TF32 unless it is told not to; its 10 bits moved maps by 3.6 % of their deviation
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return halved(model.to(device), dtype) if half else model.to(device, dtype)


def halved(model: Model, dtype: torch.dtype) -> Model:
    """Convert the convolutions to half precision and channels last (fast on GPUs); normalisation stays in float32.

    In float16 a variance above 65504 would be infinite, and a division by it would give a zero that looks valid.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.to(dtype)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@torch.inference_mode()
def parse_frames(frames_NHW3: Bytes, model: JPPNet, views: FrameViews) -> Bytes:
    """Parse frames (N, H, W, 3) of one size to label maps (N, H, W), 0 = background to 19.

    The channels are blue, green, red (`sptskm.data.files.read_frame` gives red first). The N frames and their mirror
    images are one batch, computed on the model's device and in its number format (see `place_model`).
    Raises ValueError for other arrays, and for logits that are not finite, which float16 may give.
    """
    if frames_NHW3.ndim != 4 or frames_NHW3.shape[3] != 3 or frames_NHW3.dtype != np.uint8:
        found = f"{frames_NHW3.dtype} {frames_NHW3.shape}"
        raise DataError(f"frames are {found}, wanted uint8 (frames, height, width, 3)")
    logits_NLHW = averaged_logits(torch.from_numpy(frames_NHW3), model, views)
    check_finite("parsing logits", logits_NLHW)
    return np.asarray(logits_NLHW.argmax(dim=1).to(torch.uint8).cpu().numpy())


def check_finite(what: str, *maps: Tensor) -> None:
    """Raise ValueError for outputs of a network that are not finite."""
    if not all(values.isfinite().all() for values in maps):
        raise DataError(
            f"the {what} are not finite, wanted numbers; where --precision float16 is too narrow, bfloat16 or float32 "
            "helps, else check the weights"
        )


def averaged_logits(frames_NHW3: Tensor, model: JPPNet, views: FrameViews) -> Tensor:
    """Compute float32 logits (N, L, H, W) of frames as for `parse_frames`: mean over stages, scales and mirror images.

    The stages are added before they are enlarged: enlarging is linear, so the result is the same and three times
    faster.
    """
    weight = model.backbone.conv1.weight
    images_N3HW = network_images(frames_NHW3.to(weight.device))
    height, width = images_N3HW.shape[2:]
    images = torch.cat([images_N3HW, images_N3HW.flip(3)]) if views.mirrored else images_N3HW
    maps = [_stages(model, resize_tf1(images, side, side).to(weight)) for side in views.sides]
    total = sum((resize_tf1(logits, height, width) for logits in maps), start=torch.zeros((), device=weight.device))
    mean_NLHW = total / len(maps)
    if not views.mirrored:
        return mean_NLHW
    plain, mirrored = mean_NLHW.chunk(2)
    return (plain + mirrored[:, _MIRRORED].flip(3)) / 2


def network_images(frames_NHW3: Tensor) -> Tensor:
    """Convert bytes (N, H, W, 3) to float32 (N, 3, H, W): blue, green, red minus their means, not scaled.

    The published order is: this, mirror, resize. The resize is not symmetric, so mirroring comes first.
    """
    mean_3 = torch.tensor(MEAN_BGR, device=frames_NHW3.device)
    return (frames_NHW3 - mean_3).permute(0, 3, 1, 2).contiguous()


def resize_tf1(x_NCHW: Tensor, height: int, width: int) -> Tensor:
    """Resize as TensorFlow 1, bilinear, bit for bit: (N, C, H, W) float32 to (N, C, height, width).

    It differs from both variants of torch. Output sample i of an axis is at i * (old / new), computed in float32,
    without half-pixel centres: the first sample stays, the last ones repeat the border.
    """
    return _resize_axis(_resize_axis(x_NCHW, width, -1), height, -2)


def _resize_axis(x_NCHW: Tensor, size: int, dim: int) -> Tensor:
    last = x_NCHW.shape[dim] - 1
    step = float(np.float32(last + 1) / np.float32(size))
    position = torch.arange(size, dtype=torch.float32, device=x_NCHW.device) * step
    low = position.floor()
    share = (position - low).view(-1, *[1] * (-dim - 1))
    before = x_NCHW.index_select(dim, low.long())
    after = x_NCHW.index_select(dim, (low.long() + 1).clamp(max=last))
    return after.sub_(before).mul_(share).add_(before)


def _stages(model: JPPNet, images_VSS: Tensor) -> Tensor:
    """Compute the mean of the logits over the stages, in float32."""
    first, second, third = (logits.float() for logits in model(images_VSS).parsing)
    return (first + second + third) / 3


def mask_of(labels: Bytes) -> Bytes:
    """Return 255 where a label map of any shape shows a person (any part or garment), and 0 on the background."""
    return np.where(labels != 0, 255, 0).astype(np.uint8)


def labels_of_colours(rgb_HW3: Bytes) -> Bytes:
    """Return the label map (H, W) of a published picture (H, W, 3) in red, green, blue.

    Raises ValueError for another array, and for a colour without a label (a scaled or JPEG picture has such colours).
    """
    if rgb_HW3.ndim != 3 or rgb_HW3.shape[2] != 3 or rgb_HW3.dtype != np.uint8:
        raise DataError(f"the picture is {rgb_HW3.dtype} {rgb_HW3.shape}, wanted uint8 (height, width, 3)")
    codes_HW = _codes(rgb_HW3)
    known_L = _codes(np.array(COLOURS, np.uint8))
    order_L = np.argsort(known_L)
    place_HW = np.searchsorted(known_L, codes_HW, sorter=order_L).clip(max=len(COLOURS) - 1)
    labels_HW = order_L[place_HW]
    unknown_HW = known_L[labels_HW] != codes_HW
    if unknown_HW.any():
        row, column = np.argwhere(unknown_HW)[0]
        colour = tuple(int(value) for value in rgb_HW3[row, column])
        raise DataError(f"{colour} at row {row}, column {column} is no label's colour, wanted one of the 20")
    return labels_HW.astype(np.uint8)


def _codes(rgb_3: Bytes) -> NDArray[np.int64]:
    """Encode each colour as one number."""
    return np.asarray(rgb_3.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1]))
