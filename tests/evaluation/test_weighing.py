"""Weights of streams by how far apart each puts different people."""

import numpy as np
import pytest

from sptskm.common.errors import DataError
from sptskm.evaluation.weighing import Gaps, gaps_by_identity

NAMES = ("a", "b", "c")


def weights(*gaps_I: np.ndarray, variance: float = 1.0) -> dict[str, float]:
    return dict(Gaps(NAMES[: len(gaps_I)], np.array(gaps_I), np.full(len(gaps_I), variance)).weights())


def test_streams_count_in_proportion_to_gap_over_variance():
    sure_I = np.ones(10)
    assert weights(sure_I, 3 * sure_I) == pytest.approx({"a": 0.25, "b": 0.75})
    twice = Gaps(("a", "b"), np.array([sure_I, 2 * sure_I]), np.array([1.0, 4.0])).weights()
    assert twice == pytest.approx({"a": 2 / 3, "b": 1 / 3}), "b in half the units, where gaps are twice as large"


def test_a_gap_is_shrunk_by_what_chance_adds_to_it():
    unsure_I = np.array([0.0, 2.0] * 5)  # mean 1, squared error of the mean 1 / 9
    assert weights(np.ones(10), unsure_I)["b"] == pytest.approx((8 / 9) / (17 / 9))
    assert weights(np.ones(10), np.array([-2.0, 2.5] * 5))["b"] == 0, "0.25 with an error of 0.75"
    assert weights(np.ones(10), -np.ones(10)) == {"a": 1, "b": 0}


def test_noise_beside_a_stream_has_hardly_any_weight():
    rng = np.random.default_rng(0)
    found = [weights(rng.normal(1, 0.4, 12), rng.normal(0, 0.4, 12))["b"] for _ in range(200)]
    assert np.mean(np.array(found) == 0) > 0.75
    assert max(found) < 0.3


def test_where_all_gaps_may_be_luck_the_largest_decides():
    assert weights(np.array([-1.0, 1.1]), np.array([-1.0, 1.2]), np.array([-1.0, 0.5])) == {"a": 0, "b": 1, "c": 0}
    assert weights(np.array([0.1]), np.array([0.4])) == pytest.approx({"a": 0.2, "b": 0.8}), "one person has no error"


def test_a_person_without_input_of_a_stream_has_no_say_about_it():
    gaps_I = np.array([1.0, 1.0, np.nan, np.nan])
    assert weights(np.ones(4), gaps_I) == {"a": 0.5, "b": 0.5}
    assert weights(np.ones(4), np.full(4, np.nan)) == {"a": 1, "b": 0}
    with pytest.raises(DataError, match="no held-out query has a positive"):
        weights(np.full(4, np.nan), np.full(4, np.nan))


def test_the_gap_of_a_person_is_between_the_means_of_both_kinds_of_pairs():
    distance = np.array([1.0, 3.0, 4.0, 6.0, 7.0, 2.0])
    same = np.array([True, True, False, False, False, True])
    found = gaps_by_identity(distance, same, np.array([5, 5, 5, 5, 8, 9]), np.array([5, 8, 9]))
    np.testing.assert_array_equal(found, [3.0, np.nan, np.nan])
