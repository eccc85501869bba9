"""Estimate 3D skeletons by pose-hg-3d's second version: all steps from a frame's bytes to the 14 joints.

Points are x right, y down, z away from the camera. `sptskm.data.skeletons.normalise` is the next step, per tracklet.
Legend: N frames, H rows, W columns, S = 256 rows and columns of a crop, J = 16 joints in MPII's order,
V = 14 joints of `sptskm.data.skeletons`, 4 = x, y, z, confidence.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sptskm.common.errors import DataError
from sptskm.common.imagenet import IMAGENET_MEAN, IMAGENET_STD
from sptskm.models.posehg3d import PoseHG3D, PoseMaps
from sptskm.preparation.layouts import to_joints
from sptskm.preparation.parsing import check_finite

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]

CROP_SIZE = 256
# values for red, green, blue; the network was trained with them on blue, green, red
MEAN, STD = IMAGENET_MEAN, IMAGENET_STD
ROOT = 6  # the pelvis
MIRRORED_JOINTS = (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)
"""Index of each joint in the mirror image."""


def whole_frame(height: int, width: int) -> tuple[tuple[float, float], float]:
    """Return centre (x, y) and side in pixels of the square around a frame that one person fills."""
    return (width / 2, height / 2), float(max(height, width))


def crop_affine(centre: tuple[float, float], side: float, width: int, height: int) -> Floats:
    """Return the (2, 3) matrix from pixels of the frame to pixels of a crop of width x height.

    crop = (frame - centre) * width / side + (width, height) / 2: the square's `centre` (x, y) and `side` are in pixels
    of the frame. There is no shift by half a pixel, as published. Raises ValueError for a side that is not positive.
    """
    if not side > 0:
        raise DataError(f"a crop has the side {side}, wanted a positive number of pixels")
    scale = width / side
    return np.array(
        [[scale, 0.0, width / 2 - scale * centre[0]], [0.0, scale, height / 2 - scale * centre[1]]], dtype=np.float64
    )


def crop(frames_NHW3: Bytes, centre: tuple[float, float], side: float) -> Bytes:
    """Cut the same square from every frame: (N, H, W, 3) to (N, S, S, 3), bilinear, black outside the frame.

    OpenCV's rounding depends on its version: up to 4 grey levels between 4.7 and 5.0.
    """
    matrix = crop_affine(centre, side, CROP_SIZE, CROP_SIZE)
    crops_NSS3 = np.empty((len(frames_NHW3), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    for frame, target in zip(frames_NHW3, crops_NSS3, strict=True):
        target[:] = cv2.warpAffine(frame, matrix, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_LINEAR)
    return crops_NSS3


def network_input(crops_NSS3: Bytes) -> NDArray[np.float32]:
    """Convert blue, green, red bytes (N, S, S, 3) to the input (N, 3, S, S): (value / 255 - MEAN) / STD.

    The channels keep their order. Computed in float64 as published; a table of 256 values makes this cheap.
    """
    table_C256 = ((np.arange(256) / 255 - np.array(MEAN)[:, None]) / np.array(STD)[:, None]).astype(np.float32)
    return np.stack([table_C256[c][crops_NSS3[..., c]] for c in range(3)], axis=1)


def flip_averaged(model: PoseHG3D, x_N3SS: Tensor) -> PoseMaps:
    """Average the maps of crops and of their mirror images, mirrored back with left and right exchanged."""
    plain, mirrored = model(x_N3SS), model(x_N3SS.flip(3))
    hm, depth = (maps.flip(3)[:, MIRRORED_JOINTS] for maps in mirrored)
    return PoseMaps((plain.hm_NJHW + hm) / 2, (plain.depth_NJHW + depth) / 2)


class Decoded(NamedTuple):
    """The 16 joints decoded from the maps."""

    peaks_NJ2: Tensor
    """Integer column and row of the heat map's first maximum."""
    confidence_NJ: Tensor
    """Value of the heat map there: about 1 for a clear joint, but unbounded."""
    points_NJ3: Tensor
    """x, y, z in units of the crop's side, the pelvis at the origin (float32)."""


def decode_maps(maps: PoseMaps) -> Decoded:
    """Find the joints at the maxima of the heat maps, and their depth there; without refinement, as published."""
    hm_NJHW, depth_NJHW = maps.hm_NJHW.float(), maps.depth_NJHW.float()
    height, width = hm_NJHW.shape[2:]
    hm, depth = hm_NJHW.flatten(2), depth_NJHW.flatten(2)
    index_NJ1 = hm.argmax(dim=2, keepdim=True)
    column, row = index_NJ1 % width, index_NJ1 // width
    points_NJ3 = torch.cat([column / width, row / height, depth.gather(2, index_NJ1)], dim=2)
    points_NJ3 = points_NJ3 - points_NJ3[:, [ROOT]]
    return Decoded(torch.cat([column, row], dim=2), hm.gather(2, index_NJ1)[..., 0], points_NJ3)


def joints_of(decoded: Decoded) -> NDArray[np.float32]:
    """Convert to skeletons (N, 14, 4): x, y, z in units of the crop's side from the pelvis, confidence in [0, 1].

    A joint whose peak is not positive was not found and is NaN. Without a pelvis the whole frame is NaN, because the
    other joints are relative to it. Pelvis and thorax are left out; the head is the head top.
    """
    peaks_NJ = decoded.confidence_NJ.double()
    peaks_NJ = torch.where(peaks_NJ[:, [ROOT]] > 0, peaks_NJ, torch.nan)
    points_NJ4 = torch.cat([decoded.points_NJ3.double(), peaks_NJ[..., None]], dim=2)
    return to_joints(points_NJ4.cpu().numpy(), "mpii-16", "xyzc", zero_is_missing=False).astype(np.float32)


@torch.inference_mode()
def estimate_skeletons(frames_NHW3: Bytes, model: PoseHG3D, *, flip: bool = False) -> NDArray[np.float32]:
    """Estimate skeletons (N, 14, 4) as in `joints_of` from frames (N, H, W, 3) of one size, one person each.

    The channels are blue, green, red as OpenCV reads them (`sptskm.data.files.read_frame` gives red first). The N
    frames are one batch, computed on the model's device and in its number format. `flip` averages with the mirror
    image, at twice the cost. Raises ValueError for other arrays, for a model in training mode, and for maps that are
    not finite (float16 may give such): joints would silently be missing.
    """
    if frames_NHW3.ndim != 4 or frames_NHW3.shape[3] != 3 or frames_NHW3.dtype != np.uint8:
        found = f"{frames_NHW3.dtype} {frames_NHW3.shape}"
        raise DataError(f"frames are {found}, wanted uint8 (frames, height, width, 3)")
    if model.training:
        raise DataError("the pose network is in training mode, wanted model.eval()")
    crops_NSS3 = crop(frames_NHW3, *whole_frame(*frames_NHW3.shape[1:3]))
    x_N3SS = torch.from_numpy(network_input(crops_NSS3)).to(model.hm.weight)
    maps = flip_averaged(model, x_N3SS) if flip else model(x_N3SS)
    check_finite("pose maps", *maps)
    return joints_of(decode_maps(maps))
