"""Decide which parts of a mask or a skeleton are usable: one rule for import, check, training, extraction and packs.

A joint is missing if one of its four numbers is not finite or beyond LARGEST, if its confidence is 0, or if its
coordinates are all 0, as estimators write a missing joint. There are two exceptions: a joint with coordinates 0 in
every frame of a tracklet is the origin, and confidences of 0 throughout a tracklet mean that the confidences are
unknown.
A frame has a skeleton if at least LEAST_JOINTS joints are there, not all at one place. It is partial if joints are
missing: these get confidence 0 and a plausible position, see `fill_joints`.
Legend: F frames of a tracklet, V = 14 joints, 4 = x right, y down, z away, confidence, E = 13 bones, H rows, W columns.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sptskm.data.skeletons import EDGES, JOINTS

Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]

LEAST_JOINTS = 7
"""Of 14: a person cut off at the waist (8) can be used, one seen from the waist down (6) cannot."""
LARGEST = 1e9
"""Of the numbers of a joint, in any unit: the squares of larger ones are beyond float32, and training ends."""
EMPTY, FULL = 0.01, 0.95
"""Share of person pixels below which a mask counts as empty, and above which it counts as full."""

MOST_LOST, MOST_EMPTY = 0.2, 0.5
"""Highest usable shares of a data set's masks: masks whose encoding hides the person, and empty masks."""

_UPPER = [JOINTS.index(name) for name in ("head", "neck")]
_LOWER = [JOINTS.index(f"{side} {joint}") for side in ("right", "left") for joint in ("knee", "ankle")]
_ENDS = np.array(EDGES)
# For an upright person, in any unit: the length of each bone, and how far its second end lies below its first end.
_LENGTHS = np.array([0.16, 0.19, 0.16, 0.19, 0.25, 0.25, 0.25, 0.25, 0.3, 0.3, 0.13, 0.13, 0.15])
_DROPS = np.array([-0.16, -0.19, -0.16, -0.19, -0.25, -0.25, -0.25, -0.25, -0.3, -0.3, 0.0, 0.0, 0.15])


class Skeletons(NamedTuple):
    """Numbers of frames with a whole skeleton, with a partial one, and without one."""

    whole: int = 0
    partial: int = 0
    without: int = 0

    def __add__(self, other: object) -> "Skeletons":  # type: ignore[override]  # sums, not a longer tuple
        assert isinstance(other, Skeletons)
        return Skeletons(*(a + b for a, b in zip(self, other, strict=True)))


def mask_state(mask_HW: NDArray[np.uint8]) -> Literal["", "empty", "full"]:
    """Return "empty" if under 1 % of a mask's pixels are not 0, "full" if over 95 % are, else an empty text."""
    share = np.count_nonzero(mask_HW) / mask_HW.size
    return "empty" if share < EMPTY else "full" if share > FULL else ""


def missing_joints(skeletons_FV4: Floats) -> Flags:
    """Return flags (F, V) for the missing joints of one tracklet, by the rule above."""
    with np.errstate(invalid="ignore"):
        missing_FV: Flags = np.asarray(~(np.abs(skeletons_FV4) <= LARGEST).all(axis=2))
        zero_FV: Flags = np.asarray(~missing_FV & ~skeletons_FV4[..., :3].any(axis=2))
        unsure_FV = ~missing_FV & (skeletons_FV4[..., 3] == 0)
    somebody_F = ~(missing_FV | zero_FV).all(axis=1)
    is_origin_V = zero_FV[somebody_F].all(axis=0) & somebody_F.any()
    missing_FV |= zero_FV & ~is_origin_V
    known_FV = ~missing_FV
    if (known_FV & ~unsure_FV).any():
        missing_FV |= unsure_FV
    missing_FV[~somebody_F] = True
    return np.asarray(missing_FV)


def has_skeleton(skeletons_FV4: Floats, missing_FV: Flags) -> Flags:
    """Return flags (F,) for the frames in which enough joints are there, and not all of them at one place."""
    points_FV3 = np.where(missing_FV[..., None], np.nan, skeletons_FV4[..., :3])
    enough_F = (~missing_FV).sum(axis=1) >= LEAST_JOINTS
    extent_F = np.zeros(len(points_FV3))
    if enough_F.any():
        with np.errstate(over="ignore"):
            extents_f3 = np.nanmax(points_FV3[enough_F], axis=1) - np.nanmin(points_FV3[enough_F], axis=1)
        extent_F[enough_F] = extents_f3.max(axis=1)
    return np.asarray(enough_F & (extent_F > 0))


def counted(skeletons_FV4: Floats) -> Skeletons:
    """Count the frames (F, V, 4) of one tracklet that are whole, partial or without a skeleton."""
    missing_FV = missing_joints(skeletons_FV4)
    has_F = has_skeleton(skeletons_FV4, missing_FV)
    partial = int((has_F & missing_FV.any(axis=1)).sum())
    return Skeletons(int(has_F.sum()) - partial, partial, int((~has_F).sum()))


def finite(skeletons_FV4: Floats) -> NDArray[np.float32]:
    """Convert skeletons to float32, the input of SMIN; a frame with a NaN or infinity becomes NaN throughout."""
    with np.errstate(over="ignore"):
        found_FV4 = np.array(skeletons_FV4, np.float32)
    found_FV4[~np.isfinite(found_FV4).all(axis=(1, 2))] = np.nan
    return found_FV4


