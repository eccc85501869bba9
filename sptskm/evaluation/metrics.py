"""mAP and CMC of a ranking, under a protocol.

Ties are broken by gallery row order, as in a stable sort: of two rows at the same distance the one with the lower row
number ranks first.

Shape suffixes: N rows, Q queries, B queries of a block, G gallery rows, P rows of interest of one query, J rows that
are not ranked, D feature length.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.data import Tracklets
from sptskm.data.tracklets import JUNK_PID
from sptskm.evaluation.distances import TILE, Floats, SquaredDistances
from sptskm.evaluation.protocols import OFFICIAL, Integers, Protocol, check_labels

CMC_RANKS: Final = 50
QUERY_BLOCK: Final = 1024  # a longer block gains nothing
GIGABYTES: Final = 1.0
# Up to here counting once per positive is cheaper than sorting a row of MARS length.
COUNTED_POSITIVES: Final = 200
ROOM: Final = 16_384  # entries compared at a time: with all positives, what a core's cache holds
NOTHING: Final = np.empty(0, np.int64)
Blocks = Callable[[slice], Floats]
"""Function that returns the distances (B, G) of a slice of the queries to the whole gallery."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Identity, camera and, where known, clothes of N tracklets, in the order of the features.

    pids: -1 is junk (never ranked). clothes: -1 is unknown, None when the data set has no labels.
    Raises DataError unless all labels are 1-D integer arrays of one length.
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
            raise DataError(f"pids, camids and clothes must be equally long, found {lengths}")

    def __len__(self) -> int:
        return len(self.pids)

    @classmethod
    def of(cls, table: Tracklets, rows: Integers) -> "Rows":
        """Take the labels of some rows of a table."""
        clothes = table.clothes_N[rows] if table.has_clothes else None
        return cls(table.pids_N[rows], table.camids_N[rows], clothes)

    def part(self, rows: NDArray[Any]) -> "Rows":
        """Select rows by number or mask, in that order."""
        return Rows(self.pids[rows], self.camids[rows], None if self.clothes is None else self.clothes[rows])


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of an evaluation: values per query, and means over the queries that the protocol counts.

    ap_Q: average precision, NaN for a skipped query.
    first_hit_Q: 1-based rank of the first correct row, junk not counted; 0 without a positive.
    num_gallery: number of gallery rows, junk included.
    protocol: rules under which they hold.
    """

    ap_Q: NDArray[np.float64]
    first_hit_Q: NDArray[np.int64]
    num_gallery: int
    protocol: Protocol

    @classmethod
    def joined(cls, parts: Sequence["Scores"]) -> "Scores":
        """Concatenate the scores of several parts of the queries against the same gallery."""
        ap_Q, first_hit_Q = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("ap_Q", "first_hit_Q")
        )
        return replace(parts[0], ap_Q=ap_Q, first_hit_Q=first_hit_Q)

    @property
    def counted_Q(self) -> NDArray[np.bool_]:
        """Return a mask (Q,) of the queries in the means: those with a positive, or all where the protocol says so."""
        return ~np.isnan(self.ap_Q)

    @property
    def num_queries(self) -> int:
        """Return the number of queries in the means."""
        return int(np.count_nonzero(self.counted_Q))

    @property
    def num_skipped(self) -> int:
        """Return the number of queries left out because the gallery holds no positive for them."""
        return len(self.ap_Q) - self.num_queries

    @property
    def mAP(self) -> float:
        """Return the mean average precision in 0..1; NaN when no query counts."""
        return float(self.ap_Q[self.counted_Q].mean()) if self.num_queries else float("nan")

    @property
    def cmc(self) -> NDArray[np.float64]:
        """Return the CMC (50,) in 0..1, rank-1 first; beyond the size of a smaller gallery the last value repeats."""
        return np.array([self.rank(k) for k in range(1, CMC_RANKS + 1)])

    def rank(self, k: int) -> float:
        """Return the share of queries with a correct row among the first k; NaN when no query counts.

        Raises DataError for k below 1.
        """
        if k < 1:
            raise DataError(f"ranks start at 1, found {k}")
        hits = np.count_nonzero((self.first_hit_Q > 0) & (self.first_hit_Q <= k))
        return hits / self.num_queries if self.num_queries else float("nan")

    def subset(self, mask_Q: NDArray[np.bool_]) -> "Scores":
        """Return the scores of the queries where mask_Q is True, against the same gallery.

        Raises DataError for anything but a boolean mask with one entry per query.
        """
        mask = np.asarray(mask_Q)
        if mask.dtype != np.bool_ or mask.shape != self.ap_Q.shape:
            raise DataError(f"the mask must be boolean {self.ap_Q.shape}, found {mask.dtype} {mask.shape}")
        return replace(self, ap_Q=self.ap_Q[mask], first_hit_Q=self.first_hit_Q[mask])


def evaluate(
    distances: Floats | Blocks,
    query: Rows,
    gallery: Rows,
    protocol: Protocol = OFFICIAL,
    block: int | None = None,
) -> Scores:
    """Compute the scores of distances; a smaller distance is nearer.

    `distances` is a matrix (Q, G), or a function that computes those of a block of queries, which are not kept: see
    `feature_blocks`. `block` is the number of queries of a block, else `block_within` decides; it changes no result.
    Rows and columns must already be those of the protocol (see `protocols.select`). Raises ConfigError for missing
    clothes labels that the protocol needs, and DataError for another shape and for NaN.
    """
    of_block = distances if callable(distances) else _of_matrix(np.asarray(distances), len(query), len(gallery))
    judge, ranks = _Judge(query, gallery, protocol), []
    step = block_within(GIGABYTES, len(gallery)) if block is None else block
    for start in range(0, len(query), step):
        end = min(start + step, len(query))
        block_BG = of_block(slice(start, end))
        _check_distances(block_BG, end - start, len(gallery))
        ranks += [judge.ranks(start + place, row_G) for place, row_G in enumerate(block_BG)]
        del block_BG  # before there is the next one
    return _scores(ranks, len(gallery), protocol)


def _of_matrix(distance_QG: NDArray[Any], queries: int, num_gallery: int) -> Blocks:
    _check_distances(distance_QG, queries, num_gallery)
    return lambda chosen: distance_QG[chosen]


def _check_distances(found: NDArray[Any], queries: int, num_gallery: int) -> None:
    if found.shape != (queries, num_gallery) or found.dtype.kind not in "fiu":
        raise DataError(
            f"distances must be real numbers ({queries} queries, {num_gallery} gallery rows), "
            f"found {found.dtype} {found.shape}"
        )


def feature_blocks(query_QD: Floats, gallery_GD: Floats | SquaredDistances) -> Blocks:
    """Return a function that computes the squared Euclidean distances of blocks of queries, in float64.

    The scores equal those of the whole matrix bit for bit, for any block size that is a multiple of TILE. The gallery
    may be given as SquaredDistances, to prepare it once for several calls or to multiply on another device. Raises
    DataError for features that are not finite; the function raises it for features of another length.
    """
    query, gallery = _finite("query", query_QD), gallery_GD
    if not isinstance(gallery, SquaredDistances):
        gallery = SquaredDistances(_finite("gallery", gallery))
    return lambda chosen: gallery.to(query[chosen])


def block_within(gigabytes: float, num_gallery: int) -> int:
    """Return the number of queries whose float64 distances to the gallery fit into `gigabytes` (2^30 bytes).

    It is a multiple of TILE and at most QUERY_BLOCK. Raises DataError where one tile does not fit.
    """
    tile = TILE * num_gallery * 8 / 2**30
    if gigabytes < tile:
        raise DataError(
            f"gigabytes is {gigabytes:g}, wanted at least {tile:.3g}: {TILE} queries by {num_gallery} gallery rows"
        )
    return min(QUERY_BLOCK, int(gigabytes // tile) * TILE) if num_gallery else QUERY_BLOCK


def clothes_changed(query: Rows, gallery: Rows, protocol: Protocol = OFFICIAL) -> NDArray[np.bool_]:
    """Return a mask (Q,) of the queries that can only be found in other clothes.

    True where a query has positives under the protocol, the clothes of the query and of all its positives are known,
    and no positive wears the query's clothes. Raises DataError without clothes labels.
    """
    if query.clothes is None or gallery.clothes is None:
        raise DataError("clothes labels are needed for both the query and the gallery rows")
    judged = JudgedRows(query, gallery, protocol)
    changed_Q = np.zeros(len(query), dtype=np.bool_)
    for number, own in enumerate(query.clothes):
        worn_P = gallery.clothes[judged.relevant(number)[0]]
        known = worn_P.size > 0 and own >= 0 and worn_P.min() >= 0
        changed_Q[number] = known and own not in worn_P
    return changed_Q


def not_ranked(query: Rows, number: int, gallery: Rows, protocol: Protocol) -> NDArray[np.bool_]:
    """Return a mask (G,) of the gallery rows that a protocol does not rank for one query.

    Raises errors as `evaluate`.
    """
    judged = JudgedRows(query, gallery, protocol)
    left_out_G: NDArray[np.bool_] = gallery.pids == JUNK_PID
    left_out_G[judged.relevant(number)[1]] = True
    return left_out_G


def _rows_of(pids_N: Integers) -> dict[int, NDArray[np.int64]]:
    """Return the row numbers of each identity, ascending."""
    order_N = np.argsort(pids_N, kind="stable")
    pids, first = np.unique(pids_N[order_N], return_index=True)
    return dict(zip(pids.tolist(), np.split(order_N, first[1:]), strict=True)) if len(pids) else {}


class JudgedRows:
    """The gallery rows that a protocol ranks for each query, by gallery row number.

    Raises ConfigError when the protocol needs clothes labels that the query or the gallery rows lack.
    """

    def __init__(self, query: Rows, gallery: Rows, rules: Protocol) -> None:
        check_labels(rules, query.clothes is not None and gallery.clothes is not None)
        self._query, self._gallery, self.rules = query, gallery, rules
        self._rows = _rows_of(gallery.pids)
        self.junk = self._rows.get(JUNK_PID, NOTHING)

    def relevant(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of the query's identity, ascending: the positives, and the rows that are not ranked."""
        pid, gallery = int(self._query.pids[number]), self._gallery
        if pid == JUNK_PID:
            return self.junk[:0], self.junk[:0]  # of no identity
        same = self._rows.get(pid, NOTHING)
        if self.rules.ignore_same_camera:
            ranked = gallery.camids[same] != self._query.camids[number]
        elif self.rules.clothes == "any":
            return same, same[:0]
        else:
            ranked = np.ones(len(same), np.bool_)
        if self.rules.clothes != "any":
            assert self._query.clothes is not None
            assert gallery.clothes is not None
            own, worn_P = self._query.clothes[number], gallery.clothes[same]
            ranked &= (own >= 0) & (worn_P >= 0) & ((worn_P == own) == (self.rules.clothes == "same"))
        return same[ranked], same[~ranked]


