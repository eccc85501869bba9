"""Which ranking held-out identities recommend: fused, or the better stream."""

import numpy as np
import pytest

from sptskm.evaluation.offering import FEWEST, LEVEL, cross_validated, offer
from sptskm.evaluation.statistics import p_better
from sptskm.evaluation.weighing import Gaps

HALF = {"a": 0.5, "b": 0.5}


def scores(rng, identities, gain, noise=0.05):
    """Return the mAP of every person by two streams, a the better one, and fused: `gain` above the better."""
    person = rng.normal(0.4, 0.1, identities)
    alone = {"a": person + rng.normal(0, 0.02, identities), "b": person - 0.1 + rng.normal(0, noise, identities)}
    return alone, alone["a"] + gain + rng.normal(0, noise, identities)


def test_a_fusion_that_is_better_on_most_people_is_the_result():
    found = offer(*scores(np.random.default_rng(0), 30, 0.06), HALF)
    assert (found.name, found.better, found.weights) == ("fused", "a", HALF)
    assert found.gain == pytest.approx(0.06, abs=0.02)
    assert (found.p or 0) <= LEVEL
    assert "the result is fused: better on 30 held-out identities" in found.reason("A")


def test_a_fusion_that_adds_nothing_is_hardly_ever_the_result():
    drawn = [offer(*scores(np.random.default_rng(seed), 9, 0.0), HALF) for seed in range(200)]
    assert sum(found.name == "fused" for found in drawn) <= 200 * 2 * LEVEL
    assert {found.better for found in drawn} == {"a"}


def test_too_few_identities_choose_nothing():
    found = offer(*scores(np.random.default_rng(0), FEWEST - 1, 0.1, noise=0), HALF)
    assert (found.name, found.p, found.gain) == (found.better, None, 0.0)
    assert found.reason("A").endswith(
        f"of {FEWEST - 1} held-out identities: fewer than {FEWEST} cannot choose a fusion"
    )
    assert offer(*scores(np.random.default_rng(0), FEWEST, 0.1, noise=0), HALF).name == "fused"


def test_a_single_identity_is_no_error():
    alone = {"a": np.array([0.4]), "b": np.array([0.3])}
    assert offer(alone, np.array([0.5]), HALF).name == "a"


@pytest.mark.parametrize("identities", [FEWEST - 2, 12])
def test_a_hedge_fuses_where_neither_is_shown_to_be_better(identities):
    alone, fused = scores(np.random.default_rng(3), identities, 0.0)
    assert offer(alone, fused, HALF).name == "a"
    hedged = offer(alone, fused, HALF, hedge=True)
    assert (hedged.name, hedged.hedged) == ("fused", True)
    assert "the result is fused, as a hedge" in hedged.reason("A")


def test_a_hedge_takes_the_better_stream_where_it_is_shown_to_be_better():
    found = offer(*scores(np.random.default_rng(0), 12, -0.1), HALF, hedge=True)
    assert (found.name, found.hedged) == ("a", False)
    assert "the result is A: fused is not better" in found.reason("A")


def test_a_fusion_of_one_stream_is_called_by_its_name():
    alone, _ = scores(np.random.default_rng(0), 12, 0.0)
    assert offer(alone, alone["a"], {"a": 1.0, "b": 0.0}, hedge=True).name == "a"


def test_nobody_has_a_part_in_the_weights_by_which_he_is_scored():
    """The gap of one person is huge: only the score of that person is by weights that are not moved by it."""
    gaps_SI = np.ones((2, 12))
    gaps_SI[1, 4] = 100
    gaps = Gaps(("a", "b"), gaps_SI, np.ones(2))
    found = cross_validated(gaps, lambda weights: np.full(12, weights["b"]))
    everybody = gaps.weights()["b"]
    assert found[4] == 0.5
    assert np.count_nonzero(found != 0.5) >= 10
    assert everybody != 0.5
    single = Gaps(("a", "b"), np.ones((2, 1)), np.ones(2))
    assert cross_validated(single, lambda weights: np.array([weights["b"]])).tolist() == [0.5]


def test_the_test_of_being_better_is_exact_for_few_people():
    assert p_better(np.ones(5)) == 1 / 32
    assert p_better(-np.ones(5)) == 1
    assert p_better(np.zeros(5)) == 1
    rng = np.random.default_rng(0)
    change = rng.normal(0.3, 1, 13)
    assert p_better(change, samples=8192) == pytest.approx(p_better(change, samples=8191), abs=0.02)
