"""Rank-1 and average precision per query camera and gallery camera, as the official MARS code computes them.

These rules differ from every protocol of `sptskm.evaluation.protocols`. For one gallery camera, the rows of the query's
identity in that camera are correct and its rows in other cameras are not ranked. Every other row counts as wrong, also
junk of pid -1.
Shape suffixes: Q queries, G gallery rows, C cameras, P positives.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.evaluation.distances import Floats
from sptskm.evaluation.metrics import Rows, average_precisions


@dataclass(frozen=True, eq=False)
class CameraPairs:
    """Mean scores for each query camera (rows) and gallery camera (columns); NaN where a pair has no value.

    As in the official code, the means leave out average precisions of exactly 0, and the rank-1 of queries without a
    correct row. On the diagonal the first row of each ranking is taken to be the query itself.
    """

    cameras_C: NDArray[np.int64]
    ap_CC: NDArray[np.float64]
    rank1_CC: NDArray[np.float64]

    def summary(self) -> tuple[float, float]:
        """Return the mean average precision and mean rank-1 over all pairs of two different cameras with a value."""
        apart = ~np.eye(len(self.cameras_C), dtype=bool)
        ap, rank1 = (matrix[apart & ~np.isnan(matrix)] for matrix in (self.ap_CC, self.rank1_CC))
        return (float(ap.mean()) if ap.size else float("nan"), float(rank1.mean()) if rank1.size else float("nan"))


def camera_pairs(distance_QG: Floats, query: Rows, gallery: Rows) -> CameraPairs:
    """Compute both matrices from the distances (Q, G) to the whole test set, junk and queries included.

    Ties are broken by row order. Raises DataError for distances of another shape.
    """
    if distance_QG.shape != (len(query), len(gallery)):
        wanted = (len(query), len(gallery))
        raise DataError(f"distances are {distance_QG.shape}, wanted {wanted}: queries by gallery rows")
    cameras = np.unique(np.concatenate([query.camids, gallery.camids]))
    cells: dict[tuple[int, int], list[tuple[float, float]]] = {}
    place = {camera: number for number, camera in enumerate(cameras.tolist())}
    for row_G, pid, camera in zip(distance_QG, query.pids.tolist(), query.camids.tolist(), strict=True):
        order_G = np.argsort(row_G, kind="stable")
        places_P = np.flatnonzero(gallery.pids[order_G] == pid)  # of the identity, in the ranking
        camids_P = gallery.camids[order_G[places_P]].astype(np.int64)
        for other in cameras.tolist():
            cells.setdefault((place[camera], place[other]), []).append(_cell(places_P, camids_P, camera, other))
    ap_CC, rank1_CC = np.full((2, len(cameras), len(cameras)), np.nan)
    for at, judged in cells.items():
        ap, rank1 = np.array(judged).T
        ap_CC[at] = ap[ap > 0].mean() if (ap > 0).any() else np.nan
        rank1_CC[at] = np.nanmean(rank1) if not np.isnan(rank1).all() else np.nan
    return CameraPairs(cameras.astype(np.int64), ap_CC, rank1_CC)


def _cell(places_P: NDArray[np.int64], camids_P: NDArray[np.int64], camera: int, other: int) -> tuple[float, float]:
    """Return the average precision and rank-1 of one query for one gallery camera.

    Without a correct row the average precision is 0 and rank-1 is NaN.
    """
    good_P = camids_P == other
    ignored_P = ~good_P
    first_ignored = 0
    if other == camera:
        # whatever stands first is taken to be the query; it may be of another identity
        is_first_P = places_P == 0
        good_P, ignored_P = good_P & ~is_first_P, ignored_P & ~is_first_P
        first_ignored = 1
    if not good_P.any():
        return 0.0, float("nan")
    good, ignored = places_P[good_P], places_P[ignored_P]
    ranks = good + 1 - np.searchsorted(ignored, good) - first_ignored
    return float(average_precisions([ranks], "trapezoid")[0]), float(ranks[0] == 1)
