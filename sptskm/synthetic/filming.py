"""Film one walker with one camera: JPEG frames, PNG masks and the skeletons that a pose estimator would give.

Shapes: F frames, V = 16 points of walkers.pose, of which the first 14 are the joints.
Camera axes: x right, y down, z away from the camera, metres, the pelvis at the origin.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.data import bilevel
from sptskm.data.skeletons import normalise
from sptskm.synthetic.drawing import Image, Outfit, figures
from sptskm.synthetic.scenes import (
    HEIGHT,
    PANORAMA,
    WIDTH,
    Camera,
    Occluder,
    build_occluder,
    compose,
    hidden,
    lighting,
    no_occluder,
)
from sptskm.synthetic.walkers import Floats, Walker, on_another_day, pose

FLAWS = ("none", "background", "half", "beside", "tiny")

GAIT_DRIFT = 0.09
POSE_NOISE = 0.022
POSE_BIAS = 0.015
DEPTH_FACTOR = 1.8
# Uncertainty (metres) at which a simulated confidence has fallen to 1/e.
CONFIDENCE_SCALE = 0.15
FAILURE_RATE = 0.02
OCCLUDED_SHARE = 0.35

# Pose estimators find trunks more easily than hands and feet; in the order of the 14 joints.
_DIFFICULTY = np.array([1.0, 0.7, 0.8, 1.2, 1.7, 0.8, 1.2, 1.7, 0.8, 1.0, 1.4, 0.8, 1.0, 1.4])


@dataclass(frozen=True)
class FilmedTracklet:
    """A tracklet's encoded JPEG frames and PNG masks, and skeletons (F, 14, 4) as a pose estimator would give them."""

    frames: list[bytes]
    masks: list[bytes]
    skeletons: Floats
    joints: Floats
    """True positions (F, 14, 3) of the joints, metres in camera axes; they are not written to any file."""


@dataclass(frozen=True)
class _Crop:
    """The detector's box, given by the pelvis (pixels) and the size of the walker (pixels per metre) in it."""

    centre_F2: Floats
    per_metre_F: Floats
    distance: float

    def project(self, points_FN3: Floats) -> tuple[Floats, Floats]:
        per_metre = self.per_metre_F[:, None] * self.distance / (self.distance + points_FN3[..., 2])
        return self.centre_F2[:, None] + per_metre[..., None] * points_FN3[..., :2], per_metre


def film(  # noqa: PLR0913  # what is filmed, and how
    walker: Walker,
    outfit: Outfit,
    camera: Camera,
    frames: int,
    flaw: str,
    rng: np.random.Generator,
    sized: bool = True,
) -> FilmedTracklet:
    """Film a walker who passes a camera; a flaw other than "none" spoils the detector's box.

    Skeletons are centred, turned and in metres; unless `sized`, all of one size, as an estimator without scale gives.
    """
    heading_F = _heading(camera, frames, rng)
    points = _walk(walker, camera, heading_F, rng)
    crop = _crop(points, camera, flaw, rng)
    occluded = rng.random() < OCCLUDED_SHARE
    occluder = build_occluder(frames, rng) if occluded else no_occluder(frames)
    drawn = figures(points, walker, outfit, crop.project, (HEIGHT, WIDTH))
    behind = _backgrounds(camera, heading_F, crop.per_metre_F, rng)
    pictures, masks = _develop(drawn, behind, occluder, camera, rng)
    joints = points[:, :14]
    unseen = hidden(crop.project(joints)[0], occluder)
    return FilmedTracklet(pictures, masks, normalise(_estimated(joints, unseen, camera, rng), scaled=not sized), joints)


def _heading(camera: Camera, frames: int, rng: np.random.Generator) -> Floats:
    """Draw the direction of walking (F,) in radians, slowly turning; 0 is toward the camera."""
    away = np.pi * rng.integers(2)
    turning = np.linspace(-0.5, 0.5, frames) * rng.normal(0, 0.2)
    return np.asarray(camera.yaw + away + rng.uniform(-1, 1) * camera.yaw_spread + turning)


def _walk(walker: Walker, camera: Camera, heading_F: Floats, rng: np.random.Generator) -> Floats:
    """Return the walker's points (F, 16, 3) in camera axes."""
    gait = on_another_day(walker.gait, GAIT_DRIFT, rng)
    speed = rng.uniform(0.92, 1.08)
    gait = replace(gait, cycle=gait.cycle / speed, stride=gait.stride * np.sqrt(speed))
    steps = 1 + rng.normal(0, 0.03, len(heading_F))
    phase_F = rng.uniform(0, 2 * np.pi) + 2 * np.pi / gait.cycle * np.cumsum(steps)
    return _seen_from(pose(walker.body, gait, phase_F), heading_F, camera.pitch)


def _seen_from(points_FV3: Floats, heading_F: Floats, pitch: float) -> Floats:
    x, y, z = np.moveaxis(points_FV3, 2, 0)
    cos, sin = np.cos(heading_F)[:, None], np.sin(heading_F)[:, None]
    x, z = x * cos - z * sin, x * sin + z * cos
    y, z = y * np.cos(pitch) - z * np.sin(pitch), y * np.sin(pitch) + z * np.cos(pitch)
    return np.stack([x, y, z], axis=2)


