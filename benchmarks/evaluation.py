"""Speed of mars-official on a MARS-sized distance matrix, against the usual argsort loop.

Both run in this process on the same seeded distances, in turn; the table gives the best of the
repeats and how far their mAP lie apart. With --info the labels are those of MARS, else random ones
of the same size.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from sptskm.evaluation import Rows, evaluate, evaluate_features, squared_distances

QUERIES, GALLERY, IDENTITIES, CAMERAS = 1980, 12180, 626, 6


def random_labels(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pids, camids and query rows: junk, distractors and identities in about MARS's shares."""
    pids = rng.integers(1, IDENTITIES + 1, GALLERY)
    pids[rng.permutation(GALLERY)[:4118]] = np.repeat([-1, 0], [870, 3248])
    return pids, rng.integers(1, CAMERAS + 1, GALLERY), rng.permutation(np.flatnonzero(pids > 0))


def mars_labels(info: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = loadmat(info / "tracks_test_info.mat")["track_test_info"].astype(np.int64)
    rows = loadmat(info / "query_IDX.mat")["query_IDX"][0].astype(np.int64) - 1
    return table[:, 2], table[:, 3], rows


def argsort_loop(distance: np.ndarray, query: Rows, gallery: Rows) -> float:
    """mAP as re-identification repositories compute it: sort each row, filter, accumulate."""
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


def best_time(repeats: int, *runs: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Shortest seconds and the value of each run; the runs take turns."""
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
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    rng = np.random.default_rng(options.seed)
    pids, camids, rows = mars_labels(options.info) if options.info else random_labels(rng)
    rows = rows[:QUERIES]
    features = rng.standard_normal((len(pids), options.length)).astype(np.float32)
    features += 0.3 * rng.standard_normal((pids.max() + 2, options.length), np.float32)[pids]
    query, gallery = Rows(pids[rows], camids[rows]), Rows(pids, camids)
    distance = squared_distances(features[rows], features)

    (loop, fast, whole), (loop_map, fast_map, whole_map) = best_time(
        options.repeats,
        lambda: argsort_loop(distance, query, gallery),
        lambda: evaluate(distance, query, gallery).mAP,
        lambda: evaluate_features(features[rows], features, query, gallery).mAP,
    )
    labels = "MARS labels" if options.info else "random labels"
    print(f"mars-official, {len(rows)} x {len(pids)}, {labels}, float64, best of {options.repeats}")
    print(f"{'':34}{'seconds':>10}{'mAP %':>12}{'mAP - loop':>12}")
    for what, seconds, value in (
        ("argsort loop", loop, loop_map),
        ("evaluate", fast, fast_map),
        (f"evaluate_features, length {options.length}", whole, whole_map),
    ):
        print(f"{what:34}{seconds:>10.3f}{100 * value:>12.6f}{value - loop_map:>12.1e}")
    print(f"argsort loop / evaluate: {loop / fast:.1f}")


if __name__ == "__main__":
    main()
