"""Convert key points of pose estimators to the 14 joints of `sptskm.data.skeletons`, by name.

Output axes are x right, y down, z away. Human3.6M's camera space and pictures have these already; points in Kinect's
camera space (with depth) are converted to these axes.
Legend: F frames, K key points of the layout, V = 14 joints, C = channels of the input, 4 = x, y, z, confidence.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sptskm.common.errors import ConfigError
from sptskm.common.reading import read_yaml
from sptskm.data.skeletons import JOINTS

Floats = NDArray[np.float64]
Layout = Literal[
    "14",
    "mpii-16",
    "coco-17",
    "openpose-18",
    "openpose-25",
    "halpe-26",
    "blazepose-33",
    "coco-wholebody-133",
    "human36m-17",
    "kinect-20",
    "kinect-25",
]
Channels = Literal["xy", "xyc", "xyz", "xyzc"]
AXES = ("x", "y", "z")
IN_SPACE: tuple[Layout, ...] = ("human36m-17", "kinect-20", "kinect-25")
"""Layouts whose key points usually have a depth: the user must give the channels."""

_KINECT_AXES = (-1.0, -1.0, 1.0)  # its camera space has x to the sensor's left, y up, z away

_COCO_FACE = ("nose", "left eye", "right eye", "left ear", "right ear")
_COCO_BODY = (
    *("left shoulder", "right shoulder", "left elbow", "right elbow", "left wrist", "right wrist"),
    *("left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle"),
)
_HANDS = tuple(f"{side} hand {point}" for side in ("left", "right") for point in range(21))
_OPENPOSE_FACE = ("right eye", "left eye", "right ear", "left ear")
_OPENPOSE_ARMS = ("right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist")
_RIGHT_LEG, _LEFT_LEG = ("right hip", "right knee", "right ankle"), ("left hip", "left knee", "left ankle")
_KINECT_LIMBS = (
    *("left shoulder", "left elbow", "left wrist", "left hand"),
    *("right shoulder", "right elbow", "right wrist", "right hand"),
    *(*_LEFT_LEG, "left foot", *_RIGHT_LEG, "right foot"),
)

LAYOUTS: dict[Layout, tuple[str, ...]] = {
    "14": JOINTS,
    "mpii-16": (
        *("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle"),
        *("pelvis", "thorax", "neck", "head top"),
        *("right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow", "left wrist"),
    ),
    "coco-17": (*_COCO_FACE, *_COCO_BODY),
    "openpose-18": ("nose", "neck", *_OPENPOSE_ARMS, *_RIGHT_LEG, *_LEFT_LEG, *_OPENPOSE_FACE),
    "openpose-25": (
        *("nose", "neck", *_OPENPOSE_ARMS, "pelvis", *_RIGHT_LEG, *_LEFT_LEG, *_OPENPOSE_FACE),
        *("left big toe", "left small toe", "left heel", "right big toe", "right small toe", "right heel"),
    ),
    "halpe-26": (
        *(*_COCO_FACE, *_COCO_BODY, "head top", "neck", "pelvis"),
        *("left big toe", "right big toe", "left small toe", "right small toe", "left heel", "right heel"),
    ),
    "blazepose-33": (
        *("nose", "left inner eye", "left eye", "left outer eye", "right inner eye", "right eye", "right outer eye"),
        *("left ear", "right ear", "left mouth", "right mouth", *_COCO_BODY[:6]),
        *("left pinky", "right pinky", "left index", "right index", "left thumb", "right thumb", *_COCO_BODY[6:]),
        *("left heel", "right heel", "left foot", "right foot"),
    ),
    "coco-wholebody-133": (
        *(*_COCO_FACE, *_COCO_BODY),
        *("left big toe", "left small toe", "left heel", "right big toe", "right small toe", "right heel"),
        *(*(f"face {point}" for point in range(68)), *_HANDS),
    ),
    "human36m-17": (
        *("pelvis", *_RIGHT_LEG, *_LEFT_LEG, "spine", "thorax", "nose", "head top"),
        *("left shoulder", "left elbow", "left wrist", "right shoulder", "right elbow", "right wrist"),
    ),
    "kinect-20": ("pelvis", "spine", "shoulder centre", "head", *_KINECT_LIMBS),
    "kinect-25": (
        *("pelvis", "spine", "neck", "head", *_KINECT_LIMBS),
        *("shoulder centre", "left hand tip", "left thumb", "right hand tip", "right thumb"),
    ),
}
"""Names of the key points in the order of each estimator or data set; right and left are the person's.

