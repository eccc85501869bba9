"""Weights by the camera of the query: used where they really help, and not where they only seem to.

Shapes: Q queries, G gallery rows, W weights, D feature length.
"""

import numpy as np
import pytest

from sptskm.evaluation import (
    CameraWeights,
    Rows,
    StreamDistances,
    choose_camera_weights,
    choose_weight,
    evaluate,
    fuse,
    fuse_by_camera,
    precision_table,
    squared_distances,
)
from sptskm.evaluation.fusion import WEIGHTS

CAMERAS = 4


def filmed(seed: int, persons: int, broken: dict[int, str]) -> tuple[StreamDistances, Rows, Rows]:
    """Every person twice before every camera, once as query; of the queries of some cameras one stream is noise."""
    rng = np.random.default_rng(seed)
    pids, camids = (labels.ravel() for labels in np.mgrid[:persons, :CAMERAS])
    distances = []
    for stream in ("ssin", "smin"):
        centre_ND = rng.standard_normal((persons, 12))[pids]
        query_QD, gallery_GD = (centre_ND + 0.9 * rng.standard_normal(centre_ND.shape) for _ in range(2))
        lost_Q = np.isin(camids, [camera for camera, which in broken.items() if which == stream])
        query_QD[lost_Q] = 1.4 * rng.standard_normal((lost_Q.sum(), 12))
        distances.append(squared_distances(query_QD, gallery_GD))
    everyone = np.ones(len(pids), bool)
    return StreamDistances(*distances, everyone, everyone), Rows(pids, camids), Rows(pids, camids)


def tried(seed: int, broken: dict[int, str], persons: int = 30) -> CameraWeights:
    streams, query, gallery = filmed(seed, persons, broken)
    return choose_camera_weights(precision_table(streams, query, gallery), query, WEIGHTS)


def test_they_win_where_each_stream_is_noise_for_a_camera_and_help_on_others() -> None:
    broken = {0: "smin", 1: "ssin"}
    found = tried(0, broken)
    assert found.used
    assert found.own_mAP > found.single_mAP + 0.02
    assert found.weights[0] < found.single < found.weights[1]
    streams, query, gallery = filmed(1, 40, broken)
    parts = streams.ssin_QG, streams.smin_QG, streams.valid_query_Q, streams.valid_gallery_G
    single = evaluate(fuse(*parts, found.single), query, gallery).mAP
    assert evaluate(fuse_by_camera(streams, query, found, "zscore"), query, gallery).mAP > single + 0.02


@pytest.mark.parametrize("seed", range(4))
def test_they_are_not_used_where_cameras_do_not_differ(seed: int) -> None:
    found = tried(seed, {})
    assert not found.used
    assert found.own_mAP == pytest.approx(found.single_mAP, abs=0.02)


def test_every_query_is_judged_by_weights_chosen_on_other_identities() -> None:
    """Each identity has the one weight at which it alone is found; whoever looked at it could choose that one."""
    precision_WQ = np.repeat(np.eye(10), 5, axis=1)
    query = Rows(np.repeat(np.arange(10), 5), np.repeat(np.arange(10), 5))
    found = choose_camera_weights(precision_WQ, query, np.linspace(0, 1, 10).tolist())
    assert (found.single_mAP, found.own_mAP, found.used) == (0.0, 0.0, False)


def test_a_camera_with_few_queries_stays_near_the_weight_of_all() -> None:
    weights = [0.0, 0.5, 1.0]
    rare, common = np.array([[1.0], [0.8], [0.0]]), np.array([[0.2], [0.9], [0.4]])
    for queries, own in ((3, 0.5), (200, 0.0)):
        precision_WQ = np.concatenate([np.tile(rare, queries), np.tile(common, 300)], axis=1)
        query = Rows(np.arange(queries + 300) % 7, np.repeat([7, 8], [queries, 300]))
        found = choose_camera_weights(precision_WQ, query, weights)
        assert (found.single, found.weights) == (0.5, {7: own, 8: 0.5})


def test_queries_of_a_camera_are_ranked_at_its_weight_and_those_of_an_unseen_one_at_the_weight_of_all() -> None:
    streams, query, _ = filmed(2, 5, {})
    chosen = CameraWeights({0: 0.1, 2: 0.9}, 0.4, 0.5, 0.6, 0.01, 5)
    fused = fuse_by_camera(streams, query, chosen, "minmax")
    parts = streams.ssin_QG, streams.smin_QG, streams.valid_query_Q, streams.valid_gallery_G
    for camera, weight in ((0, 0.1), (1, 0.4), (2, 0.9), (3, 0.4)):
        own = query.camids == camera
        assert np.array_equal(fused[own], fuse(*parts, weight, "minmax")[own])


def test_queries_that_count_nowhere_change_nothing() -> None:
    streams, query, gallery = filmed(3, 12, {0: "smin"})
    table = precision_table(streams, query, gallery)
    more = np.concatenate([table, np.full((len(WEIGHTS), 2), np.nan)], axis=1)
    labels = Rows(np.r_[query.pids, 500, 501], np.r_[query.camids, 0, 9])
    assert choose_camera_weights(more, labels, WEIGHTS) == choose_camera_weights(table, query, WEIGHTS)
    assert choose_camera_weights(table, query, WEIGHTS).single == choose_weight(table)[0]


@pytest.mark.parametrize(("own_mAP", "p", "used"), [(0.6, 0.05, True), (0.6, 0.051, False), (0.4, 0.001, False)])
def test_they_are_used_where_they_are_better_and_not_by_chance(own_mAP: float, p: float, used: bool) -> None:
    assert CameraWeights({}, 0.5, 0.5, own_mAP, p, 5).used is used


def test_one_identity_is_too_few() -> None:
    with pytest.raises(ValueError, match="1 held-out identities have queries that count, wanted 2"):
        choose_camera_weights(np.ones((3, 4)), Rows([5] * 4, [1, 2, 3, 4]), [0.0, 0.5, 1.0])
