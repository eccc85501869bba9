"""Intervals and tests say what they should on data whose answer is known."""

from itertools import product

import numpy as np
import pytest

from sptskm.evaluation.statistics import bootstrap_interval, p_better, paired_difference


def each(values: np.ndarray) -> np.ndarray:
    """An identity for every query."""
    return np.arange(len(values))


def test_the_interval_is_that_of_a_mean_of_many_independent_values() -> None:
    values = np.random.default_rng(0).normal(0.4, 0.2, 2000)
    low, high = bootstrap_interval(values, each(values))
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    found = [bootstrap_interval(rng.beta(0.6, 0.8, 100), np.arange(100), samples=500) for _ in range(200)]
    share = np.mean([low <= 0.6 / 1.4 <= high for low, high in found])
    assert 0.90 <= share <= 0.99


def of_people(rng: np.random.Generator, people: int, alike: float) -> tuple[np.ndarray, np.ndarray]:
    """Two to five queries of each person, of mean 0, that share some of their variance; and whose they are."""
    pids_Q = np.repeat(np.arange(people), rng.integers(2, 6, people))
    shared_Q = rng.normal(size=people)[pids_Q]
    return alike**0.5 * shared_Q + (1 - alike) ** 0.5 * rng.normal(size=len(pids_Q)), pids_Q


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
def test_people_whose_queries_are_alike_make_nothing_more_certain(alike: float) -> None:
    rng = np.random.default_rng(4)
    covered, significant = [], []
    for _ in range(200):
        change_Q, pids_Q = of_people(rng, 80, alike)
        found = paired_difference(np.zeros(len(change_Q)), change_Q, pids_Q, samples=400)
        covered.append(found.low <= 0 <= found.high)
        significant.append(found.p <= 0.05)
    assert 0.89 <= np.mean(covered) <= 0.99
    assert np.mean(significant) <= 0.10


def test_a_label_is_wanted_for_every_query() -> None:
    with pytest.raises(ValueError, match="there are 2 identities for 3 queries, wanted one for each"):
        bootstrap_interval(np.ones(3), np.arange(2))


def test_the_interval_is_the_same_each_time_and_a_point_for_equal_values() -> None:
    values = np.random.default_rng(2).random(50)
    assert bootstrap_interval(values, each(values)) == bootstrap_interval(values, each(values))
    assert bootstrap_interval(np.full(9, 0.5), np.arange(9)) == (0.5, 0.5)


def test_the_p_value_is_that_of_all_exchanges() -> None:
    a = np.array([0.1, 0.5, 0.3, 0.9, 0.2, 0.4])
    b = a + np.array([0.3, 0.1, -0.05, 0.02, 0.2, 0.1])
    signs = np.array(list(product([-1, 1], repeat=len(a))))
    exact = np.mean(np.abs(signs @ (b - a)) >= abs((b - a).sum()) - 1e-12)
    assert paired_difference(a, b, each(a)).p == pytest.approx(exact)
    assert paired_difference(a, b, each(a), samples=60).p == pytest.approx(exact, abs=0.15)


def test_p_values_of_random_exchanges_count_what_was_observed_and_are_the_same_each_time() -> None:
    gain = np.full(40, 0.1)
    assert paired_difference(np.zeros(40), gain, each(gain), samples=99).p == 1 / 100
    change = np.random.default_rng(5).normal(0.05, 0.2, 40)
    first, again = (paired_difference(np.zeros(40), change, each(change)).p for _ in range(2))
    assert first == again


def test_sums_that_are_equal_but_for_rounding_count_as_equal() -> None:
    assert p_better(np.array([0.1, 0.2, -0.3])) == p_better(np.array([1.0, 2.0, -3.0])) == 5 / 8


def test_a_single_identity_has_a_point_for_an_interval_and_is_no_difference() -> None:
    values = np.array([0.25, 0.75, 0.5])
    assert bootstrap_interval(values, np.zeros(3)) == (0.5, 0.5)
    assert paired_difference(values, values + 0.1, np.zeros(3)).p == 1
    assert (p_better(np.ones(1)), p_better(-np.ones(1)), p_better(np.zeros(1))) == (0.5, 1, 1)


def test_chance_alone_is_rarely_called_a_difference_and_a_real_one_is() -> None:
    rng = np.random.default_rng(3)
    noise = [paired_difference(*rng.random((2, 40)), np.arange(40), samples=400).p for _ in range(100)]
    assert np.mean(np.array(noise) < 0.05) <= 0.12
    a = rng.random(200)
    assert paired_difference(a, a + rng.normal(0.05, 0.1, 200), each(a)).p < 0.001


def test_a_difference_counts_queries_and_turns_round_with_its_sides() -> None:
    a, b = np.array([0.5, 0.5, 0.2, 1.0]), np.array([0.7, 0.5, 0.1, 1.0])
    there, back = paired_difference(a, b, each(a)), paired_difference(b, a, each(a))
    assert (there.better, there.worse, there.same) == (1, 1, 2) == (back.worse, back.better, back.same)
    assert there.mean == pytest.approx(0.025) == -back.mean
    assert there.low <= there.mean <= there.high


def test_equal_results_are_no_difference() -> None:
    same = paired_difference(np.ones(5), np.ones(5), np.arange(5))
    assert (same.mean, same.p, same.same) == (0.0, 1.0, 5)


@pytest.mark.parametrize("values", [[], [0.5, np.nan], [[0.5]]])
def test_what_is_no_result_of_queries_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="wanted one number for each query"):
        bootstrap_interval(np.array(values), np.arange(len(values)))
    with pytest.raises(ValueError, match=r"of 1 and 2 queries, wanted the same"):
        paired_difference(np.ones(1), np.ones(2), np.arange(1))
