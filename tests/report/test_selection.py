"""Which queries a report shows."""

import numpy as np

from sptskm.evaluation import OFFICIAL, Scores
from sptskm.evaluation.results import Ranking
from sptskm.report.selection import typical


def ranking(ap: list[float], first_hit: list[int] | None = None) -> Ranking:
    hits = np.array(first_hit or [1] * len(ap))
    return Ranking("ssin", np.zeros((len(ap), 1)), Scores(np.array(ap), hits, 1, OFFICIAL))


def test_best_middling_and_worst_queries_are_of_different_persons_where_there_are_some() -> None:
    ap = [1.0] * 6 + [0.5] * 6 + [0.1] * 6
    pids = np.array([7, 7, 7, 8, 8, 9] * 3)
    assert typical(ranking(ap), pids)["best"] == [0, 3, 5]
    for chosen in typical(ranking(ap), pids).values():
        assert sorted(pids[chosen]) == [7, 8, 9]


def test_of_one_person_the_best_the_middle_and_the_worst_are_shown() -> None:
    ap = list(np.linspace(1, 0.1, 30))
    found = typical(ranking(ap), np.ones(30, int))
    assert found == {"best": [0, 1, 2], "median": [14, 15, 16], "worst": [27, 28, 29]}


def test_few_queries_are_shown_once_each_and_one_that_finds_nothing_is_not() -> None:
    assert typical(ranking([0.5]), np.array([1])) == {"best": [0]}
    assert typical(ranking([0.2, 0.9]), np.array([1, 2])) == {"best": [1], "worst": [0]}
    assert typical(ranking([0.9, 0.0, 0.2], [1, 0, 4]), np.array([1, 2, 3])) == {"best": [0], "worst": [2]}
    assert typical(ranking([float("nan")], [0]), np.array([1])) == {}
