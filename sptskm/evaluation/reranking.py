"""k-reciprocal re-ranking (Zhong et al., Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017).

It uses the neighbours of the test tracklets among each other. Unlike in a plain result, a query's ranking therefore
depends on the other queries.

Shape suffixes: N all tracklets, Q queries, G gallery rows, B rows of a block, K neighbours, E entries of an encoding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array, vstack

from sptskm.common.errors import DataError
from sptskm.evaluation.distances import TILE, Floats, SquaredDistances
from sptskm.evaluation.fusion import Flags, FusedDistance

DistanceBlocks = Callable[[int, int], Floats]
"""Function that returns the distances (B, N) of rows `first` to `last` (excluded) to all rows.

A block starts at a multiple of TILE.
"""

GIGABYTES: Final = 1.0
MOST_TILES: Final = 4  # of a block; more gain nothing
PART: Final = 1024  # rows whose sparse matrices are held together


@dataclass(frozen=True)
class Reranking:
    """Parameters of the paper, with its values for Market-1501."""

    k1: int = 20
    """Number of neighbours checked for reciprocity."""
    k2: int = 6
    """Number of neighbours, the tracklet itself included, over which the encoding is averaged; 1 means no averaging."""
    share: float = 0.3
    """Weight of the given distance beside the Jaccard distance (lambda in the paper)."""

    def __post_init__(self) -> None:
        if self.k1 < 1 or self.k2 < 1 or not 0 <= self.share <= 1:
            raise DataError(
                f"k1, k2 and share of re-ranking are {self.k1}, {self.k2} and {self.share}, "
                "wanted at least 1, at least 1 and a share: 0 to 1"
            )


def feature_distances(features_ND: Floats) -> DistanceBlocks:
    """Return a function that computes squared Euclidean distances among features in blocks."""
    everyone = SquaredDistances(features_ND)
    return lambda first, last: everyone.to(features_ND[first:last])


def fused_distances(features: Mapping[str, Floats], valid: Flags, fused: FusedDistance) -> DistanceBlocks:
    """Return a function that computes fused distances among the same tracklets in blocks.

    `features` (N, D) and flags of input `valid` (N,) are by stream. A tracklet is at distance 0 from itself.
    """
    streams = {name: feature_distances(features_ND) for name, features_ND in features.items()}

    def block(first: int, last: int) -> Floats:
        distance = {name: one(first, last) for name, one in streams.items()}
        fused_BN = next(iter(distance.values()))
        for place, row in enumerate(range(first, last)):
            own = slice(place, place + 1)
            flags = {name: valid_N[row : row + 1] for name, valid_N in valid.items()}
            fused_BN[own] = fused.of({name: matrix_BN[own] for name, matrix_BN in distance.items()}, flags, valid)
            fused_BN[place, row] = 0  # also of a tracklet that is not complete
        return fused_BN

    return block


def rerank(
    distances: DistanceBlocks,
    query_rows_Q: NDArray[np.int64],
    gallery_rows_G: NDArray[np.int64],
    num_rows: int,
    how: Reranking = Reranking(),
    gigabytes: float = GIGABYTES,
) -> NDArray[np.float64]:
    """Compute re-ranked distances (Q, G) between rows of a table; smaller is nearer.

    `distances` computes the distances of the whole table (N, N), symmetric and finite, in blocks; every block is
    computed twice. Each row is divided by its maximum, because exp(-d) needs numbers without a unit. A tracklet is its
    own first neighbour; ties go to the lower row.
    Besides the result, memory holds one block of distances and the neighbours and encoding of every row. Raises
    DataError for distances that are not finite, and, with the memory needed, where the most that can be held does not
    fit into `gigabytes` (2^30 bytes).
    """
    block = _block(num_rows, len(query_rows_Q), how, gigabytes)
    near_NK = _neighbours(distances, num_rows, how, block)
    encoding = _extended(near_NK, how)
    found_QG = np.empty((len(query_rows_Q), len(gallery_rows_G)))
    for first in range(0, num_rows, block):
        last = min(first + block, num_rows)
        near_BN = distances(first, last)
        _weigh(encoding, first, near_BN)
        for place in np.flatnonzero((query_rows_Q >= first) & (query_rows_Q < last)).tolist():
            own_N = near_BN[query_rows_Q[place] - first]
            found_QG[place] = how.share * own_N[gallery_rows_G] / _largest(own_N)
        del near_BN  # before there is the next one
    _add_jaccard(found_QG, encoding, near_NK, (query_rows_Q, gallery_rows_G), how)
    return found_QG


def check_memory(num_rows: int, num_queries: int, gigabytes: float = GIGABYTES) -> None:
    """Raise DataError, with the memory needed, where re-ranking this many rows would be refused."""
    _block(num_rows, num_queries, Reranking(), gigabytes)


def _block(num_rows: int, num_queries: int, how: Reranking, gigabytes: float) -> int:
    """Return the number of rows in a block of distances, a multiple of TILE.

    Raises DataError where the memory does not suffice.
    """
    # the longest encodings that there can be: each neighbour adds at most a third of its own half as many
    entries = (how.k1 + 1) * (1 + (round(how.k1 / 2) + 1) // 3)
    averaged = 16 * how.k2 * entries  # bytes of a row
    # of every row: its neighbours, them as two sparse matrices and what made these, and its encoding, copied once
    held = num_rows * ((8 + 4 * 16) * (how.k1 + 1) + 2 * 16 * entries)
    # of a part: what looks for extensions, and averaged encodings by row and by column; of queries: by row
    held += min(num_rows, PART) * (2 * 16 * (how.k1 + 1) ** 2 + 2 * averaged) + num_queries * averaged
    tile = TILE * 24 * max(num_rows, 1)  # its distances, and twice as much for `distances` to make them
    allowed = int(gigabytes * 2**30)
    if allowed < held + tile:
        raise DataError(
            f"re-ranking {num_rows} tracklets needs {(held + tile) / 2**30:.3g} GiB beside the features and the "
            f"result, allowed are {gigabytes:g}"
        )
    return min(MOST_TILES, (allowed - held) // tile) * TILE


def _largest(row_N: Floats) -> float:
    return float(row_N.max()) or 1.0


def _neighbours(distances: DistanceBlocks, num_rows: int, how: Reranking, block: int) -> NDArray[np.int64]:
    """Return the neighbours (N, K) of every row: the row itself, then the k1 rows nearest to it."""
    count = min(how.k1 + 1, num_rows)
    near_NK = np.empty((num_rows, count), np.int64)
    for first in range(0, num_rows, block):
        for row, given_N in enumerate(distances(first, min(first + block, num_rows)), first):
            own_N = np.array(given_N, np.float64)
            if not np.isfinite(own_N).all():
                raise DataError(f"distances of row {row} are not finite, which re-ranking wants them to be")
            own_N[row] = -np.inf  # whatever stands at no distance from it
            near = np.flatnonzero(own_N <= np.partition(own_N, count - 1)[count - 1])  # more than count in a tie
            near_NK[row] = near[np.argsort(own_N[near], kind="stable")][:count]
    return near_NK


def _extended(near_NK: NDArray[np.int64], how: Reranking) -> csr_array:
    """Return the extended reciprocal neighbours of every row as a sparse matrix (N, N) of ones.

    R(p, k) are those of the k neighbours of p that have p among their own k neighbours. For every q in R(p, k1), R(q,
    k1 / 2) is added to R(p, k1) if at least two thirds of it are already there.
    """
    many, few = (_reciprocal(near_NK[:, : k + 1]) for k in (how.k1, round(how.k1 / 2)))
    parts = [_with_few(many[first : first + PART], few) for first in range(0, len(near_NK), PART)]
    return csr_array(vstack(parts, "csr"), dtype=np.float64)


def _with_few(many: csr_array, few: csr_array) -> csr_array:
    """Return R(p, k1) of some rows, extended."""
    in_both = csr_array((many @ few).multiply(many))  # how many of R(q, k1 / 2) are in R(p, k1), for q in R(p, k1)
    in_both.data = 3 * in_both.data >= 2 * np.diff(few.indptr)[in_both.indices]
    in_both.eliminate_zeros()
    return csr_array(many + in_both @ few)


def _reciprocal(near_NK: NDArray[np.int64]) -> csr_array:
    """Return the reciprocal neighbours of every row as a sparse matrix (N, N); the row itself is one of them."""
    near = _sparse(near_NK, np.ones(near_NK.size, np.int32), len(near_NK))
    return csr_array(near.multiply(near.T))


def _sparse(columns_NK: NDArray[np.int64], values: NDArray[Any], num_columns: int) -> csr_array:
    """Build a sparse matrix with the same number of entries in every row."""
    starts = np.arange(0, columns_NK.size + 1, columns_NK.shape[1])
    return csr_array((values, columns_NK.ravel(), starts), shape=(len(columns_NK), num_columns))


def _weigh(encoding: csr_array, first: int, distance_BN: Floats) -> None:
    """Set the entries of some rows of an encoding to exp(-d); each row sums to 1, as in the authors' code."""
    for row, own_N in enumerate(distance_BN, first):
        part = slice(encoding.indptr[row], encoding.indptr[row + 1])
        weights_E = np.exp(-np.asarray(own_N, np.float64)[encoding.indices[part]] / _largest(own_N))
        encoding.data[part] = weights_E / weights_E.sum()


