"""A fused distance with fixed constants. Legend: Q queries, G gallery rows."""

from typing import get_args

import numpy as np
import pytest

from sptskm.evaluation import FusedDistance, Normalisation, StreamDistances, fuse


def streams(valid: float = 0.8, seed: int = 0) -> StreamDistances:
    rng = np.random.default_rng(seed)
    ssin, smin = rng.random((7, 40)) * 3, rng.random((7, 40)) * 50 + 10
    return StreamDistances(ssin, smin, rng.random(7) < valid, rng.random(40) < valid)


@pytest.mark.parametrize("normalisation", [kind for kind in get_args(Normalisation) if kind != "rank"])
@pytest.mark.parametrize("weight", [0.0, 0.35, 1.0])
def test_it_ranks_like_the_fusion_that_it_was_fitted_to(normalisation: Normalisation, weight: float) -> None:
    given = streams()
    both_QG = given.valid_query_Q[:, None] & given.valid_gallery_G
    fixed = FusedDistance.fitted(given, weight, normalisation).of(given.ssin_QG, given.smin_QG, both_QG)
    parts = (given.ssin_QG, given.smin_QG, given.valid_query_Q, given.valid_gallery_G)
    fused = fuse(*parts, weight, normalisation)
    np.testing.assert_allclose(fixed - fused, (fixed - fused)[0, 0], atol=1e-9)


def test_a_pair_is_as_far_apart_whoever_else_is_there() -> None:
    given = streams(valid=1.0)
    fixed = FusedDistance.fitted(given, 0.4, "zscore")
    both_QG = np.ones(given.ssin_QG.shape, np.bool_)
    whole = fixed.of(given.ssin_QG, given.smin_QG, both_QG)
    assert fixed.of(given.ssin_QG[2:3, :5], given.smin_QG[2:3, :5], both_QG[:1, :5]).tolist() == [whole[2, :5].tolist()]


def test_smin_distances_of_tracklets_without_skeletons_are_not_looked_at() -> None:
    given = streams()
    both_QG = given.valid_query_Q[:, None] & given.valid_gallery_G
    smin_QG = np.where(both_QG, given.smin_QG, np.inf)
    fixed = FusedDistance.fitted(given, 0.4, "minmax")
    assert np.array_equal(fixed.of(given.ssin_QG, smin_QG, both_QG), fixed.of(given.ssin_QG, given.smin_QG, both_QG))


@pytest.mark.parametrize(
    ("weight", "normalisation", "words"), [(0.5, "rank", "no distance of a pair"), (1.5, "zscore", "0..1")]
)
def test_what_is_no_distance_of_a_pair_is_refused(weight: float, normalisation: Normalisation, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FusedDistance.fitted(streams(), weight, normalisation)


def test_constants_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted numbers"):
        FusedDistance(float("nan"), 1.0, 1.0, 0.0)
