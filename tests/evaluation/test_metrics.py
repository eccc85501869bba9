import numpy as np
import pytest

from sptskm.evaluation import (
    PROTOCOLS,
    Rows,
    clothes_changed,
    evaluate,
    feature_blocks,
    metrics,
    squared_distances,
)
from sptskm.evaluation.distances import SquaredDistances
from sptskm.evaluation.metrics import QUERY_BLOCK, block_within


def rows_of(*labels: tuple[int, int]) -> Rows:
    pids, camids = np.array(labels).T
    return Rows(pids, camids)


def random_case(rng: np.random.Generator) -> tuple[np.ndarray, Rows, Rows]:
    """A tiny data set with junk, distractors, unfindable queries and, in half the cases, ties."""
    queries, size = rng.integers(1, 6), rng.integers(1, 25)
    distance = rng.random((queries, size))
    if rng.random() < 0.5:
        distance = np.floor(distance * 4)
    query = Rows(rng.integers(1, 5, queries), rng.integers(0, 3, queries))
    return distance, query, Rows(rng.integers(-1, 4, size), rng.integers(0, 3, size))


def test_scores_equal_a_walk_down_the_sorted_list(name, assert_as_walked):
    rng = np.random.default_rng(11)
    seen = {"skipped": 0, "averaged": 0}
    for _ in range(150):
        case = random_case(rng)
        scores = evaluate(*case, PROTOCOLS[name])
        assert_as_walked(scores, *case, name)
        seen["skipped"] += scores.num_skipped
        seen["averaged"] += scores.num_queries
    assert min(seen.values()) > 50


def test_many_positives_are_ranked_as_exactly_as_few(name, assert_as_walked):
    rng = np.random.default_rng(5)
    distance = np.floor(rng.random((2, 1200)) * 300)
    query = rows_of((1, 0), (2, 1))
    gallery = Rows(rng.integers(-1, 3, 1200), rng.integers(0, 4, 1200))
    positives = np.count_nonzero((gallery.pids == 1) & (gallery.camids != 0))
    assert positives > metrics.COUNTED_POSITIVES
    scores = evaluate(distance, query, gallery, PROTOCOLS[name])
    assert_as_walked(scores, distance, query, gallery, name)


def test_counting_and_sorting_give_the_same_places(monkeypatch):
    rng = np.random.default_rng(5)
    row, all_G = np.floor(rng.random(900) * 90), np.arange(900)
    assert len(row) > metrics.COUNTED_POSITIVES
    sorted_G = 1 + np.argsort(np.argsort(row, kind="stable"))
    monkeypatch.setattr(metrics, "ROOM", room := 128)  # so that a row takes several
    few = np.empty((metrics.COUNTED_POSITIVES, room), bool)
    assert metrics._places(row, all_G, few).tolist() == sorted_G.tolist()
    for at in (np.arange(100, 130), np.sort(rng.permutation(900)[:100]), np.array([0]), np.array([0, 899])):
        assert metrics._places(row, at, few).tolist() == sorted_G[at].tolist()


@pytest.mark.parametrize(("name", "ap"), [("mars-official", 0.79167), ("mars-standard", 0.83333)])
def test_hits_at_ranks_one_and_three_give_the_known_average_precision(name, ap):
    gallery = rows_of((3, 2), (4, 2), (3, 5))
    scores = evaluate(np.array([[0.1, 0.2, 0.3]]), rows_of((3, 1)), gallery, PROTOCOLS[name])
    assert scores.mAP == pytest.approx(ap, abs=1e-5)
    assert scores.protocol.name == name


def test_junk_in_front_takes_no_rank_but_a_distractor_does(name):
    query, near = rows_of((3, 1)), np.array([[0.1, 0.2]])
    junk = evaluate(near, query, rows_of((-1, 2), (3, 2)), PROTOCOLS[name])
    distractor = evaluate(near, query, rows_of((0, 2), (3, 2)), PROTOCOLS[name])
    assert (junk.rank(1), distractor.rank(1), distractor.rank(2)) == (1, 0, 1)
    assert junk.mAP == 1.0 > distractor.mAP
    assert junk.num_gallery == 2


def test_the_own_camera_is_left_out_unless_the_protocol_ignores_cameras(name):
    gallery = rows_of((3, 1), (4, 2), (3, 2))
    scores = evaluate(np.array([[0.1, 0.2, 0.3]]), rows_of((3, 1)), gallery, PROTOCOLS[name])
    assert scores.first_hit_Q.tolist() == ([1] if name in ("sptskm-smin", "any-camera") else [2])


def test_ties_go_to_the_lower_gallery_row():
    query, tied = rows_of((3, 1)), np.zeros((1, 3))
    first = evaluate(tied, query, rows_of((3, 2), (4, 2), (4, 2)))
    last = evaluate(tied, query, rows_of((4, 2), (4, 2), (3, 2)))
    assert (first.first_hit_Q[0], last.first_hit_Q[0]) == (1, 3)
    after_junk = evaluate(tied, query, rows_of((4, 2), (3, 1), (3, 2)))
    before_junk = evaluate(tied, query, rows_of((4, 2), (3, 2), (3, 1)))
    assert (after_junk.first_hit_Q[0], before_junk.first_hit_Q[0]) == (2, 2)


