"""Choice of a fusion on held-out identities: the normalisation of the distances, and the weights of the streams.

Shape suffixes: Q queries, S streams, W weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.evaluation.calibration import Calibration, calibrate
from sptskm.evaluation.fusion import (
    Distances,
    FusedDistance,
    Normalisation,
    NormalisedDistances,
    StreamDistances,
    Weights,
)
from sptskm.evaluation.metrics import Rows, evaluate, not_ranked
from sptskm.evaluation.offering import Offer, offer
from sptskm.evaluation.protocols import OFFICIAL, Protocol

STEP: Final = 0.05
SAME_MAP: Final = 1e-12
NO_SLOPE: Final = 1e-9
"""Slope of a stream that says nothing, so that it can still be divided by."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """A normalisation and its best weights on held-out identities, and which ranking these identities recommend.

    curve_WS: for each weighting that was tried, the weights of all streams but the first, and the mAP.
    """

    normalisation: Normalisation
    weights: Weights
    curve_WS: NDArray[np.float64]
    offer: Offer
    slopes: Mapping[str, float] | None = None
    """Of "calibrated"."""

    @property
    def mAP(self) -> float:
        """Return the highest mAP on the held-out identities."""
        return float(self.curve_WS[:, -1].max())


@dataclass(frozen=True, eq=False)
class Evidence:
    """Queries and gallery of people on whom the networks did not train, and the distances of each normalisation."""

    query: Rows
    gallery: Rows
    distances: Callable[[Normalisation], StreamDistances]


def choose(
    parts: Sequence[Evidence],
    protocol: Protocol,
    normalisations: Sequence[Normalisation],
    step: float = STEP,
    hedge: bool = False,
) -> Chosen:
    """Choose among normalisations, and among weights of a grid, by the mAP of all parts' queries.

    Each part is ranked and normalised on its own, as networks of different trainings have different distances. The
    first of equal normalisations wins; see `choose_weights` and `offering.offer`. Raises DataError when no query has a
    positive.
    """
    found = []
    pids_Q = np.concatenate([part.query.pids for part in parts])
    for kind in normalisations:
        slopes = slopes_of(parts, protocol) if kind == "calibrated" else None
        tables = []
        for part in parts:
            streams = part.distances(kind)
            grid = weight_grid([*streams], step)
            normalised = NormalisedDistances(streams, kind, slopes)
            tables.append(_precisions(normalised, part.query, part.gallery, protocol, grid))
        precision_WQ = np.concatenate(tables, axis=1)
        weights, curve_WS = choose_weights(precision_WQ, grid)
        found.append(Chosen(kind, weights, curve_WS, offer(precision_WQ, pids_Q, grid, hedge), slopes))
    return max(found, key=lambda one: one.mAP)


def slopes_of(parts: Sequence[Evidence], protocol: Protocol) -> dict[str, float]:
    """Return what each stream's distance takes from the log-odds that a pair shows one person."""
    given = [part.distances("calibrated") for part in parts]
    found = {}
    for name in given[0]:
        pairs = [_pairs(part, streams[name], protocol) for part, streams in zip(parts, given, strict=True)]
        found[name] = max(calibrate(*(np.concatenate(arrays) for arrays in zip(*pairs, strict=True))).slope, NO_SLOPE)
    return found


def calibrated(
    parts: Sequence[Evidence], kind: Normalisation, distance: FusedDistance, protocol: Protocol
) -> Calibration:
    """Fit the probability that two tracklets show one person to their fused distance."""
    pairs = []
    for part in parts:
        streams = part.distances(kind)
        fused_QG = distance.of(streams.matrices, streams.query, streams.gallery)
        complete = Distances(fused_QG, streams.complete_query_Q, streams.complete_gallery_G)
        pairs.append(_pairs(part, complete, protocol))
    return calibrate(*(np.concatenate(arrays) for arrays in zip(*pairs, strict=True)))


def _pairs(part: Evidence, one: Distances, protocol: Protocol) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the distances (M,) of all pairs with input that a protocol ranks, and which show one person (M,)."""
    ranked_QG = one.valid_query_Q[:, None] & one.valid_gallery_G
    for number in range(len(part.query)):
        ranked_QG[number] &= ~not_ranked(part.query, number, part.gallery, protocol)
    same_QG = part.query.pids[:, None] == part.gallery.pids
    return np.asarray(one.distance_QG, np.float64)[ranked_QG], same_QG[ranked_QG]


def weight_grid(streams: Sequence[str], step: float = STEP) -> list[dict[str, float]]:
    """Return all weights of the streams that are multiples of `step` and sum to 1.

    The last stream's weight changes fastest: those of a pair ascend by the weight of the second.
    """
    shares = np.linspace(0, 1, round(1 / step) + 1).tolist()
    grid = []
    for places in product(range(len(shares)), repeat=len(streams) - 1):
        if (used := sum(places)) < len(shares):
            others = [shares[place] for place in places]
            first = 1.0 - sum(others) if used < len(shares) - 1 else 0.0
            grid.append(dict(zip(streams, (first, *others), strict=True)))
    return grid


def precision_table(
    streams: StreamDistances,
    query: Rows,
    gallery: Rows,
    protocol: Protocol = OFFICIAL,
    grid: Sequence[Weights] | None = None,
    normalisation: Normalisation = "zscore",
) -> NDArray[np.float64]:
    """Compute the average precision (W, Q) of every query at every weighting; NaN for skipped queries.

    Raises errors as `fuse`.
    """
    grid = weight_grid([*streams]) if grid is None else grid
    return _precisions(NormalisedDistances(streams, normalisation), query, gallery, protocol, grid)


def _precisions(
    normalised: NormalisedDistances, query: Rows, gallery: Rows, protocol: Protocol, grid: Sequence[Weights]
) -> NDArray[np.float64]:
    table = [evaluate(normalised.fused(weights), query, gallery, protocol).ap_Q for weights in grid]
    return np.reshape(table, (len(grid), len(query)))


def choose_weights(precision_WQ: NDArray[np.float64], grid: Sequence[Weights]) -> tuple[Weights, NDArray[np.float64]]:
    """Return the weights with the highest mAP, and the curve (W, S) of the weights that were tried.

    precision_WQ is a table of `precision_table`. Among equal mAPs the weights nearest to equal shares win: where the
    data cannot decide, all streams are used. Of two equally near ones that with less of the later streams wins, because
    SSIN, the first, hardly ever lacks an input.
    Raises DataError for an empty grid, and when no query has a positive.
    """
    if not len(grid):
        raise DataError("the grid of fusion weights is empty")
    counted_Q = ~np.isnan(precision_WQ[0])
    if not (precision_WQ > 0).any():  # nor with zeros for those that have nothing to be found
        raise DataError("no validation query has a positive; fusion weights cannot be chosen")
    mAP_W = np.array([row_Q[counted_Q].mean() for row_Q in precision_WQ])
    tied = [weights for weights, mAP in zip(grid, mAP_W, strict=True) if mAP >= mAP_W.max() - SAME_MAP]
    curve_WS = np.array([[*[*weights.values()][1:], mAP] for weights, mAP in zip(grid, mAP_W, strict=True)], np.float64)
    return min(tied, key=_place), curve_WS


def _place(weights: Weights) -> tuple[float, ...]:
    values = [*weights.values()]
    return (round(max(abs(weight - 1 / len(values)) for weight in values), 9), *values[1:])
