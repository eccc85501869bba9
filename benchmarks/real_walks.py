"""Score recorded walks of few people: six splits into halves, all streams with folds, and two baselines.

    python benchmarks/real_walks.py data/kth --config configs/strong --out runs/kth sampling.identities=6

The folder holds a manifest walks.csv (tracklet, pid, camera, frames, clothes; no split) and what `sptskm prepare` has
made of it. People are split in half by a seeded shuffle of the sorted pids; one half trains and the other is tested,
and the other way round. Queries are the walks of one camera (--query), the gallery those of all others, and then those
of a single one (--gallery). Nothing is chosen on the test half: the fusion is chosen by the runs of --folds folds, and
what is offered is fused or a stream as they recommend. Manifests of the splits are written beside walks.csv. A command
that was interrupted goes on where it stopped.

The paired test is over people, who are tested in several splits: all their queries change sides together. It compares
with the stream that is better on the test half itself, which nobody knows beforehand.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray

from sptskm.config import GaitClips
from sptskm.data import Tracklets, read_dataset
from sptskm.data.files import read_skeletons
from sptskm.data.silhouettes import MaskReader
from sptskm.data.skeletons import EDGES
from sptskm.evaluation import PROTOCOLS, Rows, evaluate, squared_distances
from sptskm.evaluation.statistics import paired_difference

PROTOCOL = "torchreid"
BONES, SILHOUETTES = "bone lengths", "average silhouettes"
OFFERED = "offered"


@dataclass
class Found:
    """Average precision and hits at rank 1 of all queries of one split, by ranking."""

    pids: list[str]
    ap: dict[str, list[float]]
    first: dict[str, list[float]]

    def add(self, name: str, ap: Sequence[float], first: Sequence[float]) -> None:
        """Add another ranking of the same queries."""
        self.ap[name], self.first[name] = list(ap), list(first)


def main() -> None:
    """Run all splits and print the tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, help="folder of walks.csv")
    options.add_argument("--config", type=Path, default=Path("configs/strong"))
    options.add_argument("--out", type=Path, default=Path("runs/real-walks"))
    options.add_argument("--stream", default="all")
    options.add_argument("--query", default="coat", help="camera of the queries")
    options.add_argument("--gallery", default="indoors", help="camera of the smaller gallery")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--folds", type=int, default=4)
    options.add_argument("overrides", nargs="*", help="settings for `sptskm local`")
    chosen = options.parse_intermixed_args()
    found: dict[str, list[Found]] = {"all": [], chosen.gallery: []}
    for name, training in halves(chosen.folder / "walks.csv", chosen.seeds):
        run = chosen.out / name
        for gallery, results in found.items():
            out = run / ("final" if gallery == "all" else gallery)
            data = manifest(chosen, training, name, gallery).absolute()
            if gallery == "all":
                settings = [f"data.root={data}", f"final.protocol={PROTOCOL}", f"final.folds={chosen.folds}"]
                words = ["--stream", chosen.stream, "--config", chosen.config, "--run", run, "data.held_out=0"]
                sptskm("local", *words, *settings, *chosen.overrides)
            else:
                streams = sorted(path.parent for path in run.glob("*/result.json"))
                final = ["--out", out, "--final", run / "final/requested.yaml"]
                sptskm("evaluate", *streams, *final, "--overrides", f"data.root={data}")
            results.append(read(out))
            for baseline, scores in baselines(read_dataset(str(data))).items():
                results[-1].add(baseline, *scores)
            print(name, gallery, line(results[-1]), flush=True)
    for gallery, results in found.items():
        print(f"\n{chosen.query} to {gallery}\n")
        print("\n".join(table(results)))
        print("\n".join(tests(results)))


