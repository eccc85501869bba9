"""Fusion of streams: their distances are made comparable and added, each with its weight.

Normalisation constants come from the distance matrix at hand. They use its distances and validity flags but no identity
and no camera, so they may be computed at test time. `fuse` computes them from the matrix that it ranks. A FusedDistance
that was fitted once keeps them, so that the distance of two tracklets does not depend on the other tracklets:
retrieval, re-ranking and other programs need this.

A pair of tracklets is complete where both have input of every stream. Another pair is compared by the streams that both
have, with their weights in proportion (equal weights if these are all 0), at the mean and standard deviation of the
fused distances of complete pairs. A sum of imperfectly correlated distances spreads less than each of them, so that
such pairs would else be pushed to both ends of a query's ranking. With the same mean and spread, a wrong pair is as
likely below any threshold whichever streams compare it. A pair without a stream in common is infinitely far.

Shape suffixes: Q queries, G gallery rows, M complete pairs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import combinations
from math import inf, isfinite
from operator import add
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import ConfigError, DataError
from sptskm.evaluation.distances import Floats

Normalisation = Literal["zscore", "minmax", "rank", "concat", "calibrated"]
OF_THE_DATA: Final = ("zscore", "minmax", "rank", "concat")
"""Normalisations that need no people of whom it is known who they are."""
Weights = Mapping[str, float]
"""Shares of the streams, which sum to 1."""
Flags = Mapping[str, NDArray[np.bool_]]
"""For each stream, which tracklets have input."""

SUM_TOLERANCE: Final = 1e-6


def pair_weights(streams: Sequence[str], weight: float) -> dict[str, float]:
    """Return the weights of two streams from the share of the second."""
    first, second = streams
    return {first: 1.0 - weight, second: weight}


def pair_weight(weights: Weights) -> float | None:
    """Return the share of the second stream of a pair; None for any other number of streams."""
    return [*weights.values()][1] if len(weights) == 2 else None


def check_weights(weights: Weights, streams: Sequence[str]) -> None:
    """Raise DataError unless there is a weight in 0..1 for each stream and they sum to 1."""
    told = ", ".join(f"{stream} {weight:g}" for stream, weight in weights.items())
    if set(weights) != set(streams):
        raise DataError(f"fusion weights must be of {', '.join(streams)}, found {told or 'none'}")
    if not all(0.0 <= weight <= 1.0 for weight in weights.values()) or abs(sum(weights.values()) - 1) > SUM_TOLERANCE:
        raise DataError(f"fusion weights must be in 0..1 and sum to 1, found {told}")


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances (Q, G) of one stream; smaller is nearer.

    valid_query_Q, valid_gallery_G: the tracklet has input of this stream; distances of other pairs are ignored.
    """

    distance_QG: Floats
    valid_query_Q: NDArray[np.bool_]
    valid_gallery_G: NDArray[np.bool_]


