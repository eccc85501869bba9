"""Squared Euclidean distances in float64, with exact ties for identical rows.

Shape suffixes: Q queries, G gallery rows, D feature length.
"""

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


class SquaredDistances:
    """A gallery prepared once, to be compared with blocks of queries.

    A matrix product may give identical gallery rows results that differ in the last bit, by their
    place in the matrix. Every copy therefore takes the result of its first twin, so that ties stay
    ties, whatever the block size or the number of threads.
    """

    def __init__(self, gallery_GD: Floats) -> None:
        self._features_GD = _matrix("gallery", gallery_GD)
        self._squares_G = np.einsum("gd,gd->g", self._features_GD, self._features_GD)
        twin_G = _first_twins(self._features_GD)
        self._twin_G = None if np.array_equal(twin_G, np.arange(len(twin_G))) else twin_G

    def to(self, query_QD: Floats) -> NDArray[np.float64]:
        """Squared Euclidean distances (Q, G), never below 0.

        Raises ValueError for features that are not 2-D or not as long as those of the gallery.
        """
        query = _matrix("query", query_QD)
        if query.shape[1] != self._features_GD.shape[1]:
            raise ValueError(
                f"query features have {query.shape[1]} values, gallery features {self._features_GD.shape[1]}"
            )
        distance_QG = query @ self._features_GD.T
        distance_QG *= -2.0
        distance_QG += np.einsum("qd,qd->q", query, query)[:, None]
        distance_QG += self._squares_G
        np.maximum(distance_QG, 0.0, out=distance_QG)
        return distance_QG if self._twin_G is None else distance_QG[:, self._twin_G]


def squared_distances(query_QD: Floats, gallery_GD: Floats) -> NDArray[np.float64]:
    """Squared Euclidean distances (Q, G) in float64.

    Identical gallery rows get identical distances. Raises ValueError for features that are not 2-D
    or differ in length.
    """
    return SquaredDistances(gallery_GD).to(query_QD)


def _matrix(side: str, features: Floats) -> NDArray[np.float64]:
    matrix = np.asarray(features)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise ValueError(f"{side} features must be a real (rows, length) matrix, found {matrix.dtype} {matrix.shape}")
    return matrix.astype(np.float64, copy=False)


def _first_twins(features_GD: NDArray[np.float64]) -> NDArray[np.int64]:
    first: dict[bytes, int] = {}
    # Adding 0 turns -0.0 into 0.0: equal numbers, other bytes.
    digests = (blake2b((row + 0.0).tobytes(), digest_size=16).digest() for row in features_GD)
    return np.array([first.setdefault(key, row) for row, key in enumerate(digests)], np.int64)


def stream_distances(
    query_QD: Floats, gallery_GD: Floats, valid_Q: NDArray[np.bool_], valid_G: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Squared Euclidean distances (Q, G) of one stream; a tracklet without input is infinitely far from all."""
    both_QG = valid_Q[:, None] & valid_G
    return np.where(both_QG, squared_distances(query_QD, gallery_GD), np.inf)
