"""Estimate masks and 3D skeletons with one network: BlazePose (MediaPipe's `pose_landmark_full`, Apache-2.0).

The network sees a square around one person. It returns the person's outline, 39 points in three dimensions and the
probability that somebody is there. Sources: Bazarevsky et al. 2020, Xu et al. 2020 (GHUM), and the public model card.
Legend: N frames, H rows, W columns of a crop, 3 = blue, green, red as OpenCV reads them; S = 256 rows and columns of
the network's input, P = 33 landmarks, V = 14 joints of `sptskm.data.skeletons`, 4 = x, y, z, confidence.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from sptskm.common.errors import DataError
from sptskm.config import ConfigError
from sptskm.data.skeletons import EDGES, JOINTS

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

SIZE = 256
MARGIN = 1.25  # side of the square divided by the longer edge of the person's box
PRESENT = 0.5  # lowest probability of a person at which the output is used
LANDMARKS = 33  # of 39 points; the others are helpers for tracking
# Limits of a body, set so that of 20,100 frames of real walkers 0.2 % and less are beyond each (there, the means of
# confidence are 0.55 to 0.94, the longest limb has 0.59 m, the sums of bones are 2.4 to 4.1 m).
MEAN_CONFIDENCE = 0.5  # of the 14 joints; a body below is rejected
LONGEST_LIMB = 0.7  # metres
SHORTEST_BODY, TALLEST_BODY = 2.0, 5.0  # metres, sum of the 13 bones

# Landmarks of each joint, which is their mean.
_SOURCES: dict[str, tuple[int, ...]] = {
    "head": (7, 8),
    "neck": (11, 12),
    "right shoulder": (12,),
    "right elbow": (14,),
    "right wrist": (16,),
    "left shoulder": (11,),
    "left elbow": (13,),
    "left wrist": (15,),
    "right hip": (24,),
    "right knee": (26,),
    "right ankle": (28,),
    "left hip": (23,),
    "left knee": (25,),
    "left ankle": (27,),
}
_ENDS = np.array(EDGES)
_HEAD, _HIPS = JOINTS.index("head"), [JOINTS.index("right hip"), JOINTS.index("left hip")]


class Raw(NamedTuple):
    """Raw output of the network for one square."""

    landmarks: Floats
    """(39, 5): x, y, z in pixels of the input, visibility and presence before the sigmoid."""
    world: Floats
    """(39, 3): metres from the middle of the hips; x right, y down, z away."""
    presence: float
    """Probability that a person is there."""
    mask: Floats
    """(S, S): logits of the person's outline."""


class Runtime(Protocol):
    """Interface of a program that runs the network."""

    def __call__(self, square_SS3: Bytes) -> Raw:
        """Run the network on one square of 256 x 256, blue first."""


@dataclass(frozen=True)
class Person:
    """Mask and skeleton found in a crop."""

    mask_HW: Bytes
    """255 on the person, 0 elsewhere; all 0 if nobody was found."""
    skeleton_V4: Floats
    """Metres from the middle of the hips, confidence in [0, 1]; all NaN if nobody was found."""
    presence: float


class OpenCVNetwork:
    """The network in OpenCV on one CPU thread."""

    name = "opencv"

    def __init__(self, file: Path) -> None:
        cv2.setNumThreads(1)  # the last bits depend on it, and shards use the other cores better
        try:
            # OpenCV 5's default engine gives one of the five outputs; before 5 there is no choice of engine
            engine = [cv2.dnn.ENGINE_CLASSIC] if hasattr(cv2.dnn, "ENGINE_CLASSIC") else []
            self._net = cv2.dnn.readNetFromTFLite(str(file), *engine)
        except cv2.error as error:
            raise ConfigError(f"{file}: cannot be read by OpenCV {cv2.__version__} ({error.err or error})") from None

    def __call__(self, square_SS3: Bytes) -> Raw:
        """Run the network on one square of 256 x 256, blue first."""
        self._net.setInput(np.ascontiguousarray(_network_input(square_SS3).transpose(2, 0, 1)[None]))
        names = ("Identity", "Identity_4", "Identity_1", "Identity_2", "Identity_3")
        found = (np.asarray(output, np.float32) for output in self._net.forward(names))
        points, world, presence, mask, _ = found  # the fifth are heat maps
        return _raw(points, world, presence, mask[0, 0])


