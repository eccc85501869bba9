"""Exact nearest gallery rows of queries under a fused distance, computed over blocks.

Legend: Q queries, G gallery rows, N tracklets, D feature length of a stream, K nearest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.evaluation.fusion import Flags, FusedDistance

GALLERY_BLOCK = 65_536
QUERY_BLOCK = 64
EPSILON = float(np.finfo(np.float32).eps)

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]

ALONE = FusedDistance.alone("")  # one stream as it is


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest gallery rows (Q, K) of each query, nearest first, and their distances.

    Row -1 fills missing places.
    """

    rows_QK: Ints
    distances_QK: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Compared:
    """Tracklets prepared for comparison: finite features (N, D) and flags of input (N,), by stream."""

    features: Mapping[str, Floats32]
    valid: Flags

    @classmethod
    def alone(cls, features_ND: Floats32) -> "Compared":
        """Prepare the features of a single stream, to be compared by ALONE."""
        return cls({"": features_ND}, {"": np.ones(len(features_ND), np.bool_)})

    def __len__(self) -> int:
        return len(next(iter(self.valid.values())))

    @cached_property
    def complete_N(self) -> NDArray[np.bool_]:
        """Return a mask (N,) of the tracklets with input of every stream."""
        found: NDArray[np.bool_] = np.logical_and.reduce([*self.valid.values()])
        return found

    def rows(self, chosen: slice | NDArray[Any]) -> "Compared":
        """Select rows by slice, number or mask."""
        features = {name: features_ND[chosen] for name, features_ND in self.features.items()}
        return Compared(features, {name: valid_N[chosen] for name, valid_N in self.valid.items()})

    def joined(self, distance: FusedDistance) -> Floats32:
        """Return rows (N, sum of D) whose squared distances are the fused distances of complete tracklets."""
        factors = distance.complete.factors.items()
        parts = [np.float32(factor**0.5) * self.features[name] for name, factor in factors]
        return np.concatenate(parts, axis=1, dtype=np.float32)


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
    parts = {name: _squared(query.features[name], gallery.features[name]) for name in query.features}
    apart = {name: distance_QG for name, (distance_QG, _) in parts.items()}
    fused_QG = distance.of(apart, query.valid, gallery.valid).astype(np.float32, copy=False)
    errors = (sum(factor * parts[name][1] for name, factor in term.factors.items()) for term in distance.terms)
    largest = float(np.abs(fused_QG).max(initial=0, where=np.isfinite(fused_QG)))
    offset = max(abs(term.offset) for term in distance.terms)
    return fused_QG, max(errors) + 4 * EPSILON * (largest + offset)


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
        found, one = gallery.rows(rows_K), query.rows(slice(q, q + 1))
        apart = {name: _apart(found.features[name], one.features[name]) for name in query.features}
        distance_K = distance.of(apart, one.valid, found.valid)[0]
        order = np.argsort(distance_K, kind="stable")[:count]
        order = order[distance_K[order] < np.inf]  # the others have no stream in common with the query
        rows_QK[q, : len(order)], distances_QK[q, : len(order)] = rows_K[order], distance_K[order]
    return Nearest(rows_QK, distances_QK)


def _apart(rows_KD: Floats32, query_1D: Floats32) -> NDArray[np.float64]:
    """Compute squared distances (1, K) in float64."""
    apart_KD = rows_KD.astype(np.float64) - query_1D
    return np.einsum("kd,kd->k", apart_KD, apart_KD)[None]
