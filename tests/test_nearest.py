"""What is nearest in a gallery of features. Legend: Q queries, G gallery rows."""

import json
import os
from dataclasses import replace

import cv2
import numpy as np
import pytest
from small import small_config

from sptskm.cli import main
from sptskm.config import ConfigError
from sptskm.data import DataError, read_mars
from sptskm.evaluation import Features, FusedDistance, Rows, StreamDistances, align, fuse, squared_distances
from sptskm.nearest import Compared, Index, Pair, exact, index_beside, search
from sptskm.report.features import Labelled, read_features, write_features
from sptskm.report.fused import Fused, read_fused
from sptskm.training.trainer import train

FUSED = Fused(0.4, "zscore", FusedDistance(1.5, 0.8, 1.7, -0.3))
NEEDS_FAISS = "wants faiss: pip install 'sptskm[search]'"


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


def pair(rows: int, seed: int = 0, every: int = 9) -> Pair:
    """Both streams; one of so many tracklets has no skeleton and no numbers for it."""
    ssin, smin = random_features(rows, 8, seed), random_features(rows, 6, seed + 5, "smin")
    without_N = np.arange(rows) % every == 3 % every
    features_ND = np.where(without_N[:, None], np.float32(np.nan), 3 * smin.features_ND)
    return Pair(labelled(ssin), labelled(replace(smin, features_ND=features_ND, valid_N=~without_N)))


def streams(query: Pair, gallery: Pair, fused: Fused) -> StreamDistances:
    """All distances, as the final job takes them."""
    ssin = [fused.compared(side.first.features).features_ND for side in (query, gallery)]
    smin = [fused.compared(side.smin.features) for side in (query, gallery)]
    return StreamDistances(
        squared_distances(*ssin),
        squared_distances(*(np.nan_to_num(side.features_ND) for side in smin)),
        *(side.valid_N for side in smin),
    )


def test_exact_search_over_blocks_finds_what_all_distances_say(monkeypatch):
    monkeypatch.setattr("sptskm.nearest.GALLERY_BLOCK", 50)
    monkeypatch.setattr("sptskm.nearest.QUERY_BLOCK", 3)
    gallery, query = random_features(230, 8).features_ND, random_features(10, 8, 1).features_ND
    gallery[100:140] = gallery[20]  # equally far rows keep their order, however many
    query[0] = gallery[20]
    distances = squared_distances(query, gallery)
    found = exact(Compared.alone(query), Compared.alone(gallery), 7)
    np.testing.assert_array_equal(found.rows_QK, np.argsort(distances, axis=1, kind="stable")[:, :7])
    np.testing.assert_allclose(found.distances_QK, np.sort(distances, axis=1)[:, :7], atol=1e-9)
    assert found.rows_QK[0].tolist() == [20, *range(100, 106)]
    few = exact(Compared.alone(query), Compared.alone(gallery[:3]), 7)
    assert np.sort(few.rows_QK, axis=1).tolist() == [[-1] * 4 + [0, 1, 2]] * 10


@pytest.mark.parametrize("normalisation", ["zscore", "minmax", "concat"])
@pytest.mark.parametrize("weight", [0.0, 0.35, 1.0])
def test_two_streams_are_ranked_as_the_final_job_ranks_them(normalisation, weight, monkeypatch):
    monkeypatch.setattr("sptskm.nearest.GALLERY_BLOCK", 64)
    monkeypatch.setattr("sptskm.nearest.QUERY_BLOCK", 4)
    gallery, query = pair(200), pair(20, seed=1, every=4)
    both = streams(query, gallery, Fused(weight, normalisation, FUSED.distance))
    fused = Fused(weight, normalisation, FusedDistance.fitted(both, weight, normalisation))
    fused_QG = fuse(both.ssin_QG, both.smin_QG, both.valid_query_Q, both.valid_gallery_G, weight, normalisation)
    found = search(gallery, query, 150, fused)
    expected_QG = np.argsort(fused_QG, axis=1, kind="stable")
    np.testing.assert_array_equal(found.rows_QK, expected_QG[:, :150])
    own_QG = fused.distance.of(both.ssin_QG, both.smin_QG, both.valid_query_Q[:, None] & both.valid_gallery_G)
    np.testing.assert_allclose(found.distances_QK, np.take_along_axis(own_QG, expected_QG[:, :150], 1), atol=1e-9)
    assert "5 without a skeleton compared with all by SSIN alone" in found.remark


