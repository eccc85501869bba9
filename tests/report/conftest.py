"""Results of the tiny walkers without any training: features that know the identity a little.

Shapes: N tracklets, D feature length.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import write
from helpers.sharing import shared
from helpers.small import small_config

from sptskm.config import Final
from sptskm.data import Tracklets, read_mars
from sptskm.evaluation import Features, evaluate, part_of
from sptskm.evaluation.protocols import protocol
from sptskm.evaluation.results import Fusion, Ranking, Results

Make = Callable[..., Results]


@pytest.fixture
def make(walkers: Path, tmp_path: Path) -> Make:
    """Makes results of these streams; other keywords are fields of the table."""

    def made(streams: Sequence[str] = ("ssin", "smin"), settings: Final | None = None, **changed: Any) -> Results:
        return _results(replace(read_mars(walkers), **changed), streams, settings or Final(), tmp_path)

    return made


@pytest.fixture(scope="session")
def written(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an evaluation of both streams writes, all pictures included; read-only by agreement."""

    def make(folder: Path) -> None:
        write(_results(read_mars(walkers), ("ssin", "smin"), Final(), folder / "runs"), folder / "final")

    return shared(tmp_path_factory, "written", make) / "final"


def _results(table: Tracklets, streams: Sequence[str], settings: Final, folder: Path) -> Results:
    rules = protocol(settings.protocol)
    features = [_features(table, stream, seed) for seed, stream in enumerate(streams)]
    test = part_of(table, table.test, table.query, rules, features)
    rankings = [(found.stream, test.alone(found)) for found in features]
    if len(streams) == 2:
        rankings.append(("fused", 0.5 * (rankings[0][1] + rankings[1][1])))
    if settings.rerank:
        rankings.append(("reranked", rankings[-1][1] ** 2))
    curve_WS = np.array([[0.0, 0.3], [0.5, 0.6], [1.0, 0.4]])
    return Results(
        table=table,
        test=test,
        rankings=[Ranking(name, d, evaluate(d, test.query, test.gallery, rules)) for name, d in rankings],
        fusion=Fusion({"ssin": 0.5, "smin": 0.5}, "zscore", curve_WS=curve_WS) if len(streams) == 2 else None,
        configs=[small_config(stream, Path("data"), folder / stream) for stream in streams],
        settings=settings,
        provenance={
            stream: {"fingerprint": "f" * 16, "split": "s" * 16, "network": "n" * 16, "step": 12, "held_out_mAP": mAP}
            for stream, mAP in zip(streams, (0.1234, -1.0), strict=False)
        },
    )


def _features(table: Tracklets, stream: str, seed: int) -> Features:
    """The last tracklet has no input."""
    rng = np.random.default_rng(seed)
    pids_N = table.pids_N[table.test]
    centres_ND = np.random.default_rng(seed + 10).normal(size=(pids_N.max() + 2, 6))[pids_N]
    features_ND = (centres_ND + rng.normal(size=(len(pids_N), 6))).astype(np.float32)
    valid_N = np.arange(len(pids_N)) < len(pids_N) - 1
    return Features(features_ND, table.keys_N[table.test], valid_N, table.fingerprint, stream)
