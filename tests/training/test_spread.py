"""Scores by several ranks are those of one process. Legend: Q queries."""

from functools import partial

import numpy as np
import torch
from helpers.small import on_ranks

from sptskm.evaluation import PROTOCOLS, Rows, Scores, evaluate, feature_blocks
from sptskm.evaluation.distances import SquaredDistances
from sptskm.training.spread import evaluate_spread, multiply_on, prepared
from sptskm.training.world import World, join


def made_up(num_queries: int) -> tuple[np.ndarray, np.ndarray, Rows, Rows]:
    rng = np.random.default_rng(11)
    labels = [Rows(rng.integers(1, 9, count), np.arange(count) % 3) for count in (num_queries, 300)]
    query, gallery = (rng.standard_normal((len(rows), 16)).astype(np.float32) for rows in labels)
    return query, gallery, *labels


def expected(num_queries: int) -> Scores:
    query, gallery, *labels = made_up(num_queries)
    return evaluate(feature_blocks(query, gallery), *labels, PROTOCOLS["torchreid"])


def spread(num_queries: int, world: World) -> Scores:
    query, gallery, *labels = made_up(num_queries)
    there = prepared(gallery, world)
    return evaluate_spread(lambda rows: there.to(query[rows]), *labels, PROTOCOLS["torchreid"], world)


def ranked(counts: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    with join(1, 1.0) as world:
        found = [spread(num_queries, world) for num_queries in counts]
    return [(scores.ap_Q, scores.first_hit_Q) for scores in found]


def test_every_rank_gets_the_scores_of_all_queries_also_one_that_has_none_to_rank() -> None:
    counts = (150, 40)
    for of_rank in on_ranks(2, ranked, counts):
        for (ap_Q, first_hit_Q), scores in zip(of_rank, map(expected, counts), strict=True):
            np.testing.assert_array_equal(ap_Q, scores.ap_Q)
            np.testing.assert_array_equal(first_hit_Q, scores.first_hit_Q)


def test_one_process_needs_no_others() -> None:
    assert spread(40, World()).mAP == expected(40).mAP


def test_products_of_another_device_come_back_as_distances() -> None:
    query, gallery, *_ = made_up(70)
    there = SquaredDistances(gallery, partial(multiply_on, torch.device("cpu"))).to(query)  # as on a GPU
    np.testing.assert_allclose(there, SquaredDistances(gallery).to(query), rtol=1e-12)
