"""What is nearest in a gallery of features. Legend: Q queries, G gallery rows."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.drawing import nothing_drawn
from helpers.pairs import of_pair

from sptskm.cli import main
from sptskm.common.errors import DataError
from sptskm.config import ConfigError
from sptskm.data import read_dataset, read_mars
from sptskm.evaluation import (
    Features,
    FusedDistance,
    Fusion,
    Rows,
    StreamDistances,
    align,
    fuse,
    pair_weights,
    squared_distances,
)
from sptskm.evaluation.feature_files import Labelled, read_features, write_features
from sptskm.evaluation.neighbours import Compared, exact
from sptskm.evaluation.saved import read_fused
from sptskm.extraction import load_network
from sptskm.nearest import FeatureSet, Index, fit_fused, index_beside, search
from sptskm.report import found as found_module

NETWORKS = {"ssin": "aaaa", "smin": "bbbb"}
PAIR = ("ssin", "smin")
FUSED = Fusion(pair_weights(PAIR, 0.4), "zscore", FusedDistance.of_before(1.5, 0.8, 1.7, -0.3), NETWORKS)
NEEDS_FAISS = "wants faiss: pip install 'sptskm[index]'"


def random_features(rows: int, length: int, seed: int = 0, stream: str = "ssin") -> Features:
    """Clusters of ten, of length one."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(rows // 10 + 1, length))
    features = centres[np.arange(rows) // 10] + 0.3 * rng.normal(size=(rows, length))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    keys = np.array([f"t{row}" for row in range(rows)], np.str_)
    return Features(features.astype(np.float32), keys, np.ones(rows, bool), "print", stream)


def labelled(features: Features) -> Labelled:
    labels = Rows(np.arange(len(features)) // 10 + 1, np.ones(len(features), np.int64))
    return Labelled(features, labels, NETWORKS[features.stream])


def write(path: Path, features: Features, network: str = "aaaa") -> None:
    write_features(path, features, labelled(features).labels, network)


def pair(rows: int, seed: int = 0, every: int = 9) -> FeatureSet:
    """Both streams; one of so many tracklets has no skeleton and no numbers for it."""
    ssin, smin = random_features(rows, 8, seed), random_features(rows, 6, seed + 5, "smin")
    without_N = np.arange(rows) % every == 3 % every
    features_ND = np.where(without_N[:, None], np.float32(np.nan), 3 * smin.features_ND)
    return FeatureSet([labelled(ssin), labelled(replace(smin, features_ND=features_ND, valid_N=~without_N))])


def streams(query: FeatureSet, gallery: FeatureSet, fused: Fusion) -> StreamDistances:
    """All distances, as the final job takes them."""
    ssin = [side.first.features.compared(fused.normalisation).features_ND for side in (query, gallery)]
    smin = [side["smin"].features.compared(fused.normalisation) for side in (query, gallery)]
    return of_pair(
        squared_distances(*ssin),
        squared_distances(*(np.nan_to_num(side.features_ND) for side in smin)),
        *(side.valid_N for side in smin),
    )


def test_exact_search_over_blocks_finds_what_all_distances_say(monkeypatch):
    monkeypatch.setattr("sptskm.evaluation.neighbours.GALLERY_BLOCK", 50)
    monkeypatch.setattr("sptskm.evaluation.neighbours.QUERY_BLOCK", 3)
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
    monkeypatch.setattr("sptskm.evaluation.neighbours.GALLERY_BLOCK", 64)
    monkeypatch.setattr("sptskm.evaluation.neighbours.QUERY_BLOCK", 4)
    gallery, query = pair(200), pair(20, seed=1, every=4)
    weights = pair_weights(PAIR, weight)
    both = streams(query, gallery, replace(FUSED, normalisation=normalisation))
    fused = Fusion(weights, normalisation, FusedDistance.fitted(both, weights, normalisation), NETWORKS)
    fused_QG = fuse(both, weights, normalisation)
    found = search(gallery, query, 150, fused)
    expected_QG = np.argsort(fused_QG, axis=1, kind="stable")
    np.testing.assert_array_equal(found.rows_QK, expected_QG[:, :150])
    own_QG = fused.distance.of(both.matrices, both.query, both.gallery)
    np.testing.assert_allclose(found.distances_QK, np.take_along_axis(own_QG, expected_QG[:, :150], 1), atol=1e-9)
    assert "5 without input of smin compared by what else there is" in found.remark


def test_a_tracklet_finds_its_like_but_neither_itself_nor_what_has_no_input():
    features = random_features(60, 8)
    features.valid_N[13] = False
    found = search(FeatureSet([labelled(features)]), "t12", 9)
    assert sorted(found.rows_QK[0, :8].tolist()) == [10, 11, 14, 15, 16, 17, 18, 19]
    assert "exact" in found.text()
    assert "t14" in found.text()
    with pytest.raises(DataError, match="no tracklet t99"):
        search(FeatureSet([labelled(features)]), "t99")
    with pytest.raises(DataError, match="t13 has no input"):
        search(FeatureSet([labelled(features)]), "t13")
    with pytest.raises(ConfigError, match="at least 1"):
        search(FeatureSet([labelled(features)]), "t1", 0)
    empty = FeatureSet([labelled(random_features(0, 8))])
    for query in ("t1", empty):
        with pytest.raises(DataError, match="no tracklet of the gallery has any input"):
            search(empty, query)
    with pytest.raises(DataError, match="are 8 numbers of ssin by network aaaa, those of the query 5 numbers"):
        search(FeatureSet([labelled(features)]), FeatureSet([labelled(random_features(4, 5))]))


def test_streams_that_do_not_fit_the_fusion_are_refused():
    both = pair(30)
    with pytest.raises(ConfigError, match="found features of ssin and smin, wanted a --fusion as well"):
        search(both, "t1")
    with pytest.raises(ConfigError, match="--fusion is of ssin and smin, wanted features of smin as well"):
        search(FeatureSet([both.first]), "t1", fused=FUSED)
    with pytest.raises(ConfigError, match="features are of ssin and ssin, wanted one of each stream"):
        FeatureSet([both.first, both.first])
    with pytest.raises(DataError, match="a file of features is of smin, wanted one of ssin, gait as fused"):
        search(both, "t1", fused=replace(FUSED, networks={"ssin": "aaaa", "gait": "bbbb"}))
    with pytest.raises(ConfigError, match="features are of ssin and smin, those of the query of ssin, wanted the same"):
        search(both, FeatureSet([both.first]), fused=FUSED)


def test_the_order_in_which_streams_are_given_does_not_matter():
    both = pair(30)
    swapped = FeatureSet([both["smin"], both["ssin"]])
    one, other = (search(given, "t1", 7, FUSED) for given in (both, swapped))
    np.testing.assert_array_equal(one.rows_QK, other.rows_QK)
    np.testing.assert_array_equal(one.distances_QK, other.distances_QK)


def test_features_of_different_networks_are_not_compared():
    both = pair(30)
    first, smin = (replace(one, network="cccc") for one in both.values())
    with pytest.raises(DataError, match="by network aaaa, those of the query 8 numbers of ssin by network cccc"):
        search(FeatureSet([both.first]), FeatureSet([first]))
    with pytest.raises(DataError, match="by network bbbb, those of the query 6 numbers of smin by network cccc"):
        search(both, FeatureSet([both.first, smin]), fused=FUSED)
    for gallery, told in (
        (FeatureSet([first, both["smin"]]), "ssin, wanted aaaa"),
        (FeatureSet([both.first, smin]), "smin, wanted bbbb"),
    ):
        with pytest.raises(DataError, match=f"a file of features is of network cccc of {told} as fused"):
            search(gallery, "t1", fused=FUSED)


def test_queries_without_input_are_left_out_and_counted():
    gallery, query = pair(40), pair(6, seed=1)
    query.first.features.valid_N[[0, 3]] = False
    found = search(gallery, query, 5, FUSED)
    assert found.queries.keys_N.tolist() == ["t1", "t2", "t4", "t5"]
    assert "; 2 of the queries left out, as they have no input" in found.remark
    whole = search(gallery, pair(6, seed=1), 5, FUSED)
    np.testing.assert_array_equal(found.rows_QK, whole.rows_QK[[1, 2, 4, 5]])
    query.first.features.valid_N[:] = False
    with pytest.raises(DataError, match="no query has any input"):
        search(gallery, query, 5, FUSED)


def test_an_index_finds_nearly_all_that_exact_search_finds_and_says_how_many(tmp_path):
    pytest.importorskip("faiss", reason=NEEDS_FAISS)
    features = random_features(3000, 16)
    write(tmp_path / "f.npz", features)
    gallery, path = FeatureSet([read_features(tmp_path / "f.npz")]), index_beside([tmp_path / "f.npz"])
    first = search(gallery, "t1234", 9, index=path)
    assert "recall@9" in first.remark
    assert set(first.rows_QK[0]) == set(range(1230, 1240)) - {1234}
    assert path.is_file()
    again = search(gallery, "t1234", 9, index=index_beside([tmp_path / "f.npz"]))
    np.testing.assert_array_equal(again.rows_QK, first.rows_QK)
    read_again = Index.read(path, Compared.alone(features.features_ND))
    assert read_again.recall(10) > 0.9
    assert 0 < read_again.recall(10**20) <= 1, "more results than the gallery has"
    with pytest.raises(DataError, match="holds"):
        Index.read(path, Compared.alone(features.features_ND[:-1]))
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:-30], whole + b"\0", b"nothing", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match="no checksum"):
            Index.read(path, Compared.alone(features.features_ND))
    for place in (0, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError, match="its checksum is another; delete it"):
            Index.read(path, Compared.alone(features.features_ND))
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="no checksum"):
        search(gallery, "t1", index=path)


