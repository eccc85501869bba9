"""Define the 14-joint skeleton and normalise skeletons per tracklet.

Shapes: F frames, V = 14 joints, C = 4 channels (x right, y down, z away, confidence).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sptskm.common.errors import DataError

Floats = NDArray[np.float64]

JOINTS = (
    "head",
    "neck",
    "right shoulder",
    "right elbow",
    "right wrist",
    "left shoulder",
    "left elbow",
    "left wrist",
    "right hip",
    "right knee",
    "right ankle",
    "left hip",
    "left knee",
    "left ankle",
)

EDGES = (
    (4, 3),
    (3, 2),
    (7, 6),
    (6, 5),
    (13, 12),
    (12, 11),
    (10, 9),
    (9, 8),
    (11, 5),
    (8, 2),
    (5, 1),
    (2, 1),
    (0, 1),
)

MIRRORED = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10)
"""For each joint the one that takes its place when left and right are exchanged."""

PARENTS = (1, 1, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12)
"""For each joint its neighbour toward the neck, the root; the neck's own is itself."""

# Sum of the 13 edges of an adult in units of stature: a normalised person is about 1 tall.
EDGE_TOTAL = 2.7

_RIGHT_SHOULDER, _LEFT_SHOULDER, _RIGHT_HIP, _LEFT_HIP = 2, 5, 8, 11
_CORNERS = (_RIGHT_SHOULDER, _LEFT_SHOULDER, _RIGHT_HIP, _LEFT_HIP)
_NO_DIRECTION = 1e-6


def normalise(skeletons_FVC: ArrayLike, *, scaled: bool = True) -> Floats:
    """Normalise the skeletons (F, 14, 4) of one tracklet: centre, scale and rotate them so that the person faces -z.

    Every frame is moved so that the middle of the hips is the origin. One scale (from the median total bone length)
    and one rotation about the vertical axis (from the confidence-weighted lateral direction of shoulders and hips)
    apply to the whole tracklet, so that proportions and turns of the person are kept. Without `scaled` sizes are kept
    as well. Confidence is unchanged. A frame with any NaN is ignored and its coordinates become NaN. Raises DataError,
    a ValueError, for another shape or a skeleton without extent.
    """
    skeletons = np.array(skeletons_FVC, dtype=np.float64)
    if skeletons.ndim != 3 or skeletons.shape[1:] != (len(JOINTS), 4):
        raise DataError(f"skeletons have shape {skeletons.shape}, wanted (frames, 14, 4)")
    valid_F = ~np.isnan(skeletons).any(axis=(1, 2))
    skeletons[~valid_F, :, :3] = np.nan
    if valid_F.any():
        skeletons[valid_F] = _normalise_valid(skeletons[valid_F], scaled)
    return skeletons


def _normalise_valid(skeletons_FVC: Floats, scaled: bool) -> Floats:
    points, confidence = skeletons_FVC[..., :3], skeletons_FVC[..., 3:]
    points = points - (points[:, [_RIGHT_HIP]] + points[:, [_LEFT_HIP]]) / 2
    if scaled:
        points = points * (EDGE_TOTAL / edge_total(points))
    points = _turned(points, _facing(points, confidence[..., 0]))
    return np.concatenate([points, confidence], axis=2)


def edge_total(points_FV3: Floats) -> float:
    """Return the median over frames of the sum of all bones. Raises DataError for skeletons without extent."""
    ends = np.array(EDGES)
    bones = np.linalg.norm(points_FV3[:, ends[:, 0]] - points_FV3[:, ends[:, 1]], axis=2)
    total = float(np.median(bones.sum(axis=1)))
    if not 0 < total < np.inf:
        raise DataError(f"skeletons have a median bone total of {total}, wanted a positive number")
    return total


def _facing(points_FV3: Floats, confidence_FV: Floats) -> float:
    """Return the angle about y of the tracklet's mean direction toward the person's left, in radians."""
    lateral = points_FV3[:, _LEFT_HIP] - points_FV3[:, _RIGHT_HIP]
    lateral = lateral + points_FV3[:, _LEFT_SHOULDER] - points_FV3[:, _RIGHT_SHOULDER]
    weight_F = confidence_FV[:, _CORNERS].min(axis=1)
    x, _, z = weight_F @ lateral
    return 0.0 if np.hypot(x, z) < _NO_DIRECTION else float(np.arctan2(z, x))


def _turned(points_FV3: Floats, angle: float) -> Floats:
    x, y, z = np.moveaxis(points_FV3, 2, 0)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([x * cos + z * sin, y, -x * sin + z * cos], axis=2)
