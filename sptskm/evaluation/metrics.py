"""mAP and CMC of a ranking, under a named protocol.

Ties are broken by gallery row order, as a stable sort does: of two rows at the same distance the
one with the lower row number ranks first.

Shape suffixes: N rows, Q queries, G gallery rows, K gallery rows without junk, P rows of interest
of one query, D feature length.
"""

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from sptskm.evaluation import protocols
from sptskm.evaluation.distances import Floats, SquaredDistances
from sptskm.evaluation.protocols import JUNK, Integers, Protocol

CMC_RANKS: Final = 50
QUERY_BLOCK: Final = 256
# Up to here counting once per positive is cheaper than sorting a row of MARS length.
COUNTED_POSITIVES: Final = 200


@dataclass(frozen=True, eq=False)
class Rows:
    """Identity, camera and, where known, clothes of N tracklets, in the order of the features.

    pids: -1 is junk (never ranked). clothes: -1 is unknown, None when the data set has no labels.
    Raises ValueError for anything but 1-D integer arrays of one length.
    """

    pids: Integers
    camids: Integers
    clothes: Integers | None = None

    def __post_init__(self) -> None:
        for name in ("pids", "camids", "clothes"):
            labels = getattr(self, name)
            if labels is not None:
                object.__setattr__(self, name, _labels(name, labels))
        lengths = [len(self.pids), len(self.camids)]
        lengths += [] if self.clothes is None else [len(self.clothes)]
        if len(set(lengths)) > 1:
            raise ValueError(f"pids, camids and clothes must be equally long, found {lengths}")

    def __len__(self) -> int:
        return len(self.pids)


@dataclass(frozen=True, eq=False)
class Scores:
    """The outcome of an evaluation, per query and averaged over the queries with a positive.

    ap_Q: average precision, NaN for a skipped query.
    first_hit_Q: 1-based rank of the first correct row, junk not counted; 0 for a skipped query.
    num_gallery: rows the gallery had, junk included.
    protocol: name of the protocol.
    """

    ap_Q: NDArray[np.float64]
    first_hit_Q: NDArray[np.int64]
    num_gallery: int
    protocol: str

    @property
    def num_queries(self) -> int:
        """Queries averaged over: those with at least one positive."""
        return int(np.count_nonzero(self.first_hit_Q))

    @property
    def num_skipped(self) -> int:
        """Queries left out because the gallery holds no positive for them."""
        return len(self.first_hit_Q) - self.num_queries

    @property
    def mAP(self) -> float:
        """Mean average precision in 0..1; NaN when no query has a positive."""
        return float(self.ap_Q[self.first_hit_Q > 0].mean()) if self.num_queries else float("nan")

    @property
    def cmc(self) -> NDArray[np.float64]:
        """CMC (50,) in 0..1, rank-1 first; its last value continues beyond a smaller gallery."""
        return np.array([self.rank(k) for k in range(1, CMC_RANKS + 1)])

    def rank(self, k: int) -> float:
        """Share of queries with a correct row among the first k; NaN when no query counts.

        Raises ValueError for k below 1.
        """
        if k < 1:
            raise ValueError(f"ranks start at 1, found {k}")
        hits = np.count_nonzero((self.first_hit_Q > 0) & (self.first_hit_Q <= k))
        return hits / self.num_queries if self.num_queries else float("nan")

    def subset(self, mask_Q: NDArray[np.bool_]) -> "Scores":
        """The scores of the queries where mask_Q is True, against the same gallery.

        Raises ValueError for anything but a boolean mask with one entry per query.
        """
        mask = np.asarray(mask_Q)
        if mask.dtype != np.bool_ or mask.shape != self.ap_Q.shape:
            raise ValueError(f"the mask must be boolean {self.ap_Q.shape}, found {mask.dtype} {mask.shape}")
        return replace(self, ap_Q=self.ap_Q[mask], first_hit_Q=self.first_hit_Q[mask])


