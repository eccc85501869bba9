from dataclasses import replace

import numpy as np
import pytest
from helpers.pairs import of_pair, part_with

from sptskm import evaluation
from sptskm.evaluation import (
    PROTOCOLS,
    Distances,
    Features,
    Normalisation,
    Rows,
    StreamDistances,
    align,
    choose,
    evaluate,
    pair_weights,
    squared_distances,
)
from sptskm.evaluation.fusion import OF_THE_DATA

ALL2, ALL4 = np.ones(2, bool), np.ones(4, bool)
KINDS = OF_THE_DATA


def fuse(
    ssin: np.ndarray, smin: np.ndarray, query: np.ndarray, gallery: np.ndarray, weight: float, kind: str = "zscore"
) -> np.ndarray:
    return evaluation.fuse(of_pair(ssin, smin, query, gallery), pair_weights(("ssin", "smin"), weight), kind)


def features(keys: str, stream: str = "smin", fingerprint: str = "f00d") -> Features:
    """One row per letter, holding the letter's code twice."""
    rows = np.array([[ord(key)] * 2 for key in keys], np.float32)
    valid = np.array([key != "x" for key in keys])
    return Features(rows, np.array(list(keys)), valid, fingerprint, stream)


def z(matrix: np.ndarray, over: np.ndarray) -> np.ndarray:
    return (matrix - over.mean()) / over.std()


