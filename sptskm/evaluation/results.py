"""Results of an evaluation, and their table.

Every line of scores carries its protocol and the numbers of used and skipped queries.
Legend: Q queries, G gallery rows.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.console import table as text_table
from sptskm.config import STREAMS, Config, Final
from sptskm.data import Tracklets
from sptskm.data.tracklets import DISTRACTOR_PID, JUNK_PID
from sptskm.evaluation import (
    Fusion,
    Part,
    Protocol,
    Reranking,
    Scores,
    Weights,
    clothes_changed,
    pair_weight,
)
from sptskm.evaluation.distances import Floats
from sptskm.evaluation.insight import NOTHING, Insight
from sptskm.evaluation.protocols import Integers
from sptskm.evaluation.statistics import bootstrap_interval

RESULTS, QUERIES = "results.json", "queries.csv"
RANKS = (1, 5, 10, 20)
METRICS = ("mAP", *(f"rank-{k}" for k in RANKS))


@dataclass(frozen=True, eq=False)
class Ranking:
    """Distances (Q, G) of one stream or fusion, and their scores."""

    name: str
    distance_QG: Floats
    scores: Scores


@dataclass(frozen=True, eq=False)
class Results:
    """All results of a final job."""

    table: Tracklets
    test: Part
    """The test tracklets of the table, and their features by each stream."""
    rankings: Sequence[Ranking]
    fusion: Fusion | None
    configs: Sequence[Config]
    settings: Final
    provenance: Mapping[str, Any]
    insight: Insight = NOTHING

    @property
    def plain(self) -> Ranking:
        """Return the last ranking without re-ranking: the fused one where there are several streams."""
        return [ranking for ranking in self.rankings if ranking.name != "reranked"][-1]

    @property
    def offered(self) -> str:
        """Return the name of the ranking that is the result: the fused one only where held-out people recommend it."""
        offer = None if self.fusion is None else self.fusion.offer
        return self.plain.name if offer is None else offer.name

    @property
    def reranked(self) -> bool:
        """Return whether there is a re-ranked version of the last plain ranking."""
        return any(ranking.name == "reranked" for ranking in self.rankings)

    @cached_property
    def query_rows(self) -> Integers:
        """Return the rows of the queries (Q,) in the table."""
        return self.table.test[self.test.query_rows]

    @cached_property
    def gallery_rows(self) -> Integers:
        """Return the rows of the gallery (G,) in the table."""
        return self.table.test[self.test.gallery_rows]

    @cached_property
    def test_data(self) -> str:
        """Return a hash of the ranked data: the tracklets of queries and gallery, and their labels."""
        digest = hashlib.sha256()
        for rows, labels in ((self.query_rows, self.test.query), (self.gallery_rows, self.test.gallery)):
            digest.update("\n".join(self.table.keys_N[rows].tolist()).encode())
            for array in (labels.pids, labels.camids, labels.clothes):
                digest.update(b"-" if array is None else array.tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def camera_names(self) -> dict[int, str]:
        """Return the names of all cameras of queries and gallery, by camera id."""
        rows = np.concatenate([self.query_rows, self.gallery_rows]).tolist()
        return {int(self.table.camids_N[row]): self.table.camera_name(row) for row in rows}

    @cached_property
    def subsets(self) -> dict[str, NDArray[np.bool_]]:
        """Return the mask (Q,) of queries for each subset of the table of results."""
        chosen = {"all": np.ones(len(self.test.query), dtype=bool)}
        if self.table.has_clothes and self.test.protocol.clothes == "any":
            chosen["clothes changed"] = clothes_changed(self.test.query, self.test.gallery, self.test.protocol)
        return chosen

    def lines(self) -> list[dict[str, Any]]:
        """Return one line per ranking and subset, with all that belongs to a result."""
        return self._lines

    @cached_property
    def _lines(self) -> list[dict[str, Any]]:
        return [
            {
                "queries": subset,
                "stream": ranking.name,
                "mAP": number(scores.mAP),
                "mAP_interval": _interval(scores, self.test.query.pids[mask_Q]),
                **{f"rank-{k}": number(scores.rank(k)) for k in RANKS},
                "used": scores.num_queries,
                "skipped": scores.num_skipped,
                "without_positive": int(np.count_nonzero(scores.first_hit_Q == 0)),
                "gallery": scores.num_gallery,
                "protocol": scores.protocol.name,
            }
            for subset, mask_Q in self.subsets.items()
            for ranking in self.rankings
            for scores in [ranking.scores.subset(mask_Q)]
        ]

    def text(self) -> str:
        """Return the results as a table for people."""
        header = ["queries", "stream", "mAP", "95 %", *METRICS[1:], "used", "skipped"]
        rows = []
        for line in self.lines():
            mAP, *ranks = in_percent(line)
            low_high = "-".join(f"{100 * end:.1f}" for end in line["mAP_interval"] or ()) or "-"
            names = line["queries"], title_of(line["stream"])
            rows.append([*names, mAP, low_high, *ranks, line["used"], line["skipped"]])
        return f"{text_table(header, rows)}\n{self.caption()}"

    def caption(self) -> str:
        """Describe protocol, gallery, fusion and re-ranking in a sentence each."""
        pids, rules = self.test.gallery.pids, self.test.protocol
        junk, distractors = int((pids == JUNK_PID).sum()), int((pids == DISTRACTOR_PID).sum())
        parts = [
            f"protocol {rules.name}: gallery of {len(pids)} tracklets ({junk} junk, {distractors} distractors), "
            f"AP by {'the trapezoid rule' if rules.ap == 'trapezoid' else 'mean precision'}, {_left_out(rules)}"
        ]
        if rules.average == "all":
            first_hit_Q = self.rankings[0].scores.first_hit_Q
            without = np.count_nonzero(first_hit_Q == 0)
            parts[0] += f", queries without a positive count as 0 ({without} of {len(first_hit_Q)})"
        if self.fusion is not None:
            how = "as given" if self.fusion.curve_WS is None else "chosen on identities held out of training"
            how += ", by pairs in other clothes" if self.fusion.changed_clothes else ""
            parts.append(f"fusion: {self.fusion.normalisation}, {weights_told(self.fusion.weights)}, {how}")
            if (offer := self.fusion.offer) is not None:
                parts.append(offer.reason(title_of(offer.better)))
        names = [name for name, origin in self.provenance.items() if not origin.get("finished", True)]
        if names:
            parts.append(f"{' and '.join(map(title_of, names))} had not finished training")
        if self.reranked:
            values, of = Reranking(), title_of(self.plain.name)
            parts.append(
                f"reranked: {of} after k-reciprocal re-ranking (k1 {values.k1}, k2 {values.k2}, share of the distance "
                f"{values.share:g}), which goes by the neighbours of the test tracklets among each other "
                "(transductive), so that it compares only with results that do so too"
            )
        return "\n".join(parts)


def in_percent(line: Mapping[str, Any], missing: str = "-") -> list[str]:
    """Return the METRICS of a line of results as people read them."""
    return [missing if line[name] is None else f"{100 * line[name]:.1f}" for name in METRICS]


def title_of(ranking: str) -> str:
    """Return the name of a stream, or of a ranking made of streams, as people read it."""
    return STREAMS[ranking].title if ranking in STREAMS else ranking


def weights_told(weights: Weights) -> str:
    """Return fusion weights in words: the share of the second of two streams, or all of them."""
    share = pair_weight(weights)
    if share is not None:
        return f"weight of {title_of([*weights][1])} {share:.2f}"
    return "weights " + ", ".join(f"{title_of(stream)} {weight:.2f}" for stream, weight in weights.items())


def _left_out(rules: Protocol) -> str:
    """Describe which tracklets are too short, and which rows of the query's own identity are not ranked."""
    said = [f"only tracklets of {rules.min_length} frames or more"] if rules.min_length > 1 else []
    said.append("same camera ignored" if rules.ignore_same_camera else "cameras not looked at")
    if rules.clothes != "any":
        said.append("same clothes ignored" if rules.clothes == "other" else "other clothes ignored")
    return ", ".join(said)


def _interval(scores: Scores, pids_Q: Integers) -> list[float] | None:
    """Return the bootstrap interval of the mAP over the identities of counted queries; None for a single identity."""
    pids = pids_Q[scores.counted_Q]
    return list(bootstrap_interval(scores.ap_Q[scores.counted_Q], pids)) if len(np.unique(pids)) > 1 else None


def pluralize(count: int, singular: str, plural: str) -> str:
    """Return a count with the matching form of its noun: "1 query", "2 queries"."""
    return f"{count} {singular if count == 1 else plural}"


def number(value: float) -> float | None:
    """Return the value, or None for NaN (a mean over no query), which JSON cannot hold."""
    return None if math.isnan(value) else float(value)