def evaluate(distance_QG: Floats, query: Rows, gallery: Rows, protocol: str = "mars-official") -> Scores:
    """Scores of a distance matrix (Q, G), smaller is nearer.

    Rows and columns must already be those of the protocol (see `protocols.select`). Raises
    ValueError for an unknown protocol, for another shape, for NaN, and without the clothes labels
    that the protocol asks for.
    """
    rules = protocols.protocol(protocol)
    distance = np.asarray(distance_QG)
    if distance.shape != (len(query), len(gallery)) or distance.dtype.kind not in "fiu":
        raise ValueError(
            f"distances must be real numbers ({len(query)} queries, {len(gallery)} gallery rows), "
            f"found {distance.dtype} {distance.shape}"
        )
    judge = _Judge(query, gallery, rules)
    outcomes = [judge.outcome(number, row_G) for number, row_G in enumerate(distance)]
    return _scores(outcomes, len(gallery), rules)


def evaluate_features(
    query_features_QD: Floats,
    gallery_features_GD: Floats,
    query: Rows,
    gallery: Rows,
    protocol: str = "mars-official",
) -> Scores:
    """Scores of features under squared Euclidean distance, without the (Q, G) matrix.

    Computed in float64 over blocks of queries; needs the gallery features in float64 and one block
    of distances. Raises ValueError as `evaluate` does, and for features of another length.
    """
    rules = protocols.protocol(protocol)
    query_features = _features("query", query_features_QD, len(query))
    distances = SquaredDistances(_features("gallery", gallery_features_GD, len(gallery)))
    judge = _Judge(query, gallery, rules)
    outcomes = []
    for start in range(0, len(query), QUERY_BLOCK):
        block_BG = distances.to(query_features[start : start + QUERY_BLOCK])
        outcomes += [judge.outcome(start + place, row_G) for place, row_G in enumerate(block_BG)]
    return _scores(outcomes, len(gallery), rules)


def clothes_changed(query: Rows, gallery: Rows) -> NDArray[np.bool_]:
    """Which queries (Q,) can only be found in other clothes than their own.

    True where a query has positives (same pid, other camera), its own clothes and those of all its
    positives are known, and none of them are its own. Raises ValueError without clothes labels.
    """
    if query.clothes is None or gallery.clothes is None:
        raise ValueError("clothes labels are needed for both the query and the gallery rows")
    by_pid = _ByIdentity(gallery.pids)
    changed_Q = np.zeros(len(query), dtype=np.bool_)
    for number, (pid, camera) in enumerate(zip(query.pids, query.camids, strict=True)):
        same_P = by_pid.rows(pid) if pid != JUNK else np.empty(0, np.int64)
        worn_P = gallery.clothes[same_P[gallery.camids[same_P] != camera]]
        own = query.clothes[number]
        known = worn_P.size > 0 and own >= 0 and worn_P.min() >= 0
        changed_Q[number] = known and own not in worn_P
    return changed_Q


def not_ranked(query: Rows, number: int, gallery: Rows, protocol: str) -> NDArray[np.bool_]:
    """Which gallery rows (G,) a protocol leaves out of the ranking of one query. Raises as `evaluate`."""
    judge = _Judge(query, gallery, protocols.protocol(protocol))
    left_out_G: NDArray[np.bool_] = gallery.pids == JUNK
    left_out_G[judge.ignored(number)] = True
    return left_out_G


class _ByIdentity:
    """Finds the rows of an identity without a pass over the table."""

    def __init__(self, pids_N: Integers) -> None:
        self._order_N = np.argsort(pids_N, kind="stable")
        self._sorted_N = pids_N[self._order_N]

    def rows(self, pid: int) -> NDArray[np.int64]:
        """Ascending row numbers."""
        first = np.searchsorted(self._sorted_N, pid, side="left")
        last = np.searchsorted(self._sorted_N, pid, side="right")
        return self._order_N[first:last]