def two_streams(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.random((5, 40)), 90 + 7 * rng.random((5, 40))


def test_aligned_features_stand_in_the_order_of_the_other_stream():
    aligned = align(features("caxb", "ssin"), features("xabc"))
    assert aligned.keys_N.tolist() == list("caxb")
    assert aligned.features_ND[:, 0].tolist() == [ord(key) for key in "caxb"]
    assert aligned.valid_N.tolist() == [True, True, False, True]
    assert (aligned.stream, aligned.fingerprint) == ("smin", "f00d")


@pytest.mark.parametrize(
    ("ssin", "smin", "message"),
    [
        ("abcdef", "a", r"smin features lack 5 keys: b, c, d, \.\.\."),
        ("ab", "abq", "smin features have unexpected 1 keys: q$"),
        ("ab", "abb", "smin features repeat 1 keys: b$"),
        ("aab", "ab", "ssin features repeat 1 keys: a$"),
    ],
)
def test_keys_that_do_not_match_are_named(ssin, smin, message):
    with pytest.raises(ValueError, match=message):
        align(features(ssin, "ssin"), features(smin))


def test_features_of_another_table_are_refused():
    with pytest.raises(ValueError, match=r"ssin and smin .* different tables: .* f00d and beef"):
        align(features("ab", "ssin"), features("ab", fingerprint="beef"))


def test_nan_is_refused_only_in_rows_that_had_input():
    broken = features("axb")
    broken.features_ND[1, 0] = np.nan
    assert align(features("abx", "ssin"), broken).keys_N.tolist() == list("abx")
    broken.features_ND[0, 1] = np.nan
    with pytest.raises(ValueError, match=r"smin features are not finite for 1 keys: a$"):
        align(features("abx", "ssin"), broken)
    with pytest.raises(ValueError, match=r"smin features are not finite for 1 keys: a$"):
        align(broken, features("abx", "ssin"))


@pytest.mark.parametrize(
    "arrays",
    [
        (np.zeros((2, 3), np.float32), np.array(["a"]), np.ones(1, bool)),
        (np.zeros(1, np.float32), np.array(["a"]), np.ones(1, bool)),
        (np.zeros((1, 3)), np.array(["a"]), np.ones(1, bool)),
        (np.zeros((1, 3), np.float32), np.array([7]), np.ones(1, bool)),
        (np.zeros((1, 3), np.float32), np.array(["a"]), np.ones(1)),
        (np.zeros((1, 3), np.float32), np.array(["a"]), np.ones(2, bool)),
    ],
)
def test_features_want_arrays_that_fit_together(arrays):
    with pytest.raises(ValueError, match="ssin: features, keys and valid must be"):
        Features(*arrays, "f00d", "ssin")


def test_fusion_is_the_weighted_sum_of_z_scores():
    ssin, smin = two_streams(np.random.default_rng(0))
    fused = fuse(ssin, smin, np.ones(5, bool), np.ones(40, bool), 0.3)
    np.testing.assert_allclose(fused, 0.7 * z(ssin, ssin) + 0.3 * z(smin, smin), atol=1e-12)


def test_minmax_scales_both_streams_to_zero_and_one():
    ssin, smin = np.array([[0.0, 4], [2, 1]]), np.array([[9.0, 5], [5, 7]])
    fused = fuse(ssin, smin, ALL2, ALL2, 0.25, "minmax")
    np.testing.assert_allclose(fused, [[0.25, 0.75], [0.375, 0.3125]])


def test_ranks_are_places_among_the_distances_of_a_query():
    ssin, smin = np.array([[0.1, 0.2, 9.0], [5, 4, 3]]), np.array([[7.0, 7, 8], [1, 3, 2]])
    fused = fuse(ssin, smin, ALL2, np.ones(3, bool), 0.25, "rank")
    ranks = np.array([[0, 1, 2], [2, 1, 0]]) / 2, np.array([[0.5, 0.5, 2], [0, 2, 1]]) / 2
    np.testing.assert_allclose(fused, 0.75 * ranks[0] + 0.25 * ranks[1])


def test_one_gallery_tracklet_with_a_skeleton_has_one_place_and_the_others_keep_their_order():
    ssin, smin = np.random.default_rng(5).random((2, 3, 6))
    fused = fuse(ssin, smin, np.ones(3, bool), np.arange(6) == 2, 0.5, "rank")
    assert np.isfinite(fused).all()
    others = np.arange(6) != 2
    np.testing.assert_array_equal(fused[:, others].argsort(axis=1), ssin[:, others].argsort(axis=1))


def test_ranks_do_not_look_at_how_far_apart_distances_are():
    ssin, smin = two_streams(np.random.default_rng(12))
    flags = np.ones(5, bool), np.ones(40, bool)
    np.testing.assert_allclose(fuse(ssin, smin, *flags, 0.4, "rank"), fuse(ssin**3, smin, *flags, 0.4, "rank"))


def test_concat_is_the_distance_of_weighted_concatenated_features():
    rng = np.random.default_rng(13)
    ssin, smin = (rng.standard_normal((30, size)) for size in (8, 5))
    ssin, smin = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (ssin, smin))
    both = np.concatenate([np.sqrt(0.7) * ssin, np.sqrt(0.3) * smin], axis=1)
    distances = (squared_distances(one[:4], one[4:]) for one in (ssin, smin))
    fused = fuse(*distances, np.ones(4, bool), np.ones(26, bool), 0.3, "concat")
    np.testing.assert_allclose(fused, squared_distances(both[:4], both[4:]), atol=1e-12)


