"""Which identities train and which are held out, so that no choice ever looks at the test set."""

import hashlib
from dataclasses import dataclass

import numpy as np

from sptskm.data.errors import DataError
from sptskm.data.tracklets import IntArray, Tracklets


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of the table; `query` are row numbers into `held_out`, as in the test set."""

    train: IntArray
    held_out: IntArray
    query: IntArray
    classes: IntArray
    """Training identities in ascending order; a class label is an index into it."""

    @property
    def hash(self) -> str:
        """Identifies what is held out, by the rows themselves; equal for both streams whatever they train on."""
        digest = hashlib.sha256()
        for array in (self.held_out, self.query):
            digest.update(np.ascontiguousarray(array, dtype=np.int64).data)
        return digest.hexdigest()[:16]


def hold_out(table: Tracklets, share: float, seed: int, min_length: int = 1) -> Split:
    """Keep a `share` of the training identities for validation, drawn by `seed`.

    One query per held-out identity and camera (drawn by the same seed); all held-out tracklets are gallery.
    `min_length` filters training rows only. Identities seen by one camera cannot be queried across cameras
    and are never held out. Raises DataError when nothing is left to train on.
    """
    rng = np.random.default_rng([seed, 0x5B117])
    pids = table.pids_N[table.train]
    identities = np.unique(pids)
    cameras = {pid: len(np.unique(table.camids_N[table.train[pids == pid]])) for pid in identities.tolist()}
    eligible = np.array([pid for pid in identities.tolist() if cameras[pid] > 1], dtype=np.int64)
    count = min(round(share * len(identities)), len(eligible))
    if share > 0 and count < 2:
        raise DataError(
            f"data.held_out {share} of {len(identities)} training identities keeps {count} seen by two cameras, "
            "wanted at least 2; raise it, or set it to 0 to validate on nothing"
        )
    kept = np.sort(rng.permutation(eligible)[:count])
    is_held = np.isin(pids, kept)
    train = table.train[~is_held & (table.lengths[table.train] >= min_length)]
    if not len(train):
        raise DataError(
            f"no training tracklet is left: {len(pids)} of {len(identities)} identities, {count} of which are held out "
            f"(data.held_out {share}), and {min_length} frames wanted (data.min_length)"
        )
    held = table.train[is_held]
    return Split(train, held, _queries(table, held, rng), np.unique(table.pids_N[train]))


def _queries(table: Tracklets, held: IntArray, rng: np.random.Generator) -> IntArray:
    """One row number into `held` per (identity, camera)."""
    order = rng.permutation(len(held))
    pairs = np.stack([table.pids_N[held[order]], table.camids_N[held[order]]], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    return np.sort(order[first])