class _Judge:
    """Judges one row of distances at a time."""

    def __init__(self, query: Rows, gallery: Rows, rules: Protocol) -> None:
        self._query, self._rules = query, rules
        self._kept_K = np.flatnonzero(gallery.pids != JUNK)
        self._camids_K = gallery.camids[self._kept_K]
        protocols.check_labels(rules, query.clothes is not None and gallery.clothes is not None)
        if query.clothes is not None and gallery.clothes is not None:
            self._own_Q, self._worn_K = query.clothes, gallery.clothes[self._kept_K]
        self._by_pid = _ByIdentity(gallery.pids[self._kept_K])

    def outcome(self, number: int, row_G: Floats) -> tuple[float, int]:
        """Average precision and rank of the first correct row; (NaN, 0) without a positive."""
        if np.isnan(row_G).any():
            column = int(np.flatnonzero(np.isnan(row_G))[0])
            raise ValueError(f"the distance of query {number} to gallery row {column} is NaN")
        good_P, ignored = self._relevant(number)
        if not good_P.size:
            return float("nan"), 0
        row_K = row_G[self._kept_K]
        ranks_P = np.sort(_places(row_K, good_P) - _nearer(row_K, ignored, good_P))
        return average_precision(ranks_P, self._rules.ap), int(ranks_P[0])

    def ignored(self, number: int) -> NDArray[np.int64]:
        """Gallery rows of the query's identity that are not ranked."""
        return self._kept_K[self._relevant(number)[1]]

    def _relevant(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows (of K) of the query's identity: the positives and those that are not ranked."""
        same = self._by_pid.rows(self._query.pids[number])
        if self._rules.ignore_same_camera:
            ranked = self._camids_K[same] != self._query.camids[number]
        elif self._rules.clothes == "any":
            return same, same[:0]
        else:
            ranked = np.ones(len(same), np.bool_)
        if self._rules.clothes != "any":
            own, worn_P = self._own_Q[number], self._worn_K[same]
            ranked &= (own >= 0) & (worn_P >= 0) & ((worn_P == own) == (self._rules.clothes == "same"))
        return same[ranked], same[~ranked]


def _places(row_K: Floats, at_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """1-based places of some entries of a row in its stable ascending order."""
    if at_P.size > COUNTED_POSITIVES:
        places_K = np.empty(row_K.size, np.int64)
        places_K[np.argsort(row_K, kind="stable")] = np.arange(1, row_K.size + 1)
        return places_K[at_P]
    return np.array([_place(row_K, at) for at in at_P], np.int64)


def _place(row_K: Floats, at: int) -> int:
    # Equal entries count only when they stand earlier in the row: the order of a stable sort.
    own = row_K[at]
    return int(np.count_nonzero(row_K[: at + 1] <= own) + np.count_nonzero(row_K[at + 1 :] < own))


def _nearer(row_K: Floats, ignored_J: NDArray[np.int64], at_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many ignored entries stand before each entry of at_P in the stable order."""
    ignored, own = row_K[ignored_J], row_K[at_P][:, None]
    before_PJ = (ignored < own) | ((ignored == own) & (ignored_J < at_P[:, None]))
    nearer_P: NDArray[np.int64] = np.count_nonzero(before_PJ, axis=1)
    return nearer_P


def average_precision(ranks_P: NDArray[np.int64], rule: Literal["trapezoid", "precision"]) -> float:
    """Of a query whose positives stand at these 1-based ranks, ascending."""
    hits_P = np.arange(1, ranks_P.size + 1)
    precision_P = hits_P / ranks_P
    if rule == "trapezoid":
        # Recall moves at hits only, so each hit adds one trapezoid from the row just before it.
        before_P = (hits_P - 1) / np.maximum(ranks_P - 1, 1)
        before_P[0] = float(ranks_P[0] == 1)
        precision_P = (before_P + precision_P) / 2
    return float(precision_P.mean())


def _scores(outcomes: list[tuple[float, int]], num_gallery: int, rules: Protocol) -> Scores:
    ap_Q = np.array([ap for ap, _ in outcomes], np.float64)
    first_hit_Q = np.array([first for _, first in outcomes], np.int64)
    return Scores(ap_Q, first_hit_Q, num_gallery, rules.name)


def _labels(name: str, labels: Integers) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a 1-D integer array, found {array.dtype} {array.shape}")
    own = array.astype(np.int64)
    own.setflags(write=False)
    return own


def _features(side: str, features: Floats, rows: int) -> NDArray[Any]:
    matrix = np.asarray(features)
    if matrix.ndim != 2 or len(matrix) != rows:
        raise ValueError(f"{side} features must be ({rows} rows, length), found {matrix.dtype} {matrix.shape}")
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if bad.size:
        raise ValueError(f"{side} features of {bad.size} rows are not finite, first row {bad[0]}")
    return matrix
