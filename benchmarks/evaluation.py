"""Measure mars-official on a MARS-sized distance matrix, against the usual argsort loop and a compiled ranking.

All run in this process on the same seeded distances, in turn, each ranking on one core; the table gives
the best of the repeats and how far their mAP lie apart. With --info the labels are those of MARS, else random
ones of the same size. The compiled one sorts every row and walks down it, in C; it needs gcc and is left out,
with a line that says so, where there is none. --rerank and --big add what takes minutes: the re-ranking of the same
tracklets, and 3,368 x 519,732 tracklets (Market-1501 with 500,000 distractors) with the peak memory; under torchrun
the ranks share these.
"""

import argparse
import ctypes
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from sptskm.evaluation import OFFICIAL, Rows, evaluate, feature_blocks, feature_distances, rerank, squared_distances
from sptskm.evaluation.metrics import block_within
from sptskm.training.spread import evaluate_spread, prepared
from sptskm.training.world import join

QUERIES, GALLERY, IDENTITIES, CAMERAS = 1980, 12180, 626, 6
BIG_QUERIES, BIG_GALLERY, BIG_LENGTH = 3368, 519_732, 256

COMPILED = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { double distance; int64_t row; } entry;

static void sorted(entry *rows, entry *room, int64_t count) {
    if (count <= 16) {
        for (int64_t i = 1; i < count; i++) {
            entry one = rows[i];
            int64_t j = i;
            for (; j > 0 && rows[j - 1].distance > one.distance; j--) rows[j] = rows[j - 1];
            rows[j] = one;
        }
        return;
    }
    int64_t half = count / 2, i = 0, j = half, k = 0;
    sorted(rows, room, half);
    sorted(rows + half, room, count - half);
    memcpy(room, rows, half * sizeof(entry));
    while (i < half && j < count) rows[k++] = rows[j].distance < room[i].distance ? rows[j++] : room[i++];
    memcpy(rows + k, room + i, (half - i) * sizeof(entry));
}

double mean_ap(const double *distance, int64_t queries, int64_t gallery, const int64_t *q_pids,
               const int64_t *q_cams, const int64_t *g_pids, const int64_t *g_cams) {
    entry *rows = malloc(2 * gallery * sizeof(entry));
    double sum = 0;
    int64_t counted = 0;
    for (int64_t q = 0; q < queries; q++) {
        for (int64_t g = 0; g < gallery; g++) rows[g] = (entry){distance[q * gallery + g], g};
        sorted(rows, rows + gallery, gallery);
        double ap = 0, before = 1;
        int64_t hits = 0, passed = 0;
        for (int64_t g = 0; g < gallery; g++) {
            int64_t row = rows[g].row, same = g_pids[row] == q_pids[q];
            if (g_pids[row] == -1 || (same && g_cams[row] == q_cams[q])) continue;
            hits += same;
            passed++;
            double precision = (double)hits / passed;
            if (same) ap += (before + precision) / 2;
            before = precision;
        }
        if (hits) { sum += ap / hits; counted++; }
    }
    free(rows);
    return counted ? sum / counted : 0;
}
"""


def random_labels(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pids, camids and query rows, with junk, distractors and identities in about MARS's shares."""
    pids = rng.integers(1, IDENTITIES + 1, GALLERY)
    pids[rng.permutation(GALLERY)[:4118]] = np.repeat([-1, 0], [870, 3248])
    return pids, rng.integers(1, CAMERAS + 1, GALLERY), rng.permutation(np.flatnonzero(pids > 0))