def test_a_query_without_a_positive_is_skipped_and_counted():
    query = rows_of((3, 1), (9, 1), (-1, 1), (4, 2))
    gallery = rows_of((3, 2), (-1, 2), (4, 2), (9, 1))
    scores = evaluate(np.arange(16.0).reshape(4, 4), query, gallery)
    assert (scores.num_queries, scores.num_skipped, scores.mAP) == (1, 3, 1.0)
    assert np.isnan(scores.ap_Q).tolist() == [False, True, True, True]
    nothing = scores.subset(np.array([False, True, True, True]))
    assert (nothing.num_queries, nothing.num_skipped) == (0, 3)
    assert np.isnan([nothing.mAP, nothing.rank(1), nothing.cmc[0]]).all()


def test_cmc_has_fifty_ranks_and_continues_beyond_a_small_gallery():
    query, gallery = rows_of((3, 1), (4, 1)), rows_of((4, 2), (3, 2), (4, 2))
    scores = evaluate(np.array([[1.0, 2, 3], [1, 2, 3]]), query, gallery)
    assert scores.cmc.tolist() == [0.5] + [1.0] * 49
    assert (scores.rank(1), scores.rank(2), scores.rank(999)) == (0.5, 1.0, 1.0)
    with pytest.raises(ValueError, match="start at 1"):
        scores.rank(0)


def test_a_subset_scores_its_queries_alone():
    rng = np.random.default_rng(4)
    distance, query = rng.random((6, 30)), Rows(rng.integers(1, 4, 6), rng.integers(0, 3, 6))
    gallery = Rows(rng.integers(-1, 4, 30), rng.integers(0, 3, 30))
    mask = np.arange(len(query)) % 2 == 0
    part = evaluate(distance[mask], Rows(query.pids[mask], query.camids[mask]), gallery)
    subset = evaluate(distance, query, gallery).subset(mask)
    assert subset.num_queries == 3
    np.testing.assert_array_equal(subset.ap_Q, part.ap_Q)
    assert subset.cmc.tolist() == part.cmc.tolist()
    assert (subset.num_gallery, subset.protocol) == (part.num_gallery, part.protocol)
    with pytest.raises(ValueError, match="boolean"):
        subset.subset(np.array([0, 1]))


def test_features_score_as_their_distances(name):
    rng = np.random.default_rng(8)
    query = Rows(rng.integers(1, 9, 40), rng.integers(0, 3, 40))
    gallery = Rows(rng.integers(-1, 9, 211), rng.integers(0, 3, 211))
    queries = rng.standard_normal((40, 77)).astype(np.float32)
    features = rng.standard_normal((40, 77)).astype(np.float32)[rng.integers(0, 40, 211)]
    exact = ((queries.astype(np.float64)[:, None] - features) ** 2).sum(axis=2)
    expected = evaluate(exact, query, gallery, PROTOCOLS[name])
    assert expected.num_queries > 20
    scores = evaluate(feature_blocks(queries, features), query, gallery, PROTOCOLS[name])
    np.testing.assert_array_equal(scores.ap_Q, expected.ap_Q)
    np.testing.assert_array_equal(scores.first_hit_Q, expected.first_hit_Q)


@pytest.mark.parametrize("length", [5, 77, 256])
def test_distances_and_scores_are_bit_equal_however_blocks_are_cut(length):
    rng = np.random.default_rng(9)
    query = Rows(rng.integers(1, 9, 200), rng.integers(0, 3, 200))
    gallery = Rows(rng.integers(-1, 9, 2500), rng.integers(0, 3, 2500))
    queries, features = (rng.standard_normal((n, length)).astype(np.float32) for n in (200, 2500))
    whole = squared_distances(queries, features)
    assert (
        np.concatenate([squared_distances(queries[at : at + 64], features) for at in range(0, 200, 64)]) == whole
    ).all()
    expected = evaluate(whole, query, gallery)
    for tiles in (1, 2, 100):
        scores = evaluate(feature_blocks(queries, features), query, gallery, block=tiles * 64)
        np.testing.assert_array_equal(scores.ap_Q, expected.ap_Q)


def test_a_gallery_prepared_once_serves_several_calls():
    rng = np.random.default_rng(10)
    query, gallery = (Rows(rng.integers(1, 9, n), rng.integers(0, 3, n)) for n in (70, 210))
    queries, features = (rng.standard_normal((n, 32)).astype(np.float32) for n in (70, 210))
    prepared = SquaredDistances(features)
    for _ in range(2):
        scores = evaluate(feature_blocks(queries, prepared), query, gallery)
        assert scores.ap_Q.tolist() == evaluate(feature_blocks(queries, features), query, gallery).ap_Q.tolist()
    with pytest.raises(ValueError, match=r"\(70 queries, 70 gallery rows\), found float64 \(70, 210\)"):
        evaluate(feature_blocks(queries, prepared), query, query)


