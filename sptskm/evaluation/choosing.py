"""Choice of a fusion on held-out identities: the normalisation of the distances, and the weights of the streams.

Shape suffixes: Q queries, G gallery rows, M pairs, I identities, S streams, W weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.data.derived import Made, Method
from sptskm.evaluation.calibration import Calibration, calibrate
from sptskm.evaluation.fusion import (
    NO_DISTANCE,
    Distances,
    FusedDistance,
    Normalisation,
    NormalisedDistances,
    Weights,
    pair_weight,
)
from sptskm.evaluation.metrics import JudgedRows, evaluate
from sptskm.evaluation.offering import Offer, cross_validated, offer
from sptskm.evaluation.parts import Part
from sptskm.evaluation.protocols import Integers
from sptskm.evaluation.statistics import by_identity
from sptskm.evaluation.weighing import CHANGING, Gaps, gaps_by_identity

STEP: Final = 0.05
NO_SLOPE: Final = 1e-9
"""Slope of a stream that says nothing, so that it can still be divided by."""


class Pairs(NamedTuple):
    """Pairs (M,) of a query and a gallery row that have input of a stream and are ranked."""

    distance_M: NDArray[np.float64]
    same_M: NDArray[np.bool_]
    """Both show one person."""
    changed_M: NDArray[np.bool_]
    """Both are known to be in different clothes."""
    pids_M: Integers
    """Person of the query."""

    @classmethod
    def joined(cls, parts: "Sequence[Pairs]") -> "Pairs":
        """Concatenate the pairs of several parts."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def part(self, chosen_M: NDArray[np.bool_]) -> "Pairs":
        """Return the chosen pairs alone."""
        distance_M, same_M, changed_M, pids_M = self
        return Pairs(distance_M[chosen_M], same_M[chosen_M], changed_M[chosen_M], pids_M[chosen_M])


@dataclass(frozen=True)
class Fusion:
    """How streams are fused, and the distance of two tracklets that this makes."""

    weights: Weights
    normalisation: Normalisation
    distance: FusedDistance = NO_DISTANCE
    """Without a term for "rank", and before it is fitted to the tracklets of a test set or a gallery."""
    networks: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the weights of the streams' networks, for whose features the distance was fitted."""
    methods: Mapping[Made, Method] = field(default_factory=dict)
    """Methods that made the masks and skeletons on which the fusion was chosen, where known."""
    curve_WS: NDArray[np.float64] | None = field(default=None, compare=False)
    """For each weighting of a grid, the weights of all streams but the first, and the mAP on held-out identities.

    None for weights that were given."""
    offer: Offer | None = None
    """Which ranking held-out identities recommend; None for weights that were given."""
    mAP: float | None = None
    """With these weights, on the held-out identities that chose them."""
    slopes: Mapping[str, float] | None = None
    """Of "calibrated"."""
    changed_clothes: bool = False
    """Whether the weights were chosen by pairs of a person in other clothes alone."""
    odds: Calibration | None = None
    """Log-odds that a pair at a fused distance shows one person, fitted to held-out pairs; None without any."""

    @property
    def weight(self) -> float | None:
        """Return the share of the second of two streams."""
        return pair_weight(self.weights)

    def check(self, stream: str, network: str, whose: str) -> None:
        """Raise DataError where a stream or its network is not one that was fused."""
        if stream not in self.networks:
            raise DataError(f"{whose} is of {stream}, wanted one of {', '.join(self.networks)} as fused")
        if network != self.networks[stream]:
            raise DataError(f"{whose} is of network {network} of {stream}, wanted {self.networks[stream]} as fused")


def choose(
    parts: Sequence[Part], normalisations: Sequence[Normalisation], step: float = STEP, hedge: bool = False
) -> Fusion:
    """Choose weights for each normalisation, and the normalisation with the highest mAP of all parts' queries.

    The parts are of people on whom the networks did not train. Each is ranked and normalised on its own, as networks
    of different trainings have different distances. The first of equal normalisations wins; see `weighing` and
    `offering.offer`. The curve is over weights in steps of `step`. Raises DataError when no query has a positive.
    """
    found = [_choose(parts, kind, step, hedge) for kind in normalisations]
    return max(found, key=lambda one: one.mAP or 0.0)