@pytest.mark.parametrize("normalisation", KINDS)
def test_pairs_without_skeletons_do_not_move_those_with(normalisation):
    ssin, smin = two_streams(np.random.default_rng(1))
    query, gallery = np.arange(5) > 0, np.arange(40) % 3 > 0
    fused = fuse(ssin, smin, query, gallery, 0.4, normalisation)
    part = np.ix_(query, gallery)
    alone = fuse(ssin[part], smin[part], np.ones(4, bool), np.ones(26, bool), 0.4, normalisation)
    np.testing.assert_allclose(fused[part], alone, atol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("normalisation", KINDS)
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_pairs_without_skeletons_do_not_look_at_smin(weight, normalisation):
    ssin, smin = two_streams(np.random.default_rng(2))
    query, gallery = np.arange(5) > 0, np.arange(40) % 3 > 0
    clean = fuse(ssin, smin, query, gallery, weight, normalisation)
    smin[0], smin[:, ~gallery] = np.nan, np.inf
    np.testing.assert_array_equal(fuse(ssin, smin, query, gallery, weight, normalisation), clean)
    assert np.isfinite(clean).all()


@pytest.mark.parametrize("normalisation", ["zscore", "minmax", "concat"])
@pytest.mark.parametrize("weight", [0.0, 0.5, 0.9])
def test_pairs_without_skeletons_spread_as_the_fused_pairs_do(normalisation, weight):
    ssin, smin = two_streams(np.random.default_rng(3))
    ssin, smin = np.concatenate([ssin, ssin], axis=1), np.concatenate([smin, smin], axis=1)
    gallery = np.arange(80) < 40
    fused = fuse(ssin, smin, np.ones(5, bool), gallery, weight, normalisation)
    with_skeleton, without = fused[:, gallery], fused[:, ~gallery]
    assert without.mean() == pytest.approx(with_skeleton.mean(), abs=1e-12)
    assert without.std() == pytest.approx(with_skeleton.std(), abs=1e-12)
    np.testing.assert_allclose(z(without, without), z(ssin[:, :40], ssin[:, :40]), atol=1e-9)


@pytest.mark.parametrize("normalisation", KINDS)
def test_a_query_without_a_skeleton_is_ranked_by_ssin(normalisation):
    ssin, smin = two_streams(np.random.default_rng(4))
    fused = fuse(ssin, smin, np.arange(5) > 0, np.arange(40) % 3 > 0, 0.8, normalisation)
    assert (np.argsort(fused[0]) == np.argsort(ssin[0])).all()
    assert not (np.argsort(fused[1]) == np.argsort(ssin[1])).all()


@pytest.mark.parametrize("normalisation", KINDS)
def test_weight_zero_ranks_as_ssin_and_weight_one_as_smin(normalisation):
    ssin, smin = two_streams(np.random.default_rng(5))
    query = np.ones(5, bool)
    only_ssin = fuse(ssin, smin, query, np.arange(40) % 3 > 0, 0.0, normalisation)
    only_smin = fuse(ssin, smin, query, np.ones(40, bool), 1.0, normalisation)
    assert (np.argsort(only_ssin) == np.argsort(ssin)).all()
    assert (np.argsort(only_smin) == np.argsort(smin)).all()


@pytest.mark.parametrize("weight", [-0.01, 1.01, float("nan")])
def test_a_weight_outside_zero_to_one_is_refused(weight):
    with pytest.raises(ValueError, match=r"in 0\.\.1 and sum to 1, found"):
        fuse(np.eye(2), np.eye(2), ALL2, ALL2, weight)


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match="must be one of zscore, minmax, rank, concat, calibrated, found 'softmax'"):
        fuse(np.eye(2), np.eye(2), ALL2, ALL2, 0.5, "softmax")


@pytest.mark.parametrize(
    ("ssin", "smin", "message"),
    [
        (np.ones((2, 2)), np.eye(2), "ssin distances are all 1.0"),
        (np.eye(2), np.ones((2, 2)), "smin distances are all 1.0"),
        (np.full((2, 2), np.nan), np.eye(2), "ssin distances of valid pairs must be finite"),
        (np.eye(2), np.full((2, 2), np.nan), "smin distances of valid pairs must be finite"),
        (np.eye(2), np.eye(3), r"smin distances are \(3, 3\), wanted \(Q, G\) = \(2, 2\)"),
    ],
)
def test_a_stream_that_says_nothing_is_refused(ssin, smin, message):
    with pytest.raises(ValueError, match=message):
        fuse(ssin, smin, ALL2, ALL2, 0.5)