def halves(walks: Path, seeds: Sequence[int]) -> Iterator[tuple[str, set[str]]]:
    """Yield the name of each split and the people that it trains on."""
    with walks.open(newline="") as file:
        pids = sorted({row["pid"] for row in csv.DictReader(file)})
    for seed in seeds:
        order = pids.copy()
        random.Random(seed).shuffle(order)
        first = set(order[: (len(order) + 1) // 2])
        yield f"{seed}a", first
        yield f"{seed}b", set(pids) - first


def manifest(chosen: argparse.Namespace, training: set[str], name: str, gallery: str) -> Path:
    """Write the manifest of a split, without test walks that are neither query nor gallery."""
    path: Path = chosen.folder / f"walks-{name}-{gallery}.csv"
    with (chosen.folder / "walks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "split"])
        writer.writeheader()
        for row in rows:
            split = "query" if row["camera"] == chosen.query else "gallery"
            if row["pid"] in training:
                split = "train"
            elif gallery not in ("all", row["camera"]) and split == "gallery":
                continue
            writer.writerow({**row, "split": split})
    return path


def sptskm(*words: object) -> None:
    """Run a command of the toolkit; its log goes to the terminal."""
    subprocess.run([sys.executable, "-m", "sptskm.cli", *map(str, words)], check=True, stdout=sys.stderr)


def read(out: Path) -> Found:
    """Read the scores of a final job: each ranking, and the one that is offered."""
    with (out / "queries.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [column.removesuffix("_ap") for column in rows[0] if column.endswith("_ap")]
    ap = {name: [float(row[f"{name}_ap"] or "nan") for row in rows] for name in names}
    first = {name: [float(row[f"{name}_first_hit"] == "1") for row in rows] for name in names}
    offered = json.loads((out / "results.json").read_text())["offered"]
    scores = Found([row["pid"] for row in rows], ap, first)
    scores.add(OFFERED, ap[offered], first[offered])
    return scores


def baselines(table: Tracklets) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    """Return the scores of nearest neighbours on bone lengths and on average silhouettes."""
    query, test = table.test[table.query], np.setdiff1d(table.test, table.test[table.query])
    known = np.concatenate([table.train, query, test])
    bones_ND = {row: bone_lengths(table, row) for row in known.tolist()}
    middle = np.nanmean([bones_ND[row] for row in table.train.tolist()], axis=0)
    spread = np.nanstd([bones_ND[row] for row in table.train.tolist()], axis=0)
    found = {}
    for name, features in (
        (BONES, {row: np.nan_to_num((lengths - middle) / spread) for row, lengths in bones_ND.items()}),
        (SILHOUETTES, {row: silhouette(table, row) for row in [*query.tolist(), *test.tolist()]}),
    ):
        distance_QG = squared_distances(*(np.stack([features[row] for row in rows.tolist()]) for rows in (query, test)))
        scores = evaluate(distance_QG, Rows.of(table, query), Rows.of(table, test), PROTOCOLS[PROTOCOL])
        found[name] = (scores.ap_Q.tolist(), (scores.first_hit_Q == 1).astype(float).tolist())
    return found


def bone_lengths(table: Tracklets, row: int) -> NDArray[np.float64]:
    """Return the median length of each bone of a walk; NaN for a walk without skeletons."""
    points_FV3 = read_skeletons(table, row, range(int(table.lengths[row])))[..., :3].astype(np.float64)
    points_FV3 = points_FV3[np.isfinite(points_FV3).all(axis=(1, 2))]
    ends = np.array(EDGES)
    lengths = np.linalg.norm(points_FV3[:, ends[:, 0]] - points_FV3[:, ends[:, 1]], axis=2)
    return np.median(lengths, axis=0) if len(lengths) else np.full(len(EDGES), np.nan)


def silhouette(table: Tracklets, row: int) -> NDArray[np.float64]:
    """Return the mean of a walk's aligned silhouettes and their mirror images, as a vector."""
    clips = GaitClips()
    bits = np.unpackbits(MaskReader(table, clips)[row].numpy(), axis=1)[:, : clips.height * clips.width]
    if not len(bits):
        return np.zeros(clips.height * clips.width)
    mean_HW = bits.mean(axis=0).reshape(clips.height, clips.width)
    return np.asarray((mean_HW + mean_HW[:, ::-1]).ravel() / 2, np.float64)


def line(scores: Found) -> str:
    """Return mAP and rank-1 of a split."""
    return "  ".join(
        f"{name} {100 * np.nanmean(ap):.1f}/{100 * np.mean(scores.first[name]):.1f}" for name, ap in scores.ap.items()
    )


def table(results: Sequence[Found]) -> list[str]:
    """Return mean and standard deviation over splits, a line per ranking."""
    lines = ["| | mAP | rank-1 | mAP of each split |", "|---|---|---|---|"]
    for name in results[0].ap:
        maps = [100 * float(np.nanmean(one.ap[name])) for one in results]
        ranks = [100 * float(np.mean(one.first[name])) for one in results]
        each = " ".join(f"{value:.1f}" for value in maps)
        lines.append(f"| {name} | {told(maps)} | {told(ranks)} | {each} |")
    return lines


def told(values: Sequence[float]) -> str:
    """Return mean and standard deviation."""
    return f"{mean(values):.1f} +- {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def tests(results: Sequence[Found]) -> list[str]:
    """Return the paired tests of what is offered against the better stream of each split, and against each ranking."""
    streams = [name for name in results[0].ap if name not in (OFFERED, "fused", BONES, SILHOUETTES)]
    better = [max((float(np.nanmean(one.ap[name])), name) for name in streams)[1] for one in results]
    pids = np.concatenate([one.pids for one in results])
    offered = np.concatenate([one.ap[OFFERED] for one in results])
    against = {"the better stream of each split": [one.ap[name] for one, name in zip(results, better, strict=True)]}
    against |= {name: [one.ap[name] for one in results] for name in (*streams, BONES, SILHOUETTES)}
    lines = []
    for name, parts in against.items():
        other = np.concatenate(parts)
        counted = ~np.isnan(offered) & ~np.isnan(other)
        found = paired_difference(other[counted], offered[counted], pids[counted])
        ends = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
        lines.append(f"offered against {name}: {100 * found.mean:+.1f} mAP ({ends}), p {found.p:.4f}")
    return ["", *lines]


if __name__ == "__main__":
    main()