def test_an_index_that_cannot_be_written_is_told_before_it_is_built(tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason=NEEDS_FAISS)
    gallery = FeatureSet([labelled(random_features(30, 8))])
    (tmp_path / "file").touch()
    with monkeypatch.context() as patch:
        patch.setattr(Index, "build", lambda *_: pytest.fail("built"))
        with pytest.raises(DataError, match="Not a directory, wanted a folder for it, or a search without --index"):
            search(gallery, "t1", index=tmp_path / "file" / "f.index")
    built = Index.build(Compared.alone(gallery.first.features.features_ND))
    with pytest.raises(DataError, match=r"f\.index: cannot be written \(.*\)$"):
        built.write(tmp_path / "file" / "f.index")


def test_an_index_of_two_streams_has_the_tracklets_with_skeletons_and_the_search_has_all(tmp_path):
    faiss = pytest.importorskip("faiss", reason=NEEDS_FAISS)
    gallery, query = pair(2000), pair(40, seed=0, every=4)
    path = tmp_path / "f.index"
    found, wanted = search(gallery, query, 12, FUSED, path), search(gallery, query, 12, FUSED)
    assert faiss.read_index(str(path)).ntotal == int(gallery["smin"].features.valid_N.sum()) < 2000
    shares = [np.isin(own, other).mean() for own, other in zip(wanted.rows_QK, found.rows_QK, strict=True)]
    assert np.mean(shares) > 0.95
    without_Q = ~query["smin"].features.valid_N
    np.testing.assert_array_equal(found.rows_QK[without_Q], wanted.rows_QK[without_Q])
    beside_G = ~gallery["smin"].features.valid_N
    beside_QK = beside_G[wanted.rows_QK] & ~without_Q[:, None]
    assert beside_QK.any()
    assert all(
        row in found.rows_QK[q] for q, row in zip(np.nonzero(beside_QK)[0], wanted.rows_QK[beside_QK], strict=True)
    )
    for q in np.flatnonzero(np.array(shares) == 1):
        np.testing.assert_array_equal(found.distances_QK[q], wanted.distances_QK[q])
    assert "; 10 without input of smin compared by what else there is" in found.remark
    with pytest.raises(DataError, match="no tracklet of the gallery has input of every stream"):
        search(pair(40, every=1), pair(4), 1, FUSED, tmp_path / "none.index")


