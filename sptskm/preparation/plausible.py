"""Tell key points whose axes, order or unit were taken wrongly, from what a walking person looks like.

Every number of such skeletons is finite and every bone is there, so that nothing else sees it: heads lie below the
feet, right and left limbs differ in length, knees bend backward, or one walk is a thousand times as large as another.
Legend: F frames, K key points, C numbers, V = 14 joints, 3 = x right, y down, z away, W walks, L limbs.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import ConfigError, DataError
from sptskm.data.skeleton_scale import ANOTHER_UNIT, UNITS, unit_of_totals
from sptskm.data.skeletons import EDGES, JOINTS
from sptskm.data.usable import ways_down

Floats = NDArray[np.float64]

UPRIGHT = 0.7
"""Least share of y in the way down (`usable.ways_down`) of a person who stands, walks or bows."""
LOPSIDED = 1.5
"""Ratio of a left to a right limb's length that nobody has."""
MOST = 0.5
"""Share of the walks beyond which skeletons that cannot be are refused: single walks may be bad recordings."""
BACKWARD = 0.8
"""Share of the walks with knees bent backward that is told: of recorded and generated walks at most 0.01 have it."""
REPEATED = 3
"""Times that a point of three equal coordinates may occur by chance in a file."""

_LIMBS = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))


class Posture(NamedTuple):
    """What one walk looks like, by medians over its frames; NaN where the joints for it are missing."""

    name: str
    down_3: Floats
    """Direction of the way down, of length 1."""
    sides_L: Floats
    """Ratios of the lengths of right and left limbs, in the order of _LIMBS."""
    knees: float
    """How far the knees lie before the line from hip to ankle, as a share of its length."""
    total: float
    """Sum of the 13 bones in the file's unit."""


def check_missing(points_FKC: Floats, channels: str, what: str) -> None:
    """Raise DataError for a point of equal coordinates that recurs, by which some tools mark a missing joint."""
    places = [at for at, channel in enumerate(channels) if channel != "c"]
    points_PC = points_FKC[..., places].reshape(-1, len(places))
    same_P = (points_PC == points_PC[:, :1]).all(axis=1) & (points_PC[:, 0] != 0) & np.isfinite(points_PC[:, 0])
    if not same_P.any():
        return
    (value, count), *_ = Counter(points_PC[same_P, 0].tolist()).most_common(1)
    if count > REPEATED:
        raise DataError(
            f"{what}: {count} points have the coordinates {', '.join([f'{value:g}'] * len(places))}, "
            "wanted NaN, or 0 in all coordinates, where a joint is missing"
        )


def posture_of(name: str, skeletons_FV4: Floats) -> Posture:
    """Measure a walk; its missing joints are NaN."""
    points_FV3 = skeletons_FV4[..., :3]
    down_3 = _median(ways_down(skeletons_FV4))
    ends = np.array(EDGES)
    bones_E = _median(np.linalg.norm(points_FV3[:, ends[:, 0]] - points_FV3[:, ends[:, 1]], axis=2))
    length = float(np.linalg.norm(down_3))
    return Posture(
        name,
        down_3 / length if length > 0 else np.full(3, np.nan),
        np.array([_ratio(points_FV3, *limb) for limb in _LIMBS]),
        _knees(points_FV3),
        float(bones_E.sum()),
    )


def check_postures(given: str, walks: Sequence[Posture], layout: str, flat: bool) -> list[str]:
    """Raise ConfigError for walks of which most cannot be skeletons as said, DataError for walks of several units.

    Returns sentences about what can be used but looks wrong, or was found about the size. `given` begins the sentences.
    Of `flat` skeletons, which have no depth, only the direction of the feet is looked at.
    """
    if not flat:
        _check_limbs(given, walks, layout)
    _check_upright(given, walks, layout)
    if flat:
        return []
    sized = [walk for walk in walks if walk.total > 0]
    middle = float(np.median([walk.total for walk in sized])) if sized else 0.0
    for walk in sized:
        if not middle / ANOTHER_UNIT < walk.total < middle * ANOTHER_UNIT:
            raise DataError(
                f"{given}: tracklet {walk.name} has a sum of bones of {walk.total:.4g}, and the median of all is "
                f"{middle:.4g}, wanted one unit in all files"
            )
    return [*_of_the_knees(walks), *_of_the_size(np.array([walk.total for walk in sized]))]


