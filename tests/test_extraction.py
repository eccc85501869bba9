"""Embeddings of any data set, kept in a file, and what is nearest in it."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small import on_ranks, small_config

from sptskm.cli import main
from sptskm.config import ConfigError
from sptskm.configfile import to_dict
from sptskm.data import DataError, read_mars
from sptskm.evaluation import Features, Rows, squared_distances
from sptskm.extraction import extract_run
from sptskm.nearest import Index, Pair, Space, exact, index_beside, search
from sptskm.report.features import Labelled, read_features, write_features
from sptskm.training.rundir import RunDir
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
    assert found.labels.pids.tolist() == [-1, -1]
    np.testing.assert_array_equal(found.features.features_ND, known.features.features_ND[rows])


def test_two_ranks_write_the_same_file_as_one(runs, features, walkers, tmp_path):
    on_ranks(2, _extract, runs["smin"], walkers, tmp_path / "f.npz")
    found, alone = read_features(tmp_path / "f.npz").features, read_features(features["smin"]).features
    np.testing.assert_array_equal(found.features_ND, alone.features_ND)


def _extract(run: Path, data: Path, out: Path) -> None:
    extract_run(run, data, out)


def test_wrong_files_of_features_are_told_in_a_sentence(tmp_path):
    path = tmp_path / "f.npz"
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_features(path)
    good = random_features(4, 3)
    arrays = {"features": good.features_ND, "keys": good.keys_N, "valid": good.valid_N, "pids": np.arange(4)}
    arrays |= {"camids": np.arange(4), "clothes": np.arange(4), "fingerprint": np.array("x"), "stream": np.array("s")}
    wrong = {
        "lacks the array keys": {k: v for k, v in arrays.items() if k != "keys"},
        "not a readable": arrays | {"keys": np.array([{}] * 4)},
        "must be": arrays | {"features": good.features_ND.astype(np.float64)},
        "equally long": arrays | {"pids": np.arange(3)},
        "has 3 labels": arrays | {k: np.arange(3) for k in ("pids", "camids", "clothes")},
        "not finite": arrays | {"features": np.full((4, 3), np.nan, np.float32)},
        "wanted one text": arrays | {"stream": np.arange(2)},
    }
    for told, content in wrong.items():
        np.savez(path, **content)
        with pytest.raises(DataError, match=told):
            read_features(path)
    for content in (b"", b"nothing", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a readable"):
            read_features(path)


def random_features(rows: int, length: int, seed: int = 0, stream: str = "ssin") -> Features:
    """Clusters of ten, of length one."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(rows // 10 + 1, length))
    features = centres[np.arange(rows) // 10] + 0.3 * rng.normal(size=(rows, length))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    keys = np.array([f"t{row}" for row in range(rows)])
    return Features(features.astype(np.float32), keys, np.ones(rows, bool), "print", stream)


def labelled(features: Features) -> Labelled:
    return Labelled(features, Rows(np.arange(len(features)) // 10 + 1, np.ones(len(features), np.int64)))


def test_exact_search_over_blocks_finds_what_all_distances_say(monkeypatch):
    monkeypatch.setattr("sptskm.nearest.GALLERY_BLOCK", 50)
    monkeypatch.setattr("sptskm.nearest.QUERY_BLOCK", 3)
    gallery, query = random_features(230, 8).features_ND, random_features(10, 8, 1).features_ND
    gallery[100] = gallery[20]  # tied rows keep their order
    query[0] = gallery[20]
    distances = squared_distances(query, gallery)
    found = exact(query, gallery, 7)
    np.testing.assert_array_equal(found.rows_QK, np.argsort(distances, axis=1, kind="stable")[:, :7])
    np.testing.assert_allclose(found.distances_QK, np.sort(distances, axis=1)[:, :7], atol=1e-9)
    assert found.rows_QK[0, :2].tolist() == [20, 100]
    assert exact(query, gallery[:3], 7).rows_QK.shape == (10, 3)


def test_a_tracklet_finds_its_like_but_neither_itself_nor_what_has_no_input():
    features = random_features(60, 8)
    features.valid_N[13] = False
    found = search(Pair(labelled(features)), "t12", 9)
    rows = found.nearest.rows_QK[0].tolist()
    assert sorted(rows[:8]) == [10, 11, 14, 15, 16, 17, 18, 19]
    assert "exact" in found.text()
    assert "t14" in found.text()
    with pytest.raises(DataError, match="no tracklet t99"):
        search(Pair(labelled(features)), "t99")
    with pytest.raises(DataError, match="t13 has no input"):
        search(Pair(labelled(features)), "t13")
    with pytest.raises(ConfigError, match="at least 1"):
        search(Pair(labelled(features)), "t1", 0)
    with pytest.raises(DataError, match="of one network"):
        search(Pair(labelled(features)), Pair(labelled(random_features(4, 5))))


def test_two_streams_are_ranked_as_the_fusion_ranks_them():
    ssin, smin = random_features(200, 8), random_features(200, 6, 5, "smin")
    space = Space(ssin, smin, 0.3)
    vectors = space.vectors(ssin, smin)
    d1, d2 = (squared_distances(f.features_ND, f.features_ND) for f in (ssin, smin))
    upper = np.triu_indices(200, 1)
    expected = 0.7 * d1 / d1[upper].std() + 0.3 * d2 / d2[upper].std()
    np.testing.assert_allclose(squared_distances(vectors, vectors), expected, atol=1e-4)
    smin = replace(smin, valid_N=np.arange(200) != 7)
    found = search(Pair(labelled(ssin), labelled(smin)), "t3", 199, 0.3)
    assert 7 in found.nearest.rows_QK[0]  # compared by SSIN, as far in SMIN as the average
    with pytest.raises(ConfigError, match="weight"):
        search(Pair(labelled(ssin), labelled(smin)), "t3", 9, 1.5)


def test_a_row_without_skeleton_is_as_far_in_smin_as_the_gallery_on_average():
    ssin, smin = random_features(50, 8), random_features(50, 6, 5, "smin")
    smin = replace(smin, valid_N=np.arange(50) != 7)
    space = Space(ssin, smin, 1.0)
    gallery, query = space.vectors(ssin, smin), space.vectors(ssin, smin, query=True)[:3]
    distances = squared_distances(query, gallery)
    np.testing.assert_allclose(distances[:, 7], distances[:, smin.valid_N].mean(1), rtol=1e-4)


def test_an_index_finds_nearly_all_that_exact_search_finds_and_says_how_many(tmp_path):
    pytest.importorskip("faiss", reason="wants faiss: pip install 'sptskm[search]'")
    features = random_features(3000, 16)
    write_features(tmp_path / "f.npz", features, labelled(features).labels)
    gallery, path = Pair(read_features(tmp_path / "f.npz")), index_beside(tmp_path / "f.npz")
    first = search(gallery, "t1234", 9, index=path)
    assert "recall@9" in first.remark
    assert set(first.nearest.rows_QK[0]) == set(range(1230, 1240)) - {1234}
    assert path.is_file()
    again = search(gallery, "t1234", 9, index=index_beside(tmp_path / "f.npz"))
    np.testing.assert_array_equal(again.nearest.rows_QK, first.nearest.rows_QK)
    assert Index.read(path, features.features_ND).recall(10) > 0.9
    with pytest.raises(DataError, match="holds"):
        Index.read(path, features.features_ND[:-1])
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="not readable"):
        search(gallery, "t1", index=path)


def test_an_index_older_than_its_features_is_removed(tmp_path):
    for name, when in (("f.index", 1), ("f.npz", 2)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (when, when))
    assert not index_beside(tmp_path / "f.npz").exists()


def test_the_commands_extract_search_and_draw(runs, walkers, tmp_path, capfd):
    for stream, run in runs.items():
        assert main(["extract", str(run), "--data", str(walkers), "--out", str(tmp_path / f"{stream}.npz")]) == 0
    key = str(read_mars(walkers).keys_N[0])
    arguments = ["search", "--gallery", str(tmp_path / "ssin.npz"), "--gallery-smin", str(tmp_path / "smin.npz")]
    arguments += ["--query", key, "--top", "4", "--data", str(walkers), "--out", str(tmp_path / "found.png")]
    assert main(arguments) == 0
    assert key in capfd.readouterr().out
    assert cv2.imread(str(tmp_path / "found.png")).std() > 5
    assert main(["search", "--gallery", str(tmp_path / "none.npz"), "--query", key]) == 2
    assert "no such file" in capfd.readouterr().err