def test_an_index_of_other_features_is_removed_whenever_these_were_written(tmp_path):
    features, others = random_features(20, 8), random_features(20, 8, 1)
    for name, one in (("f.npz", features), ("f-s.npz", features), ("other.npz", others)):
        write(tmp_path / name, one)
        os.utime(tmp_path / name, (1, 1))  # as cp -p leaves it
    first, another = index_beside([tmp_path / "f.npz"]), index_beside([tmp_path / "f-s.npz"])
    for path in (first, another):
        path.write_bytes(b"")
    assert index_beside([tmp_path / "f.npz"]) == first
    (tmp_path / "other.npz").replace(tmp_path / "f.npz")
    assert index_beside([tmp_path / "f.npz"]) != first
    assert not first.exists()
    assert another.exists()


def test_another_fusion_has_another_index(tmp_path):
    write(tmp_path / "f.npz", random_features(20, 8))
    write(tmp_path / "s.npz", random_features(20, 8, stream="smin"))
    others = (FUSED, replace(FUSED, distance=FusedDistance.of_before(1.5, 0.7, 1.7, -0.3)), replace(FUSED))
    names = [index_beside([tmp_path / "f.npz", tmp_path / "s.npz"], fused).name for fused in others]
    assert names[0] == names[2] != names[1]
    assert names[0].startswith("f-s-e3bbffac-"), "as earlier versions named it"


