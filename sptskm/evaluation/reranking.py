"""k-reciprocal re-ranking (Zhong et al., Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017).

It looks at the neighbours of the test tracklets among each other, so a re-ranked result is another kind of result than
a plain one: a query's ranking depends on which other queries there are.

Shape suffixes: N all tracklets, Q queries, G gallery rows, B rows of a block, K neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from sptskm.evaluation.distances import TILE, Floats

Distances = Callable[[int, int], Floats]
"""Distances (B, N) of the rows first to last (excluded) to all."""

GIGABYTES: Final = 1.0


@dataclass(frozen=True)
class Reranking:
    """The paper's parameters, with its values for Market-1501."""

    k1: int = 20
    """Neighbours that are looked at for reciprocity."""
    k2: int = 6
    """Neighbours over which the encoding is averaged, the tracklet itself among them; 1 = not averaged."""
    share: float = 0.3
    """Of the distance given, beside the Jaccard distance (lambda in the paper)."""

    def __post_init__(self) -> None:
        if self.k1 < 1 or self.k2 < 1 or not 0 <= self.share <= 1:
            raise ValueError(
                f"k1, k2 and share of re-ranking are {self.k1}, {self.k2} and {self.share}, "
                "wanted at least 1, at least 1 and a share: 0 to 1"
            )


def rerank(
    distances: Distances,
    query_rows_Q: NDArray[np.int64],
    gallery_rows_G: NDArray[np.int64],
    num_rows: int,
    how: Reranking = Reranking(),
    gigabytes: float = GIGABYTES,
) -> NDArray[np.float64]:
    """New distances (Q, G) of some rows of a table to others, smaller is nearer.

    `distances` gives those of the whole table (N, N), symmetric and finite, in blocks; each row is divided by its
    largest, as exp(-d) wants numbers without unit. A tracklet is its own first neighbour; ties go to the lower row.
    Beside the result, what is held is a block of distances and the neighbours of every row. Raises ValueError, with the
    memory needed, where `gigabytes` (2^30 bytes) do not hold them.
    """
    block = _block(num_rows, how, gigabytes)
    near_NK = _neighbours(distances, num_rows, how, block)
    encoding = _encoding(distances, near_NK, how, block)
    if how.k2 > 1:
        encoding = _averaging(near_NK[:, : how.k2]) @ encoding
    by_column = encoding[gallery_rows_G].tocsc()
    found_QG = np.empty((len(query_rows_Q), len(gallery_rows_G)))
    for place, row in enumerate(query_rows_Q.tolist()):
        own_N = np.asarray(distances(row, row + 1), np.float64)[0]
        jaccard_G = 1 - _shared(encoding, row, by_column)
        found_QG[place] = (1 - how.share) * jaccard_G + how.share * own_N[gallery_rows_G] / _largest(own_N)
    return found_QG


def _block(num_rows: int, how: Reranking, gigabytes: float) -> int:
    """Rows of a block."""
    # per row of the block: distances, their order and what partitioning copies; per row of the table: its neighbours,
    # and an encoding that is seldom longer than this
    held = num_rows * (16 * (how.k1 + 1) + 12 * 8 * (how.k1 + 1)) / 2**30
    row = 24 * num_rows / 2**30
    if gigabytes < held + row:
        raise ValueError(
            f"re-ranking {num_rows} tracklets needs {held + row:.3g} GiB beside the features, allowed are {gigabytes:g}"
        )
    return max(1, min(TILE * 16, int((gigabytes - held) / row)))


def _largest(row_N: Floats) -> float:
    return float(row_N.max()) or 1.0


def _neighbours(distances: Distances, num_rows: int, how: Reranking, block: int) -> NDArray[np.int64]:
    """Every row itself and then the k1 nearest to it (N, K)."""
    count = min(how.k1 + 1, num_rows)
    near_NK = np.empty((num_rows, count), np.int64)
    for first in range(0, num_rows, block):
        last = min(first + block, num_rows)
        for row, own_N in enumerate(np.array(distances(first, last), np.float64), first):
            if not np.isfinite(own_N).all():
                raise ValueError(f"distances of row {row} are not finite, which re-ranking wants them to be")
            own_N[row] = -np.inf  # whatever stands at no distance from it
            near = np.flatnonzero(own_N <= np.partition(own_N, count - 1)[count - 1])  # more than count in a tie
            near_NK[row] = near[np.argsort(own_N[near], kind="stable")][:count]
    return near_NK


def _encoding(distances: Distances, near_NK: NDArray[np.int64], how: Reranking, block: int) -> scipy.sparse.csr_array:
    """exp(-d) over the extended reciprocal neighbours of every row (N, N); each row sums to 1 as in the authors' code.

    R(p, k) are the neighbours that have p among their k own. Those of a neighbour q, R(q, k1 / 2), are added to
    R(p, k1) where at least two thirds of them are in it already.
    """
    num_rows, half = len(near_NK), round(how.k1 / 2)
    few = [_reciprocal(near_NK[:, : half + 1], row) for row in range(num_rows)]
    starts, columns, values = [0], [], []
    for first in range(0, num_rows, block):
        for row, own_N in enumerate(distances(first, min(first + block, num_rows)), first):
            mutual = _reciprocal(near_NK, row)
            more = [few[q] for q in mutual.tolist() if 3 * np.isin(few[q], mutual).sum() >= 2 * len(few[q])]
            kept = np.unique(np.concatenate([mutual, *more]))
            weights = np.exp(-np.asarray(own_N, np.float64)[kept] / _largest(own_N))
            columns.append(kept)
            values.append(weights / weights.sum())
            starts.append(starts[-1] + len(kept))
    return scipy.sparse.csr_array((np.concatenate(values), np.concatenate(columns), starts), shape=(num_rows, num_rows))


def _reciprocal(near_NK: NDArray[np.int64], row: int) -> NDArray[np.int64]:
    """The neighbours of a row that have it as a neighbour too; it is one of them."""
    near_K = near_NK[row]
    return near_K[(near_NK[near_K] == row).any(axis=1)]


def _averaging(near_NK: NDArray[np.int64]) -> scipy.sparse.csr_array:
    """The matrix (N, N) that takes the mean over the neighbours of every row."""
    num_rows, count = near_NK.shape
    starts = np.arange(0, near_NK.size + 1, count)
    ones = np.full(near_NK.size, 1 / count)
    return scipy.sparse.csr_array((ones, near_NK.ravel(), starts), shape=(num_rows, num_rows))


def _shared(encoding: scipy.sparse.csr_array, row: int, by_column: scipy.sparse.csc_array) -> NDArray[np.float64]:
    """Sum of minima over sum of maxima of the encodings of a row and of each gallery row (G,)."""
    least_G = np.zeros(by_column.shape[0])
    for at in range(encoding.indptr[row], encoding.indptr[row + 1]):
        part = slice(*by_column.indptr[encoding.indices[at] : encoding.indices[at] + 2])
        least_G[by_column.indices[part]] += np.minimum(by_column.data[part], encoding.data[at])
    return least_G / (2 - least_G)  # both sum to 1
