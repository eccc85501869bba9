"""Measure search in a large gallery: time of an exact and an indexed query, time to build, memory and recall.

    python benchmarks/nearest.py --rows 1000000 --length 256

The features are made up: identities are drawn around a few hundred directions, tracklets around identities, all of
length 1. Legend: N rows, D numbers, Q queries.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sptskm.evaluation.neighbours import Compared, exact
from sptskm.nearest import Index

QUERIES = 32
TRACKLETS = 10  # of an identity


def made_up(rows: int, length: int, seed: int = 0) -> tuple[Any, Any]:
    """Generate a gallery (N, D) and queries (Q, D), which are further tracklets of its identities."""
    rng = np.random.default_rng(seed)
    kinds_KD = rng.standard_normal((300, length), np.float32)
    identities = -(-rows // TRACKLETS)
    people_ID = kinds_KD[rng.integers(0, 300, identities)] + 0.7 * rng.standard_normal((identities, length), np.float32)
    gallery_ND = np.repeat(people_ID, TRACKLETS, axis=0)[:rows]
    gallery_ND += 0.5 * rng.standard_normal(gallery_ND.shape, np.float32)
    queries_QD = people_ID[:: max(1, identities // QUERIES)][:QUERIES]
    queries_QD = queries_QD + 0.5 * rng.standard_normal(queries_QD.shape, np.float32)
    for features in (gallery_ND, queries_QD):
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    return gallery_ND, queries_QD


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    return act(), time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=256)
    options = parser.parse_args()
    gallery_ND, queries_QD = made_up(options.rows, options.length)
    print(f"gallery: {options.rows} x {options.length}, {gallery_ND.nbytes / 2**20:.0f} MiB; peak {peak():.0f} MiB")
    gallery, queries = Compared.alone(gallery_ND), Compared.alone(queries_QD)
    single = [queries.rows(slice(q, q + 1)) for q in range(len(queries))]
    alone, exact_one = timed(lambda: [exact(query, gallery, 10) for query in single[:5]])
    together, exact_many = timed(lambda: exact(queries, gallery, 10))
    assert all((one.rows_QK[0] == together.rows_QK[q]).all() for q, one in enumerate(alone))
    print(
        f"exact: {1e3 * exact_one / 5:.0f} ms a query alone, {1e3 * exact_many / len(queries):.0f} ms of {len(queries)}"
    )
    index, built = timed(lambda: Index.build(gallery))
    print(f"index: built in {built:.0f} s; peak {peak():.0f} MiB")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gallery.index"
        _, wrote = timed(lambda: index.write(path))
        index, opened = timed(lambda: Index.read(path, gallery))
        print(f"file: {path.stat().st_size / 2**20:.0f} MiB, written in {wrote:.1f} s, opened in {opened:.3f} s")
        for _ in range(2):  # the second time nothing of the file needs to be read
            found, spent = timed(lambda: [index.nearest(query, 10) for query in single])
    hits = [len(set(one.rows_QK[0]) & set(rows)) / 10 for one, rows in zip(found, together.rows_QK, strict=True)]
    a_query = spent / len(queries)
    print(f"indexed: {1e3 * a_query:.1f} ms a query alone, {exact_one / 5 / a_query:.0f} times faster than exact")
    print(f"recall@10 against exact: {np.mean(hits):.3f} over {len(queries)} queries; peak {peak():.0f} MiB")


def peak() -> float:
    """Return the peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
