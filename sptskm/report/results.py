"""What an evaluation leaves behind: a table, results.json, features, pictures and TensorBoard pages.

A number never travels without its protocol: every line carries it, with the queries used and skipped.
Legend: Q queries, G gallery rows, W weights.
"""

import json
import logging
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sptskm import __version__
from sptskm.atomic import write_text
from sptskm.config import Config, Final
from sptskm.configfile import to_dict
from sptskm.data import Tracklets
from sptskm.data.tracklets import DISTRACTOR_PID, JUNK_PID
from sptskm.evaluation import Features, Rows, Scores, clothes_changed, protocol
from sptskm.report.console import table as text_table
from sptskm.report.figures import cmc_figure, ranked_grid, weight_figure
from sptskm.report.tensorboard import Board

log = logging.getLogger(__name__)

RANKS = (1, 5, 10, 20)
SHOWN_QUERIES, SHOWN_RANKS = 8, 10
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

    @cached_property
    def subsets(self) -> dict[str, NDArray[np.bool_]]:
        """Which queries (Q,) each part of the table averages over."""
        chosen = {"all": np.ones(len(self.query), dtype=bool)}
        if self.table.has_clothes:
            chosen["clothes changed"] = clothes_changed(self.query, self.gallery)
        return chosen

    def lines(self) -> list[dict[str, Any]]:
        """One line per ranking and subset, with everything that makes it a result."""
        return [
            {
                "queries": subset,
                "stream": ranking.name,
                "mAP": _number(scores.mAP),
                **{f"rank-{k}": _number(scores.rank(k)) for k in RANKS},
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
        header = ["queries", "stream", "mAP", *(f"rank-{k}" for k in RANKS), "used", "skipped"]
        percent = header[2:-2]
        rows = [
            [
                line["queries"],
                NAMES[line["stream"]],
                *("-" if line[name] is None else f"{100 * line[name]:.1f}" for name in percent),
                line["used"],
                line["skipped"],
            ]
            for line in self.lines()
        ]
        return f"{text_table(header, rows)}\n{self.caption()}"

    def caption(self) -> str:
        """Protocol, gallery and fusion in a sentence each."""
        pids, rules = self.gallery.pids, protocol(self.settings.protocol)
        junk, distractors = int((pids == JUNK_PID).sum()), int((pids == DISTRACTOR_PID).sum())
        parts = [
            f"protocol {rules.name}: gallery of {len(pids)} tracklets ({junk} junk, {distractors} distractors), "
            f"AP by {'the trapezoid rule' if rules.ap == 'trapezoid' else 'mean precision'}, "
            f"{'same camera ignored' if rules.ignore_same_camera else 'cameras not looked at'}"
        ]
        if self.fusion is not None:
            how = "as given" if self.fusion.curve_W2 is None else "chosen on identities held out of training"
            parts.append(f"fusion: {self.fusion.normalisation}, weight of SMIN {self.fusion.weight:.2f}, {how}")
        return "\n".join(parts)


def _number(value: float) -> float | None:
    """NaN, the mean over no query, is not a number in JSON either."""
    return None if math.isnan(value) else float(value)


def write(results: Results, out: Path) -> None:
    """results.json, features and TensorBoard pages below `out`; the test set counts one more look."""
    out.mkdir(parents=True, exist_ok=True)
    looks = _count_look(out / "test_evaluations.json")
    for features, rows in ((f, results.table.test) for f in results.features):
        _save_features(out / f"features-{features.stream}.npz", features, results.table, rows)
    write_text(out / "results.json", json.dumps(_json(results, looks), indent=1))
    _write_board(results, out)


def _json(results: Results, looks: int) -> dict[str, Any]:
    fusion = results.fusion
    return {
        "protocol": results.settings.protocol,
        "results": results.lines(),
        "cmc": {ranking.name: list(map(_number, ranking.scores.cmc)) for ranking in results.rankings},
        "fusion": fusion
        and {
            "weight": fusion.weight,
            "normalisation": fusion.normalisation,
            "held_out_curve": None if fusion.curve_W2 is None else fusion.curve_W2.tolist(),
        },
        "test_evaluations": looks,
        "provenance": results.provenance,
        "configs": {config.stream: to_dict(config) for config in results.configs},
        "versions": {"sptskm": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _count_look(path: Path) -> int:
    """How often the test set was evaluated into this folder, this time included."""
    dates = json.loads(path.read_text()) if path.is_file() else []
    dates.append(datetime.now(timezone.utc).isoformat(timespec="seconds"))
    write_text(path, json.dumps(dates, indent=1))
    return len(dates)


def _save_features(path: Path, features: Features, table: Tracklets, rows: NDArray[np.int64]) -> None:
    """Features of the test tracklets with keys and labels, as plain arrays that load without pickle."""
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        features=features.features_ND,
        keys=features.keys_N,
        valid=features.valid_N,
        pids=table.pids_N[rows],
        camids=table.camids_N[rows],
        clothes=table.clothes_N[rows],
        fingerprint=np.array(features.fingerprint),
        stream=np.array(features.stream),
    )
    partial.replace(path)


def _write_board(results: Results, out: Path) -> None:
    """Text and pictures in `out`, curves in a run per ranking, so that TensorBoard draws them over each other."""
    for folder in (out, *(out / name for name in NAMES.values())):
        for old in folder.glob("events.out.tfevents.*"):  # one page per folder, however often it is evaluated
            old.unlink()
    board = Board(out)
    board.text("results", "```\n" + results.text() + "\n```")
    for name, picture in _pictures(results).items():
        board.picture(name, picture, 0)
        cv2.imwrite(str(out / f"{name.replace(' ', '-')}.png"), picture[..., ::-1])
    board.close()
    for ranking in results.rankings:
        _write_curves(Board(out / NAMES[ranking.name]), ranking, results)


def _write_curves(board: Board, ranking: Ranking, results: Results) -> None:
    """Metrics as points, the CMC as a curve over its rank."""
    for line in results.lines():
        if line["stream"] == ranking.name:
            names = ("mAP", *(f"rank-{k}" for k in RANKS))
            board.scalars({f"{line['queries']} queries/{n}": line[n] for n in names if line[n] is not None}, 0)
    for k, share in enumerate(ranking.scores.cmc, start=1):
        board.scalars({"CMC over rank": float(share)}, k)
    board.close()


def _pictures(results: Results) -> dict[str, NDArray[np.uint8]]:
    """What the board shows and the folder keeps as PNG."""
    title = f"{results.settings.protocol}, {results.rankings[-1].scores.num_queries} queries"
    pictures = {"CMC": cmc_figure({NAMES[r.name]: r.scores.cmc for r in results.rankings}, title)}
    if results.fusion is not None and results.fusion.curve_W2 is not None:
        heading = "mAP over the fusion weight, identities held out of training"
        pictures["fusion weight"] = weight_figure(results.fusion.curve_W2, results.fusion.weight, heading)
    if any(ranking.scores.num_queries for ranking in results.rankings):
        pictures["ranked results"] = ranked_picture(results)
    return pictures


def ranked_picture(results: Results) -> NDArray[np.uint8]:
    """Queries from the best to the worst ranked with their first ten results; junk is left out."""
    ranking = results.rankings[-1]
    used = np.flatnonzero(ranking.scores.first_hit_Q > 0)
    by_ap = used[np.argsort(-ranking.scores.ap_Q[used], kind="stable")]
    chosen = by_ap[np.linspace(0, len(by_ap) - 1, min(SHOWN_QUERIES, len(by_ap))).round().astype(int)]
    ranked_kR = [_first_results(results, ranking, int(q)) for q in chosen]
    shown = min(map(len, ranked_kR))
    order_kR = np.array([order[:shown] for order in ranked_kR])
    return ranked_grid(
        results.table,
        results.query_rows[chosen],
        results.gallery_rows[order_kR],
        results.gallery.pids[order_kR] == results.query.pids[chosen][:, None],
        np.take_along_axis(ranking.distance_QG[chosen], order_kR, axis=1),
        f"{NAMES[ranking.name]}, {results.settings.protocol}: queries from best to worst AP",
    )


def _first_results(results: Results, ranking: Ranking, q: int) -> NDArray[np.int64]:
    """Gallery columns of a query's first results under the protocol."""
    query, gallery = results.query, results.gallery
    junk_G = gallery.pids == JUNK_PID
    if protocol(results.settings.protocol).ignore_same_camera:
        junk_G = junk_G | ((gallery.pids == query.pids[q]) & (gallery.camids == query.camids[q]))
    order = np.argsort(ranking.distance_QG[q], kind="stable")
    return order[~junk_G[order]][:SHOWN_RANKS]