14 are the joints themselves, openpose-18 is OpenPose's COCO model, openpose-25 its BODY_25, halpe-26 AlphaPose's and
RTMPose's body with feet, blazepose-33 MediaPipe's landmarks, coco-wholebody-133 body, feet, face and both hands,
kinect-20 the first sensor, kinect-25 the second; human36m-17 is the usual selection of Human3.6M's 32 joints (0-3, 6-8,
12-15, 17-19, 25-27).
"""

# Sources of each joint: in each frame the first choice whose key points all exist; of several the middle is used.
# Joints not listed are the key point of the same name.
_CHOICES: dict[str, tuple[tuple[str, ...], ...]] = {
    "head": (
        *(("head top",), ("head",), ("nose",), ("right ear", "left ear"), ("right eye", "left eye")),
        *(("right ear",), ("left ear",), ("right eye",), ("left eye",)),
    ),
    "neck": (("neck",), ("shoulder centre",), ("thorax",), ("right shoulder", "left shoulder")),
}


_FIRST: dict[tuple[str, str], tuple[str, ...]] = {("blazepose-33", "head"): ("right ear", "left ear")}
"""First choice of sources for a joint in one layout: the same as in `sptskm.preparation.blazepose`."""


class OwnLayout(NamedTuple):
    """The key points of a tool that is not built in, as described by the user's file."""

    name: str
    points: tuple[str, ...]
    """Names in their order; a joint is computed from the points with the names of LAYOUTS; other points are unused."""
    axes: tuple[str, ...] = AXES
    """The file's axes, perhaps with a minus, that point right, down and away."""


PointLayout = Layout | OwnLayout


def read_layout(path: Path) -> OwnLayout:
    """Read a custom layout from YAML: `points`, and perhaps `name` and `axes`.

    `points` are names in their order, or the name of a built-in layout. `axes` are three of x, -x, y, -y, z and -z:
    those of the file that point right, down and away; without them the axes are as they should be, also those of a
    built-in layout. Raises FileNotFoundError, and ConfigError for other
    content, for a duplicate name, and if one of the 14 joints is not among the points.
    """
    found = read_yaml(path)
    if other := [key for key in found if key not in ("name", "points", "axes")]:
        raise ConfigError(f"{path}: has the key {other[0]}, wanted points, and perhaps name and axes")
    points, name = found.get("points"), found.get("name", path.stem)
    if isinstance(points, str) and points in LAYOUTS:
        points = list(LAYOUTS[points])  # type: ignore[index]
    if not isinstance(points, list) or not all(isinstance(point, str) for point in points):
        raise ConfigError(f"{path}: points is {points!r}, wanted a list of names, or one of {', '.join(LAYOUTS)}")
    if twice := [point for point in points if points.count(point) > 1]:
        raise ConfigError(f"{path}: points has {twice[0]} twice, wanted each once")
    layout = OwnLayout(str(name), tuple(points), _axes(path, found))
    if lacking := [joint for joint in JOINTS if not _sources(joint, layout)]:
        known = ", ".join(" and ".join(choice) for choice in _CHOICES.get(lacking[0], ((lacking[0],),)))
        raise ConfigError(f"{path}: points has nothing for the {lacking[0]}, wanted one of {known}")
    return layout


def _axes(path: Path, found: Mapping[str, Any]) -> tuple[str, ...]:
    axes = found.get("axes", list(AXES))
    named = [axis.removeprefix("-") if isinstance(axis, str) else "" for axis in axes] if isinstance(axes, list) else []
    if sorted(named) != sorted(AXES):
        raise ConfigError(
            f"{path}: axes is {axes!r}, wanted the file's axes that point right, down and away, such as [x, -z, y]"
        )
    return tuple(axes)