def test_the_fused_distance_of_a_final_job_is_read_and_other_files_are_refused(tmp_path):
    path = tmp_path / "results.json"
    constants = {"ssin": 2, "smin": 0.5, "alone": 3.0, "offset": -0.25}
    fusion = {"weight": 0.25, "normalisation": "minmax"}
    with pytest.raises(FileNotFoundError, match=r"wanted the results\.json"):
        read_fused(tmp_path)
    wrong = {
        "{": "is not JSON",
        "[]": "wanted an object",
        '{"fusion": null}': "tells no fusion",
        json.dumps({"fusion": fusion | {"distance": {"ssin": 1}}}): "fusion.distance is not that of",
        json.dumps({"fusion": fusion | {"weight": 1.5}}): "fusion.weight is 1.5, wanted",
        json.dumps({"fusion": fusion | {"weight": "0.5"}}): "fusion.weight is '0.5', wanted",
    }
    for content, told in wrong.items():
        path.write_text(content)
        with pytest.raises(DataError, match=told):
            read_fused(path)
    for told, changes in (("evaluate again", {}), ("fuses by rank", {"normalisation": "rank", "distance": None})):
        path.write_text(json.dumps({"fusion": fusion | changes}))
        with pytest.raises(DataError, match=told):
            read_fused(path)
    saved = {"fusion": fusion | {"distance": constants}}
    path.write_text(json.dumps(saved))
    with pytest.raises(DataError, match=r"does not say which networks it fuses.*evaluate again"):
        read_fused(path)
    path.write_text(json.dumps(saved | {"provenance": {name: {"network": key} for name, key in NETWORKS.items()}}))
    wanted = Fusion(pair_weights(PAIR, 0.25), "minmax", FusedDistance.of_before(**constants), NETWORKS)
    assert read_fused(tmp_path) == read_fused(path) == wanted


@pytest.fixture(scope="module")
def final(trained, tmp_path_factory):
    """Results of two briefly trained runs, as the command writes them but for pictures."""
    out = tmp_path_factory.mktemp("final")
    with nothing_drawn():
        assert main(["evaluate", *map(str, trained.values()), "--out", str(out), "--set", "weight=0.6"]) == 0
    return out