class StreamDistances(Mapping[str, Distances]):
    """Distances of several streams for the same queries and gallery rows, by stream.

    Raises DataError when the shapes do not fit, when no pair is complete, for a stream that is not finite over the
    pairs with input, and for one that is constant over the complete pairs.
    """

    def __init__(self, streams: Mapping[str, Distances]) -> None:
        self._streams = dict(streams)
        for name, one in self._streams.items():
            shape = (*one.valid_query_Q.shape, *one.valid_gallery_G.shape)
            if {one.valid_query_Q.dtype, one.valid_gallery_G.dtype} != {np.dtype(np.bool_)}:
                raise DataError(f"the valid flags of {name} must be boolean arrays")
            if one.distance_QG.shape != shape or len(shape) != 2:
                found = one.distance_QG.shape
                raise DataError(f"{name} distances are {found}, wanted (Q, G) = {shape} as the valid flags say")
        if len({one.distance_QG.shape for one in self._streams.values()}) != 1:
            told = ", ".join(f"{name} {one.distance_QG.shape}" for name, one in self._streams.items()) or "none"
            raise DataError(f"distances must be of the same queries and gallery rows, found {told}")
        self.query: Flags = {name: one.valid_query_Q for name, one in self._streams.items()}
        self.gallery: Flags = {name: one.valid_gallery_G for name, one in self._streams.items()}
        self.complete_query_Q = np.logical_and.reduce([*self.query.values()])
        self.complete_gallery_G = np.logical_and.reduce([*self.gallery.values()])
        if not (self.complete_query_Q.any() and self.complete_gallery_G.any()):
            raise DataError(f"no pair has input of {' and '.join(self)} on both sides; evaluate one stream alone")
        for name, one in self._streams.items():
            self._check(name, one)

    def _check(self, name: str, one: Distances) -> None:
        if not np.isfinite(_part(one.distance_QG, one.valid_query_Q, one.valid_gallery_G)).all():
            raise DataError(f"{name} distances of valid pairs must be finite, found NaN or infinity")
        complete = self.where_complete(one.distance_QG)
        if complete.min() == complete.max():
            raise DataError(f"{name} distances are all {complete.min()}: a constant stream cannot be fused")

    def __getitem__(self, name: str) -> Distances:
        return self._streams[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._streams)

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def matrices(self) -> dict[str, Floats]:
        """Return the distances (Q, G) by stream."""
        return {name: one.distance_QG for name, one in self._streams.items()}

    def where_complete(self, matrix_QG: Floats) -> Floats:
        """Return the part of a matrix whose queries and gallery rows have input of every stream."""
        return _part(matrix_QG, self.complete_query_Q, self.complete_gallery_G)


def _part(matrix_QG: Floats, query_Q: NDArray[np.bool_], gallery_G: NDArray[np.bool_]) -> Floats:
    return matrix_QG if query_Q.all() and gallery_G.all() else matrix_QG[np.ix_(query_Q, gallery_G)]


@dataclass(frozen=True)
class Term:
    """The distance of pairs that have just these streams: (sum of factor * distance - centre) * scale + offset."""

    factors: Mapping[str, float]
    offset: float = 0.0
    centre: float = 0.0
    scale: float = 1.0

    def of(self, distance: Mapping[str, Any]) -> Any:
        """Compute it from the distances by stream, which are arrays or tensors of one shape."""
        found = reduce(add, (factor * distance[stream] for stream, factor in self.factors.items()))
        return found if self == Term(self.factors) else (found - self.centre) * self.scale + self.offset

    def folded(self) -> "Term":
        """Return the same term with factors and an offset alone."""
        factors = {stream: factor * self.scale for stream, factor in self.factors.items()}
        return Term(factors, self.offset - self.scale * self.centre)


