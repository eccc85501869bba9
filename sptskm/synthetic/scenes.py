"""Build the cameras of the synthetic data set: their viewpoints, backgrounds and occluders.

Shapes: F frames; pictures are (height, width, 3) in blue, green, red.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.synthetic.walkers import Floats

Image = NDArray[np.uint8]

HEIGHT, WIDTH = 256, 128
PANORAMA = 768

# Seed of a random stream other than those of tracklets and people.
_CAMERAS = 4_000_000


@dataclass(frozen=True)
class Camera:
    """A camera; yaw is the heading (radians) of people who walk toward it, a positive pitch looks down."""

    yaw: float
    yaw_spread: float
    pitch: float
    distance: float
    gains: tuple[float, float, float]
    blur: float
    grain: float
    quality: int
    pose_noise: float
    panorama: Image


@dataclass(frozen=True)
class Occluder:
    """A box in front of the walker: its corners x0, y0, x1, y1 in pixels for each frame, and its appearance."""

    corners_F4: NDArray[np.int64]
    look: Image


@lru_cache(maxsize=6)
def build_camera(camid: int, seed: int) -> Camera:
    """Build camera `camid` (1, 2, ...) of the data set made from `seed`."""
    rng = np.random.default_rng([seed, camid, _CAMERAS])
    yaw = (0.0, 1.1, -0.75, 0.4, -1.3, 0.8)[camid - 1] + rng.normal(0, 0.08)
    pitch = rng.uniform(0.05, 0.32)
    gains = tuple(rng.uniform(0.95, 1.06, 3).tolist())
    return Camera(
        yaw=yaw,
        yaw_spread=rng.uniform(0.15, 0.35),
        pitch=pitch,
        distance=rng.uniform(4.5, 9.0),
        gains=gains,
        blur=rng.uniform(0.4, 0.95),
        grain=rng.uniform(2.0, 6.0),
        quality=int(rng.integers(70, 93)),
        pose_noise=rng.uniform(0.85, 1.25),
        panorama=_panorama(pitch, rng),
    )


def _panorama(pitch: float, rng: np.random.Generator) -> Image:
    """Draw a wall with objects above a floor (HEIGHT, PANORAMA + WIDTH, 3); its right edge continues at its left."""
    edge = int(HEIGHT * (0.62 - 1.2 * pitch))
    wall = rng.uniform(80, 180) + rng.normal(0, 16, 3)
    floor = rng.uniform(90, 180) + rng.normal(0, 8, 3)
    picture = np.zeros((HEIGHT, PANORAMA, 3))
    picture[:edge], picture[edge:] = wall, floor
    for _ in range(int(rng.integers(8, 20))):
        x, y = rng.integers(0, PANORAMA), rng.integers(-40, max(edge, 1))
        w, h = rng.integers(15, 110), rng.integers(20, 120)
        shade = 0.6 * wall + 0.4 * rng.uniform(20, 230, 3)
        picture[max(y, 0) : min(y + h, edge), x : x + w] = shade
    for row in np.geomspace(6, HEIGHT - edge, 6).astype(int):
        picture[edge + row : edge + row + 2] *= 0.86
    picture[edge : edge + 3] *= 0.6
    picture *= rng.normal(1, 0.05, (HEIGHT, PANORAMA, 1))
    picture += cv2.resize(rng.normal(0, 12, (16, 48)), (PANORAMA, HEIGHT))[..., None]
    blurred = cv2.GaussianBlur(picture, (0, 0), 1.3)
    wrapped: Floats = np.concatenate([blurred, blurred[:, :WIDTH]], axis=1)
    return np.clip(wrapped, 0, 255).astype(np.uint8)


def build_occluder(frames: int, rng: np.random.Generator) -> Occluder:
    """Draw a moving pole, or a box over the legs, that covers the walker for part of the tracklet."""
    start = rng.integers(0, max(1, frames // 2))
    here = np.arange(frames) - start
    stay = rng.integers(frames // 3 + 1, frames + 1)
    if rng.random() < 0.5:
        width = rng.integers(10, 30)
        left = WIDTH * rng.uniform(0, 1) + here * rng.uniform(-6, 6)
        corners = np.stack([left, 0 * left, left + width, 0 * left + HEIGHT], axis=1)
    else:
        top = HEIGHT * rng.uniform(0.55, 0.8)
        left = rng.uniform(-40, 40) + here * rng.uniform(-4, 4)
        corners = np.stack([left, 0 * left + top, left + 130, 0 * left + HEIGHT], axis=1)
    corners[(here < 0) | (here >= stay)] = 0
    corners = np.clip(corners, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.int64)
    look = (rng.uniform(40, 180) + rng.normal(0, 18, 3)) * rng.normal(1, 0.05, (HEIGHT, 1, 1))
    look = look * np.linspace(1.1, 0.75, WIDTH)[None, :, None]
    return Occluder(corners, np.clip(look, 0, 255).astype(np.uint8))


def no_occluder(frames: int) -> Occluder:
    """Return an occluder that covers nothing in any frame."""
    return Occluder(np.zeros((frames, 4), dtype=np.int64), np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def lighting(camera: Camera, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw the lighting (HEIGHT, WIDTH, 3) as factors: the camera's colours times the light of this tracklet.

    The light falls from one side.
    """
    level = rng.uniform(0.86, 1.1)
    side = np.linspace(-1, 1, WIDTH)[None, :, None] * rng.uniform(-0.18, 0.18)
    height = np.linspace(-1, 1, HEIGHT)[:, None, None] * rng.uniform(-0.12, 0.05)
    warmth = np.array([1.0, 1.0, 1.0]) + rng.normal(0, 0.02, 3)
    light = level * (1 + side + height) * warmth * np.array(camera.gains)
    return np.asarray(light, dtype=np.float32)


def compose(figure: Image, background: Image, occluder: Occluder, frame: int) -> tuple[Image, Image]:
    """Compose the figure (premultiplied alpha), its background and its occluder; return the picture and the mask.

    The mask (height, width) is 255 where the figure is visible and 0 elsewhere.
    """
    alpha = figure[..., 3]
    through = cv2.cvtColor(255 - alpha, cv2.COLOR_GRAY2BGR)
    behind = cv2.multiply(background, through, scale=1 / 255)
    picture = np.asarray(cv2.add(cv2.cvtColor(figure, cv2.COLOR_BGRA2BGR), behind), np.uint8)
    mask = np.where(alpha > 127, np.uint8(255), np.uint8(0))
    x0, y0, x1, y1 = occluder.corners_F4[frame]
    picture[y0:y1, x0:x1] = occluder.look[y0:y1, : x1 - x0]
    mask[y0:y1, x0:x1] = 0
    return picture, mask


def hidden(pixels_FV2: Floats, occluder: Occluder) -> NDArray[np.bool_]:
    """Return flags (F, V) for the points behind the occluder or outside the frame."""
    x, y = pixels_FV2[..., 0], pixels_FV2[..., 1]
    x0, y0, x1, y1 = (occluder.corners_F4[:, i, None] for i in range(4))
    behind = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    outside = (x < 0) | (x >= WIDTH) | (y < 0) | (y >= HEIGHT)
    return np.asarray(behind | outside)