def test_the_command_ranks_the_features_of_a_final_job_as_that_job_did(final, walkers, tmp_path, capsys):
    ssin, smin = (read_features(final / f"features-{stream}.npz").features for stream in ("ssin", "smin"))
    smin, query = align(ssin, smin), read_mars(walkers).query
    valid = smin.valid_N[query], smin.valid_N
    distances = (squared_distances(one.features_ND[query], one.features_ND) for one in (ssin, smin))
    fused_G = fuse(of_pair(*distances, *valid), pair_weights(PAIR, 0.6))[0]
    nearest = np.argsort(fused_G, kind="stable")
    expected = ssin.keys_N[nearest[nearest != query[0]][:8]].tolist()
    files = [str(final / f"features-{stream}.npz") for stream in ("ssin", "smin")]
    arguments = ["search", "--gallery", *files, "--fusion", str(final), "--query", ssin.keys_N[query[0]]]
    picture = ["--data", str(walkers), "--out", str(tmp_path / "found.png")]
    assert main([*arguments, "--top", "8", *picture]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[2:10]] == expected
    assert cv2.imread(str(tmp_path / "found.png")).std() > 5


def test_a_final_job_keeps_the_networks_of_its_features_and_extraction_finds_the_same(final, trained):
    networks = read_fused(final).networks
    for stream, network in networks.items():
        assert read_features(final / f"features-{stream}.npz").network == network
        assert load_network(trained[stream]).fingerprint == network
    assert networks["ssin"] != networks["smin"]


def test_features_of_other_networks_than_those_fused_are_not_scored(final, walkers, tmp_path, capsys):
    ssin, smin = (final / f"features-{stream}.npz" for stream in ("ssin", "smin"))
    write(tmp_path / "other.npz", read_features(ssin).features, "cccc")
    words = [str(smin), "--fusion", str(final), "--data", str(walkers)]
    assert main(["score", str(ssin), *words]) == 0
    assert main(["score", str(tmp_path / "other.npz"), *words]) == 2
    assert "is of network cccc of ssin, wanted" in capsys.readouterr().err


@pytest.fixture(scope="module")
def footage(walkers, tmp_path_factory) -> Path:
    """Manifests of two data sets with tracklets of the same names, and features of both; nobody is known."""
    folder, table = tmp_path_factory.mktemp("footage"), read_mars(walkers)
    for name, rows in (("gallery", range(12)), ("query", range(20, 23))):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["tracklet", "frames"])
            for number, row in enumerate(rows):
                first = table.path(row, 0, "frames")
                writer.writerow([f"t{number}", first.with_name(first.name[: first.name.index("F")] + "F*.jpg")])
        features = random_features(len(rows), 8, seed=len(rows))
        nobody = np.full(len(rows), -1)
        write_features(folder / f"{name}.npz", features, Rows(nobody, nobody), "aaaa")
    return folder