class _Judge:
    """Ranks the positives of one query at a time; the result does not depend on other queries."""

    def __init__(self, query: Rows, gallery: Rows, rules: Protocol) -> None:
        self._rows = JudgedRows(query, gallery, rules)
        self._room = np.empty((COUNTED_POSITIVES, min(ROOM, len(gallery))), np.bool_)
        self._row_G = np.empty(len(gallery))

    def ranks(self, number: int, row_G: Floats) -> NDArray[np.int64]:
        """Return the 1-based ranks (P,) of a query's positives, ascending, from its distances (G,).

        Raises DataError for a NaN distance.
        """
        ranked_G = self._row_G
        ranked_G[:] = row_G  # to be written to; and all that follows is in the cache
        if ranked_G.size and np.isnan(ranked_G.min()):
            column = int(np.flatnonzero(np.isnan(ranked_G))[0])
            raise DataError(f"the distance of query {number} to gallery row {column} is NaN")
        good_P, ignored_J = self._rows.relevant(number)
        if not good_P.size:
            return NOTHING
        for left_out in (self._rows.junk, ignored_J):
            ranked_G[left_out] = np.nan  # stands before nothing
        ranks_P = _places(ranked_G, good_P, self._room)
        ranks_P.sort()
        return ranks_P


def _places(row_G: Floats, at_P: NDArray[np.int64], room: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the 1-based places of the entries at_P (ascending) in the stable ascending order of a row.

    `room` is scratch memory.
    """
    if at_P.size > COUNTED_POSITIVES:
        places_G = np.empty(row_G.size, np.int64)
        places_G[np.argsort(row_G, kind="stable")] = np.arange(1, row_G.size + 1)
        return places_G[at_P]
    first, last, own_P1 = int(at_P[0]), int(at_P[-1]), row_G[at_P][:, None]
    places_P, equal = np.ones(at_P.size, np.int64), 0
    for start in range(0, row_G.size, ROOM):
        part_S = row_G[start : start + ROOM]
        before_PS = room[: at_P.size, : part_S.size]
        cut = min(max(first - start, 0), part_S.size)
        # Equal entries stand before one only where they stand earlier in the row, as all do that precede the first.
        np.less_equal(part_S[:cut], own_P1, out=before_PS[:, :cut])
        np.less(part_S[cut:], own_P1, out=before_PS[:, cut:])
        places_P += [np.count_nonzero(before_S) for before_S in before_PS]
        between_M = part_S[cut : max(0, last + 1 - start)]
        equal += int(np.count_nonzero(np.equal(between_M, own_P1, out=before_PS[:, : between_M.size])))
    if equal > at_P.size:  # others than itself
        places_P += [
            np.count_nonzero(row_G[first:at] == own) for at, own in zip(at_P.tolist(), row_G[at_P], strict=True)
        ]
    return places_P


def average_precisions(
    ranks: Sequence[NDArray[np.int64]], rule: Literal["trapezoid", "precision"]
) -> NDArray[np.float64]:
    """Compute the average precision (Q,) of queries from the 1-based, ascending ranks of their positives.

    NaN for a query without a positive.
    """
    counts_Q = np.array([len(ranks_P) for ranks_P in ranks], np.int64)
    ap_Q = np.full(len(ranks), np.nan)
    if not counts_Q.any():
        return ap_Q
    first_Q = np.cumsum(counts_Q) - counts_Q
    rank_R = np.concatenate(ranks)
    hits_R = np.arange(1, len(rank_R) + 1) - np.repeat(first_Q, counts_Q)
    precision_R = hits_R / rank_R
    if rule == "trapezoid":
        # Recall moves at hits only, so each hit adds one trapezoid from the row just before it; at rank 1 that is 1.
        before_R = np.where(rank_R == 1, 1.0, (hits_R - 1) / np.maximum(rank_R - 1, 1))
        precision_R = (before_R + precision_R) / 2
    some_Q = counts_Q > 0
    ap_Q[some_Q] = np.add.reduceat(precision_R, first_Q[some_Q]) / counts_Q[some_Q]
    return ap_Q


def _scores(ranks: Sequence[NDArray[np.int64]], num_gallery: int, protocol: Protocol) -> Scores:
    ap_Q = average_precisions(ranks, protocol.ap)
    if protocol.average == "all":
        ap_Q[np.isnan(ap_Q)] = 0.0
    first_hit_Q = np.array([ranks_P[0] if ranks_P.size else 0 for ranks_P in ranks], np.int64)
    return Scores(ap_Q, first_hit_Q, num_gallery, protocol)


def _labels(name: str, labels: Integers) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{name} must be a 1-D integer array, found {array.dtype} {array.shape}")
    own = array.astype(np.int64)
    own.setflags(write=False)
    return own


def _finite(side: str, features: Floats) -> NDArray[Any]:
    matrix = np.asarray(features)
    # a part at a time: the flags of all values of a big gallery would be a matrix themselves
    axes = tuple(range(1, matrix.ndim))
    finite = [np.isfinite(matrix[at : at + 4096]).all(axis=axes) for at in range(0, len(matrix), 4096)]
    bad = np.flatnonzero(~np.concatenate(finite)) if finite else np.empty(0, np.int64)
    if bad.size:
        raise DataError(f"{side} features of {bad.size} rows are not finite, first row {bad[0]}")
    return matrix
