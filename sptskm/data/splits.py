"""Choose the identities to train on and to hold out, so that no decision ever depends on the test set."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sptskm.common.errors import DataError
from sptskm.config import Data
from sptskm.data.manifest import NAMELESS, Entry
from sptskm.data.names import natural
from sptskm.data.tracklets import IntArray, Tracklets


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of the table; `query` are row numbers into `held_out`, as in the test set."""

    train: IntArray
    held_out: IntArray
    query: IntArray
    classes: IntArray
    """Training identities in ascending order; a class label is an index into it."""
    left_out: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    """Rows of the people of this run's fold, on whom it neither trains nor validates."""

    @property
    def hash(self) -> str:
        """Return a hash of the held-out rows and queries; it is equal for all streams, whatever they train on."""
        return _digest(self.held_out, self.query, self.left_out)

    def data_of(self, table: Tracklets) -> dict[str, str]:
        """Return what must be equal to go on with a run: hashes of training tracklets, split and classes."""
        return {"fingerprint": table.training_fingerprint, "split": self.hash, "classes": _digest(self.classes)}


def changed_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List what differs between the data of a run (see `Split.data_of`) and others, as `name: before -> now`."""
    return [
        f"{name} of the training data: {before.get(name)} -> {value}"
        for name, value in now.items()
        if before.get(name) != value
    ]


NOBODY = (
    "no tracklet is of split train, wanted some to train on: give all tracklets of a person one pid in the manifest, "
    "then `sptskm import manifest FILE OUT --test-share 0.5` splits people; data without identities "
    "are for a run that was trained elsewhere: `sptskm extract RUN --data FILE`, then `sptskm search`"
)


def split_of(table: Tracklets, data: Data) -> Split:
    """Split the training identities as the settings of a run say. Raises DataError as `hold_out`."""
    return hold_out(table, data.held_out, data.split_seed, data.min_length, data.fold_numbers)


def hold_out(
    table: Tracklets, share: float, seed: int, min_length: int = 1, fold: tuple[int, int] | None = None
) -> Split:
    """Hold out a `share` of the training identities for validation, drawn by `seed`.

    One tracklet per held-out identity and camera is a query (drawn by the same seed); all held-out tracklets are
    gallery. `min_length` filters training rows only. Identities seen by one camera cannot be queried across cameras
    and are never held out. A `fold` (number from 1, of how many) leaves the people of that part out before: the folds
    of one seed part all people whom two cameras saw.
    Raises DataError if fewer than two identities can be held out, or are in a fold, or none is left to train on.
    """
    if not table.num_train:
        raise DataError(NOBODY)
    rng = np.random.default_rng([seed, 0x5B117])
    pids = table.pids_N[table.train]
    identities = np.unique(pids)
    cameras = {pid: len(np.unique(table.camids_N[table.train[pids == pid]])) for pid in identities.tolist()}
    eligible = np.array([pid for pid in identities.tolist() if cameras[pid] > 1], dtype=np.int64)
    left = _fold(eligible, seed, fold)
    identities, eligible = (np.setdiff1d(found, left) for found in (identities, eligible))
    count = min(round(share * len(identities)), len(eligible))
    if share > 0 and count < 2:
        raise DataError(
            f"data.held_out {share} of {len(identities)} training identities keeps {count} seen by two cameras, "
            "wanted at least 2; raise it, or set it to 0 to validate on nothing"
        )
    kept = np.sort(rng.permutation(eligible)[:count])
    is_held, is_left = np.isin(pids, kept), np.isin(pids, left)
    train = table.train[~is_held & ~is_left & (table.lengths[table.train] >= min_length)]
    if not len(train):
        raise DataError(
            f"no training tracklet is left: {len(pids)} of {len(identities)} identities, {count} of which are held out "
            f"(data.held_out {share}), and {min_length} frames wanted (data.min_length)"
        )
    held = table.train[is_held]
    return Split(train, held, _queries(table, held, rng), np.unique(table.pids_N[train]), table.train[is_left])


def _fold(eligible: IntArray, seed: int, fold: tuple[int, int] | None) -> IntArray:
    """Return the identities of a fold."""
    if fold is None:
        return np.empty(0, np.int64)
    number, count = fold
    if len(eligible) < 2 * count:
        raise DataError(
            f"{count} folds of {len(eligible)} training identities seen by two cameras leave fewer than 2 in one, "
            f"wanted at most {len(eligible) // 2} folds"
        )
    return np.sort(np.random.default_rng([seed, 0xF01D]).permutation(eligible)[number - 1 :: count])


def _queries(table: Tracklets, held: IntArray, rng: np.random.Generator) -> IntArray:
    """Draw one row number into `held` per (identity, camera)."""
    order = rng.permutation(len(held))
    pairs = np.stack([table.pids_N[held[order]], table.camids_N[held[order]]], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    return np.sort(order[first])


def split_by_identity(entries: Sequence[Entry], test_share: float, seed: int) -> list[Entry]:
    """Assign a split to each entry; a `test_share` of the identities, drawn by `seed`, is for test.

    In the test part one tracklet per identity and camera is a query and the others are gallery; of an identity that has
    no more than one a camera, one is gallery. Identities seen by one camera are for training, unless there is but one
    camera: then it is those with one tracklet. Distractors and junk keep their split. The draw does not depend on the
    order of the entries. Raises DataError for a share outside 0 to 1 or a seed below 0, and for a share above 0 that
    gives fewer than two test identities.
    """
    if not 0 <= test_share <= 1:
        raise DataError(f"the test share is {test_share}, wanted 0 to 1")
    if seed < 0:
        raise DataError(f"the seed is {seed}, wanted 0 or more")
    rng = np.random.default_rng([seed, 0x1D])
    named = sorted((e for e in entries if e.split not in NAMELESS), key=lambda entry: natural(entry.tracklet))
    cameras: dict[str, set[str]] = {}
    for entry in named:
        cameras.setdefault(entry.pid, set()).add(entry.camera)
    walks = Counter(entry.pid for entry in named)
    alone = len(set().union(*cameras.values())) == 1
    eligible = sorted((pid for pid in cameras if (walks[pid] if alone else len(cameras[pid])) > 1), key=natural)
    count = min(round(test_share * len(cameras)), len(eligible))
    if test_share > 0 and count < 2:
        raise DataError(
            f"a test share of {test_share} of {len(cameras)} identities keeps {count} "
            f"{'with two tracklets' if alone else 'seen by two cameras'}, wanted at least 2; raise it, or set it to 0 "
            "to train on all"
        )
    tested = {eligible[place] for place in rng.permutation(len(eligible))[:count]}
    splits = {entry.tracklet: "gallery" if entry.pid in tested else "train" for entry in named}
    queried: set[tuple[str, str]] = set()
    last: dict[str, str] = {}  # query drawn last
    for entry in (named[place] for place in rng.permutation(len(named))):
        if entry.pid in tested and (entry.pid, entry.camera) not in queried:
            queried.add((entry.pid, entry.camera))
            last[entry.pid] = entry.tracklet
            splits[entry.tracklet] = "query"
    with_gallery = {entry.pid for entry in named if splits[entry.tracklet] == "gallery"}
    splits |= {tracklet: "gallery" for pid, tracklet in last.items() if pid not in with_gallery}
    return [replace(entry, split=splits.get(entry.tracklet, entry.split)) for entry in entries]


def _digest(*arrays: IntArray) -> str:
    """Hash arrays of integers."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, np.int64).data)
    return digest.hexdigest()[:16]