def test_a_tracklet_finds_its_like_but_neither_itself_nor_what_has_no_input():
    features = random_features(60, 8)
    features.valid_N[13] = False
    found = search(Pair(labelled(features)), "t12", 9)
    assert sorted(found.rows_QK[0, :8].tolist()) == [10, 11, 14, 15, 16, 17, 18, 19]
    assert "exact" in found.text()
    assert "t14" in found.text()
    with pytest.raises(DataError, match="no tracklet t99"):
        search(Pair(labelled(features)), "t99")
    with pytest.raises(DataError, match="t13 has no input"):
        search(Pair(labelled(features)), "t13")
    with pytest.raises(ConfigError, match="at least 1"):
        search(Pair(labelled(features)), "t1", 0)
    with pytest.raises(DataError, match="8 numbers of ssin and 5 numbers of ssin, wanted both of the same"):
        search(Pair(labelled(features)), Pair(labelled(random_features(4, 5))))


def test_streams_that_do_not_fit_the_fusion_are_refused():
    both = pair(30)
    with pytest.raises(ConfigError, match="found 2 of the two streams, wanted both with --fusion"):
        search(both, "t1")
    with pytest.raises(ConfigError, match="found 1 of the two streams"):
        search(Pair(both.first), "t1", fused=FUSED)
    with pytest.raises(DataError, match="of smin and ssin, wanted ssin and smin"):
        search(Pair(both.smin, both.first), "t1", fused=FUSED)
    with pytest.raises(DataError, match="8 numbers of ssin and 6 numbers of smin and 8 numbers of ssin, wanted"):
        search(both, Pair(both.first), fused=FUSED)


def test_an_index_finds_nearly_all_that_exact_search_finds_and_says_how_many(tmp_path):
    pytest.importorskip("faiss", reason=NEEDS_FAISS)
    features = random_features(3000, 16)
    write_features(tmp_path / "f.npz", features, labelled(features).labels)
    gallery, path = Pair(read_features(tmp_path / "f.npz")), index_beside(tmp_path / "f.npz")
    first = search(gallery, "t1234", 9, index=path)
    assert "recall@9" in first.remark
    assert set(first.rows_QK[0]) == set(range(1230, 1240)) - {1234}
    assert path.is_file()
    again = search(gallery, "t1234", 9, index=index_beside(tmp_path / "f.npz"))
    np.testing.assert_array_equal(again.rows_QK, first.rows_QK)
    assert Index.read(path, Compared.alone(features.features_ND)).recall(10) > 0.9
    with pytest.raises(DataError, match="holds"):
        Index.read(path, Compared.alone(features.features_ND[:-1]))
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="not readable"):
        search(gallery, "t1", index=path)


def test_an_index_of_two_streams_has_the_tracklets_with_skeletons_and_the_search_has_all(tmp_path):
    faiss = pytest.importorskip("faiss", reason=NEEDS_FAISS)
    gallery, query = pair(2000), pair(40, seed=0, every=4)
    path = tmp_path / "f.index"
    found, wanted = search(gallery, query, 12, FUSED, path), search(gallery, query, 12, FUSED)
    assert faiss.read_index(str(path)).ntotal == int(gallery.smin.features.valid_N.sum()) < 2000
    shares = [np.isin(own, other).mean() for own, other in zip(wanted.rows_QK, found.rows_QK, strict=True)]
    assert np.mean(shares) > 0.95
    without_Q = ~query.smin.features.valid_N
    np.testing.assert_array_equal(found.rows_QK[without_Q], wanted.rows_QK[without_Q])
    beside_G = ~gallery.smin.features.valid_N
    beside_QK = beside_G[wanted.rows_QK] & ~without_Q[:, None]
    assert beside_QK.any()
    assert all(
        row in found.rows_QK[q] for q, row in zip(np.nonzero(beside_QK)[0], wanted.rows_QK[beside_QK], strict=True)
    )
    for q in np.flatnonzero(np.array(shares) == 1):
        np.testing.assert_array_equal(found.distances_QK[q], wanted.distances_QK[q])
    assert "; 10 without a skeleton compared with all by SSIN alone" in found.remark
    with pytest.raises(DataError, match="no tracklet of the gallery has a skeleton"):
        search(pair(40, every=1), pair(4), 1, FUSED, tmp_path / "none.index")