def mars_labels(info: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = loadmat(info / "tracks_test_info.mat")["track_test_info"].astype(np.int64)
    rows = loadmat(info / "query_IDX.mat")["query_IDX"][0].astype(np.int64) - 1
    return table[:, 2], table[:, 3], rows


def argsort_loop(distance: np.ndarray, query: Rows, gallery: Rows) -> float:
    """Compute mAP as re-identification repositories do: sort each row, filter, accumulate."""
    average_precisions = []
    for row, pid, camera in zip(distance, query.pids, query.camids, strict=True):
        order = np.argsort(row)
        pids, camids = gallery.pids[order], gallery.camids[order]
        keep = (pids != -1) & ~((pids == pid) & (camids == camera))
        matches = (pids == pid)[keep]
        if not matches.any():
            continue
        precision = matches.cumsum() / np.arange(1, matches.size + 1)
        before = np.concatenate([[1.0], precision[:-1]])
        average_precisions.append((matches * (before + precision)).sum() / 2 / matches.sum())
    return float(np.mean(average_precisions))


def compiled(folder: Path) -> Callable[[np.ndarray, Rows, Rows], float] | None:
    """Build a function for mAP in C (-O3) that sorts every row stably and scans it; None without a compiler."""
    gcc = shutil.which("gcc")
    if gcc is None:
        return None
    (folder / "rival.c").write_text(COMPILED)
    built = [gcc, "-O3", "-march=native", "-shared", "-fPIC", "-o", str(folder / "rival.so"), str(folder / "rival.c")]
    subprocess.run(built, check=True)
    function = ctypes.CDLL(str(folder / "rival.so")).mean_ap
    function.restype = ctypes.c_double

    def run(distance: np.ndarray, query: Rows, gallery: Rows) -> float:
        labels = (query.pids, query.camids, gallery.pids, gallery.camids)
        arrays = [np.ascontiguousarray(array) for array in (distance, *labels)]
        places = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        return float(function(places[0], *map(ctypes.c_int64, distance.shape), *places[1:]))

    return run


def report_reranking(features: np.ndarray, rows: np.ndarray, query: Rows, gallery: Rows) -> None:
    """Print seconds and peak memory of k-reciprocal re-ranking, distances included, and both results."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, time.perf_counter()
    found = rerank(feature_distances(features), rows, np.arange(len(features)), len(features))
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    plain, again = evaluate(feature_blocks(features[rows], features), query, gallery), evaluate(found, query, gallery)
    print(f"re-ranking {len(rows)} x {len(features)}, length {features.shape[1]}: {seconds:.1f} s, one process")
    print(f"  result {found.nbytes / 2**30:.2f} GiB, peak {peak:.2f} GiB, before it {before:.2f} GiB")
    print(f"  mAP {100 * plain.mAP:.2f} -> {100 * again.mAP:.2f}, rank-1 {plain.rank(1):.4f} -> {again.rank(1):.4f}")


def report_big(rng: np.random.Generator, gigabytes: float) -> bool:
    """Print seconds and peak memory for a gallery whose distances would take 13 GiB; return whether to go on."""
    gallery = rng.standard_normal((BIG_GALLERY, BIG_LENGTH), np.float32)
    queries = rng.standard_normal((BIG_QUERIES, BIG_LENGTH), np.float32)
    labels = [Rows(rng.integers(1, 751, n), rng.integers(1, 7, n)) for n in (BIG_QUERIES, 19_732)]
    nobody, anywhere = np.zeros(500_000, np.int64), rng.integers(1, 7, 500_000)
    everyone = Rows(np.r_[labels[1].pids, nobody], np.r_[labels[1].camids, anywhere])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, time.perf_counter()
    with join(threads=1, timeout_minutes=10) as world:
        if world.size > 1:
            there = prepared(gallery, world)
            scores = evaluate_spread(lambda rows: there.to(queries[rows]), labels[0], everyone, OFFICIAL, world)
        else:
            scores = evaluate(
                feature_blocks(queries, gallery), labels[0], everyone, block=block_within(gigabytes, len(gallery))
            )
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if world.is_main:
        how = f"{world.size} ranks" if world.size > 1 else f"gigabytes={gigabytes:g}"
        print(f"evaluate {BIG_QUERIES} x {BIG_GALLERY}, length {BIG_LENGTH}: {seconds:.0f} s")
        print(f"  {how}, mAP {100 * scores.mAP:.4f} %, peak {peak:.2f} GiB, before it {before:.2f} GiB")
    return world.is_main


def best_time(repeats: int, *runs: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Return the shortest time and the last value of each run; the runs take turns."""
    seconds: list[list[float]] = [[] for _ in runs]
    values = [0.0 for _ in runs]
    for _ in range(repeats):
        for number, run in enumerate(runs):
            start = time.perf_counter()
            values[number] = run()
            seconds[number].append(time.perf_counter() - start)
    return [min(each) for each in seconds], values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--info", type=Path, help="folder of the MARS .mat files")
    parser.add_argument("--length", type=int, default=128, help="feature length")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--signal", type=float, default=0.3, help="how much of the identity is in the features")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rerank", action="store_true")
    parser.add_argument("--big", action="store_true")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of distances held in --big")
    options = parser.parse_args()

    rng = np.random.default_rng(options.seed)
    if options.big and not report_big(rng, options.gigabytes):  # first, so that the peak is its own
        return
    pids, camids, rows = mars_labels(options.info) if options.info else random_labels(rng)
    rows = rows[:QUERIES]
    features = rng.standard_normal((len(pids), options.length)).astype(np.float32)
    features += options.signal * rng.standard_normal((pids.max() + 2, options.length), np.float32)[pids]
    query, gallery = Rows(pids[rows], camids[rows]), Rows(pids, camids)
    if options.rerank:  # before the others, so that the peak is its own
        report_reranking(features, rows, query, gallery)
    distance = squared_distances(features[rows], features)

    runs: dict[str, Callable[[], float]] = {
        "argsort loop": lambda: argsort_loop(distance, query, gallery),
        "evaluate": lambda: evaluate(distance, query, gallery).mAP,
        f"evaluate by blocks, length {options.length}": lambda: (
            evaluate(feature_blocks(features[rows], features), query, gallery).mAP
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        if rival := compiled(Path(folder)):
            runs["compiled sort and walk"] = lambda: rival(distance, query, gallery)
        else:
            print("no gcc: without the compiled ranking")
        seconds, values = best_time(options.repeats, *runs.values())
    labels = "MARS labels" if options.info else "random labels"
    print(f"mars-official, {len(rows)} x {len(pids)}, {labels}, float64, best of {options.repeats}")
    print(f"{'':34}{'seconds':>10}{'mAP %':>12}{'mAP - loop':>12}")
    for what, took, value in zip(runs, seconds, values, strict=True):
        print(f"{what:34}{took:>10.3f}{100 * value:>12.6f}{value - values[0]:>12.1e}")
    for what, took in zip(runs, seconds, strict=True):
        if what in ("argsort loop", "compiled sort and walk"):
            print(f"{what} / evaluate: {took / seconds[1]:.1f}")


if __name__ == "__main__":
    main()