def _crop(points_FV3: Floats, camera: Camera, flaw: str, rng: np.random.Generator) -> _Crop:
    frames = len(points_FV3)
    unit = _Crop(np.zeros((frames, 2)), np.ones(frames), camera.distance)
    pixels = unit.project(points_FV3)[0]
    top, bottom = pixels[..., 1].min(axis=1), pixels[..., 1].max(axis=1)
    fill = rng.uniform(0.82, 0.92) * (1 + _drift(frames, 0.012, 0.8, rng))
    per_metre = HEIGHT * fill / np.median(bottom - top)
    middle = (pixels[..., 0].min(axis=1) + pixels[..., 0].max(axis=1)) / 2
    x = WIDTH / 2 - per_metre * 0.5 * middle + 3 * _drift(frames, 1.0, 0.8, rng)
    y = HEIGHT / 2 - per_metre * np.median(top + bottom) / 2 + 3 * _drift(frames, 1.0, 0.8, rng)
    zoom, right, down = _spoiling(flaw, rng)
    centre = np.stack([x + right, y + down], axis=1)
    return _Crop(centre, per_metre * zoom, camera.distance)


def _spoiling(flaw: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw the errors of a bad box: a factor of the size, and a shift of the walker in pixels right and down."""
    sign = 1 if rng.random() < 0.5 else -1
    if flaw == "background":
        return 1.0, 10.0 * WIDTH, 0.0
    if flaw == "half":
        return rng.uniform(1.7, 2.3), rng.uniform(-20, 20), sign * rng.uniform(80, 130)
    if flaw == "beside":
        return rng.uniform(0.9, 1.3), sign * rng.uniform(50, 75), rng.uniform(-30, 30)
    if flaw == "tiny":
        return rng.uniform(0.35, 0.5), rng.uniform(-25, 25), rng.uniform(-40, 60)
    return 1.0, 0.0, 0.0


def _drift(frames: int, size: float, memory: float, rng: np.random.Generator) -> Floats:
    """Draw a stationary random walk (F,) of standard deviation `size`."""
    return _drifts((frames, 1), size, memory, rng)[:, 0]


def _drifts(shape: tuple[int, ...], size: float, memory: float, rng: np.random.Generator) -> Floats:
    steps = rng.normal(0, size, shape)
    for frame in range(1, shape[0]):
        steps[frame] = memory * steps[frame - 1] + np.sqrt(1 - memory**2) * steps[frame]
    return steps


def _backgrounds(camera: Camera, heading_F: Floats, per_metre_F: Floats, rng: np.random.Generator) -> list[Image]:
    """Cut the background of each box from the camera's panorama, which scrolls as the walker moves."""
    metres_F = -0.1 * np.sin(heading_F)
    start = rng.uniform(0, PANORAMA)
    offsets = np.round(start + np.cumsum(metres_F * per_metre_F)).astype(int) % PANORAMA
    return [camera.panorama[:, offset : offset + WIDTH] for offset in offsets]


def _develop(
    drawn: list[Image],
    behind: list[Image],
    occluder: Occluder,
    camera: Camera,
    rng: np.random.Generator,
) -> tuple[list[bytes], list[bytes]]:
    """Encode JPEG frames with the camera's colours, sharpness and grain, and PNG masks."""
    light = lighting(camera, rng)
    grain = rng.normal(0, camera.grain, (HEIGHT + 32, WIDTH + 32, 1)).astype(np.float32)
    blur = camera.blur * rng.uniform(0.8, 1.3)
    quality = int(np.clip(camera.quality + rng.integers(-8, 9), 50, 95))
    frames, masks = [], []
    for frame, (figure, background) in enumerate(zip(drawn, behind, strict=True)):
        picture, mask = compose(figure, background, occluder, frame)
        lit = cv2.GaussianBlur(picture, (0, 0), blur) * light
        y, x = rng.integers(0, 32, 2)
        lit += grain[y : y + HEIGHT, x : x + WIDTH]
        frames.append(_jpeg(lit, quality))
        masks.append(bilevel.encode(mask))
    return frames, masks


def _jpeg(picture: NDArray[np.generic], quality: int) -> bytes:
    clipped = np.clip(picture, 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", clipped, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def _estimated(joints_FV3: Floats, unseen_FV: NDArray[np.bool_], camera: Camera, rng: np.random.Generator) -> Floats:
    """Simulate estimated skeletons (F, 14, 4), with larger errors for joints that are far or hidden; NaN on failure.

    An error has a part that is constant over the tracklet (the estimator's view-dependent bias) and a part that drifts;
    the confidence falls with their expected size.
    """
    frames, joints, _ = joints_FV3.shape
    depth_FV = joints_FV3[..., 2]
    doubt_FV = _DIFFICULTY * (1 + 0.8 * np.clip(depth_FV / 0.2, 0, 1) + 3.0 * unseen_FV)
    doubt_FV = doubt_FV * camera.pose_noise * np.exp(rng.normal(0, 0.15))
    axes = np.array([1.0, 1.0, DEPTH_FACTOR])
    error = _drifts((frames, joints, 3), POSE_NOISE, 0.5, rng)
    error = (error + rng.normal(0, POSE_BIAS, (joints, 3))) * axes * doubt_FV[..., None]
    certain = np.exp(-POSE_NOISE * doubt_FV / CONFIDENCE_SCALE)
    certain = np.clip(certain + rng.normal(0, 0.04, certain.shape), 0, 1)
    skeletons = np.concatenate([joints_FV3 + error, certain[..., None]], axis=2)
    failed_F = (rng.random(frames) < FAILURE_RATE) | (unseen_FV.mean(axis=1) > 0.6)
    skeletons[failed_F] = np.nan
    return skeletons