def test_flags_that_leave_no_pair_or_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no pair has input of ssin and smin on both sides; evaluate one stream alone"):
        fuse(np.eye(2), np.eye(2), ALL2, ~ALL2, 0.5)
    with pytest.raises(ValueError, match="must be boolean"):
        fuse(np.eye(2), np.eye(2), ALL2, np.ones(2), 0.5)
    with pytest.raises(ValueError, match=r"\(Q, G\) = \(2, 4\)"):
        fuse(np.eye(2), np.eye(2), ALL2, ALL4, 0.5)
    with pytest.raises(ValueError, match=r"of the same queries and gallery rows, found ssin \(2, 2\), smin \(2, 4\)"):
        StreamDistances({"ssin": Distances(np.eye(2), ALL2, ALL2), "smin": Distances(np.eye(2, 4), ALL2, ALL4)})


def validation(rng: np.random.Generator) -> tuple[Rows, Rows, np.ndarray]:
    query = Rows(np.arange(30), np.zeros(30, int))
    gallery = Rows(np.repeat(np.arange(30), 3), np.ones(90, int))
    return query, gallery, (query.pids[:, None] != gallery.pids) * 1.0 + rng.random((30, 90))


def test_the_curve_beside_the_chosen_weight_is_of_the_fused_rankings() -> None:
    rng = np.random.default_rng(6)
    query, gallery, ssin = validation(rng)
    smin = ssin + 3 * rng.random(ssin.shape)
    ssin = ssin + rng.random(ssin.shape)
    flags = np.ones(30, bool), np.arange(90) % 4 > 0
    streams, rules = of_pair(ssin, smin, *flags), PROTOCOLS["torchreid"]
    found = choose([part_with(query, gallery, streams)], ["zscore"])
    np.testing.assert_allclose(found.curve_WS[:, 0], np.linspace(0, 1, 21))
    assert np.ptp(found.curve_WS[:, 1]) > 0.05
    for share, mAP in found.curve_WS[[0, 7, 20]]:
        assert mAP == evaluate(fuse(ssin, smin, *flags, share), query, gallery, rules).mAP
    chosen = evaluate(fuse(ssin, smin, *flags, found.offer.weights["smin"]), query, gallery, rules)
    assert found.mAP == pytest.approx(chosen.mAP, abs=1e-12)
    assert found.mAP > found.curve_WS[:, 1].max() - 0.02, "weights by gaps are near the best ones"
    assert found.offer.weights["smin"] < 0.5


@pytest.mark.parametrize("kind", ["zscore", "minmax", "rank", "calibrated"])
def test_the_share_of_a_stream_does_not_depend_on_its_units(kind: Normalisation) -> None:
    query, gallery, ssin = validation(np.random.default_rng(7))
    flags = np.ones(30, bool), np.ones(90, bool)
    found = choose([part_with(query, gallery, of_pair(ssin, 3 * ssin + 1, *flags))], [kind])
    assert found.offer.weights == pytest.approx({"ssin": 0.5, "smin": 0.5})


def test_a_stream_that_says_the_opposite_has_no_weight() -> None:
    query, gallery, good = validation(np.random.default_rng(8))
    streams = of_pair(-good, good, np.ones(30, bool), np.ones(90, bool))
    found = choose([part_with(query, gallery, streams)], ["zscore"])
    assert found.offer.weights == {"ssin": 0.0, "smin": 1.0}


def test_weights_cannot_be_chosen_without_positives() -> None:
    query, gallery, ssin = validation(np.random.default_rng(9))
    streams = of_pair(ssin, 3 * ssin, np.ones(30, bool), np.ones(90, bool))
    others = Rows(query.pids + 99, query.camids)
    counted = replace(PROTOCOLS["torchreid"], average="all")  # counts queries without a positive as 0
    for rules in (PROTOCOLS["torchreid"], counted):
        with pytest.raises(ValueError, match="no held-out query has a positive"):
            choose([part_with(others, gallery, streams, rules)], ["zscore"])