def to_joints(
    points_FKC: ArrayLike, layout: PointLayout, channels: Channels, *, zero_is_missing: bool = True
) -> Floats:
    """Convert key points (F, K, C) of a named layout to the 14 joints (F, 14, 4).

    They are x, y, z in the units of the input (z is 0 without a depth), and the confidence in [0, 1]; a missing joint
    is NaN in all four.
    `channels` names the C numbers of a point: coordinates, and c for confidence, which is clipped to [0, 1] and is 1 if
    absent. The head is the head top (mpii-16, halpe-26, human36m-17), the middle of the head (kinect), of the ears
    (blazepose) or the nose (coco, openpose); if that is missing, the middle of both ears, of both eyes, or one of them.
    The neck is the key point of that name, on Human3.6M the thorax, on kinect-20 the shoulder centre, else the middle
    of both shoulders with the lower confidence.
    A key point is missing when one of its numbers is not finite, when its confidence is not positive, and, with
    `zero_is_missing`, when all its coordinates are 0, as estimators write it (wrong for skeletons whose origin is one
    of their joints). Raises ValueError for an unknown layout, unknown channels or another shape.
    """
    points, shape = np.asarray(points_FKC, dtype=np.float64), shape_of(layout, channels)
    if points.ndim != 3 or points.shape[1:] != shape:
        wanted = f"(frames, {shape[0]}, {shape[1]}) for {layout} as {channels}"
        raise ConfigError(f"key points have shape {points.shape}, wanted {wanted}")
    points_FK4 = _four_channels(points, channels)
    points_FK4[_missing(points_FK4, zero_is_missing)] = np.nan
    if isinstance(layout, OwnLayout):
        points_FK4[..., :3] = _turned(points_FK4[..., :3], layout, channels)
    elif layout.startswith("kinect") and "z" in channels:
        points_FK4[..., :3] *= _KINECT_AXES
    joints = [_first_found(points_FK4, _sources(joint, layout)) for joint in JOINTS]
    return np.stack(joints, axis=1)


def shape_of(layout: PointLayout, channels: str) -> tuple[int, int]:
    """Return K and C. Raises ConfigError for an unknown layout or channels."""
    if not (isinstance(layout, OwnLayout) or layout in LAYOUTS) or channels not in get_args(Channels):
        known = f"a layout of {', '.join(LAYOUTS)} and channels of {', '.join(get_args(Channels))}"
        raise ConfigError(f"layout {layout!r} with channels {channels!r} is unknown, wanted {known}")
    return len(points_of(layout)), len(channels)


def points_of(layout: PointLayout) -> tuple[str, ...]:
    """Return the names of a layout's key points, in their order."""
    return layout.points if isinstance(layout, OwnLayout) else LAYOUTS[layout]


def _four_channels(points_FKC: Floats, channels: str) -> Floats:
    points_FK4 = np.zeros((*points_FKC.shape[:2], 4))
    points_FK4[..., 3] = 1.0
    for source, channel in enumerate(channels):
        points_FK4[..., "xyzc".index(channel)] = points_FKC[..., source]
    return points_FK4


def _turned(points_FK3: Floats, own: OwnLayout, channels: str) -> Floats:
    """Turn the file's axes to right, down and away."""
    if "z" not in channels and own.axes[2].removeprefix("-") != "z":
        raise ConfigError(f"the layout {own.name} has the axes {', '.join(own.axes)}, wanted z last for {channels}")
    places = [AXES.index(axis.removeprefix("-")) for axis in own.axes]
    return points_FK3[..., places] * [-1.0 if axis.startswith("-") else 1.0 for axis in own.axes]


def _missing(points_FK4: Floats, zero_is_missing: bool) -> NDArray[np.bool_]:
    missing_FK = ~np.isfinite(points_FK4).all(axis=2) | (points_FK4[..., 3] <= 0)
    if zero_is_missing:
        missing_FK |= ~points_FK4[..., :3].any(axis=2)
    return np.asarray(missing_FK)


def _sources(joint: str, layout: PointLayout) -> list[list[int]]:
    """Return the alternative sets of key points whose middle is the joint, best first."""
    names = points_of(layout)
    choices = _CHOICES.get(joint, ((joint,),))
    if not isinstance(layout, OwnLayout) and (layout, joint) in _FIRST:
        choices = (_FIRST[layout, joint], *choices)
    return [[names.index(name) for name in choice] for choice in choices if set(choice) <= set(names)]


def _first_found(points_FK4: Floats, choices: list[list[int]]) -> Floats:
    """Return a joint (F, 4) by the first alternative that exists in each frame; NaN without any."""
    joint_F4 = _middle(points_FK4, choices[0])
    for sources in choices[1:]:
        missing_F = np.isnan(joint_F4[:, 0])
        joint_F4[missing_F] = _middle(points_FK4[missing_F], sources)
    return joint_F4


def _middle(points_FK4: Floats, sources: list[int]) -> Floats:
    """Return the middle of some key points with the lowest of their confidences; NaN when one of them is missing."""
    taken_FS4 = points_FK4[:, sources]
    confidence_F1 = np.minimum(taken_FS4[..., 3:].min(axis=1), 1.0)
    return np.concatenate([taken_FS4[..., :3].mean(axis=1), confidence_F1], axis=1)
