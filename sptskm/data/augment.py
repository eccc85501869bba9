"""Training augmentations as published: one draw per clip, the same for all its frames.

Legend: T frames, H rows, W columns, V joints.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

ENLARGEMENT = 1.125  # 256x128 becomes 288x144 before cropping
ANGLES_DEG = (-10.0, -5.0, 0.0, 5.0, 10.0)
SCALES = (0.9, 1.0, 1.1)
SHIFTS = (-0.2, -0.1, 0.0, 0.1, 0.2)


def resize(rgbm_HW4: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Colour and mask together, bilinear, in uint8; masks get soft borders, as published."""
    if rgbm_HW4.shape[:2] == (height, width):
        return rgbm_HW4
    return np.asarray(cv2.resize(rgbm_HW4, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def expand_and_crop(rgbm_HW4: NDArray[np.uint8], height: int, width: int, top: int, left: int) -> NDArray[np.uint8]:
    """Resize to 9/8 of the size, then cut (height, width) at (top, left)."""
    larger = resize(rgbm_HW4, *enlarged(height, width))
    return larger[top : top + height, left : left + width]


def enlarged(height: int, width: int) -> tuple[int, int]:
    """Size before cropping."""
    return round(height * ENLARGEMENT), round(width * ENLARGEMENT)


def augment_frames(
    clip: Sequence[NDArray[np.uint8]], height: int, width: int, rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """With probability 1/2 enlarge and crop at a random place, else resize; then flip with probability 1/2."""
    if rng.random() < 0.5:
        frames = [resize(frame, height, width) for frame in clip]
    else:
        larger = enlarged(height, width)
        top, left = int(rng.integers(larger[0] - height + 1)), int(rng.integers(larger[1] - width + 1))
        frames = [expand_and_crop(frame, height, width, top, left) for frame in clip]
    return [frame[:, ::-1] for frame in frames] if rng.random() < 0.5 else frames


def random_move(skeletons_TV4: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Rotate by up to 10 degrees about each axis, scale by up to 10 % and shift by up to 0.2, changing over time."""
    choices = (ANGLES_DEG,) * 3 + (SCALES,) + (SHIFTS,) * 3
    return move(skeletons_TV4, np.stack([rng.choice(values, 2) for values in choices]))


def move(skeletons_TV4: NDArray[np.float64], draws_72: NDArray[np.float64]) -> NDArray[np.float64]:
    """xyz := Rx Ry Rz (s xyz) + t per frame; the seven values run linearly from the first to the last frame.

    Rows of `draws_72` are the angles about x, y, z in degrees, the scale, and the shift along x, y, z;
    columns are the first and the last frame. Confidence is untouched. (SMIN's random_move.)
    """
    T = len(skeletons_TV4)
    values_T7 = np.linspace(draws_72[:, 0], draws_72[:, 1], T)
    rotation_T33 = _rotations(np.deg2rad(values_T7[:, :3]))
    moved = skeletons_TV4.copy()
    scaled = skeletons_TV4[..., :3] * values_T7[:, None, 3:4]
    moved[..., :3] = np.einsum("tij,tvj->tvi", rotation_T33, scaled) + values_T7[:, None, 4:]
    return moved


def _rotations(angles_T3: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rx Ry Rz for every frame: (T, 3) radians to (T, 3, 3)."""
    cos, sin = np.cos(angles_T3).T, np.sin(angles_T3).T
    one, zero = np.ones_like(cos[0]), np.zeros_like(cos[0])
    Rx = [[one, zero, zero], [zero, cos[0], -sin[0]], [zero, sin[0], cos[0]]]
    Ry = [[cos[1], zero, sin[1]], [zero, one, zero], [-sin[1], zero, cos[1]]]
    Rz = [[cos[2], -sin[2], zero], [sin[2], cos[2], zero], [zero, zero, one]]
    return np.einsum("ijt,jkt,klt->til", np.array(Rx), np.array(Ry), np.array(Rz))
