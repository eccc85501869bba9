"""Frames, masks and skeletons from their files; a file that cannot be used is one sentence with its path."""

import io
import time
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from numpy.typing import NDArray

from sptskm.data.errors import DataError

ATTEMPTS = 3
PAUSE_S = 0.2
MASK_THRESHOLD = 30  # grey value above which a mask pixel belongs to the person, as published
SKELETON_KEY = "new_joint"
SKELETON_SHAPE = (14, 4)


def read_frame(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB."""
    image = cv2.imdecode(_bytes(path, "frame"), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"frame {path}: corrupt, not a readable image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """(H, W) with 255 on the person and 0 elsewhere; any image is accepted and thresholded at its own size."""
    image = cv2.imdecode(_bytes(path, "mask"), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"mask {path}: corrupt, not a readable image")
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return np.where(grey > MASK_THRESHOLD, 255, 0).astype(np.uint8)


def read_skeleton(path: Path) -> NDArray[np.float32]:
    """(14, 4) x, y, z, confidence; NaN anywhere means that the frame has no skeleton."""
    content = _loadmat(path)
    if SKELETON_KEY not in content:
        found = ", ".join(key for key in content if not key.startswith("__")) or "nothing"
        raise DataError(f"skeleton {path}: holds {found}, wanted the variable {SKELETON_KEY}")
    skeleton = np.asarray(content[SKELETON_KEY])
    if skeleton.shape != SKELETON_SHAPE or skeleton.dtype.kind not in "fiu":
        raise DataError(f"skeleton {path}: {SKELETON_KEY} is {skeleton.dtype} {skeleton.shape}, wanted 14x4 numbers")
    return skeleton.astype(np.float32)


def _loadmat(path: Path) -> dict[str, NDArray[np.generic]]:
    content = _bytes(path, "skeleton").tobytes()
    try:
        return scipy.io.loadmat(io.BytesIO(content), verify_compressed_data_integrity=True)
    except Exception as error:
        raise DataError(f"skeleton {path}: corrupt, not a readable .mat file ({error})") from error


def _bytes(path: Path, kind: str) -> NDArray[np.uint8]:
    try:
        content = _read(path)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise DataError(f"{kind} {path}: {reason} (after {ATTEMPTS} attempts)") from error
    if not content:
        raise DataError(f"{kind} {path}: empty file")
    return np.frombuffer(content, np.uint8)


def _read(path: Path) -> bytes:
    """Network file systems fail for moments: try a few times, then let the last error out."""
    for attempt in range(ATTEMPTS):
        try:
            return path.read_bytes()
        except OSError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE_S)
    raise AssertionError("unreachable")
