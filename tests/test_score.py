"""Features of any labelled data set, scored as a final job would."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.small import on_ranks

from sptskm.cli import main
from sptskm.common.errors import DataError
from sptskm.config import ConfigError, Final
from sptskm.data import Tracklets, read_mars
from sptskm.evaluation import (
    PROTOCOLS,
    Distances,
    Features,
    FusedDistance,
    Fusion,
    Rows,
    StreamDistances,
    evaluate,
    pair_weights,
    protocol,
    select,
    stream_distances,
)
from sptskm.evaluation.feature_files import write_features
from sptskm.score import score
from sptskm.training.world import World, join

NAME = "torchreid"
PAIR = ("ssin", "smin")


def made_up(table: Tracklets, stream: str) -> Features:
    """Of all tracklets, in another order than the table's; every fifth has no input in SMIN."""
    rng = np.random.default_rng([len(stream), ord(stream[1])])
    order = rng.permutation(len(table))
    features_ND = (rng.normal(size=(len(table), 6)) + table.pids_N[order, None]).astype(np.float32)
    valid_N = np.arange(len(table)) % 5 > 0 if stream == "smin" else np.ones(len(table), bool)
    features_ND[~valid_N] = np.nan
    return Features(features_ND, table.keys_N[order], valid_N, table.fingerprint, stream)


def as_a_whole(table: Tracklets, *streams: Features) -> tuple[StreamDistances, Rows, Rows]:
    """Distances (Q, G) of both streams in the order of the protocol."""
    test = table.test
    rows = select(protocol(NAME), table.pids_N[test], table.lengths[test], table.query)
    distances = {}
    for features in streams:
        place = {key: row for row, key in enumerate(features.keys_N.tolist())}
        query, gallery = (np.array([place[key] for key in table.keys_N[test[own]]]) for own in rows)
        known = np.nan_to_num(features.features_ND)
        flags = [features.valid_N[query], features.valid_N[gallery]]
        distances[features.stream] = Distances(stream_distances(known[query], known[gallery], *flags), *flags)
    return StreamDistances(distances), *(Rows(table.pids_N[test[r]], table.camids_N[test[r]]) for r in rows)


@pytest.mark.parametrize(
    ("streams", "weights"),
    [(PAIR, pair_weights(PAIR, 0.3)), ((*PAIR, "gait"), {"ssin": 0.5, "smin": 0.1, "gait": 0.4})],
)
def test_scores_are_those_of_the_whole_matrices(
    streams: tuple[str, ...], weights: dict[str, float], walkers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = read_mars(walkers)
    features = [made_up(table, name) for name in streams]
    whole, query, gallery = as_a_whole(table, *features)
    fused = Fusion(weights, "zscore", FusedDistance.fitted(whole, weights, "zscore"), dict.fromkeys(streams, "a"))
    wanted = whole.matrices | {"fused": fused.distance.of(whole.matrices, whole.query, whole.gallery)}
    monkeypatch.setattr("sptskm.training.spread.BLOCK", 3)
    found = score(table, Final(NAME), features, fused, World())
    assert [ranking.name for ranking in found.rankings] == list(wanted)
    for ranking in found.rankings:
        np.testing.assert_array_equal(
            ranking.scores.ap_Q,
            evaluate(wanted[ranking.name], query, gallery, PROTOCOLS[NAME]).ap_Q,
            err_msg=ranking.name,
        )


def scored_by_a_rank(walkers: Path) -> list[float]:
    table = read_mars(walkers)
    with join(1, 1.0) as world:
        found = score(table, Final(NAME), [made_up(table, "ssin")], None, world)
    return [world.size, *found.rankings[0].scores.ap_Q]


@pytest.mark.slow
def test_ranks_share_the_queries_and_all_have_the_result(walkers: Path) -> None:
    alone = scored_by_a_rank(walkers)
    for found in on_ranks(2, scored_by_a_rank, walkers):
        np.testing.assert_array_equal(found, [2, *alone[1:]])


def test_the_command_prints_the_table_with_its_protocol(
    walkers: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = read_mars(walkers)
    path = tmp_path / "features.npz"
    write_features(path, made_up(table, "ssin"), Rows(table.pids_N, table.camids_N), "a")
    assert main(["score", str(path), "--data", str(walkers), "--protocol", NAME]) == 0
    assert "protocol torchreid: gallery of" in capfd.readouterr().out
    assert main(["score", str(path), "--data", str(walkers), "--protocol", "mars"]) == 2
    assert "unknown protocol 'mars'" in capfd.readouterr().err


def test_a_task_of_srun_scores_as_one_of_its_step_whatever_was_set_before(
    walkers: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {"NUM_TASKS": "1", "NUM_NODES": "1", "TASKS_PER_NODE": "1"}
    for name, value in {f"SLURM_STEP_{name}": value for name, value in step.items()}.items():
        monkeypatch.setenv(name, value)
    for name, value in {"PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_ID": "5"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("RANK", "9")  # alone it would be half a group
    table = read_mars(walkers)
    path = tmp_path / "features.npz"
    write_features(path, made_up(table, "ssin"), Rows(table.pids_N, table.camids_N), "a")
    assert main(["score", str(path), "--data", str(walkers)]) == 0
    assert "protocol mars-official" in capfd.readouterr().out


def test_what_does_not_belong_together_is_refused(walkers: Path) -> None:
    table = read_mars(walkers)
    ssin, smin = made_up(table, "ssin"), made_up(table, "smin")
    with pytest.raises(DataError, match="the ssin features are not of these data"):
        score(table, Final(NAME), [replace(ssin, fingerprint="f" * 16)], None, World())
    some = Features(ssin.features_ND[:3], ssin.keys_N[:3], ssin.valid_N[:3], ssin.fingerprint, "ssin")
    with pytest.raises(DataError, match=r"the ssin features lack \d+ of \d+ test tracklets, such as \S+, wanted"):
        score(table, Final(NAME), [some], None, World())
    with pytest.raises(ConfigError, match="several streams and a fusion are wanted together"):
        score(table, Final(NAME), [ssin, smin], None, World())
