"""Which ranking held-out identities recommend: fused, or the better stream."""

import numpy as np
import pytest

from sptskm.common.errors import DataError
from sptskm.evaluation.offering import FEWEST, LEVEL, offer
from sptskm.evaluation.statistics import p_better

GRID = [{"a": share / 10, "b": 1 - share / 10} for share in range(11)]


def table(rng, identities, effect, noise=0.05, queries=4):
    """Make average precisions (W, Q): `effect` of the share of "a" beside what each person adds."""
    pids = np.repeat(np.arange(identities), queries)
    person = rng.normal(0.4, 0.15, identities)[pids]
    slope = rng.normal(0, noise, identities)[pids]
    rows = [person + effect(weights["a"]) + slope * weights["a"] for weights in GRID]
    return np.clip(np.array(rows) + rng.normal(0, 0.01, (len(GRID), len(pids))), 0, 1), pids


def hump(share):
    """Return the gain of a share of "a" where both streams help."""
    return 0.4 * share * (1 - share)


def test_two_streams_that_help_each_other_are_fused():
    found = offer(*table(np.random.default_rng(0), 30, hump), GRID)
    assert found.name == "fused"
    assert found.gain > 0.05
    assert (found.p or 0) <= LEVEL
    assert 0.3 <= found.weights["a"] <= 0.7
    assert "the result is fused: better on 30 held-out identities" in found.reason("A")


def test_noise_beside_a_stream_is_hardly_ever_fused():
    """A stream that only takes away: in 100 draws of 12 people the other one is the result, but for chance."""
    offered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found = offer(*table(rng, 12, lambda share: 0.3 * share, noise=0.1), GRID)
        assert found.better == "a"
        offered += found.name == "fused"
    assert offered <= 100 * 2 * LEVEL


def test_without_any_difference_the_better_stream_has_nearly_all_weight():
    weights = [
        offer(*table(np.random.default_rng(seed), 12, lambda share: 0.3 * share), GRID).weights["a"]
        for seed in range(20)
    ]
    assert np.mean(weights) > 0.9


def test_too_few_identities_choose_nothing():
    found = offer(*table(np.random.default_rng(0), FEWEST - 1, hump, noise=0), GRID)
    assert (found.name, found.p, found.gain) == (found.better, None, 0.0)
    assert found.reason("A").endswith(
        f"of {FEWEST - 1} held-out identities: fewer than {FEWEST} cannot choose a fusion"
    )
    assert offer(*table(np.random.default_rng(0), FEWEST, hump, noise=0), GRID).name == "fused"


def test_a_single_identity_is_no_error():
    assert offer(*table(np.random.default_rng(0), 1, hump), GRID).identities == 1


def test_people_count_alike_however_many_queries_they_have():
    rng = np.random.default_rng(1)
    precision, pids = table(rng, 10, hump)
    often = np.concatenate([np.arange(len(pids)), np.flatnonzero(pids == 3).repeat(50)])
    once, more = offer(precision, pids, GRID), offer(precision[:, often], pids[often], GRID)
    assert (more.weights, more.p) == (once.weights, once.p)
    assert more.gain == pytest.approx(once.gain)


def test_queries_without_a_positive_do_not_count():
    precision, pids = table(np.random.default_rng(1), 10, hump)
    more = np.concatenate([precision, np.full((len(GRID), 5), np.nan)], axis=1)
    assert offer(more, np.concatenate([pids, [77] * 5]), GRID) == offer(precision, pids, GRID)
    with pytest.raises(DataError, match="no held-out query has a positive"):
        offer(np.full((len(GRID), 2), np.nan), np.arange(2), GRID)
    with pytest.raises(DataError, match="lacks a alone"):
        offer(precision[:5], pids, GRID[:5])


def test_three_streams_of_which_one_is_noise():
    """Streams a and b help each other; c takes away."""
    rng = np.random.default_rng(2)
    grid = [{"a": i / 10, "b": j / 10, "c": 1 - i / 10 - j / 10} for i in range(11) for j in range(11 - i)]
    grid = [{name: round(weight, 9) for name, weight in weights.items()} for weights in grid]
    person = rng.normal(0.4, 0.1, 20)
    rows = [person + 0.8 * w["a"] * w["b"] - 0.4 * w["c"] + rng.normal(0, 0.02, 20) for w in grid]
    found = offer(np.clip(rows, 0, 1), np.arange(20), grid)
    assert found.name == "fused"
    assert found.weights["c"] <= 0.1
    assert min(found.weights["a"], found.weights["b"]) >= 0.3


def test_the_test_of_being_better_is_exact_for_few_people():
    assert p_better(np.ones(5)) == 1 / 32
    assert p_better(-np.ones(5)) == 1
    assert p_better(np.zeros(5)) == 1
    rng = np.random.default_rng(0)
    change = rng.normal(0.3, 1, 13)
    assert p_better(change, samples=8192) == pytest.approx(p_better(change, samples=8191), abs=0.02)


@pytest.mark.parametrize("identities", [FEWEST - 2, 12])
def test_a_hedge_fuses_streams_of_which_none_is_shown_to_be_better(identities):
    """Half of the people are told apart by one stream, half by the other; fusing adds next to nothing."""
    likes_a = np.arange(identities) % 2 == 0
    rows = [np.where(likes_a, 0.3 + 0.3 * w["a"], 0.3 + 0.3 * w["b"]) + 0.01 * w["a"] * w["b"] for w in GRID]
    plain = offer(np.array(rows), np.arange(identities), GRID)
    hedged = offer(np.array(rows), np.arange(identities), GRID, hedge=True)
    assert plain.name == plain.better
    assert (hedged.name, hedged.weights) == ("fused", GRID[5])
    assert "no stream is shown to be better" in hedged.reason("A")


def test_a_hedge_does_not_fuse_noise():
    for seed in range(20):
        precision = table(np.random.default_rng(seed), 12, lambda share: 0.3 * share)
        assert offer(*precision, GRID, hedge=True) == offer(*precision, GRID)