@dataclass(frozen=True)
class FusedDistance:
    """A distance of two tracklets: one term for each set of streams that both can have.

    A complete pair's term has no offset, so that such a tracklet is at distance 0 from itself. A pair for whose streams
    there is no term is infinitely far.
    """

    terms: tuple[Term, ...]

    def __bool__(self) -> bool:
        """Return whether any two tracklets have a distance."""
        return bool(self.terms)

    def __post_init__(self) -> None:
        for term in self.terms:
            values = (*term.factors.values(), term.offset, term.centre, term.scale)
            if not all(map(isfinite, values)) or min(term.factors.values(), default=-1) < 0:
                told = [*term.factors.values(), term.offset]
                raise ConfigError(
                    f"the constants of a fused distance are {told}, wanted numbers and no negative factor"
                )

    @classmethod
    def alone(cls, stream: str) -> "FusedDistance":
        """Return the distance of one stream as it is."""
        return cls((Term({stream: 1.0}),))

    @classmethod
    def fitted(
        cls,
        streams: StreamDistances,
        weights: Weights,
        normalisation: Normalisation,
        slopes: Mapping[str, float] | None = None,
    ) -> "FusedDistance":
        """Fit the constants so that the distance ranks `streams` as `fuse` does, up to rounding.

        `slopes` are those of "calibrated". With "concat" the features must have length 1, as in `fuse`. Raises
        ConfigError for "rank", which depends on a whole ranking, and for an unknown normalisation, and DataError as
        `check_weights`.
        """
        check_weights(weights, [*streams])
        complete = {name: streams.where_complete(matrix_QG) for name, matrix_QG in streams.matrices.items()}
        if normalisation == "zscore":
            scales = {name: distance_M.std() for name, distance_M in complete.items()}
        elif normalisation == "minmax":
            scales = {name: np.ptp(distance_M) for name, distance_M in complete.items()}
        elif normalisation == "concat":
            scales = dict.fromkeys(complete, 1.0)
        elif normalisation == "calibrated" and slopes is not None:
            scales = {name: 1.0 / slopes[name] for name in complete}
        else:
            raise ConfigError(
                f"normalisation is {normalisation!r}, wanted zscore, minmax, concat or calibrated: ranks are no "
                "distance of a pair"
            )
        subsets = [subset for size in range(1, len(streams)) for subset in combinations(streams, size)]
        terms = _terms(complete, {name: float(weights[name] / scales[name]) for name in complete}, scales, subsets)
        return cls(tuple(term.folded() for term in terms))

    @classmethod
    def of_before(cls, ssin: float, smin: float, alone: float, offset: float) -> "FusedDistance":
        """Return the distance of SSIN and SMIN that earlier versions have saved.

        It is ssin * d_SSIN + smin * d_SMIN, or alone * d_SSIN + offset where either tracklet has no skeleton.
        """
        return cls((Term({"ssin": ssin, "smin": smin}), Term({"ssin": alone}, offset)))

    @property
    def streams(self) -> tuple[str, ...]:
        """Return the streams of complete pairs."""
        return tuple(self.complete.factors)

    @property
    def complete(self) -> Term:
        """Return the term of complete pairs."""
        return max(self.terms, key=lambda term: len(term.factors))

    def usable(self, valid: Flags) -> NDArray[np.bool_]:
        """Return a mask of the tracklets that can be compared at all: those with input for some term."""
        own = [np.logical_and.reduce([valid[stream] for stream in term.factors]) for term in self.terms]
        found: NDArray[np.bool_] = np.logical_or.reduce(own)
        return found

    def of(self, distance: Mapping[str, Floats], query: Flags, gallery: Flags) -> NDArray[np.floating[Any]]:
        """Compute fused distances (Q, G) from those of each stream and the flags of queries (Q,) and gallery (G,).

        Distances of pairs without input are ignored.
        """
        blocks = list(_blocks(self.streams, query, gallery))
        terms = {frozenset(term.factors): term for term in self.terms}
        if len(blocks) == 1 and blocks[0][0] in terms:
            return terms[blocks[0][0]].of(distance)  # type: ignore[no-any-return]
        first = next(iter(distance.values()))
        fused_QG = np.full(first.shape, inf, np.result_type(*distance.values()))
        for own, rows_Q, rows_G in blocks:
            if own in terms:
                at = np.ix_(rows_Q, rows_G)
                fused_QG[at] = terms[own].of({stream: distance[stream][at] for stream in own})
        return fused_QG


NO_DISTANCE: Final = FusedDistance(())


