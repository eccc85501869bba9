"""Measure reading, sampling and evaluating at the size of MARS: seconds and peak memory.

    python benchmarks/mars_scale.py [--info DIR]

`--info` is a folder with the three .mat files of MARS-evaluation; without it a table of the same size is made up.
Frame names are generated to match, features are random. Nothing is read but the table.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from sptskm.config import SMIN_DEFAULTS, SSIN_DEFAULTS
from sptskm.data import hold_out, read_mars
from sptskm.data.sampler import epoch_batches
from sptskm.evaluation import OFFICIAL, Rows, evaluate, feature_blocks, select

TRAIN_TRACKLETS, TEST_TRACKLETS, QUERIES = 8298, 12180, 1980
DIMENSIONS = {"SSIN": 3072, "SMIN": 1024}


def main() -> None:
    """Print one line per step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--info", type=Path)
    info = parser.parse_args().info
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "info").mkdir()
        for split, table in (tables_in(info) if info else made_up()).items():
            write_tables(root / "info", split, table)
        with step("read the table"):
            table = read_mars(root)
        with step("hold out identities"):
            split = hold_out(table, 0.1, 0)
        for name, config in (("SSIN", SSIN_DEFAULTS), ("SMIN", SMIN_DEFAULTS)):
            with step(f"draw an epoch of {name}"):
                epoch_batches(config.sampling, split.train, table.pids[split.train], 0, 0)
        test = table.test
        query, gallery = select(OFFICIAL, table.pids[test], table.lengths[test], table.query)
        rows = [Rows(table.pids[test[part]], table.camids[test[part]]) for part in (query, gallery)]
        for name, dimension in DIMENSIONS.items():
            features = np.random.default_rng(0).standard_normal((len(test), dimension), dtype=np.float32)
            with step(f"evaluate {len(query)} x {len(gallery)} features of {name} ({dimension})"):
                evaluate(feature_blocks(features[query], features[gallery]), *rows)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print how long the block took and the peak memory so far."""
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:55s} {seconds:7.2f} s   peak {peak:.2f} GiB")


def tables_in(info: Path) -> dict[str, NDArray[np.integer]]:
    """Read the real tables."""
    return {
        "train": scipy.io.loadmat(info / "tracks_train_info.mat")["track_train_info"],
        "test": scipy.io.loadmat(info / "tracks_test_info.mat")["track_test_info"],
        "query": scipy.io.loadmat(info / "query_IDX.mat")["query_IDX"],
    }


def made_up() -> dict[str, NDArray[np.integer]]:
    """Generate tables of the same size."""
    rng = np.random.default_rng(0)

    def tracks(count: int, pids: NDArray[np.int64]) -> NDArray[np.int32]:
        stops = np.cumsum(rng.geometric(1 / 58, count) + 1)
        starts = np.concatenate([[1], stops[:-1] + 1])
        return np.stack([starts, stops, np.sort(pids), rng.integers(1, 7, count)], axis=1).astype(np.int32)

    real = rng.integers(1, 627, TEST_TRACKLETS - 870 - 3248)
    query = np.sort(rng.choice(np.arange(870 + 3248, TEST_TRACKLETS), QUERIES, replace=False)) + 1
    return {
        "train": tracks(TRAIN_TRACKLETS, rng.integers(1, 626, TRAIN_TRACKLETS)),
        "test": tracks(TEST_TRACKLETS, np.concatenate([np.full(870, -1), np.zeros(3248, np.int64), real])),
        "query": query.astype(np.uint16)[None],
    }


def write_tables(info: Path, split: str, table: NDArray[np.integer]) -> None:
    """Write one of the .mat files and, for tracks, names that fit it."""
    if split == "query":
        scipy.io.savemat(info / "query_IDX.mat", {"query_IDX": table})
        return
    scipy.io.savemat(info / f"tracks_{split}_info.mat", {f"track_{split}_info": table})
    name: Callable[[int], str] = lambda pid: "00-1" if pid == -1 else f"{pid:04d}"  # noqa: E731
    lines = [
        f"{name(pid)}C{camid}T{number % 10000:04d}F{frame:03d}.jpg"
        for number, (first, last, pid, camid) in enumerate(table.tolist())
        for frame in range(1, last - first + 2)
    ]
    (info / f"{split}_name.txt").write_text("\r\n".join(lines) + "\r\n")


if __name__ == "__main__":
    main()