def test_queries_of_other_footage_are_drawn_from_it_and_nobody_has_a_name(footage, tmp_path, capsys, monkeypatch):
    drawn = []
    grid = found_module.ranked_grid
    monkeypatch.setattr(found_module, "ranked_grid", lambda *a: (drawn.append(a[:2]), grid(*a))[1])
    words = ["search", "--gallery", str(footage / "gallery.npz"), "--query", str(footage / "query.npz"), "--top", "4"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    words += ["--data", str(footage / "gallery.csv"), "--query-data", str(footage / "query.csv")]
    assert main([*words, "--out", str(tmp_path / "found.png")]) == 0
    assert capsys.readouterr().out.splitlines()[:14] == lines[:14]
    assert {tuple(line.split()[3:5]) for line in lines[2:14]} == {("-", "-")}
    assert cv2.imread(str(tmp_path / "found.png")).std() > 5
    (((table, ranked)),) = drawn
    query, gallery = (read_dataset(footage / f"{name}.csv", labelled=False) for name in ("query", "gallery"))
    for q, one in enumerate(ranked):
        assert table.path(one.row, 0, "frames") == query.path(q, 0, "frames")
        for result in one.results:
            place = gallery.keys_N.tolist().index(table.keys_N[result.row])
            assert table.path(result.row, 1, "frames") == gallery.path(place, 1, "frames")
        assert {result.outcome for result in one.results} == {"unknown"}


def test_who_is_the_same_in_two_data_sets_is_known_by_name(walkers, monkeypatch):
    drawn = []
    monkeypatch.setattr(found_module, "ranked_grid", lambda *a: drawn.append(a[:2]))
    table = read_mars(walkers)
    rows = [int(np.flatnonzero(table.pids_N == pid)[0]) for pid in np.unique(table.pids_N[table.pids_N > 0])[:2]]
    parts = np.ones((2, 3), np.float32), table.keys_N[rows], np.ones(2, bool)
    gallery = Labelled(Features(*parts, "print", "ssin"), Rows(table.pids_N[rows], table.camids_N[rows]), "aaaa")
    found = found_module.Found(gallery, gallery.features, np.array([[0, 1], [0, -1]]), np.zeros((2, 2)), "")
    first, second = (int(table.pids_N[row]) for row in rows)
    found.picture(table)
    found.picture(table, replace(table, pid_names={first: "somebody", second: str(first)}))
    outcomes = [[[result.outcome for result in one.results] for one in ranked] for _, ranked in drawn]
    assert outcomes == [[["right", "wrong"], ["wrong"]], [["wrong", "wrong"], ["right"]]]
    shown, ranked = drawn[1]
    assert [shown.pid_name(one.row) for one in ranked] == ["somebody", str(first)]


def test_what_cannot_be_drawn_is_said_before_the_search(footage, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sptskm.nearest.search", lambda *_: pytest.fail("searched"))
    words = ["search", "--gallery", str(footage / "gallery.npz"), "--query", str(footage / "query.npz")]
    data = ["--data", str(footage / "gallery.csv")]
    for more, told in (
        ([*data, "--out", str(tmp_path / "none" / "found.png")], "wanted a .png in a folder that exists"),
        ([*data, "--out", str(tmp_path / "found.txt")], "wanted a .png in a folder that exists"),
        ([*data, "--out", "/proc/found.png"], "wanted a .png in a folder that exists and can be written to"),
        (["--data", str(footage / "query.csv"), "--out", str(tmp_path / "f.png")], "no tracklet t3 of the gallery"),
        ([*data, "--query-data", str(footage / "query.csv")], "wanted a picture by --out"),
    ):
        assert main([*words, *more]) == 2
        assert told in capsys.readouterr().err
    swapped = ["search", "--gallery", words[4], "--query", words[2], "--out", str(tmp_path / "f.png")]
    assert main([*swapped, "--data", str(footage / "query.csv")]) == 2
    assert "no tracklet t3 of the queries" in capsys.readouterr().err


def test_the_command_says_what_it_lacks(final, tmp_path, capsys):
    ssin, smin = (str(final / f"features-{stream}.npz") for stream in ("ssin", "smin"))
    for words, told in (
        (["--gallery", str(tmp_path / "none.npz")], "no such file"),
        (["--gallery", ssin, smin], "wanted a --fusion as well"),
        (["--gallery", ssin, smin, "--fusion", str(tmp_path)], "wanted the results.json"),
        (["--gallery", ssin, "--out", str(tmp_path / "found.png")], "wanted the data set by --data"),
        (["--gallery", ssin, "--query-data", "d", "--data", "d", "--out", "f.png"], "--query-data was given beside x"),
    ):
        assert main(["search", *words, "--query", "x"]) == 2
        assert told in capsys.readouterr().err


def seen_by(pair: FeatureSet, cameras: int) -> FeatureSet:
    """The same tracklets, taken by cameras in turn."""
    camids = np.arange(len(pair.first.features)) % cameras
    return FeatureSet([replace(side, labels=replace(side.labels, camids=camids)) for side in pair.values()])


def test_other_cameras_leaves_out_the_query_s_own():
    gallery = seen_by(pair(60), cameras=3)
    everywhere = search(gallery, "t7", 59, FUSED)
    elsewhere = search(gallery, "t7", 59, FUSED, other_cameras=True)
    expected = [row for row in everywhere.rows_QK[0].tolist() if row >= 0 and row % 3 != 7 % 3]
    assert [row for row in elsewhere.rows_QK[0].tolist() if row >= 0] == expected
    several = search(gallery, gallery, 5, FUSED, other_cameras=True)
    assert (several.rows_QK % 3 != np.arange(60)[:, None] % 3).all()


def test_other_cameras_wants_cameras_that_can_be_told_apart(tmp_path):
    one, gallery = pair(20), seen_by(pair(20), cameras=2)
    with pytest.raises(DataError, match="the gallery has one camera"):
        search(one, "t7", 3, FUSED, other_cameras=True)
    strangers = [replace(side, features=replace(side.features, fingerprint="other")) for side in gallery.values()]
    with pytest.raises(DataError, match="query and gallery are of two data sets"):
        search(gallery, FeatureSet(strangers), 3, FUSED, other_cameras=True)
    with pytest.raises(ConfigError, match="--other-cameras with --index"):
        search(gallery, "t7", 3, FUSED, tmp_path / "g.index", other_cameras=True)


def test_a_weight_of_one_s_own_fuses_z_scores_of_the_gallery():
    gallery = pair(400)
    alone = search(FeatureSet([gallery.first]), "t8", 5)
    assert search(gallery, "t8", 5, fit_fused(gallery, 0.0)).rows_QK.tolist() == alone.rows_QK.tolist()
    fused = fit_fused(gallery, 0.5)
    everything = streams(gallery, gallery, fused)
    spread = [everything.where_complete(matrix_QG).std() for matrix_QG in everything.matrices.values()]
    np.testing.assert_allclose([*fused.distance.complete.factors.values()], 0.5 / np.array(spread), rtol=0.05)


def test_a_weight_is_refused_outside_0_to_1_with_one_stream_and_with_too_few_tracklets():
    with pytest.raises(ConfigError, match=r"--weight is 1\.5, wanted 0"):
        fit_fused(pair(40), 1.5)
    with pytest.raises(ConfigError, match="wanted features of two as --gallery"):
        fit_fused(FeatureSet([pair(40).first]), 0.5)
    with pytest.raises(DataError, match="3 tracklets of the gallery have both inputs"):
        fit_fused(pair(3, every=1000), 0.5)


def test_tracks_that_are_each_a_person_of_their_own_are_nobody_known(walkers, monkeypatch):
    drawn = []
    monkeypatch.setattr(found_module, "ranked_grid", lambda *a: drawn.append(a[:2]))
    table = read_mars(walkers)
    names = {int(pid): str(table.keys_N[row]) for row, pid in enumerate(table.pids_N) if pid > 0}
    rows = [table.keys_N.tolist().index(names[pid]) for pid in sorted(names)[:2]]
    table = replace(table, pid_names=names)
    parts = np.ones((2, 3), np.float32), table.keys_N[rows], np.ones(2, bool)
    gallery = Labelled(Features(*parts, "print", "ssin"), Rows(table.pids_N[rows], table.camids_N[rows]), "aaaa")
    found = found_module.Found(gallery, gallery.features, np.array([[1], [0]]), np.zeros((2, 1)), "")
    assert {line.split()[4] for line in found.text(table).splitlines()[2:4]} == {"-"}
    found.picture(table)
    assert {result.outcome for one in drawn[0][1] for result in one.results} == {"unknown"}
