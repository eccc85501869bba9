"""Three trained streams from the final job to search, scores and ONNX."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.small import small_config

from sptskm.cli import main
from sptskm.config import STREAMS
from sptskm.data import read_mars
from sptskm.evaluation.feature_files import read_features
from sptskm.evaluation.saved import read_fused
from sptskm.training.trainer import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_drawing")]
NAMES = ["ssin", "smin", "gait"]


@pytest.fixture(scope="module")
def runs(trained: dict[str, Path], walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    gait = tmp_path_factory.mktemp("gait") / "run"
    train(small_config("gait", walkers, gait, "train.epochs=1"))
    return {**trained, "gait": gait}


@pytest.fixture(scope="module")
def evaluated(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("final")
    weights = "weights={ssin: 0.5, smin: 0.1, gait: 0.4}"
    assert main(["evaluate", *map(str, reversed(runs.values())), "--out", str(out), "--set", weights]) == 0
    return out


def test_a_final_job_scores_each_stream_and_their_fusion_by_the_given_weights(evaluated: Path) -> None:
    saved = json.loads((evaluated / "results.json").read_text())
    assert [line["stream"] for line in saved["results"] if line["queries"] == "all"] == [*NAMES, "fused"]
    assert saved["fusion"]["weights"] == {"ssin": 0.5, "smin": 0.1, "gait": 0.4}
    assert saved["fusion"]["weight"] is None, "which is a share of a pair"
    assert len(saved["fusion"]["distance"]) == 7, "one term for each set of streams that two tracklets can share"
    assert read_fused(evaluated).distance.streams == tuple(NAMES)


def test_weights_of_three_streams_are_chosen_on_the_simplex(runs: dict[str, Path], tmp_path: Path) -> None:
    words = ["evaluate", *map(str, runs.values()), "--out", str(tmp_path), "--set", "weight_step=0.25"]
    assert main(words) == 0
    fusion = json.loads((tmp_path / "results.json").read_text())["fusion"]
    assert np.shape(fusion["held_out_curve"]) == (15, 3), "the weights of SMIN and gait, and the mAP"
    assert sum(fusion["weights"].values()) == pytest.approx(1)


def test_two_of_three_runs_are_fused_where_the_settings_name_them(runs: dict[str, Path], tmp_path: Path) -> None:
    words = ["evaluate", *map(str, runs.values()), "--out", str(tmp_path)]
    assert main([*words, "--set", "streams=[ssin, gait]", "weight=0.3"]) == 0
    assert json.loads((tmp_path / "results.json").read_text())["fusion"]["weights"] == {"ssin": 0.7, "gait": 0.3}


def test_its_features_are_scored_and_searched_by_the_fused_distance_of_three(
    evaluated: Path, walkers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(evaluated / f"features-{stream}.npz") for stream in NAMES]
    assert main(["score", *files, "--fusion", str(evaluated), "--data", str(walkers)]) == 0
    told = capsys.readouterr().out
    assert [title in told for title in (*(STREAMS[name].title for name in NAMES), "fused")] == [True] * 4
    table, keys = read_mars(walkers), read_features(evaluated / "features-ssin.npz").features.keys_N
    query = str(table.keys_N[table.test[table.query[0]]])
    assert main(["search", "--gallery", *files, "--query", query, "--fusion", str(evaluated), "--top", "5"]) == 0
    found = [line.split()[2] for line in capsys.readouterr().out.splitlines()[2:7]]
    assert len(set(found)) == 5
    assert set(found) <= set(keys.tolist()) - {query}
    assert main(["search", "--gallery", *files[:2], "--query", query, "--fusion", str(evaluated)]) == 2
    assert "wanted features of gait as well" in capsys.readouterr().err


def test_all_networks_and_their_distance_become_onnx_files(
    evaluated: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="wants onnxruntime")
    pytest.importorskip("onnxscript", reason="wants onnxscript")
    words = ["export", *(str(runs[name]) for name in NAMES), "--fusion", str(evaluated)]
    assert main([*words, "--out", str(tmp_path / "m.onnx")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"m-{name}.onnx" for name in (*NAMES, "fused")}
    opened = onnxruntime.InferenceSession(str(tmp_path / "m-fused.onnx"))
    names = [given.name for given in opened.get_inputs()]
    sides = {name: read_features(evaluated / f"features-{name}.npz").features for name in NAMES}
    given = {f"{name}_{side}": own.known_ND for name, own in sides.items() for side in ("query", "gallery")}
    given |= {f"valid_{name}_{side}": own.valid_N for name, own in sides.items() for side in ("query", "gallery")}
    assert set(given) == set(names)
    found_QG = opened.run(None, given)[0]
    flags = {name: own.valid_N for name, own in sides.items()}
    apart = {name: ((own.known_ND[:, None] - own.known_ND) ** 2).sum(axis=2) for name, own in sides.items()}
    expected_QG = read_fused(evaluated).distance.of(apart, flags, flags)
    np.testing.assert_allclose(found_QG, expected_QG, atol=1e-4)