def test_a_budget_bounds_the_block_and_one_too_small_is_refused():
    assert block_within(1.0, 519_732) == 256
    assert block_within(1.0, 12_180) == QUERY_BLOCK
    assert block_within(0.25, 519_732) * 519_732 * 8 <= 2**28
    with pytest.raises(ValueError, match=r"gigabytes is 0.1, wanted at least 0.248: 64 queries by 519732 gallery rows"):
        block_within(0.1, 519_732)


def test_identical_gallery_rows_are_equally_far():
    rng = np.random.default_rng(1)
    features = rng.standard_normal((501, 333))
    distance = squared_distances(rng.standard_normal((30, 333)), np.concatenate([features] * 2))
    assert (distance[:, :501] == distance[:, 501:]).all()


def test_close_features_far_from_the_origin_keep_their_order():
    query, gallery = np.array([[300.0, 0]], np.float32), np.array([[300.01, 0], [300, 0.005]])
    distance = squared_distances(query, gallery.astype(np.float32))
    np.testing.assert_allclose(distance, [[1e-4, 2.5e-5]], rtol=5e-3)


def test_clothes_changed_wants_every_positive_in_known_other_clothes():
    query = Rows([1, 1, 1, 2, 3, 4, -1], [0, 0, 0, 0, 0, 0, 0], [5, 6, -1, 5, 5, 5, 5])
    labels = [(1, 1, 6), (1, 2, 7), (1, 0, 5), (2, 1, -1), (2, 2, 6), (3, 0, 6), (4, 1, 6)]
    labels += [(4, 0, 5), (-1, 1, 6)]
    gallery = Rows(*np.array(labels).T)
    assert clothes_changed(query, gallery).tolist() == [True, *[False] * 4, True, False]
    everywhere = clothes_changed(
        query, gallery, PROTOCOLS["sptskm-smin"]
    )  # whose positives are those of the same camera as well
    assert everywhere.tolist() == [False, *[False] * 3, True, False, False]
    with pytest.raises(ValueError, match="clothes labels are needed"):
        clothes_changed(Rows([1], [0]), gallery)


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (2, 3, 1)])
def test_distances_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"2 queries, 3 gallery rows\), found float64"):
        evaluate(np.zeros(shape), rows_of((1, 1), (2, 1)), rows_of(*[(1, 2)] * 3))


def test_a_nan_distance_is_refused_with_its_place():
    distance = np.zeros((2, 3))
    distance[1, 2] = np.nan
    with pytest.raises(ValueError, match="query 1 to gallery row 2 is NaN"):
        evaluate(distance, rows_of((1, 1), (2, 1)), rows_of(*[(1, 2)] * 3))


def test_features_that_are_not_finite_or_do_not_fit_are_refused():
    query, gallery = rows_of((1, 1)), rows_of((1, 2), (2, 2))
    with pytest.raises(ValueError, match="gallery features of 1 rows are not finite, first row 1"):
        evaluate(feature_blocks(np.ones((1, 2)), np.array([[1, 1], [1, np.inf]])), query, gallery)
    with pytest.raises(ValueError, match=r"\(2 queries, 2 gallery rows\), found float64 \(1, 2\)"):
        evaluate(feature_blocks(np.ones((1, 2)), np.ones((2, 2))), gallery, gallery)
    with pytest.raises(ValueError, match="have 3 values, gallery features 2"):
        evaluate(feature_blocks(np.ones((1, 3)), np.ones((2, 2))), query, gallery)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (([1, 2], [1]), r"equally long, found \[2, 1\]"),
        (([1, 2], [1, 2], [1]), r"equally long, found \[2, 2, 1\]"),
        (([1.5], [1]), "pids must be a 1-D integer array"),
        (([1], [[1]]), "camids must be a 1-D integer array"),
    ],
)
def test_rows_want_integers_of_one_length(labels, message):
    with pytest.raises(ValueError, match=message):
        Rows(*map(np.array, labels))


@pytest.mark.parametrize("length", [5, 77, 256])
def test_the_order_of_queries_and_gallery_rows_changes_no_bit(length):
    rng = np.random.default_rng(12)
    query, gallery = (Rows(rng.integers(1, 9, n), rng.integers(0, 3, n)) for n in (150, 2500))
    queries, features = (rng.standard_normal((n, length)).astype(np.float32) for n in (150, 2500))
    scores = evaluate(feature_blocks(queries, features), query, gallery)
    q, g = rng.permutation(150), rng.permutation(2500)
    shuffled = evaluate(feature_blocks(queries[q], features[g]), query.part(q), gallery.part(g))
    np.testing.assert_array_equal(shuffled.ap_Q, scores.ap_Q[q])
    np.testing.assert_array_equal(shuffled.first_hit_Q, scores.first_hit_Q[q])
