"""Read the skeletons of a tracklet from one .npy file, and name the frames of tracklets that have only skeletons.

A moment is one skeleton of such a tracklet; it is named as a frame would be.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.arrays import read_npy
from sptskm.common.errors import DataError
from sptskm.data.files import SKELETON_SHAPE
from sptskm.data.tracklets import ENDINGS


def home_of_skeletons(skeleton: str) -> str:
    """Return the folder in which the frames of a tracklet without frames would lie; it need not exist."""
    return f"{skeleton.removesuffix('.npy')}_frames"


def moment_names(path: Path) -> list[str]:
    """Return the names of a tracklet's moments: 000001, ... for a .npy file, the names of the .mat files in a folder.

    Raises DataError if there are none, and for a file that is not an array of skeletons.
    """
    if path.suffix != ".npy":
        ending = ENDINGS["skeletons"]
        names = os.listdir(path) if path.is_dir() else []  # noqa: PTH208 - no Path for each of a million files
        found = [name.removesuffix(ending) for name in names if name.endswith(ending)]
    else:
        found = [f"{number:06d}" for number in range(1, _length(path) + 1)]
    if not found:
        raise DataError(f"skeletons {path}: holds none, wanted some of a tracklet that has no frames")
    return found


def read_array(path: Path, length: int) -> NDArray[np.float32]:
    """Return the skeletons (length, 14, 4) of a .npy file unchanged; NaN throughout if the file is missing.

    Raises DataError for a file that cannot be read or holds something else.
    """
    wanted = (length, *SKELETON_SHAPE)
    try:
        skeletons_FV4 = _read(path, str(wanted))
    except (FileNotFoundError, NotADirectoryError):
        return np.full(wanted, np.nan, np.float32)
    if skeletons_FV4.shape != wanted or skeletons_FV4.dtype.kind not in "fiu":
        hint = (
            "; `sptskm prepare points` converts other key points" if skeletons_FV4.shape[1:] != SKELETON_SHAPE else ""
        )
        raise DataError(
            f"skeletons {path}: is {skeletons_FV4.dtype} {skeletons_FV4.shape}, wanted {wanted} numbers{hint}"
        )
    return np.asarray(skeletons_FV4, np.float32)


def _length(path: Path) -> int:
    """Return the number of skeletons in a .npy file."""
    try:
        found = _read(path, "(frames, 14, 4)")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"skeletons {path}: no such file, wanted those of a tracklet without frames") from None
    if found.ndim != 3:
        raise DataError(f"skeletons {path}: is {found.dtype} {found.shape}, wanted (frames, 14, 4) numbers")
    return len(found)


def _read(path: Path, wanted: str) -> NDArray[Any]:
    """Return the array in a .npy file. Raises FileNotFoundError and DataError."""
    try:
        return read_npy(path)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise DataError(f"skeletons {path}: cannot be read ({error.strerror})") from error
    except DataError as error:
        if zipfile.is_zipfile(path):
            raise DataError(f"skeletons {path}: holds several arrays, wanted one of {wanted}") from None
        told = str(error).removeprefix(f"{path}: ")
        raise DataError(f"skeletons {path}: corrupt, not a readable .npy file ({told})") from None
