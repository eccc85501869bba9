"""All skeletons of some tracklets in memory: MARS is small enough (16 floats a joint row, 1.2 M frames).

Legend: F frames of one tracklet, M frames of all, V joints.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sptskm.data.errors import DataError
from sptskm.data.files import SKELETON_SHAPE, read_skeleton
from sptskm.data.skeletons import normalise
from sptskm.data.tracklets import IntArray, Tracklets


@dataclass(frozen=True, eq=False)
class SkeletonStore:
    """Skeletons by row of the table; frames without a skeleton are zeros and not valid."""

    starts: dict[int, int]
    lengths: dict[int, int]
    values_MV4: NDArray[np.float32]
    valid_M: NDArray[np.bool_]

    def frames(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(F, 14, 4) and (F,) of a tracklet."""
        where = slice(self.starts[row], self.starts[row] + self.lengths[row])
        return self.values_MV4[where], self.valid_M[where]

    def has_any(self, rows: IntArray) -> NDArray[np.bool_]:
        """Whether each of `rows` has at least one valid frame."""
        return np.array([self.frames(int(row))[1].any() for row in rows], dtype=bool)


def load_skeletons(table: Tracklets, rows: IntArray, normalised: bool = True, first_frames: int = 0) -> SkeletonStore:
    """Read every skeleton of `rows`; a missing file or a NaN is a frame without one.

    Raises DataError for a corrupt file, and when no tracklet has any skeleton at all.
    """
    wanted = table.lengths[rows] if first_frames == 0 else np.minimum(table.lengths[rows], first_frames)
    starts = np.concatenate([[0], np.cumsum(wanted)])
    values = np.zeros((starts[-1], *SKELETON_SHAPE), np.float32)
    for row, start, length in zip(tqdm(rows, "skeletons", disable=None), starts, wanted, strict=False):
        values[start : start + length] = _read_tracklet(table, int(row), int(length), normalised)
    valid: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=(1, 2)))
    if not valid.any():
        folder = table.folder(int(rows[0]), "skeletons") if len(rows) else "no tracklets"
        raise DataError(f"{folder}: no skeleton found for any of {len(rows)} tracklets")
    values[~valid] = 0
    places = [int(row) for row in rows]
    return SkeletonStore(
        dict(zip(places, starts[:-1].tolist(), strict=True)),
        dict(zip(places, wanted.tolist(), strict=True)),
        values,
        valid,
    )


def _read_tracklet(table: Tracklets, row: int, length: int, normalised: bool) -> NDArray[np.float64]:
    skeletons = np.full((length, *SKELETON_SHAPE), np.nan)
    for frame in range(length):
        path = table.path(row, frame, "skeletons")
        if path.is_file():
            skeletons[frame] = read_skeleton(path)
    skeletons[~np.isfinite(skeletons).all(axis=(1, 2))] = np.nan
    # an all-zero skeleton is how some estimators write "nobody found"
    skeletons[~skeletons[..., :3].any(axis=(1, 2))] = np.nan
    try:
        return normalise(skeletons) if normalised else skeletons
    except ValueError as error:
        raise DataError(f"tracklet {table.keys_N[row]} in {table.folder(row, 'skeletons')}: {error}") from None
