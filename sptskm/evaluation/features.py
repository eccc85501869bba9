"""Features of tracklets, one row each, and their order.

Shape suffixes: N tracklets, D feature length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError

SHOWN_KEYS: Final = 3


@dataclass(frozen=True, eq=False)
class Features:
    """The features of one stream, one row per tracklet.

    features_ND: float32 (N, D).
    keys_N: tracklet keys, strings.
    valid_N: False where the tracklet had no input in this stream (no skeleton); its feature row has no meaning.
    fingerprint: of the table that the rows come from.
    stream: name used in messages.
    Raises DataError when the arrays do not fit together.
    """

    features_ND: NDArray[np.float32]
    keys_N: NDArray[np.str_]
    valid_N: NDArray[np.bool_]
    fingerprint: str
    stream: str

    def __post_init__(self) -> None:
        arrays = (self.features_ND, self.keys_N, self.valid_N)
        if [a.ndim for a in arrays] != [2, 1, 1] or len({len(a) for a in arrays}) > 1:
            wanted = "(N, D), (N,), (N,)"
        elif [a.dtype.kind for a in arrays] != ["f", "U", "b"] or arrays[0].dtype.itemsize != 4:
            wanted = "float32, unicode, bool"
        else:
            return
        found = ", ".join(f"{a.dtype} {a.shape}" for a in arrays)
        raise DataError(f"{self.stream}: features, keys and valid must be {wanted}, found {found}")

    def __len__(self) -> int:
        return len(self.keys_N)

    @property
    def known_ND(self) -> NDArray[np.float32]:
        """Return the features (N, D), with zeros where the tracklet had no input."""
        return np.where(self.valid_N[:, None], self.features_ND, np.float32(0))

    def part(self, rows: slice | NDArray[np.int64]) -> "Features":
        """Select rows by slice or number, in that order."""
        return replace(self, features_ND=self.features_ND[rows], keys_N=self.keys_N[rows], valid_N=self.valid_N[rows])

    def ordered(self, keys_N: NDArray[np.str_]) -> "Features":
        """Select the rows of these keys, all of which are there, in their order."""
        order = np.argsort(self.keys_N)
        return self.part(order[np.searchsorted(self.keys_N, keys_N, sorter=order)])

    def compared(self, normalisation: str) -> "Features":
        """Return the features as the fusion compares them: for "concat" scaled to length 1, except rows of zeros."""
        if normalisation != "concat":
            return self
        length_N1 = np.linalg.norm(self.features_ND, axis=1, keepdims=True)
        unit_ND = (self.features_ND / np.where(length_N1 > 0, length_N1, 1)).astype(np.float32)
        return replace(self, features_ND=unit_ND)


def align(a: Features, b: Features) -> Features:
    """Reorder the features b to the key order of a.

    Raises DataError, naming up to three keys, when the fingerprints differ, when a key repeats or is missing in a or b,
    and when a valid row of either is not finite.
    """
    if a.fingerprint != b.fingerprint:
        raise DataError(
            f"{a.stream} and {b.stream} features come from different tables: "
            f"fingerprints {a.fingerprint} and {b.fingerprint}"
        )
    for side in (a, b):
        _check_rows(side)
    _refuse(f"{b.stream} features lack", np.setdiff1d(a.keys_N, b.keys_N))
    _refuse(f"{b.stream} features have unexpected", np.setdiff1d(b.keys_N, a.keys_N))
    return b.ordered(a.keys_N)


def aligned(features: Sequence[Features], normalisation: str = "") -> dict[str, Features]:
    """Return the features of several streams by stream, in the key order of the first, as a fusion compares them.

    Raises errors as `align`.
    """
    first, *others = features
    return {one.stream: one.compared(normalisation) for one in (first, *(align(first, other) for other in others))}


def _check_rows(features: Features) -> None:
    keys, counts = np.unique(features.keys_N, return_counts=True)
    _refuse(f"{features.stream} features repeat", keys[counts > 1])
    finite_N = np.isfinite(features.features_ND).all(axis=1)
    _refuse(
        f"{features.stream} features are not finite for",
        features.keys_N[features.valid_N & ~finite_N],
    )


def _refuse(what: str, keys: NDArray[np.str_]) -> None:
    if keys.size:
        shown = ", ".join(keys[:SHOWN_KEYS])
        raise DataError(f"{what} {keys.size} keys: {shown}{', ...' * (keys.size > SHOWN_KEYS)}")