def _blocks(
    streams: Sequence[str], query: Flags, gallery: Flags
) -> Iterator[tuple[frozenset[str], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the queries and gallery rows whose pairs have the same streams, with these streams."""
    codes_Q, codes_G = (
        sum(flags[name].astype(np.int64) << bit for bit, name in enumerate(streams)) for flags in (query, gallery)
    )
    for own in np.unique(codes_Q).tolist():
        for other in np.unique(codes_G).tolist():
            common = frozenset(name for bit, name in enumerate(streams) if own & other & (1 << bit))
            yield common, np.flatnonzero(codes_Q == own), np.flatnonzero(codes_G == other)


def _terms(
    complete: Mapping[str, Floats],
    factors: Mapping[str, float],
    scales: Mapping[str, float],
    subsets: Sequence[Sequence[str]],
) -> Iterator[Term]:
    """Yield the term of complete pairs, and those of pairs with fewer streams.

    `complete` holds the streams' distances (M,) of complete pairs, `factors` what they are multiplied by, and `scales`
    the units in which they have equal weights.
    """
    whole = Term(dict(factors))
    yield whole
    if not subsets:
        return
    fused_M = whole.of(complete)
    mean, spread = float(fused_M.mean()), float(fused_M.std())
    for subset in subsets:
        own = {stream: factors[stream] for stream in subset}
        if not any(own.values()):
            own = {stream: float(1.0 / scales[stream]) for stream in subset}
        total = sum(own.values())
        blend = Term({stream: factor / total for stream, factor in own.items()})
        blend_M = blend.of(complete)
        # one gallery tracklet with input of every stream has one rank
        scale = spread / float(blend_M.std()) if blend_M.std() else 1.0
        yield Term(blend.factors, mean, float(blend_M.mean()), scale)


class NormalisedDistances:
    """Distances of several streams, normalised once to be fused with any weights.

    The normalisation is one of:
        "zscore", "minmax": z-score or scaling to 0..1, with constants over the complete pairs.
        "rank": the place among the query's distances to gallery tracklets with input of every stream, from 0 to 1.
        "concat": the distance itself. For squared distances of features of length 1, the result is the squared distance
        of the concatenated features, with weights that are the squares of theirs.
        "calibrated": the distance times its stream's slope of `slopes`: what it takes from the log-odds that the pair
        shows one person (see `calibration`).
    Raises DataError for an unknown normalisation, and for slopes that are missing.
    """

    def __init__(
        self,
        streams: StreamDistances,
        normalisation: Normalisation = "zscore",
        slopes: Mapping[str, float] | None = None,
    ) -> None:
        if normalisation not in (legal := get_args(Normalisation)):
            raise DataError(f"normalisation must be one of {', '.join(legal)}, found {normalisation!r}")
        if normalisation == "calibrated" and not set(streams) <= set(slopes or {}):
            raise DataError(f"calibrated distances need a slope of each stream, found {sorted(slopes or {}) or 'none'}")
        self._streams, self._slopes = streams, slopes or {}
        self._distance = {name: self._normalised(name, one, normalisation) for name, one in streams.items()}
        own = {common for common, *_ in _blocks([*streams], streams.query, streams.gallery)}
        self._subsets = [
            [name for name in streams if name in common] for common in own if 0 < len(common) < len(streams)
        ]

    def _normalised(self, name: str, one: Distances, normalisation: Normalisation) -> NDArray[np.float64]:
        distance = one.distance_QG.astype(np.float64)
        if not (one.valid_query_Q.all() and one.valid_gallery_G.all()):
            # what stands in for a pair without input may be NaN; it is never used
            distance = np.where(one.valid_query_Q[:, None] & one.valid_gallery_G, distance, 0.0)
        if normalisation == "concat":
            return distance
        if normalisation == "calibrated":
            return distance * self._slopes[name]
        if normalisation == "rank":
            return np.stack([_places(row_G, row_G[self._streams.complete_gallery_G]) for row_G in distance])
        complete = self._streams.where_complete(distance)
        if normalisation == "zscore":
            shift, scale = complete.mean(), complete.std()
        else:
            shift, scale = complete.min(), complete.max() - complete.min()
        distance -= shift
        distance /= scale
        return distance

    @cached_property
    def _complete(self) -> dict[str, Floats]:
        return {name: self._streams.where_complete(matrix_QG) for name, matrix_QG in self._distance.items()}

    @property
    def streams(self) -> tuple[str, ...]:
        """Return the names of the streams."""
        return tuple(self._streams)

    def alone(self, name: str) -> Distances:
        """Return the normalised distances of one stream."""
        return replace(self._streams[name], distance_QG=self._distance[name])

    def fused(self, weights: Weights) -> NDArray[np.floating[Any]]:
        """Compute fused distances (Q, G): the sum of weight * normalised distance. Raises as `check_weights`."""
        check_weights(weights, [*self._streams])
        factors = {name: float(weights[name]) for name in self._streams}
        terms = _terms(self._complete if self._subsets else {}, factors, dict.fromkeys(factors, 1.0), self._subsets)
        return FusedDistance(tuple(terms)).of(self._distance, self._streams.query, self._streams.gallery)


def fuse(
    streams: StreamDistances,
    weights: Weights,
    normalisation: Normalisation = "zscore",
    slopes: Mapping[str, float] | None = None,
) -> NDArray[np.floating[Any]]:
    """Compute fused distances (Q, G) for ranking; see NormalisedDistances. Raises errors as it."""
    return NormalisedDistances(streams, normalisation, slopes).fused(weights)


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