def _choose(parts: Sequence[Part], kind: Normalisation, step: float, hedge: bool) -> Fusion:
    slopes = slopes_of(parts) if kind == "calibrated" else None
    normalised = [NormalisedDistances(part.distances(kind), kind, slopes) for part in parts]

    def precisions(weights: Weights) -> NDArray[np.float64]:
        found = zip(parts, normalised, strict=True)
        return np.concatenate(
            [evaluate(one.fused(weights), part.query, part.gallery, part.protocol).ap_Q for part, one in found]
        )

    streams = [*normalised[0].streams]
    pids_Q = np.concatenate([part.query.pids for part in parts])
    alone = {name: precisions({other: float(other == name) for other in streams}) for name in streams}
    counted_Q = ~np.isnan(alone[streams[0]])
    if not counted_Q.any():
        raise DataError("no held-out query has a positive; fusion weights cannot be chosen")

    def judged(precision_Q: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.divide(*by_identity(precision_Q[counted_Q], pids_Q[counted_Q]))

    gaps = _gaps(parts, normalised, np.unique(pids_Q[counted_Q]))
    weights = gaps.weights()
    crossed_I = cross_validated(gaps, lambda others: judged(precisions(others)))
    curve = [[*[*one.values()][1:], precisions(one)[counted_Q].mean()] for one in weight_grid(streams, step)]
    return Fusion(
        weights,
        kind,
        curve_WS=np.array(curve, np.float64),
        offer=offer({name: judged(own_Q) for name, own_Q in alone.items()}, crossed_I, weights, hedge),
        mAP=float(precisions(weights)[counted_Q].mean()),
        slopes=slopes,
        changed_clothes=gaps.changed_clothes,
    )


def _gaps(parts: Sequence[Part], normalised: Sequence[NormalisedDistances], pids_I: Integers) -> Gaps:
    """Measure how far apart the streams put these identities.

    Where enough of them are seen in several clothes, a person is compared with itself in other clothes only.
    """
    streams = [*normalised[0].streams]
    found, variances = [], []
    for name in streams:
        pairs = [_pairs(part, one.alone(name)) for part, one in zip(parts, normalised, strict=True)]
        squares = [own.distance_M.var() * len(own.distance_M) for own in pairs if len(own.distance_M)]
        variances.append(np.sum(squares) / max(sum(len(own.distance_M) for own in pairs), 1))
        whole = Pairs.joined(pairs)
        found.append(whole.part(np.isin(whole.pids_M, pids_I)))
    changing = min(len(np.unique(own.pids_M[own.same_M & own.changed_M])) for own in found)
    if changed := changing >= CHANGING:
        found = [own.part(own.changed_M | ~own.same_M) for own in found]
    gaps = [gaps_by_identity(own.distance_M, own.same_M, own.pids_M, pids_I) for own in found]
    return Gaps(streams, np.stack(gaps), np.array(variances), changed)


def slopes_of(parts: Sequence[Part]) -> dict[str, float]:
    """Return what each stream's distance takes from the log-odds that a pair shows one person."""
    given = [part.distances("calibrated") for part in parts]
    found = {}
    for name in given[0]:
        pairs = [_pairs(part, streams[name]) for part, streams in zip(parts, given, strict=True)]
        found[name] = max(_calibrated(pairs).slope, NO_SLOPE)
    return found


def calibrated(parts: Sequence[Part], kind: Normalisation, distance: FusedDistance) -> Calibration:
    """Fit the probability that two tracklets show one person to their fused distance."""
    pairs = []
    for part in parts:
        streams = part.distances(kind)
        fused_QG = distance.of(streams.matrices, streams.query, streams.gallery)
        complete = Distances(fused_QG, streams.complete_query_Q, streams.complete_gallery_G)
        pairs.append(_pairs(part, complete))
    return _calibrated(pairs)


def _calibrated(pairs: Sequence[Pairs]) -> Calibration:
    whole = Pairs.joined(pairs)
    return calibrate(whole.distance_M, whole.same_M)


def _pairs(part: Part, one: Distances) -> Pairs:
    """Return all pairs with input that are ranked."""
    ranked_QG = one.valid_query_Q[:, None] & one.valid_gallery_G
    judged = JudgedRows(part.query, part.gallery, part.protocol)
    ranked_QG[:, judged.junk] = False
    for number in range(len(part.query)):
        ranked_QG[number, judged.relevant(number)[1]] = False
    query_M, gallery_M = np.nonzero(ranked_QG)
    pids_M = part.query.pids[query_M]
    changed_M = np.zeros(len(pids_M), np.bool_)
    if part.query.clothes is not None and part.gallery.clothes is not None:
        worn_M, other_M = part.query.clothes[query_M], part.gallery.clothes[gallery_M]
        changed_M = (worn_M >= 0) & (other_M >= 0) & (worn_M != other_M)
    same_M = pids_M == part.gallery.pids[gallery_M]
    return Pairs(np.asarray(one.distance_QG, np.float64)[ranked_QG], same_M, changed_M, pids_M)


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