def _add_jaccard(
    found_QG: NDArray[np.float64],
    encoding: csr_array,
    near_NK: NDArray[np.int64],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    how: Reranking,
) -> None:
    """Add the weighted Jaccard distance to found_QG, one part of the gallery at a time.

    rows: row numbers of the queries and of the gallery.
    """
    query_rows_Q, gallery_rows_G = rows
    queries = _averaged(encoding, near_NK[query_rows_Q, : how.k2])
    for first in range(0, len(gallery_rows_G), PART):
        part = slice(first, first + PART)
        by_column = csc_array(_averaged(encoding, near_NK[gallery_rows_G[part], : how.k2]))
        for found_G, start, stop in zip(found_QG, queries.indptr, queries.indptr[1:], strict=False):
            shared_G = _shared(queries.indices[start:stop], queries.data[start:stop], by_column)
            found_G[part] += (1 - how.share) * (1 - shared_G)


def _averaged(encoding: csr_array, near_MK: NDArray[np.int64]) -> csr_array:
    """Return the mean encoding of the given neighbours of each row."""
    return _sparse(near_MK, np.full(near_MK.size, 1 / near_MK.shape[1]), encoding.shape[0]) @ encoding


def _shared(columns_E: NDArray[np.int32], values_E: NDArray[np.float64], gallery: csc_array) -> NDArray[np.float64]:
    """Return the sum of minima over the sum of maxima (G,) of a row's encoding and each gallery row's encoding."""
    common = gallery[:, columns_E]
    least = np.minimum(common.data, np.repeat(values_E, np.diff(common.indptr)))
    least_G = np.bincount(common.indices, least, gallery.shape[0])
    return least_G / (2 - least_G)  # both sum to 1