def test_an_index_older_than_its_features_is_removed_and_another_fusion_has_another(tmp_path):
    for name, when in (("f.index", 1), ("f.npz", 2), ("s.npz", 2)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (when, when))
    assert not index_beside(tmp_path / "f.npz").exists()
    names = {
        index_beside(tmp_path / "f.npz", tmp_path / "s.npz", fused).name
        for fused in (FUSED, replace(FUSED, distance=replace(FUSED.distance, smin=0.7)), replace(FUSED, weight=0.4))
    }
    assert len(names) == 2


def test_the_fused_distance_of_a_final_job_is_read_and_other_files_are_refused(tmp_path):
    path = tmp_path / "results.json"
    constants = {"ssin": 2, "smin": 0.5, "alone": 3.0, "offset": -0.25}
    fusion = {"weight": 0.25, "normalisation": "minmax"}
    with pytest.raises(FileNotFoundError, match=r"wanted the results\.json"):
        read_fused(tmp_path)
    wrong = ("{", "[]", '{"fusion": null}', json.dumps({"fusion": fusion | {"distance": {"ssin": 1}}}))
    for content in wrong:
        path.write_text(content)
        with pytest.raises(DataError, match="tells no fusion"):
            read_fused(path)
    for told, changes in (("evaluate again", {}), ("fuses by rank", {"normalisation": "rank", "distance": None})):
        path.write_text(json.dumps({"fusion": fusion | changes}))
        with pytest.raises(DataError, match=told):
            read_fused(path)
    path.write_text(json.dumps({"fusion": fusion | {"distance": constants}}))
    assert read_fused(tmp_path) == read_fused(path) == Fused(0.25, "minmax", FusedDistance(**constants))


@pytest.fixture(scope="module")
def final(walkers, tmp_path_factory):
    """Results of two briefly trained runs, as the command writes them but for pictures."""
    folder = tmp_path_factory.mktemp("runs")
    for stream in ("ssin", "smin"):
        train(small_config(stream, walkers, folder / stream, "train.epochs=1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sptskm.report.writing.pictures", lambda _: [])
        patch.setattr("sptskm.report.writing.write_projector", lambda *_: None)
        runs = [str(folder / stream) for stream in ("ssin", "smin")]
        assert main(["evaluate", *runs, "--out", str(folder / "final"), "--set", "weight=0.6"]) == 0
    return folder / "final"


def test_the_command_ranks_the_features_of_a_final_job_as_that_job_did(final, walkers, tmp_path, capsys):
    ssin, smin = (read_features(final / f"features-{stream}.npz").features for stream in ("ssin", "smin"))
    smin, query = align(ssin, smin), read_mars(walkers).query
    valid = smin.valid_N[query], smin.valid_N
    distances = (squared_distances(one.features_ND[query], one.features_ND) for one in (ssin, smin))
    fused_G = fuse(*distances, *valid, 0.6)[0]
    nearest = np.argsort(fused_G, kind="stable")
    expected = ssin.keys_N[nearest[nearest != query[0]][:8]].tolist()
    arguments = ["search", "--gallery", str(final / "features-ssin.npz"), "--query", ssin.keys_N[query[0]]]
    two = ["--gallery-smin", str(final / "features-smin.npz"), "--fusion", str(final)]
    picture = ["--data", str(walkers), "--out", str(tmp_path / "found.png")]
    assert main([*arguments, *two, "--top", "8", *picture]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[2:10]] == expected
    assert cv2.imread(str(tmp_path / "found.png")).std() > 5


def test_the_command_says_what_it_lacks(final, tmp_path, capsys):
    ssin, smin = (str(final / f"features-{stream}.npz") for stream in ("ssin", "smin"))
    for words, told in (
        (["--gallery", str(tmp_path / "none.npz")], "no such file"),
        (["--gallery", ssin, "--gallery-smin", smin], "wanted both with --fusion"),
        (["--gallery", ssin, "--gallery-smin", smin, "--fusion", str(tmp_path)], "wanted the results.json"),
        (["--gallery", ssin, "--out", str(tmp_path / "found.png")], "wanted the data set by --data"),
    ):
        assert main(["search", *words, "--query", "x"]) == 2
        assert told in capsys.readouterr().err