def _check_limbs(given: str, walks: Sequence[Posture], layout: str) -> None:
    """Raise ConfigError where most walks have a limb longer on one side, always the same.

    Single frames of a noisy estimator have some limb that is longer too, but now this one and now that.
    """
    sides_WL = np.stack([walk.sides_L for walk in walks])
    known_L = np.isfinite(sides_WL).sum(axis=0)
    for longer, shorter, wrong_WL in (
        ("right", "left", sides_WL > LOPSIDED),
        ("left", "right", sides_WL < 1 / LOPSIDED),
    ):
        counts_L = wrong_WL.sum(axis=0)
        if not (counts_L > MOST * known_L).any():
            continue
        limb = int(np.argmax(counts_L / np.maximum(known_L, 1)))
        first = walks[int(np.argmax(wrong_WL[:, limb]))].name
        raise ConfigError(
            f"{given}: in {counts_L[limb]} of {len(walks)} walks the {longer} limb from {' to '.join(_LIMBS[limb])} is "
            f"more than {LOPSIDED} times as long as the {shorter} one, {first} the first, wanted limbs of about one "
            f"length; is the order of the points {layout}?"
        )


def _check_upright(given: str, walks: Sequence[Posture], layout: str) -> None:
    told = [walk for walk in walks if np.isfinite(walk.down_3).all()]
    lying = [walk for walk in told if walk.down_3[1] < UPRIGHT]
    if len(lying) <= MOST * len(told):
        return
    way_3 = np.sum([walk.down_3 for walk in lying], axis=0)
    axis = int(np.abs(way_3).argmax())
    raise ConfigError(
        f"{given}: in {len(lying)} of {len(walks)} walks the feet lie from the head toward "
        f"{'+' if way_3[axis] > 0 else '-'}{'xyz'[axis]} as {layout} has the axes, {lying[0].name} the first, "
        "wanted +y (x right, y down, z away); a layout of your own says other `axes`, or another order of the points"
    )


def _of_the_knees(walks: Sequence[Posture]) -> list[str]:
    known = [walk for walk in walks if np.isfinite(walk.knees)]
    wrong = sum(walk.knees < 0 for walk in known)
    if not known or wrong < BACKWARD * len(known):
        return []
    return [
        f"knees bend backward in {wrong} of {len(known)} walks, as where left and right are exchanged or an axis is "
        "mirrored; compare such walks with none that are not"
    ]


def _of_the_size(totals_W: Floats) -> list[str]:
    if not len(totals_W):
        return []
    unit, middle = unit_of_totals(totals_W), float(np.median(totals_W))
    if unit is None:
        return [f"the bones of a skeleton sum to {middle:.4g}, which is no person's in any of {', '.join(UNITS)}"]
    return [f"the bones of a skeleton sum to {middle:.4g} {unit}"]


def _median(values_Fn: Floats) -> Floats:
    """Return medians over frames without those that are NaN; NaN without any frame."""
    medians = [np.median(own[np.isfinite(own)]) if np.isfinite(own).any() else np.nan for own in values_Fn.T]
    return np.array(medians, np.float64)


def _ratio(points_FV3: Floats, first: str, second: str) -> float:
    ways_F3 = [
        points_FV3[:, JOINTS.index(f"{side} {first}")] - points_FV3[:, JOINTS.index(f"{side} {second}")]
        for side in ("right", "left")
    ]
    right, left = _median(np.stack([np.linalg.norm(way_F3, axis=1) for way_F3 in ways_F3], axis=1))
    return float(right / left) if right > 0 and left > 0 else float("nan")


def _knees(points_FV3: Floats) -> float:
    joint = {name: points_FV3[:, number] for number, name in enumerate(JOINTS)}
    left_F3 = joint["left hip"] - joint["right hip"] + joint["left shoulder"] - joint["right shoulder"]
    ahead_F3 = np.stack([left_F3[:, 2], 0 * left_F3[:, 0], -left_F3[:, 0]], axis=1)  # down x left
    with np.errstate(invalid="ignore", divide="ignore"):
        ahead_F3 /= np.linalg.norm(ahead_F3, axis=1, keepdims=True)
        shares_FS = np.stack(
            [
                ((joint[f"{side} knee"] - (joint[f"{side} hip"] + joint[f"{side} ankle"]) / 2) * ahead_F3).sum(axis=1)
                / np.linalg.norm(joint[f"{side} hip"] - joint[f"{side} ankle"], axis=1)
                for side in ("right", "left")
            ],
            axis=1,
        )
    found = shares_FS[np.isfinite(shares_FS)]
    return float(found.mean()) if len(found) else float("nan")