def is_doubtful(skeletons_FV4: Floats) -> bool:
    """Return whether some frame of these (F, V, 4) lacks some joints, but not all.

    Such skeletons can only be completed with the other frames of the tracklet.
    """
    with np.errstate(invalid="ignore"):
        there_FV: Flags = np.asarray((np.abs(skeletons_FV4) <= LARGEST).all(axis=2) & (skeletons_FV4[..., 3] != 0))
    there_FV &= skeletons_FV4[..., :3].any(axis=2)
    return bool((there_FV.any(axis=1) & ~there_FV.all(axis=1)).any())


def ways_down(skeletons_FV4: Floats) -> NDArray[np.float64]:
    """Return the way from head and neck to knees and ankles (F, 3): toward +y, as y is down, of an upright person."""
    upper_F3, lower_F3 = (skeletons_FV4[:, joints, :3].mean(axis=1) for joints in (_UPPER, _LOWER))
    return np.asarray(lower_F3 - upper_F3, np.float64)


def is_upright(skeletons_FV4: Floats) -> bool:
    """Return whether the way down of a tracklet leads down in at least half of the frames that have one."""
    down_F = ways_down(skeletons_FV4)[:, 1]
    known_F = np.isfinite(down_F)
    return bool(2 * np.count_nonzero(down_F[known_F] > 0) >= np.count_nonzero(known_F))


def fill_joints(skeletons_FV4: Floats) -> Floats:
    """Fill the missing joints of one tracklet's skeletons (F, V, 4); frames without a skeleton become NaN throughout.

    Whole frames are unchanged, to the bit. A missing joint gets confidence 0 and a position next to a known neighbour:
    the bone between them takes its direction and length from the frames before and after, interpolated over time, or
    from an upright person of this size if no frame shows the bone. With several known neighbours the mean is used.
    """
    missing_FV = missing_joints(skeletons_FV4)
    has_F = has_skeleton(skeletons_FV4, missing_FV)
    found_FV4 = np.array(skeletons_FV4)
    found_FV4[~has_F] = np.nan
    if missing_FV[has_F].any():
        points_FV3 = found_FV4[..., :3].astype(np.float64)
        missing_FV &= has_F[:, None]
        placed_FV3 = _placed(points_FV3, ~missing_FV & has_F[:, None], has_F)
        found_FV4[missing_FV, :3] = placed_FV3[missing_FV]
        found_FV4[missing_FV, 3] = 0
    return found_FV4


def _placed(points_FV3: NDArray[np.float64], known_FV: Flags, has_F: Flags) -> NDArray[np.float64]:
    """Place unknown joints beside their known neighbours, step by step along the bones, and return all points."""
    points_FV3, known_FV = np.where(known_FV[..., None], points_FV3, 0.0), known_FV.copy()
    bones_EF3 = _bones(points_FV3, known_FV)
    first_E, second_E = _ENDS.T
    while not known_FV[has_F].all():
        sums_FV3, counts_FV = np.zeros_like(points_FV3), np.zeros(known_FV.shape)
        for bone_F3, a, b in zip(bones_EF3, first_E, second_E, strict=True):
            for start, end, way_F3 in ((a, b, bone_F3), (b, a, -bone_F3)):
                take_F = known_FV[:, start] & ~known_FV[:, end]
                sums_FV3[take_F, end] += points_FV3[take_F, start] + way_F3[take_F]
                counts_FV[take_F, end] += 1
        reached_FV = counts_FV > 0
        points_FV3[reached_FV] = sums_FV3[reached_FV] / counts_FV[reached_FV, None]
        known_FV |= reached_FV
    return points_FV3


def _bones(points_FV3: NDArray[np.float64], known_FV: Flags) -> list[NDArray[np.float64]]:
    """Return each bone's vector (F, 3): as seen, interpolated between frames that show it, or of an average person."""
    seen_FE: Flags = np.asarray(known_FV[:, _ENDS].all(axis=2))
    vectors_FE3 = points_FV3[:, _ENDS[:, 1]] - points_FV3[:, _ENDS[:, 0]]
    lengths_FE = np.where(seen_FE, np.linalg.norm(vectors_FE3, axis=2), 0)
    usual_F = np.where(seen_FE, _LENGTHS, 0).sum(axis=1)
    size_F = np.divide(lengths_FE.sum(axis=1), usual_F, out=np.zeros(len(usual_F)), where=usual_F > 0)
    known_sizes = size_F[size_F > 0]
    size_F[size_F == 0] = np.median(known_sizes) if len(known_sizes) else 0
    every_F = np.arange(len(points_FV3))
    bones = []
    for bone in range(len(_ENDS)):
        frames = np.flatnonzero(seen_FE[:, bone])
        if len(frames):
            axes = (np.interp(every_F, frames, vectors_FE3[frames, bone, axis]) for axis in range(3))
            bones.append(np.stack(list(axes), axis=1))
        else:
            bones.append(np.stack([0 * size_F, _DROPS[bone] * size_F, 0 * size_F], axis=1))
    return bones


assert len(JOINTS) == len(_ENDS) + 1
