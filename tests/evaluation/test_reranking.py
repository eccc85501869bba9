"""k-reciprocal re-ranking against a plain, dense one with sets."""

import re
import tracemalloc

import numpy as np
import pytest
from helpers.pairs import fused_pair

from sptskm.evaluation import (
    FusedDistance,
    Reranking,
    Rows,
    check_memory,
    evaluate,
    feature_distances,
    fused_distances,
    rerank,
    reranking,
    squared_distances,
)


def plainly(distance: np.ndarray, k1: int, k2: int, share: float) -> np.ndarray:
    """All to all, from the paper: dense matrices and Python sets."""
    count = len(distance)
    scaled = distance / distance.max(axis=1, keepdims=True)
    order = [sorted(range(count), key=lambda g, p=p: (g != p, distance[p, g])) for p in range(count)]

    def mutual(p: int, k: int) -> set[int]:
        return {g for g in order[p][: k + 1] if p in order[g][: k + 1]}

    encoding = np.zeros((count, count))
    for p in range(count):
        extended = mutual(p, k1)
        for q in mutual(p, k1):
            candidates = mutual(q, round(k1 / 2))
            if len(candidates & mutual(p, k1)) >= 2 / 3 * len(candidates):
                extended = extended | candidates
        for g in extended:
            encoding[p, g] = np.exp(-scaled[p, g])
        encoding[p] /= encoding[p].sum()
    encoding = np.array([encoding[order[p][:k2]].mean(axis=0) for p in range(count)])
    least = np.minimum(encoding[:, None], encoding).sum(axis=2)
    most = np.maximum(encoding[:, None], encoding).sum(axis=2)
    return (1 - share) * (1 - least / most) + share * scaled


def persons(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    pids = rng.integers(0, 9, count)
    return pids, rng.standard_normal((9, 6))[pids] + 0.8 * rng.standard_normal((count, 6))


@pytest.mark.parametrize(("k1", "k2", "share"), [(20, 6, 0.3), (7, 1, 0.0), (5, 3, 1.0), (200, 6, 0.3)])
def test_reranked_distances_equal_those_of_the_paper(k1, k2, share):
    _, features = persons(np.random.default_rng(0), 90)
    distance = squared_distances(features, features)
    query, gallery = np.arange(0, 90, 4), np.arange(89, 10, -1)
    found = rerank(lambda a, b: distance[a:b], query, gallery, 90, Reranking(k1, k2, share))
    np.testing.assert_allclose(found, plainly(distance, k1, k2, share)[np.ix_(query, gallery)], rtol=0, atol=1e-12)


def test_ties_and_twins_are_ordered_by_row():
    rng = np.random.default_rng(1)
    points = rng.integers(0, 3, (60, 3)).astype(float)
    distance = squared_distances(points, points)
    rows = np.arange(60)
    found = rerank(lambda a, b: distance[a:b], rows, rows, 60, Reranking(6, 3))
    np.testing.assert_allclose(found, plainly(distance, 6, 3, 0.3), rtol=0, atol=1e-12)


def test_blocks_do_not_change_a_bit(monkeypatch):
    _, features = persons(np.random.default_rng(2), 80)
    distance = squared_distances(features, features)
    results, rows = [], np.arange(80)
    for block in (1, 7, 80):
        monkeypatch.setattr(reranking, "_block", lambda *_, block=block: block)
        asked = []

        def rows_of(first: int, last: int, asked: list[int] = asked) -> np.ndarray:
            asked.append(last - first)
            return distance[first:last]

        results.append(rerank(rows_of, rows[:9], rows, 80))
        assert max(asked) == block
    assert (results[0] == results[1]).all()
    assert (results[0] == results[2]).all()


def test_it_brings_together_who_has_the_same_neighbours():
    pids, features = persons(np.random.default_rng(3), 200)
    distance = squared_distances(features, features)
    query, gallery = np.arange(40), np.arange(40, 200)
    rows = Rows(pids[query], query * 0), Rows(pids[gallery], gallery * 0 + 1)
    plain = evaluate(distance[:40, 40:], *rows)
    again = evaluate(rerank(lambda a, b: distance[a:b], query, gallery, 200), *rows)
    assert again.mAP > plain.mAP + 0.02


def test_what_is_held_beside_the_result_is_less_than_what_it_asks_for():
    """At the least that it accepts, where the rule for extended neighbours has much to add."""
    _, features = persons(np.random.default_rng(4), 1500)
    distances, rows = feature_distances(features), np.arange(1500)
    with pytest.raises(ValueError, match="needs") as refusal:
        check_memory(1500, 300, gigabytes=0.001)
    least = float(re.search(r"needs ([\d.]+) GiB", str(refusal.value)).group(1)) + 0.0001
    tracemalloc.start()
    try:
        found = rerank(distances, rows[:300], rows, 1500, gigabytes=least)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.nbytes < peak < found.nbytes + least * 2**30


def test_fused_distances_among_all_are_symmetric_finite_and_zero_to_itself():
    rng = np.random.default_rng(5)
    ssin, smin, valid = rng.standard_normal((150, 6)), rng.standard_normal((150, 4)), rng.random(150) < 0.8
    smin[~valid] = np.nan  # what stands there means nothing
    fixed = FusedDistance.of_before(0.5, 0.25, 0.75, -1.5)
    flags = {"ssin": np.ones(150, bool), "smin": valid}
    block = fused_distances({"ssin": ssin, "smin": smin}, flags, fixed)
    found = np.concatenate([block(0, 64), block(64, 128), block(128, 150)])
    among = fused_pair(fixed, *(((one[:, None] - one) ** 2).sum(axis=2) for one in (ssin, smin)), valid, valid)
    np.fill_diagonal(among, 0)
    np.testing.assert_allclose(found, among, atol=1e-9)
    np.testing.assert_allclose(found, found.T, atol=1e-9)
    assert not np.diag(found).any()


def test_too_little_memory_is_refused_with_what_is_needed():
    with pytest.raises(ValueError, match=r"re-ranking 519732 tracklets needs 2\.\d+ GiB beside .* allowed are 0.5"):
        rerank(lambda a, b: np.zeros((b - a, 519_732)), np.arange(2), np.arange(2), 519_732, gigabytes=0.5)
    check_memory(519_732, 2, gigabytes=3)
    check_memory(0, 0)


def test_parameters_and_distances_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match=r"re-ranking are 20, 0 and 0\.3, wanted at least 1"):
        Reranking(k2=0)
    with pytest.raises(ValueError, match="distances of row 0 are not finite"):
        rerank(lambda a, b: np.full((b - a, 4), np.inf), np.arange(2), np.arange(2), 4)
