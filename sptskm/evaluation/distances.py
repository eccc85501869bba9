"""Squared Euclidean distances in float64, with exact ties for identical rows.

Shape suffixes: Q queries, G gallery rows, D feature length, T queries of a tile, S gallery rows of a strip, C gallery
rows that repeat an earlier row.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError

Floats = NDArray[np.floating[Any]]

TILE: Final = 64
STRIP: Final = 2048


Doubles = NDArray[np.float64]
Multiplier = Callable[[Doubles], Callable[[Doubles], Doubles]]


class SquaredDistances:
    """A gallery that is prepared once and then compared with blocks of queries.

    A matrix product can give results that differ in the last bit for the same pair, depending on the shape of the
    matrices and the position in them. All products therefore have one shape, TILE queries by STRIP gallery rows, padded
    with zeros, and a repeated gallery row takes the result of its first occurrence. So ties stay ties, and distances do
    not depend on the block of queries if blocks start at multiples of TILE. Only one strip is held in float64.
    `multiplier` takes a strip (D, S) and returns a function from tiles (T, D) to their products (T, S). The default
    multiplies with NumPy.
    """

    def __init__(self, gallery_GD: Floats, multiplier: Multiplier | None = None) -> None:
        self._features_GD = _matrix("gallery", gallery_GD)
        self._multiplier = multiplier or _multiplier
        twin_G = _first_twins(self._features_GD)
        self._copies_C = np.flatnonzero(twin_G != np.arange(len(twin_G)))
        self._twins_C = twin_G[self._copies_C]

    def __len__(self) -> int:
        return len(self._features_GD)

    def to(self, query_QD: Floats) -> NDArray[np.float64]:
        """Compute the squared Euclidean distances (Q, G); they are never below 0.

        Raises DataError for features that are not 2-D or differ in length from those of the gallery.
        """
        query = _matrix("query", query_QD)
        if query.shape[1] != self._features_GD.shape[1]:
            raise DataError(
                f"query features have {query.shape[1]} values, gallery features {self._features_GD.shape[1]}"
            )
        distance_QG = np.empty((len(query), len(self._features_GD)))
        for first in range(0, len(self._features_GD), STRIP):
            strip_DS = np.ascontiguousarray(_filled(self._features_GD[first : first + STRIP], STRIP).T)
            squares_S = np.einsum("ds,ds->s", strip_DS, strip_DS)
            times_strip = self._multiplier(strip_DS)
            for start in range(0, len(query), TILE):
                place_TS = distance_QG[start : start + TILE, first : first + STRIP]
                tile_TD = _filled(query[start : start + TILE], TILE)
                product_TS = times_strip(tile_TD)
                product_TS *= -2.0
                product_TS += np.einsum("td,td->t", tile_TD, tile_TD)[:, None]
                product_TS += squares_S
                np.maximum(product_TS[: place_TS.shape[0], : place_TS.shape[1]], 0.0, out=place_TS)
        if self._copies_C.size:
            for row_G in distance_QG:
                row_G[self._copies_C] = row_G[self._twins_C]
        return distance_QG


def _multiplier(strip_DS: Doubles) -> Callable[[Doubles], Doubles]:
    return lambda tile_TD: tile_TD @ strip_DS


def _filled(rows: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return the rows in float64, padded with rows of zeros to `count`."""
    filled = np.zeros((count, rows.shape[1]))
    filled[: len(rows)] = rows
    return filled


def squared_distances(query_QD: Floats, gallery_GD: Floats) -> NDArray[np.float64]:
    """Compute squared Euclidean distances (Q, G) in float64.

    Identical gallery rows get identical distances. Raises DataError for features that are not 2-D or differ in length.
    """
    return SquaredDistances(gallery_GD).to(query_QD)


def _matrix(side: str, features: Floats) -> NDArray[Any]:
    matrix = np.asarray(features)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise DataError(f"{side} features must be a real (rows, length) matrix, found {matrix.dtype} {matrix.shape}")
    return matrix


def _first_twins(features_GD: NDArray[Any]) -> NDArray[np.int64]:
    first: dict[bytes, int] = {}
    # Adding 0 turns -0.0 into 0.0: equal numbers, other bytes.
    digests = (blake2b((row + 0.0).tobytes(), digest_size=16).digest() for row in features_GD)
    return np.array([first.setdefault(key, row) for row, key in enumerate(digests)], np.int64)


def stream_distances(
    query_QD: Floats, gallery_GD: Floats, valid_Q: NDArray[np.bool_], valid_G: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Compute the squared Euclidean distances (Q, G) of one stream.

    The distance is infinite where the query or the gallery tracklet has no input.
    """
    both_QG = valid_Q[:, None] & valid_G
    return np.where(both_QG, squared_distances(query_QD, gallery_GD), np.inf)
