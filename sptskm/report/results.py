"""What an evaluation has found, and the table of it.

A number never travels without its protocol: every line carries it, with the queries used and skipped.
Legend: Q queries, G gallery rows, W weights.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.config import Config, Final
from sptskm.data import Tracklets
from sptskm.data.tracklets import DISTRACTOR_PID, JUNK_PID
from sptskm.evaluation import Features, Protocol, Rows, Scores, clothes_changed, protocol
from sptskm.evaluation.statistics import bootstrap_interval
from sptskm.report.console import table as text_table
from sptskm.report.insight import NOTHING, Insight

RESULTS, QUERIES = "results.json", "queries.csv"
RANKS = (1, 5, 10, 20)
NAMES = {"ssin": "SSIN", "smin": "SMIN", "fused": "fused"}


@dataclass(frozen=True, eq=False)
class Ranking:
    """Distances (Q, G) of one way to compare tracklets, and their scores."""

    name: str
    distance_QG: NDArray[np.float64]
    scores: Scores


@dataclass(frozen=True, eq=False)
class Fusion:
    """How the two streams were joined; without a curve (W, 2) the weight was given, not chosen."""

    weight: float
    normalisation: str
    curve_W2: NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class Results:
    """All that a final job knows; row numbers are those of the table."""

    table: Tracklets
    query_rows: NDArray[np.int64]
    gallery_rows: NDArray[np.int64]
    query: Rows
    gallery: Rows
    rankings: Sequence[Ranking]
    fusion: Fusion | None
    features: Sequence[Features]
    configs: Sequence[Config]
    settings: Final
    provenance: Mapping[str, Any]
    insight: Insight = NOTHING

    @property
    def protocol(self) -> str:
        """Its name, also where the settings name the file that describes it."""
        return protocol(self.settings.protocol).name

    @cached_property
    def subsets(self) -> dict[str, NDArray[np.bool_]]:
        """Which queries (Q,) each part of the table averages over."""
        chosen = {"all": np.ones(len(self.query), dtype=bool)}
        if self.table.has_clothes and protocol(self.settings.protocol).clothes == "any":
            chosen["clothes changed"] = clothes_changed(self.query, self.gallery)
        return chosen

    def lines(self) -> list[dict[str, Any]]:
        """One line per ranking and subset, with everything that makes it a result."""
        return self._lines

    @cached_property
    def _lines(self) -> list[dict[str, Any]]:
        return [
            {
                "queries": subset,
                "stream": ranking.name,
                "mAP": number(scores.mAP),
                "mAP_interval": _interval(scores),
                **{f"rank-{k}": number(scores.rank(k)) for k in RANKS},
                "used": scores.num_queries,
                "skipped": scores.num_skipped,
                "gallery": scores.num_gallery,
                "protocol": scores.protocol,
            }
            for subset, mask_Q in self.subsets.items()
            for ranking in self.rankings
            for scores in [ranking.scores.subset(mask_Q)]
        ]

    def text(self) -> str:
        """The table people look at."""
        metrics = ("mAP", *(f"rank-{k}" for k in RANKS))
        header = ["queries", "stream", "mAP", "95 %", *metrics[1:], "used", "skipped"]
        rows = []
        for line in self.lines():
            mAP, *ranks = ("-" if line[name] is None else f"{100 * line[name]:.1f}" for name in metrics)
            low_high = "-".join(f"{100 * end:.0f}" for end in line["mAP_interval"] or ())
            rows.append([line["queries"], NAMES[line["stream"]], mAP, low_high, *ranks, line["used"], line["skipped"]])
        return f"{text_table(header, rows)}\n{self.caption()}"

    def caption(self) -> str:
        """Protocol, gallery and fusion in a sentence each."""
        pids, rules = self.gallery.pids, protocol(self.settings.protocol)
        junk, distractors = int((pids == JUNK_PID).sum()), int((pids == DISTRACTOR_PID).sum())
        parts = [
            f"protocol {rules.name}: gallery of {len(pids)} tracklets ({junk} junk, {distractors} distractors), "
            f"AP by {'the trapezoid rule' if rules.ap == 'trapezoid' else 'mean precision'}, {_left_out(rules)}"
        ]
        if self.fusion is not None:
            how = "as given" if self.fusion.curve_W2 is None else "chosen on identities held out of training"
            parts.append(f"fusion: {self.fusion.normalisation}, weight of SMIN {self.fusion.weight:.2f}, {how}")
        return "\n".join(parts)


def _left_out(rules: Protocol) -> str:
    """Which rows of the query's own identity are not ranked."""
    said = ["same camera ignored" if rules.ignore_same_camera else "cameras not looked at"]
    if rules.clothes != "any":
        said.append("same clothes ignored" if rules.clothes == "other" else "other clothes ignored")
    return ", ".join(said)


def _interval(scores: Scores) -> list[float] | None:
    """Of the mAP, over the queries that count."""
    used_Q = scores.counted_Q
    return list(bootstrap_interval(scores.ap_Q[used_Q])) if used_Q.any() else None


def number(value: float) -> float | None:
    """NaN, the mean over no query, is not a number in JSON either."""
    return None if math.isnan(value) else float(value)
