"""Exact nearest gallery rows of queries under a fused distance, computed over blocks.

Legend: Q queries, G gallery rows, N tracklets, D and E feature lengths of the two streams, K nearest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.evaluation.fixed import FusedDistance

GALLERY_BLOCK = 65_536
QUERY_BLOCK = 64
EPSILON = float(np.finfo(np.float32).eps)

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]

ALONE = FusedDistance(1.0, 0.0, 1.0, 0.0)  # one stream as it is


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest gallery rows (Q, K) of each query, nearest first, and their distances.

    Row -1 fills missing places.
    """

    rows_QK: Ints
    distances_QK: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Compared:
    """Tracklets prepared for comparison: features of SSIN (N, D) and SMIN (N, E), and a mask of skeletons (N,).

    The SMIN features of every tracklet are finite. A single stream takes the place of SSIN, beside SMIN features of
    length 0 that are valid for all.
    """

    ssin_ND: Floats32
    smin_NE: Floats32
    valid_N: NDArray[np.bool_]

    @classmethod
    def alone(cls, features_ND: Floats32) -> "Compared":
        """Prepare the features of a single stream."""
        return cls(features_ND, np.empty((len(features_ND), 0), np.float32), np.ones(len(features_ND), np.bool_))

    def __len__(self) -> int:
        return len(self.valid_N)

    def rows(self, chosen: slice | NDArray[Any]) -> "Compared":
        """Select rows by slice, number or mask."""
        return Compared(self.ssin_ND[chosen], self.smin_NE[chosen], self.valid_N[chosen])

    def joined(self, distance: FusedDistance) -> Floats32:
        """Return rows (N, D + E) whose squared distances are the fused distances of tracklets with skeletons."""
        factors = (np.float32(factor**0.5) for factor in (distance.ssin, distance.smin))
        parts = (self.ssin_ND, self.smin_NE)
        return np.concatenate([f * x for f, x in zip(factors, parts, strict=True)], axis=1, dtype=np.float32)


def exact(query: Compared, gallery: Compared, count: int, distance: FusedDistance = ALONE) -> Nearest:
    """Find the nearest rows (Q, count), ties in row order, over blocks without holding a (Q, G) matrix."""
    return best_of(query, gallery, candidates_of(query, gallery, count, distance), count, distance)


def candidates_of(query: Compared, gallery: Compared, count: int, distance: FusedDistance) -> list[Ints]:
    """Return, for each query, the rows that can be among its nearest despite float32 rounding."""
    blocks = (query.rows(slice(at, at + QUERY_BLOCK)) for at in range(0, len(query), QUERY_BLOCK))
    return [rows_K for block in blocks for rows_K in _of_block(block, gallery, count, distance)]


def _of_block(query: Compared, gallery: Compared, count: int, distance: FusedDistance) -> list[Ints]:
    """Return the rows whose float32 distance is at most that of the last row wanted plus possible rounding errors."""
    rows = [np.empty(0, np.int64)] * len(query)
    near = [np.empty(0, np.float32)] * len(query)
    limits, slack = np.full(len(query), np.inf), 0.0
    for at in range(0, len(gallery), GALLERY_BLOCK):
        distance_QG, error = _rounded(query, gallery.rows(slice(at, at + GALLERY_BLOCK)), distance)
        slack = max(slack, 2 * error)
        for q, distance_G in enumerate(distance_QG):
            (inside,) = np.nonzero(distance_G <= limits[q])
            rows[q], near[q] = np.append(rows[q], inside + at), np.append(near[q], distance_G[inside])
            if len(near[q]) > count:
                limits[q] = np.partition(near[q], count - 1)[count - 1] + slack
                kept = near[q] <= limits[q]
                rows[q], near[q] = rows[q][kept], near[q][kept]
    return rows


def _rounded(query: Compared, gallery: Compared, distance: FusedDistance) -> tuple[Floats32, float]:
    """Compute distances (Q, G) in float32 and a bound of their error."""
    ssin_QG, ssin_error = _squared(query.ssin_ND, gallery.ssin_ND)
    smin_QG, smin_error = _squared(query.smin_NE, gallery.smin_NE)
    fused_QG = distance.of(ssin_QG, smin_QG, query.valid_N[:, None] & gallery.valid_N).astype(np.float32, copy=False)
    error = max(distance.ssin, distance.alone) * ssin_error + distance.smin * smin_error
    return fused_QG, error + 4 * EPSILON * (float(np.abs(fused_QG).max(initial=0)) + abs(distance.offset))


def _squared(query_QD: Floats32, gallery_GD: Floats32) -> tuple[Floats32, float]:
    """Compute squared distances (Q, G) and a bound of their error: a sum of D products can be off by D roundings."""
    squares_Q, squares_G = (np.einsum("nd,nd->n", rows, rows) for rows in (query_QD, gallery_GD))
    distance_QG = query_QD @ gallery_GD.T
    distance_QG *= -2
    distance_QG += squares_Q[:, None]
    distance_QG += squares_G
    longest = float(squares_Q.max(initial=0) + squares_G.max(initial=0))
    return distance_QG, (query_QD.shape[1] + 4) * EPSILON * longest


def best_of(
    query: Compared, gallery: Compared, candidates: Sequence[Ints], count: int, distance: FusedDistance
) -> Nearest:
    """Choose the nearest of each query's candidates by float64 distances; ties in row order."""
    rows_QK = np.full((len(query), count), -1)
    distances_QK = np.full((len(query), count), np.inf)
    for q, rows_K in enumerate(candidates):
        rows_K = np.sort(rows_K)
        found = gallery.rows(rows_K)
        parts = _apart(found.ssin_ND, query.ssin_ND[q]), _apart(found.smin_NE, query.smin_NE[q])
        distance_K = distance.of(*parts, query.valid_N[q] & found.valid_N)
        order = np.argsort(distance_K, kind="stable")[:count]
        rows_QK[q, : len(order)], distances_QK[q, : len(order)] = rows_K[order], distance_K[order]
    return Nearest(rows_QK, distances_QK)


def _apart(rows_KD: Floats32, query_D: Floats32) -> NDArray[np.float64]:
    apart_KD = rows_KD.astype(np.float64) - query_D
    return np.einsum("kd,kd->k", apart_KD, apart_KD)
