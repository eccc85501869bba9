"""Embeddings of any data set, kept in a file."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.footage import write_boxes, write_video
from helpers.networks import write_posehg3d
from helpers.small import on_ranks, small_config

from sptskm.cli import main
from sptskm.common.endings import Stopped
from sptskm.common.errors import DataError
from sptskm.config import ConfigError
from sptskm.configfile import to_dict
from sptskm.data import read_dataset, read_mars
from sptskm.data.packs.writing import pack
from sptskm.evaluation.feature_files import read_features
from sptskm.extraction import Network, extract_run, load_network
from sptskm.training.checkpoints import read
from sptskm.training.rundir import RunDir, fingerprint
from sptskm.training.streams import stream_of


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of which nothing is left but a checkpoint; their data set and pretrained weights are gone."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for stream in ("ssin", "smin"):
        torch.manual_seed(0)
        config = small_config(stream, folder / "gone", folder / stream)
        state = stream_of(config).model(5).state_dict()
        if stream == "ssin":
            config = small_config(stream, folder / "gone", folder / stream, "model.pretrained=gone.pth")
        (folder / stream).mkdir()
        RunDir(folder / stream).write(
            RunDir(folder / stream).best, {"model": state, "config": to_dict(config), "step": 7}
        )
        found[stream] = folder / stream
    return found


@pytest.fixture(scope="module")
def features(runs, walkers, tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("features")
    for stream, run in runs.items():
        extract_run(run, walkers, out / f"{stream}.npz")
    return {stream: out / f"{stream}.npz" for stream in runs}


def test_every_tracklet_is_embedded_without_the_data_that_the_run_was_trained_on(features, walkers):
    table = read_mars(walkers)
    found = read_features(features["ssin"])
    assert found.features.keys_N.tolist() == table.keys_N.tolist()
    assert found.labels.pids.tolist() == table.pids_N.tolist()
    assert found.features.valid_N.all()
    np.testing.assert_allclose(np.linalg.norm(found.features.features_ND, axis=1), 1, atol=1e-5)


def test_a_manifest_may_name_nothing_but_tracklets_and_frames(runs, features, walkers, tmp_path):
    table = read_mars(walkers)
    rows = [0, len(table) - 1]
    with (tmp_path / "m.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tracklet", "frames", "masks"])
        for row in rows:
            first = table.path(row, 0, "frames")
            pattern = first.with_name(first.name[: first.name.index("F")] + "F*.jpg")
            writer.writerow([f"t{row}", pattern, table.path(row, 0, "masks").parent])
    extract_run(runs["ssin"], tmp_path / "m.csv", tmp_path / "f.npz")
    found, known = read_features(tmp_path / "f.npz"), read_features(features["ssin"])
    assert found.features.keys_N.tolist() == [f"t{row}" for row in rows]
    assert found.labels.pids.tolist() == found.labels.camids.tolist() == [-1, -1]
    np.testing.assert_array_equal(found.features.features_ND, known.features.features_ND[rows])


def test_the_command_embeds_a_pack_as_the_files_it_was_made_from(runs, features, walkers, tmp_path, capfd):
    pack(read_dataset(walkers), tmp_path / "pack", 100, workers=1)
    for stream, run in runs.items():
        out = tmp_path / f"{stream}.npz"
        assert main(["extract", str(run), "--data", str(tmp_path / "pack"), "--out", str(out)]) == 0
        found, known = read_features(out), read_features(features[stream])
        np.testing.assert_array_equal(found.features.features_ND, known.features.features_ND)
        np.testing.assert_array_equal(found.features.valid_N, known.features.valid_N)
        assert found.features.keys_N.tolist() == known.features.keys_N.tolist()
        assert found.labels.pids.tolist() == known.labels.pids.tolist()
        without = int((~known.features.valid_N).sum())
        assert (f"{without} of them without any input" in capfd.readouterr().out) == (without > 0)


def test_the_command_embeds_what_was_cut_from_a_video(runs, tmp_path):
    boxes, video = write_boxes(tmp_path / "door.txt"), write_video(tmp_path / "door.avi")
    cut = ["prepare", "video", str(video), "--boxes", str(boxes), "--out", str(tmp_path / "out"), "--every", "3"]
    assert main([*cut, "--min-frames", "4", "--method", "grabcut"]) == 0
    manifest, weights = str(tmp_path / "out" / "manifest.csv"), str(write_posehg3d(tmp_path))
    assert main(["prepare", "skeletons", "--data", manifest, "--weights", weights, "--device", "cpu"]) == 0
    for stream, run in runs.items():
        out = tmp_path / f"{stream}.npz"
        assert main(["extract", str(run), "--data", manifest, "--out", str(out)]) == 0
        found = read_features(out).features
        assert found.keys_N.tolist() == ["door-0", "door-1"]
        assert found.valid_N.all()
        np.testing.assert_allclose(np.linalg.norm(found.features_ND, axis=1), 1, atol=1e-5)
        assert np.abs(found.features_ND[0] - found.features_ND[1]).max() > 1e-6


def test_features_say_by_which_weights_they_were_made(runs, features, tmp_path):
    state = read(RunDir(runs["smin"]).best)
    assert read_features(features["smin"]).network == fingerprint(state["model"]) == fingerprint(dict(state["model"]))
    name = next(iter(state["model"]))
    renamed = {key if key != name else f"{name}.other": tensor for key, tensor in state["model"].items()}
    changed = {key: tensor if key != name else tensor + 1 for key, tensor in state["model"].items()}
    networks = {fingerprint(weights) for weights in (state["model"], renamed, changed)}
    assert len(networks) == 3
    moved = dict(reversed(state["model"].items()))
    RunDir(tmp_path).write(tmp_path / "best.pt", state | {"model": moved, "step": 8})
    assert load_network(tmp_path).fingerprint == fingerprint(state["model"])


def test_a_data_set_may_be_called_like_a_date_or_a_list(runs, tmp_path, monkeypatch):
    asked = []

    def embed(network: Network, data: Path, *_: object) -> None:
        asked.append((network.config.data.root, data))
        raise Stopped

    monkeypatch.setattr("sptskm.extraction._embed", embed)
    for name in ("2024-05-01", "[set]", "a: b"):
        with pytest.raises(Stopped):
            extract_run(runs["smin"], Path(name), tmp_path / "f.npz")
        assert asked.pop() == (name, Path(name))


def test_a_place_where_no_file_can_be_is_refused_before_anything_is_extracted(runs, walkers, tmp_path, monkeypatch):
    monkeypatch.setattr("sptskm.extraction.load_network", lambda *_: pytest.fail("extracted"))
    (tmp_path / "f.npz").mkdir()
    with pytest.raises(ConfigError, match=r"f\.npz: Is a directory, wanted a file that can be written"):
        extract_run(runs["smin"], walkers, tmp_path / "f.npz")
    with pytest.raises(ConfigError, match="File name too long"):
        extract_run(runs["smin"], walkers, tmp_path / f"{250 * 'f'}.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_weights_that_do_not_fit_the_configuration_are_one_sentence(runs, tmp_path):
    for stream, run in runs.items():
        with pytest.raises(ConfigError, match=rf"{stream}: the weights do not fit .*: \S+ is \(.*\), wanted \(.*\)$"):
            load_network(run, ["model.width=8"])
    state = read(RunDir(runs["smin"]).best)
    fewer = {name: tensor for name, tensor in state["model"].items() if name != "cls.weight"}
    RunDir(tmp_path).write(tmp_path / "best.pt", state | {"model": fewer})
    with pytest.raises(ConfigError, match=r"cls\.weight is missing, wanted \(1, "):
        load_network(tmp_path)
    RunDir(tmp_path).write(tmp_path / "best.pt", state | {"model": state["model"] | {"own": torch.zeros(3)}})
    with pytest.raises(ConfigError, match=r"own is \(3,\), wanted none"):
        load_network(tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"model": {}}, {"config": {}, "model": 3}])
def test_a_checkpoint_of_something_else_is_one_sentence(tmp_path, content):
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(ConfigError, match=r"best\.pt: is not of a run, wanted a checkpoint"):
        load_network(tmp_path)
    torch.save({"config": {}, "model": {}}, tmp_path / "best.pt")
    with pytest.raises(ConfigError, match="stream is None, wanted one of"):
        load_network(tmp_path)


@pytest.mark.slow
def test_two_ranks_write_the_same_file_as_one(runs, features, walkers, tmp_path):
    on_ranks(2, _extract, runs["smin"], walkers, tmp_path / "f.npz")
    found, alone = read_features(tmp_path / "f.npz").features, read_features(features["smin"]).features
    np.testing.assert_array_equal(found.features_ND, alone.features_ND)


def _extract(run: Path, data: Path, out: Path) -> None:
    extract_run(run, data, out)


def good_arrays() -> dict[str, np.ndarray]:
    """Of four tracklets."""
    features_ND, keys = np.ones((4, 3), np.float32), np.array(["a", "b", "c", "d"])
    arrays = {"features": features_ND, "keys": keys, "valid": np.ones(4, bool), "pids": np.arange(4)}
    return arrays | {
        "camids": np.arange(4),
        "clothes": np.arange(4),
        "fingerprint": np.array("x"),
        "stream": np.array("ssin"),
        "network": np.array("n"),
    }


def test_wrong_files_of_features_are_told_in_a_sentence(tmp_path):
    path = tmp_path / "f.npz"
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_features(path)
    arrays = good_arrays()
    wrong = {
        "lacks the array keys": {k: v for k, v in arrays.items() if k != "keys"},
        "lacks the array network, .*: extract again": {k: v for k, v in arrays.items() if k != "network"},
        "keys holds object, wanted": arrays | {"keys": np.array([{}] * 4)},
        "must be": arrays | {"features": np.ones((4, 3))},
        r"pids has 3 rows \(N\), wanted 4": arrays | {"pids": np.arange(3)},
        "pids is float64 .*wanted whole numbers": arrays | {"pids": np.arange(4.0)},
        "valid is int64 .*wanted booleans": arrays | {"valid": np.ones(4, int)},
        "features holds complex128": arrays | {"features": np.ones((4, 3)) * 1j},
        "stream is 'sminn', wanted ssin or smin": arrays | {"stream": np.array("sminn")},
        "hold the identity -3": arrays | {"pids": np.arange(4) - 3},
        "holds the array 'more'": arrays | {"more": np.arange(4)},
        "methods: column 1 is not JSON": arrays | {"methods": np.array("by hand")},
        "keys holds characters that are none": arrays | {"keys": np.array(["a", "b", "c", "\ud800"])},
        r"pids has 3 rows \(N\), wanted 4 as": arrays | {k: np.arange(3) for k in ("pids", "camids", "clothes")},
        "not finite": arrays | {"features": np.full((4, 3), np.nan, np.float32)},
        "hold the tracklet b more than once": arrays | {"keys": np.array(["a", "b", "c", "b"])},
        "of no numbers each": arrays | {"features": np.ones((4, 0), np.float32)},
        "stream is int64 .*wanted one value of texts": arrays | {"stream": np.arange(2)},
    }
    for told, content in wrong.items():
        np.savez(path, **content)
        with pytest.raises(DataError, match=told):
            read_features(path)
    for content in (b"", b"nothing", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a readable"):
            read_features(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state["model"].update({"fc.weight": "text"}), "fc.weight is a str, wanted a tensor of weights"),
        (lambda state: state["model"].update({"cls.weight": 7}), "cls.weight is a int, wanted a tensor of weights"),
        (
            lambda state: state["model"].update({"bn.weight": torch.ones(4).to_sparse()}),
            "bn.weight is a sparse, quantised, complex or empty tensor, wanted real numbers",
        ),
        (lambda state: state["config"]["data"].update({"min_length": "x"}), "data.min_length is 'x', wanted int"),
        (lambda state: state.pop("step"), "the step of its weights is None, wanted a whole number"),
    ],
)
def test_weights_that_cannot_be_those_of_a_training_are_told_with_the_run(change, told, tmp_path):
    config = small_config("smin", tmp_path / "data", tmp_path / "run")
    model = stream_of(config).model(3, pretrained=False)
    state = {"config": to_dict(config), "model": dict(model.state_dict()), "step": 4}
    change(state)
    (tmp_path / "run").mkdir()
    torch.save(state, tmp_path / "run" / "best.pt")
    with pytest.raises(ConfigError, match=f"^{tmp_path}/run: .*{told}"):
        load_network(tmp_path / "run")
