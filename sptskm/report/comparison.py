"""Two evaluations side by side, query by query, and several seeds of one.

An evaluation is a folder that the final job has written; FOLDER:STREAM names one of its rankings.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.data import DataError
from sptskm.evaluation.statistics import Difference, paired_difference
from sptskm.report.console import table as text_table
from sptskm.report.results import NAMES, QUERIES, RANKS, RESULTS

Floats = NDArray[np.float64]

SHOWN = 5  # queries that gain and lose most


@dataclass(frozen=True, eq=False)
class Judged:
    """What one ranking did for every query; only those count that have a positive."""

    name: str
    protocol: str
    gallery: int
    keys: list[str]
    ap_Q: Floats
    """NaN for a skipped query."""
    first_hit_Q: NDArray[np.int64]
    subsets: Mapping[str, NDArray[np.bool_]]


def read_judged(place: str) -> Judged:
    """A ranking of an evaluation by FOLDER or FOLDER:STREAM (the fused one where there are several)."""
    folder, stream = _split(place)
    results = read_results(folder)
    streams = list(dict.fromkeys(line["stream"] for line in results["results"]))
    stream = stream or ("fused" if "fused" in streams else streams[0])
    if stream not in streams:
        raise DataError(f"{folder}: has no ranking {stream}, wanted one of {', '.join(streams)}")
    lines = _read_lines(folder / QUERIES)
    own = next(line for line in results["results"] if line["stream"] == stream)
    changed = {line["clothes_changed"] for line in lines}
    subsets = {"all": np.ones(len(lines), bool)}
    if changed != {""}:
        subsets["clothes changed"] = np.array([line["clothes_changed"] == "1" for line in lines])
    return Judged(
        name=f"{folder.name}:{stream}" if folder.name != "final" else f"{folder.parent.name}:{stream}",
        protocol=results["protocol"],
        gallery=own["gallery"],
        keys=[line["tracklet"] for line in lines],
        ap_Q=np.array([float(line[f"{stream}_ap"] or "nan") for line in lines]),
        first_hit_Q=np.array([int(line[f"{stream}_first_hit"]) for line in lines]),
        subsets=subsets,
    )


def _split(place: str) -> tuple[Path, str]:
    folder, colon, stream = place.rpartition(":")
    return (Path(folder), stream) if colon and stream in NAMES else (Path(place), "")


def read_results(folder: Path) -> dict[str, Any]:
    """What the final job wrote down. FileNotFoundError for a folder in which none has ended."""
    path = folder / RESULTS
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted a folder that `sptskm evaluate` has written")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _read_lines(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; evaluate again to have it")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compare(a: str, b: str) -> str:
    """Which of two evaluations of the same queries is better, how sure that is, and for which queries.

    Raises DataError when they are not of the same queries, gallery and protocol.
    """
    first, second = read_judged(a), read_judged(b)
    _check_comparable(first, second)
    order = {key: place for place, key in enumerate(second.keys)}
    places = np.array([order[key] for key in first.keys])
    ap_Q, hits_Q = second.ap_Q[places], second.first_hit_Q[places]
    counted_Q = ~np.isnan(first.ap_Q) & ~np.isnan(ap_Q)
    rows = []
    for subset, within_Q in first.subsets.items():
        keep = counted_Q & within_Q
        if keep.any():
            rows.append(_row(f"mAP, {subset}", first.ap_Q[keep], ap_Q[keep]))
            for k in RANKS[:1]:
                pair = (((h[keep] > 0) & (h[keep] <= k)).astype(float) for h in (first.first_hit_Q, hits_Q))
                rows.append(_row(f"rank-{k}, {subset}", *pair))
    header = ["", first.name, second.name, "change", "95 % interval", "p", "better", "worse", "same"]
    notes = [
        f"protocol {first.protocol}, {int(counted_Q.sum())} queries; p: paired permutation test over queries",
        "An interval over queries says nothing of what another seed of the training would give.",
    ]
    return "\n".join([text_table(header, rows), *notes, _extremes(first, ap_Q, counted_Q)])


def _check_comparable(a: Judged, b: Judged) -> None:
    if (a.protocol, a.gallery) != (b.protocol, b.gallery):
        raise DataError(
            f"{a.name} is of {a.protocol} with {a.gallery} gallery rows and {b.name} of {b.protocol} with {b.gallery}; "
            "wanted the same"
        )
    if set(a.keys) != set(b.keys):
        other = sorted(set(a.keys) ^ set(b.keys))
        raise DataError(f"{a.name} and {b.name} are of different queries ({len(other)}, such as {other[0]})")


def _row(name: str, a_Q: Floats, b_Q: Floats) -> list[str | int]:
    found: Difference = paired_difference(a_Q, b_Q)
    percent = [f"{100 * value:.1f}" for value in (a_Q.mean(), b_Q.mean())]
    interval = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
    return [
        name,
        *percent,
        f"{100 * found.mean:+.1f}",
        interval,
        f"{found.p:.4f}",
        found.better,
        found.worse,
        found.same,
    ]


def _extremes(a: Judged, ap_Q: Floats, counted_Q: NDArray[np.bool_]) -> str:
    """The queries whose AP gains and loses most."""
    change_Q = np.where(counted_Q, ap_Q - a.ap_Q, 0)
    order = np.argsort(change_Q, kind="stable")
    lines = []
    for title, places in (("gain most", order[::-1][:SHOWN]), ("lose most", order[:SHOWN])):
        shown = [q for q in places.tolist() if (change_Q[q] > 0 if title == "gain most" else change_Q[q] < 0)]
        told = ", ".join(f"{a.keys[q]} {100 * a.ap_Q[q]:.0f} -> {100 * ap_Q[q]:.0f}" for q in shown)
        lines.append(f"{title}: {told or 'none'}")
    return "\n".join(lines)


def summary(folders: Sequence[Path]) -> str:
    """Mean and standard deviation over several evaluations, as of several seeds. DataError for other protocols."""
    found = [read_results(folder) for folder in folders]
    protocols = sorted({results["protocol"] for results in found})
    if len(protocols) > 1:
        raise DataError(f"the evaluations are of the protocols {' and '.join(protocols)}, wanted one")
    metrics = ("mAP", *(f"rank-{k}" for k in RANKS))
    values: dict[tuple[str, str], list[list[float]]] = {}
    for results in found:
        for line in results["results"]:
            row = [100 * (line[metric] if line[metric] is not None else np.nan) for metric in metrics]
            values.setdefault((line["queries"], line["stream"]), []).append(row)
    rows = []
    for (queries, stream), lists in values.items():
        table = np.array(lists)
        spread = table.std(axis=0, ddof=1) if len(table) > 1 else np.full(len(metrics), np.nan)
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(table.mean(axis=0), spread, strict=True)]
        rows.append([queries, NAMES[stream], *cells, len(table)])
    looks = ", ".join(str(results["test_evaluations"]) for results in found)
    note = f"protocol {protocols[0]}; mean ± standard deviation over runs; test was evaluated {looks} times"
    return f"{text_table(['queries', 'stream', *metrics, 'runs'], rows)}\n{note}"
