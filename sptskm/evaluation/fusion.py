"""Fusion of the two streams: features are joined by tracklet key and their distances combined.

Normalisation constants come from the distance matrix at hand. They use its distances and validity flags but no identity
and no camera, so they may be computed at test time.

Shape suffixes: N tracklets, Q queries, G gallery rows, D feature length, W weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.evaluation.distances import Floats
from sptskm.evaluation.metrics import Rows, evaluate

Normalisation = Literal["zscore", "minmax", "rank", "concat"]

SHOWN_KEYS: Final = 3
WEIGHTS: Final = tuple(step / 20 for step in range(21))
SAME_MAP: Final = 1e-12


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
    sorted_b = np.argsort(b.keys_N)
    order = sorted_b[np.searchsorted(b.keys_N, a.keys_N, sorter=sorted_b)]
    return Features(b.features_ND[order], b.keys_N[order], b.valid_N[order], b.fingerprint, b.stream)


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


@dataclass(frozen=True, eq=False)
class StreamDistances:
    """Distances of both streams for the same queries and gallery rows.

    ssin_QG, smin_QG: smaller is nearer.
    valid_query_Q, valid_gallery_G: the tracklet has a skeleton; SMIN distances of other pairs are ignored.
    Raises DataError when the shapes do not fit, when no pair has skeletons on both sides, and for a stream that is
    constant or not finite over the pairs with skeletons (SSIN: not finite anywhere).
    """

    ssin_QG: Floats
    smin_QG: Floats
    valid_query_Q: NDArray[np.bool_]
    valid_gallery_G: NDArray[np.bool_]

    def __post_init__(self) -> None:
        wanted = (*self.valid_query_Q.shape, *self.valid_gallery_G.shape)
        if not self.ssin_QG.shape == self.smin_QG.shape == wanted or len(wanted) != 2:
            raise DataError(
                f"distances must be (Q, G) = {wanted} as the valid flags say, found "
                f"ssin {self.ssin_QG.shape}, smin {self.smin_QG.shape}"
            )
        if {self.valid_query_Q.dtype, self.valid_gallery_G.dtype} != {np.dtype(np.bool_)}:
            raise DataError("the valid flags must be boolean arrays")
        if not (self.valid_query_Q.any() and self.valid_gallery_G.any()):
            raise DataError("no pair has a valid skeleton on both sides; evaluate ssin alone")
        if not np.isfinite(self.ssin_QG).all():
            raise DataError("ssin distances must be finite everywhere, found NaN or infinity")
        for stream, distance_QG in (("ssin", self.ssin_QG), ("smin", self.smin_QG)):
            _check_spread(stream, self.where_valid(distance_QG))

    def where_valid(self, matrix_QG: Floats) -> Floats:
        """Return the part of a matrix whose queries and gallery rows both have a skeleton."""
        if self.valid_query_Q.all() and self.valid_gallery_G.all():
            return matrix_QG
        return matrix_QG[np.ix_(self.valid_query_Q, self.valid_gallery_G)]


def _check_spread(stream: str, distance: Floats) -> None:
    low, high = distance.min(), distance.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{stream} distances of valid pairs must be finite, found NaN or infinity")
    if low == high:
        raise DataError(f"{stream} distances are all {low}: a constant stream cannot be fused")


def fuse(
    distance_ssin_QG: Floats,
    distance_smin_QG: Floats,
    valid_query_Q: NDArray[np.bool_],
    valid_gallery_G: NDArray[np.bool_],
    weight: float,
    normalisation: Normalisation = "zscore",
) -> NDArray[np.float64]:
    """Compute fused distances (Q, G) for ranking: (1 - weight) * n(ssin) + weight * n(smin).

    The normalisation n is one of:
        "zscore", "minmax": z-score or scaling to 0..1, with constants over the pairs whose query and gallery tracklet
        both have a skeleton.
        "rank": the place among the query's distances to gallery tracklets with skeletons, from 0 to 1.
        "concat": the distance itself. For squared distances of features of length 1, the result is the squared distance
        of the concatenated features, with weights whose squares are 1 - weight and weight.
    Pairs without a skeleton on both sides use SSIN alone, scaled to the mean and standard deviation of the fused
    distances of the pairs with skeletons.
    Raises DataError for a weight outside 0..1, an unknown normalisation, and as StreamDistances.
    """
    streams = StreamDistances(distance_ssin_QG, distance_smin_QG, valid_query_Q, valid_gallery_G)
    return _Fusion(streams, normalisation).at(weight)


def precision_table(
    streams: StreamDistances,
    query: Rows,
    gallery: Rows,
    protocol: str = "mars-official",
    weights: Sequence[float] = WEIGHTS,
    normalisation: Normalisation = "zscore",
) -> NDArray[np.float64]:
    """Compute the average precision (W, Q) of every query at every fusion weight; NaN for skipped queries.

    Raises errors as `fuse`.
    """
    fusion = _Fusion(streams, normalisation)
    table = [evaluate(fusion.at(weight), query, gallery, protocol).ap_Q for weight in weights]
    return np.reshape(table, (len(weights), len(query)))


def choose_weight(
    precision_WQ: NDArray[np.float64], weights: Sequence[float] = WEIGHTS
) -> tuple[float, NDArray[np.float64]]:
    """Return the fusion weight with the highest mAP, and the curve (W, 2) of weight and mAP.

    precision_WQ is a table of `precision_table`. Among equal mAPs the weight nearest to 0.5 wins: where the data cannot
    decide, both streams are used. Of two equally near weights the lower one wins, because SSIN never lacks an input.
    Raises DataError for an empty grid, and when no query has a positive.
    """
    if not len(weights):
        raise DataError("the grid of fusion weights is empty")
    counted_Q = ~np.isnan(precision_WQ[0])
    if not (precision_WQ > 0).any():  # nor with zeros for those that have nothing to be found
        raise DataError("no validation query has a positive; a fusion weight cannot be chosen")
    curve_W2 = np.array([weights, [row_Q[counted_Q].mean() for row_Q in precision_WQ]], np.float64).T
    return best_weight(curve_W2), curve_W2


def best_weight(curve_W2: NDArray[np.float64]) -> float:
    """Return the weight with the highest score on a curve (W, 2); ties are broken as in `choose_weight`."""
    tied = curve_W2[curve_W2[:, 1] >= curve_W2[:, 1].max() - SAME_MAP, 0]
    return min(map(float, tied), key=lambda weight: (round(abs(weight - 0.5), 9), weight))


class _Fusion:
    """Distances of both streams, normalised once and combined at any weight."""

    def __init__(self, streams: StreamDistances, normalisation: Normalisation) -> None:
        if normalisation not in (legal := get_args(Normalisation)):
            raise DataError(f"normalisation must be one of {', '.join(legal)}, found {normalisation!r}")
        self._streams = streams
        self._both_QG = streams.valid_query_Q[:, None] & streams.valid_gallery_G
        self._ssin_QG = self._normalised(streams.ssin_QG, normalisation)
        # What stands in for a pair without skeletons may be NaN; it is never used.
        self._smin_QG = self._normalised(np.where(self._both_QG, streams.smin_QG, 0), normalisation)

    def _normalised(self, distance_QG: Floats, normalisation: str) -> NDArray[np.float64]:
        distance = distance_QG.astype(np.float64)
        if normalisation == "concat":
            return distance
        if normalisation == "rank":
            return np.stack([_places(row_G, row_G[self._streams.valid_gallery_G]) for row_G in distance])
        valid = self._streams.where_valid(distance)
        if normalisation == "zscore":
            shift, scale = valid.mean(), valid.std()
        else:
            shift, scale = valid.min(), valid.max() - valid.min()
        distance -= shift
        distance /= scale
        return distance

    def at(self, weight: float) -> NDArray[np.float64]:
        if not 0.0 <= weight <= 1.0:
            raise DataError(f"the fusion weight must be in 0..1, found {weight}")
        fused_QG = (1.0 - weight) * self._ssin_QG + weight * self._smin_QG
        if self._both_QG.all():
            return fused_QG
        # A sum of two imperfectly correlated z-scores spreads less than one z-score, so n(ssin)
        # itself would push pairs without skeletons to both ends of a query's ranking. With the
        # mean and spread of the fused pairs, a wrong pair is as likely below any threshold
        # whether or not it has skeletons. At weight 0 this is n(ssin) again; a query without a
        # skeleton is ranked by SSIN at any weight.
        fused = self._streams.where_valid(fused_QG)
        ssin = self._streams.where_valid(self._ssin_QG)
        # one gallery tracklet with a skeleton has one place
        scale = fused.std() / ssin.std() if ssin.std() else 1.0
        fallback_QG = (self._ssin_QG - ssin.mean()) * scale + fused.mean()
        return np.where(self._both_QG, fused_QG, fallback_QG)


def _places(row_G: NDArray[np.float64], among_G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the places of distances (G,) among other distances of the same query, from 0 (nearest) to 1.

    Equal distances share a place. Distances between two places are interpolated. Distances outside continue with the
    overall slope, so that a nearer tracklet always gets the lower place.
    """
    values, counts = np.unique(among_G, return_counts=True)
    places = (np.cumsum(counts) - (counts + 1) / 2) / max(len(among_G) - 1, 1)
    low, high = values[0], values[-1]
    beyond_G = np.minimum(row_G - low, 0) + np.maximum(row_G - high, 0)
    found_G: NDArray[np.float64] = np.interp(row_G, values, places) + beyond_G / ((high - low) or 1.0)
    return found_G
