"""Comparison of two evaluations query by query, and a summary of several seeds.

An evaluation is a folder that the final job has written; FOLDER:STREAM names one of its rankings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.console import table as text_table
from sptskm.common.errors import DataError
from sptskm.configfile import flat, in_force
from sptskm.evaluation.results import METRICS, QUERIES, RESULTS, pluralize, title_of
from sptskm.evaluation.saved import read_queries, read_results
from sptskm.evaluation.statistics import Difference, paired_difference

Floats = NDArray[np.float64]

SEEDS = (".train.seed", ".data.split_seed")
# where things lie and how fast they go; rules and test data are compared on their own
INDIFFERENT = (
    ".run", ".data.root", ".data.workers", ".data.stage", ".model.pretrained", ".model.trunk",
    ".train.save_minutes", ".train.save_steps", ".train.leave_seconds", ".train.timeout_minutes", ".train.compile",
    ".train.threads", ".extract.batch", "final.protocol", "final.rerank_gigabytes",
)  # fmt: skip
SHOWN = 5  # queries that gain and lose most


@dataclass(frozen=True, eq=False)
class Judged:
    """Scores of one ranking for every query; only queries with a positive count."""

    name: str
    protocol: str
    conditions: Mapping[str, object]
    keys: list[str]
    pids_Q: NDArray[np.str_]
    ap_Q: Floats
    """NaN for a skipped query."""
    first_hit_Q: NDArray[np.int64]
    subsets: Mapping[str, NDArray[np.bool_]]


def read_judged(place: str) -> Judged:
    """Read a ranking of an evaluation by FOLDER or FOLDER:STREAM (by default the fused one, else the first)."""
    folder, stream = _split(place)
    results = read_results(folder)
    streams = list(dict.fromkeys(line["stream"] for line in results["results"]))
    stream = stream or ("fused" if "fused" in streams else streams[0])
    if stream not in streams:
        raise DataError(f"{folder}: has no ranking {stream}, wanted one of {', '.join(streams)}")
    lines = read_queries(folder, streams)
    own = next(line for line in results["results"] if line["stream"] == stream)
    if len(lines) != (wanted := own["used"] + own["skipped"]):
        raise DataError(f"{folder / QUERIES}: is damaged, has {len(lines)} queries, wanted {wanted} as {RESULTS} says")
    return _judged(f"{_called(folder)}:{stream}", results, lines, stream)


def _judged(name: str, results: Mapping[str, Any], lines: Sequence[Mapping[str, str]], stream: str) -> Judged:
    subsets = {"all": np.ones(len(lines), bool)}
    if {line["clothes_changed"] for line in lines} != {""}:
        subsets["clothes changed"] = np.array([line["clothes_changed"] == "1" for line in lines])
    return Judged(
        name=name,
        protocol=results["protocol"],
        conditions=conditions(results),
        keys=[line["tracklet"] for line in lines],
        pids_Q=np.array([line["pid"] for line in lines]),
        ap_Q=np.array([float(line[f"{stream}_ap"] or "nan") for line in lines]),
        first_hit_Q=np.array([int(line[f"{stream}_first_hit"]) for line in lines]),
        subsets=subsets,
    )


def _called(folder: Path) -> str:
    folder = folder.resolve()
    return folder.parent.name if folder.name == "final" else folder.name


def _split(place: str) -> tuple[Path, str]:
    """Split FOLDER:STREAM into folder and stream (in lower case); the path itself may contain a colon."""
    folder, colon, stream = place.rpartition(":")
    if not colon or "/" in stream or Path(place).is_dir():
        return Path(place), ""
    return Path(folder), stream.lower()


def conditions(results: Mapping[str, Any]) -> dict[str, object]:
    """Return all rules of the protocol and the fingerprint of the test data.

    Scores are compared only where these are equal.
    """
    return {**results["rules"], "test data": results["test_data"]}


def _check_alike(a: str, first: Mapping[str, object], b: str, second: Mapping[str, object]) -> None:
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    if names:
        told = ", ".join(f"{name} ({first.get(name)} and {second.get(name)})" for name in names)
        raise DataError(f"{a} and {b} differ in {told}, wanted the same rules and test data")


def compare(a: str, b: str) -> str:
    """Compare two evaluations of the same queries: which is better, with what confidence, and on which queries.

    Raises DataError when queries, rules or test data differ.
    """
    first, second = read_judged(a), read_judged(b)
    _check_alike(first.name, first.conditions, second.name, second.conditions)
    if set(first.keys) != set(second.keys):
        other = sorted(set(first.keys) ^ set(second.keys))
        raise DataError(f"{first.name} and {second.name} are of different queries ({len(other)}, such as {other[0]})")
    order = {key: place for place, key in enumerate(second.keys)}
    places = np.array([order[key] for key in first.keys])
    ap_Q, hits_Q = second.ap_Q[places], second.first_hit_Q[places]
    counted_Q = ~np.isnan(first.ap_Q) & ~np.isnan(ap_Q)
    rows = []
    for subset, within_Q in first.subsets.items():
        keep = counted_Q & within_Q
        if keep.any():
            rows.append(_row(f"mAP, {subset}", first.ap_Q[keep], ap_Q[keep], first.pids_Q[keep]))
            one, other = ((hits[keep] == 1).astype(float) for hits in (first.first_hit_Q, hits_Q))
            rows.append(_row(f"rank-1, {subset}", one, other, first.pids_Q[keep]))
    header = ["", first.name, second.name, "change", "95 % interval", "p", "better", "worse", "same"]
    people = len(np.unique(first.pids_Q[counted_Q]))
    whose = pluralize(people, "identity", "identities")
    notes = [
        f"protocol {first.protocol}, {pluralize(int(counted_Q.sum()), 'query', 'queries')} of {whose}",
        "interval: bootstrap over people, with all their queries; p: paired permutation test over people; at the edge "
        "the two can differ",
        "An interval over people says nothing of what another seed of the training would give.",
    ]
    return "\n".join([text_table(header, rows), *notes, _extremes(first, ap_Q, counted_Q)])


def _row(name: str, a_Q: Floats, b_Q: Floats, pids_Q: NDArray[np.str_]) -> list[str | int]:
    found: Difference = paired_difference(a_Q, b_Q, pids_Q)
    percent = [f"{100 * value:.1f}" for value in (a_Q.mean(), b_Q.mean())]
    interval = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}" if len(np.unique(pids_Q)) > 1 else "-"
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
    """List the queries whose AP gains and loses most."""
    change_Q = np.where(counted_Q, ap_Q - a.ap_Q, 0)
    order = np.argsort(change_Q, kind="stable")
    lines = []
    for title, places in (("gain most", order[::-1][:SHOWN]), ("lose most", order[:SHOWN])):
        shown = [q for q in places.tolist() if (change_Q[q] > 0 if title == "gain most" else change_Q[q] < 0)]
        told = ", ".join(f"{a.keys[q]} {100 * a.ap_Q[q]:.0f} -> {100 * ap_Q[q]:.0f}" for q in shown)
        lines.append(f"{title}: {told or 'none'}")
    return "\n".join(lines)


def summary(folders: Sequence[Path]) -> str:
    """Compute mean and standard deviation over several evaluations, for example of several seeds.

    Raises DataError when rules or test data differ.
    """
    found = [read_results(folder) for folder in folders]
    for folder, results in zip(folders, found, strict=True):
        _check_alike(str(folders[0]), conditions(found[0]), str(folder), conditions(results))
    _check_seeds(folders, found)
    _check_settings(folders, found)
    values: dict[tuple[str, str], list[list[float]]] = {}
    for results in found:
        for line in results["results"]:
            row = [100 * (line[metric] if line[metric] is not None else np.nan) for metric in METRICS]
            values.setdefault((line["queries"], line["stream"]), []).append(row)
    rows = [
        [subset, title_of(stream), *map(_spread, np.transpose(lists)), len(lists)]
        for (subset, stream), lists in values.items()
    ]
    looks = ", ".join(str(results["test_evaluations"]) for results in found)
    times = "time" if looks == "1" else "times"
    note = f"protocol {found[0]['protocol']}; mean ± standard deviation over runs; test was evaluated {looks} {times}"
    return f"{text_table(['queries', 'stream', *METRICS, 'runs'], rows)}\n{note}"


def _check_seeds(folders: Sequence[Path], found: Sequence[Mapping[str, Any]]) -> None:
    """Raise DataError where two evaluations use the same networks, which are no second run."""
    seen: dict[str, Path] = {}
    for folder, results in zip(folders, found, strict=True):
        networks = [str(origin["network"]) for origin in results.get("provenance", {}).values() if "network" in origin]
        if networks and (other := seen.setdefault(" ".join(sorted(networks)), folder)) is not folder:
            raise DataError(f"{other} and {folder} evaluate the same networks, wanted those of several trainings")


def _check_settings(folders: Sequence[Path], found: Sequence[Mapping[str, Any]]) -> None:
    """Raise DataError where repetitions differ in other settings than seeds, or have the same seeds."""
    known = [
        (folder, _settings(results)) for folder, results in zip(folders, found, strict=True) if "configs" in results
    ]
    seen: dict[tuple[tuple[str, Any], ...], Path] = {}
    for folder, settings in known:
        first = known[0][1]
        names = sorted(name for name in {*first, *settings} if not name.endswith(SEEDS))
        if changed := [
            f"{n}: {first.get(n)!r} and {settings.get(n)!r}" for n in names if first.get(n) != settings.get(n)
        ]:
            more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
            raise DataError(
                f"{known[0][0]} and {folder} are of other settings ({'; '.join(changed[:SHOWN])}{more}), wanted "
                "repetitions with other seeds (sptskm compare tells two evaluations apart)"
            )
        seeds = tuple((name, value) for name, value in sorted(settings.items()) if name.endswith(SEEDS))
        if seeds and (other := seen.setdefault(seeds, folder)) is not folder:
            told = ", ".join(f"{name} {value}" for name, value in seeds)
            raise DataError(f"{other} and {folder} have the same seeds ({told}), wanted repetitions with other ones")


def _settings(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that affect the scores of an evaluation, by dotted name."""
    parts = {**results["configs"], "final": results.get("settings", {})}
    return {name: value for name, value in in_force(flat(parts)).items() if not name.endswith(INDIFFERENT)}


def _spread(percent_R: Floats) -> str:
    """Return mean and standard deviation over runs as text; a dash where a value is missing."""
    if np.isnan(percent_R).any():
        return "-"
    return f"{percent_R.mean():.1f} ± {percent_R.std(ddof=1):.1f}" if len(percent_R) > 1 else f"{percent_R[0]:.1f} ± -"
