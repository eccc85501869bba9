"""Choice of a fusion on held-out identities: the normalisation of the distances, and the weights of the streams.

Shape suffixes: Q queries, G gallery rows, M pairs, I identities, S streams, W weights.
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
from sptskm.evaluation.offering import Offer, cross_validated, offer
from sptskm.evaluation.protocols import Integers, Protocol
from sptskm.evaluation.statistics import by_identity
from sptskm.evaluation.weighing import Gaps, gaps_by_identity

STEP: Final = 0.05
NO_SLOPE: Final = 1e-9
"""Slope of a stream that says nothing, so that it can still be divided by."""


Pairs = tuple[NDArray[np.float64], NDArray[np.bool_], Integers]


@dataclass(frozen=True, eq=False)
class Chosen:
    """A normalisation, and which ranking held-out identities recommend.

    curve_WS: for each weighting of a grid, the weights of all streams but the first, and the mAP there.
    """

    normalisation: Normalisation
    offer: Offer
    mAP: float
    """With the weights of the offer, on the held-out identities."""
    curve_WS: NDArray[np.float64]
    slopes: Mapping[str, float] | None = None
    """Of "calibrated"."""


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
    """Choose weights for each normalisation, and the normalisation with the highest mAP of all parts' queries.

    Each part is ranked and normalised on its own, as networks of different trainings have different distances. The
    first of equal normalisations wins; see `weighing` and `offering.offer`. The curve is over weights in steps of
    `step`. Raises DataError when no query has a positive.
    """
    return max((_choose(parts, protocol, kind, step, hedge) for kind in normalisations), key=lambda one: one.mAP)


def _choose(parts: Sequence[Evidence], protocol: Protocol, kind: Normalisation, step: float, hedge: bool) -> Chosen:
    slopes = slopes_of(parts, protocol) if kind == "calibrated" else None
    normalised = [NormalisedDistances(part.distances(kind), kind, slopes) for part in parts]

    def precisions(weights: Weights) -> NDArray[np.float64]:
        found = zip(parts, normalised, strict=True)
        return np.concatenate(
            [evaluate(one.fused(weights), part.query, part.gallery, protocol).ap_Q for part, one in found]
        )

    streams = [*normalised[0].streams]
    pids_Q = np.concatenate([part.query.pids for part in parts])
    alone = {name: precisions({other: float(other == name) for other in streams}) for name in streams}
    counted_Q = ~np.isnan(alone[streams[0]])
    if not counted_Q.any():
        raise DataError("no held-out query has a positive; fusion weights cannot be chosen")

    def judged(precision_Q: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.divide(*by_identity(precision_Q[counted_Q], pids_Q[counted_Q]))

    gaps = _gaps(parts, normalised, protocol, np.unique(pids_Q[counted_Q]))
    weights = gaps.weights()
    crossed_I = cross_validated(gaps, lambda others: judged(precisions(others)))
    found = offer({name: judged(own_Q) for name, own_Q in alone.items()}, crossed_I, weights, hedge)
    curve = [[*[*one.values()][1:], precisions(one)[counted_Q].mean()] for one in weight_grid(streams, step)]
    return Chosen(kind, found, float(precisions(weights)[counted_Q].mean()), np.array(curve, np.float64), slopes)


def _gaps(
    parts: Sequence[Evidence], normalised: Sequence[NormalisedDistances], protocol: Protocol, pids_I: Integers
) -> Gaps:
    """Measure how far apart the streams put these identities."""
    gaps, variances = [], []
    for name in normalised[0].streams:
        pairs = [_pairs(part, one.alone(name), protocol) for part, one in zip(parts, normalised, strict=True)]
        distance_M, same_M, pids_M = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
        known_M = np.isin(pids_M, pids_I)
        gaps.append(gaps_by_identity(distance_M[known_M], same_M[known_M], pids_M[known_M], pids_I))
        variances.append(np.average([own_M.var() for own_M, *_ in pairs], weights=[len(own_M) for own_M, *_ in pairs]))
    return Gaps([*normalised[0].streams], np.stack(gaps), np.array(variances))


def slopes_of(parts: Sequence[Evidence], protocol: Protocol) -> dict[str, float]:
    """Return what each stream's distance takes from the log-odds that a pair shows one person."""
    given = [part.distances("calibrated") for part in parts]
    found = {}
    for name in given[0]:
        pairs = [_pairs(part, streams[name], protocol) for part, streams in zip(parts, given, strict=True)]
        found[name] = max(_calibrated(pairs).slope, NO_SLOPE)
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
    return _calibrated(pairs)


def _calibrated(pairs: Sequence[Pairs]) -> Calibration:
    distance_M, same_M, _ = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    return calibrate(distance_M, same_M)


def _pairs(part: Evidence, one: Distances, protocol: Protocol) -> Pairs:
    """Return the distances (M,) of all pairs with input that a protocol ranks, which show one person, and the query's.

    The last array (M,) holds the person of the query of each pair.
    """
    ranked_QG = one.valid_query_Q[:, None] & one.valid_gallery_G
    for number in range(len(part.query)):
        ranked_QG[number] &= ~not_ranked(part.query, number, part.gallery, protocol)
    same_QG = part.query.pids[:, None] == part.gallery.pids
    pids_M = part.query.pids[np.nonzero(ranked_QG)[0]]
    return np.asarray(one.distance_QG, np.float64)[ranked_QG], same_QG[ranked_QG], pids_M


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