class LiteRTNetwork:
    """The network in ai-edge-litert, about twice as fast as OpenCV; the last bits differ."""

    name = "litert"

    def __init__(self, file: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter = Interpreter(model_path=str(file), num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"{file}: cannot be read by ai-edge-litert ({error})") from None
        (self._input,) = (item["index"] for item in self._interpreter.get_input_details())
        self._outputs = {item["name"]: item["index"] for item in self._interpreter.get_output_details()}

    def __call__(self, square_SS3: Bytes) -> Raw:
        """Run the network on one square of 256 x 256, blue first."""
        self._interpreter.set_tensor(self._input, _network_input(square_SS3)[None])
        self._interpreter.invoke()
        names = ("Identity", "Identity_4", "Identity_1", "Identity_2")
        points, world, presence, mask = (self._interpreter.get_tensor(self._outputs[name]) for name in names)
        return _raw(points, world, presence, mask[0, ..., 0])


def open_network(file: Path, engine: str = "opencv") -> Runtime:
    """Open the network's file with the engine `opencv` or `litert`.

    Raises ConfigError for another engine, for an engine that is not installed and for a file that it cannot read.
    """
    if engine == "opencv":
        return OpenCVNetwork(file)
    if engine != "litert":
        raise ConfigError(f"--engine is {engine}, wanted opencv or litert")
    try:
        return LiteRTNetwork(file)
    except ImportError:
        raise ConfigError("--engine is litert and ai-edge-litert is missing: pip install 'sptskm[fast]'") from None


def find_person(network: Runtime, frame_HW3: Bytes, square_SS3: Bytes | None = None) -> Person:
    """Find the one person in a crop (H, W, 3); the mask has the crop's size.

    `square_SS3` is the crop with its surroundings from `square_around`; without it the crop's border is repeated.
    Raises ValueError for other arrays.
    """
    _check_picture("frame", frame_HW3)
    height, width = frame_HW3.shape[:2]
    if square_SS3 is None:
        square_SS3 = square_around(frame_HW3, (0, 0, width, height))
    _check_picture("square", square_SS3)
    raw = network(square_SS3)
    skeleton_V4 = joints_of(raw)
    if raw.presence < PRESENT:
        return Person(np.zeros((height, width), np.uint8), skeleton_V4, raw.presence)
    logits_HW = cv2.warpAffine(
        raw.mask,
        _to_square(0, 0, width, height),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderValue=-100.0,
    )
    return Person(np.where(logits_HW > 0, 255, 0).astype(np.uint8), skeleton_V4, raw.presence)


def square_around(picture_HW3: Bytes, box: tuple[int, int, int, int]) -> Bytes:
    """Cut the network's input (S, S, 3) around a box (left, top, right, bottom) from a picture.

    The square is MARGIN times as wide as the box's longer edge; beyond the picture its border is repeated.
    """
    square = cv2.warpAffine(picture_HW3, _to_square(*box), (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(square, np.uint8)


def _check_picture(name: str, picture: Bytes) -> None:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise DataError(f"{name} is {picture.dtype} {picture.shape}, wanted uint8 (height, width, 3)")
    if name == "square" and picture.shape[:2] != (SIZE, SIZE):
        raise DataError(f"square is {picture.shape[0]} x {picture.shape[1]}, wanted {SIZE} x {SIZE}")


def joints_of(raw: Raw) -> Floats:
    """Compute the 14 joints (V, 4) in metres; confidence = sigmoid(visibility) * sigmoid(presence).

    A joint between several landmarks has the lowest of their confidences. All joints are NaN if the network sees nobody
    or the body is impossible: low confidence, a limb longer than LONGEST_LIMB, bones whose sum is too small or too
    large for a person, a head below the hips.
    """
    skeleton_V4 = joints_unchecked(raw)
    if raw.presence < PRESENT or not is_possible(skeleton_V4):
        skeleton_V4[:] = np.nan
    return skeleton_V4


def joints_unchecked(raw: Raw) -> Floats:
    """Compute the 14 joints (V, 4) as `joints_of`, without checking them."""
    confidence_P = expit(raw.landmarks[:LANDMARKS, 3:]).prod(axis=1)
    skeleton_V4 = np.empty((len(JOINTS), 4), np.float32)
    for joint, name in enumerate(JOINTS):
        sources = list(_SOURCES[name])
        skeleton_V4[joint, :3] = raw.world[sources].mean(axis=0)
        skeleton_V4[joint, 3] = confidence_P[sources].min()
    return skeleton_V4


def is_possible(skeleton_V4: Floats) -> bool:
    """Return whether 14 joints in metres can be a person's and have enough confidence."""
    bones_E = np.linalg.norm(skeleton_V4[_ENDS[:, 0], :3] - skeleton_V4[_ENDS[:, 1], :3], axis=1)
    size = SHORTEST_BODY <= bones_E.sum() <= TALLEST_BODY and bones_E.max() <= LONGEST_LIMB
    upright = skeleton_V4[_HEAD, 1] < skeleton_V4[_HIPS, 1].mean()
    return bool(size and upright and skeleton_V4[:, 3].mean() >= MEAN_CONFIDENCE)


def _to_square(left: int, top: int, right: int, bottom: int) -> NDArray[np.float64]:
    """Return the (2, 3) matrix from pixels of a picture to pixels of the square around a box."""
    side = MARGIN * max(right - left, bottom - top)
    scale = SIZE / side
    x, y = (left + right) / 2, (top + bottom) / 2
    return np.array([[scale, 0.0, SIZE / 2 - scale * x], [0.0, scale, SIZE / 2 - scale * y]])


def _network_input(square_SS3: Bytes) -> Floats:
    return np.ascontiguousarray(square_SS3[..., ::-1]).astype(np.float32) / np.float32(255)


def _raw(points: Floats, world: Floats, presence: Floats, mask_SS: Floats) -> Raw:
    return Raw(points.reshape(39, 5), world.reshape(39, 3), float(presence.item()), mask_SS)
