"""Against the published evaluation code and the labels of MARS, where they are at hand."""

import numpy as np
import pytest

from sptskm.evaluation import (
    PROTOCOLS,
    Rows,
    evaluate,
    feature_blocks,
    protocol,
    select,
    squared_distances,
)

pytestmark = pytest.mark.shared

VALID = {
    "mars-official": 1980,
    "mars-standard": 1980,
    "torchreid": 1840,
    "sptskm-ssin": 1004,
    "sptskm-smin": 1000,
    "any-camera": 1952,
}


@pytest.mark.parametrize(
    ("case", "code", "protocol_name"),
    [
        ("a", "ssin", "torchreid"),
        ("b", "ssin", "sptskm-ssin"),
        ("a", "smin", "sptskm-smin"),
        ("b", "smin", "sptskm-smin"),
        ("c", "smin", "sptskm-smin"),
    ],
)
def test_the_published_evaluation_code_gives_the_same_numbers(recorded, case, code, protocol_name):
    pick = {key[2:]: array for key, array in recorded.items() if key.startswith(f"{case}/")}
    # Case c has no cameras, and its code looks at none.
    sides = [
        Rows(pids, pick.get(f"{side}_camids", np.zeros_like(pids)))
        for side, pids in (("q", pick["q_pids"]), ("g", pick["g_pids"]))
    ]
    scores = evaluate(pick["distmat"], *sides, PROTOCOLS[protocol_name])
    assert scores.mAP == pytest.approx(float(pick[f"{code}_mAP"]), abs=1e-6)
    expected = pick[f"{code}_cmc"]
    np.testing.assert_allclose(scores.cmc[: len(expected)], expected, rtol=0, atol=1e-6)
    assert scores.num_skipped == (0 if case == "c" else 1)


def test_squared_distances_equal_those_of_the_published_code(recorded):
    distance = squared_distances(recorded["dist/q"], recorded["dist/g"])
    np.testing.assert_allclose(distance, recorded["dist/d"], rtol=1e-5, atol=1e-4)


def test_on_the_labels_of_mars_scores_equal_the_walk(mars, assert_as_walked, name):
    query_rows, gallery_rows = select(protocol(name), mars.pids, mars.lengths, mars.query)
    rng = np.random.default_rng(2)
    features = rng.standard_normal((len(mars.pids), 12))
    # Something of the identity, so that hits come at ranks near and far.
    features += 0.8 * rng.standard_normal((2000, 12))[mars.pids]
    query = Rows(mars.pids[query_rows], mars.camids[query_rows])
    gallery = Rows(mars.pids[gallery_rows], mars.camids[gallery_rows])
    scores = evaluate(feature_blocks(features[query_rows], features[gallery_rows]), query, gallery, PROTOCOLS[name])
    assert scores.num_queries == VALID[name]
    assert scores.num_skipped == len(query_rows) - VALID[name]
    some = np.arange(0, len(query_rows), 40)
    distance = squared_distances(features[query_rows[some]], features[gallery_rows])
    part = scores.subset(np.isin(np.arange(len(query_rows)), some))
    part_query = Rows(query.pids[some], query.camids[some])
    assert_as_walked(part, distance, part_query, gallery, name)
