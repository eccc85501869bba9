"""Import iLIDS-VID (Wang et al., ECCV 2014) and PRID 2011 (Hirzer et al., SCIA 2011).

Both have one tracklet per person and camera, and ten splits into two halves of the persons. Results are means over the
ten splits; a manifest holds one of them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.common.matlab import read_mat
from sptskm.common.numbers import INT32, whole_numbers
from sptskm.common.reading import read_json
from sptskm.data.importers.listing import subfolders
from sptskm.data.manifest import Entry


@dataclass(frozen=True)
class _Split:
    """The persons of a split, by the names of their folders."""

    train: list[str | int]
    test: list[str | int]


def ilidsvid(root: Path, split: int = 1) -> list[Entry]:
    """Return the tracklets `i-LIDS-VID/sequences/cam{1,2}/<person>` with split 1 to 10 of `train-test people splits`.

    A row of ls_set numbers the persons in the order of their folders, from 1: the first half is for test, the second
    for training. Queries come from cam1, the gallery from cam2. Raises FileNotFoundError, and DataError naming the file
    at fault.
    """
    home = root / "i-LIDS-VID" / "sequences"
    persons = subfolders(home / "cam1")
    if persons != subfolders(home / "cam2"):
        raise DataError(f"{home}: cam1 and cam2 hold folders of other names, wanted one a person in both")
    path = root / "train-test people splits" / "train_test_splits_ilidsvid.mat"
    order_SP = _ls_set(path, len(persons))
    order_P = order_SP[_checked(split, len(order_SP), path)] - 1
    half = len(persons) // 2
    test, train = ([persons[place] for place in sorted(part)] for part in (order_P[:half], order_P[half:]))
    return _entries("i-LIDS-VID/sequences", ("cam1", "cam2"), train, test)


def prid2011(root: Path, split: int = 1) -> list[Entry]:
    """Return the tracklets `prid_2011/multi_shot/cam_{a,b}/<person>` with split 1 to 10 of splits_prid2011.json.

    Each split has the lists train and test. The splits name the 178 persons whose tracklets are long enough. Queries
    come from cam_a, the gallery from cam_b. Raises FileNotFoundError, and DataError naming the file at fault.
    """
    path = root / "splits_prid2011.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted a list of splits, each with train and test")
    splits = read_json(path, list[_Split])
    chosen = splits[_checked(split, len(splits), path)]
    train, test = ([str(person) for person in part] for part in (chosen.train, chosen.test))
    twice = [person for person, count in Counter([*train, *test]).items() if count > 1]
    if twice or not train or not test:
        what = f"has {twice[0]} twice" if twice else "lacks persons"
        raise DataError(f"{path}: split {split} {what}, wanted each person once, in train or in test")
    return _entries("prid_2011/multi_shot", ("cam_a", "cam_b"), train, test)


def _ls_set(path: Path, num_persons: int) -> NDArray[np.int64]:
    """Read the orders of the persons (splits, persons), numbered from 1. Raises FileNotFoundError and DataError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted iLIDS-VID's own with the variable ls_set")
    order_SP = whole_numbers(read_mat(path, "ls_set"), f"{path}: ls_set", *INT32)
    wanted = np.arange(1, num_persons + 1)
    if order_SP.ndim != 2 or order_SP.shape[1] != num_persons or (np.sort(order_SP) != wanted).any():
        raise DataError(
            f"{path}: ls_set has shape {order_SP.shape}, wanted each of the {num_persons} persons once in each row"
        )
    return order_SP


def _checked(split: int, total: int, path: Path) -> int:
    """Return the number of the split counted from 0. Raises DataError if there is no such split."""
    if not 1 <= split <= total:
        raise DataError(f"{path}: has no split {split}, wanted 1 to {total}")
    return split - 1


def _entries(home: str, cameras: tuple[str, str], train: Sequence[str], test: Sequence[str]) -> list[Entry]:
    """Return the training persons in both cameras, then queries of the first camera and gallery of the second."""
    rows = [(camera, person, "train") for person in train for camera in cameras]
    rows += [
        (camera, person, part) for camera, part in zip(cameras, ("query", "gallery"), strict=True) for person in test
    ]
    return [
        Entry(f"{camera}/{person}", person, camera, split, frames=f"{home}/{camera}/{person}")
        for camera, person, split in rows
    ]
