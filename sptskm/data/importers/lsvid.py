"""Import LS-VID (Li et al., ICCV 2019): lists of `path pid`, and a MATLAB file of query numbers."""

import glob
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.common.matlab import read_mat
from sptskm.common.numbers import whole_numbers
from sptskm.data.importers.listing import lines_of_words
from sptskm.data.manifest import Entry, images, matching

JUNK = "-1"


def lsvid(root: Path) -> list[Entry]:
    """Return the tracklets of info/list_sequence/list_seq_{train,test}.txt; info/data/info_test.mat names the queries.

    A path in a list is a folder or the prefix of its frames' paths. The camera is the third part of a frame's name,
    split at `_`. Raises FileNotFoundError, and DataError naming the line at fault.
    """
    entries = []
    listed = cache(images)  # hundreds of tracklets share a folder
    for part in ("train", "test"):
        own = list(lines_of_words(root / "info" / "list_sequence" / f"list_seq_{part}.txt", "path pid"))
        queries = _queries(root / "info" / "data" / "info_test.mat", len(own)) if part == "test" else set()
        for number, (place, (path, pid)) in enumerate(own, 1):
            pattern = PurePosixPath(path, "*") if (root / path).is_dir() else _beginning(PurePosixPath(path))
            names = matching(listed(root / pattern.parent), pattern.name)
            if not names:
                raise DataError(f"{place}: there are no images {root / path}*")
            cut = names[0].split("_")
            if len(cut) < 3 or not cut[2].isdecimal():
                raise DataError(f"{place}: the frame {names[0]} names no camera, wanted it behind the second _")
            split = "train" if part == "train" else "query" if number in queries else "gallery"
            if pid == JUNK:
                split, pid = "junk", ""
            entries.append(Entry(path, pid, str(int(cut[2])), split, frames=str(pattern)))
    return entries


def _beginning(path: PurePosixPath) -> PurePosixPath:
    return path.parent / f"{glob.escape(path.name)}*"


def _queries(path: Path, num_test: int) -> set[int]:
    """Read the queries as line numbers of the test list, from 1. Raises FileNotFoundError and DataError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted LS-VID's own with the variable query")
    with path.open("rb") as file:
        is_mat = file.read(8) == b"MATLAB 5"
    array = read_mat(path, "query") if is_mat else _hdf5(path)
    found = whole_numbers(array.ravel(), f"{path}: query", 1, num_test, unit="entry").tolist()
    if not found:
        raise DataError(f"{path}: query is empty, wanted lines of the test list")
    return set(found)


def _hdf5(path: Path) -> NDArray[Any]:
    """Read the published HDF5 form with h5py, which nothing else needs. Raises DataError."""
    try:
        import h5py  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise DataError(f"{path} is an HDF5 file, which needs one more package: pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            return np.asarray(file["query"][()])
    except Exception as error:
        raise DataError(f"{path}: not a readable .mat file with the variable query ({error})") from error
