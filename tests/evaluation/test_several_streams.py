"""Fusion of three streams, and that of two as it was before there could be more. Legend: Q queries, G gallery rows."""

import numpy as np
import pytest
from helpers.pairs import part_with

from sptskm.evaluation import (
    Distances,
    FusedDistance,
    Rows,
    StreamDistances,
    choose,
    fuse,
    pair_weights,
    weight_grid,
)
from sptskm.evaluation.fusion import OF_THE_DATA

KINDS = OF_THE_DATA
NAMES = ("ssin", "smin", "gait")
WEIGHTS = {"ssin": 0.5, "smin": 0.2, "gait": 0.3}


def streams(
    names: tuple[str, ...] = NAMES, without: float = 0.25, first: float = 0.0, seed: int = 0
) -> StreamDistances:
    """Streams of different units; a share of the tracklets lacks input in each (in the first: `first`)."""
    rng = np.random.default_rng(seed)
    found = {}
    for place, name in enumerate(names):
        share = without if place else first
        flags = [rng.random(count) >= share for count in (12, 50)]
        distance_QG = rng.random((12, 50)) * 10**place + place
        found[name] = Distances(np.where(flags[0][:, None] & flags[1], distance_QG, np.nan), *flags)
    return StreamDistances(found)


def as_before(given: StreamDistances, weight: float, kind: str) -> np.ndarray:
    """The formula for SSIN and SMIN before there could be more, of z-scores or of distances as they are."""
    ssin_QG, smin_QG = (np.nan_to_num(matrix_QG) for matrix_QG in given.matrices.values())
    both_QG = given.query["smin"][:, None] & given.gallery["smin"]
    part = np.ix_(given.query["smin"], given.gallery["smin"])
    if kind == "zscore":
        ssin_QG, smin_QG = ((d - d[part].mean()) / d[part].std() for d in (ssin_QG, smin_QG))
    fused_QG = (1.0 - weight) * ssin_QG + weight * smin_QG
    fused, ssin = fused_QG[part], ssin_QG[part]
    return np.where(both_QG, fused_QG, (ssin_QG - ssin.mean()) * (fused.std() / ssin.std()) + fused.mean())


@pytest.mark.parametrize("kind", ["zscore", "concat"])
@pytest.mark.parametrize("weight", [0.0, 0.15000000000000002, 0.5, 1.0])
@pytest.mark.parametrize("without", [0.0, 0.25])
def test_two_streams_have_the_bits_that_they_had_before(kind, weight, without):
    given = streams(NAMES[:2], without)
    fused_QG = fuse(given, pair_weights(NAMES[:2], weight), kind)
    np.testing.assert_array_equal(fused_QG, as_before(given, weight, kind))


def test_complete_pairs_are_the_weighted_sum_of_z_scores():
    given = streams(without=0.0)
    z = {name: (d - d.mean()) / d.std() for name, d in given.matrices.items()}
    expected = sum(WEIGHTS[name] * z[name] for name in NAMES)
    np.testing.assert_allclose(fuse(given, WEIGHTS), expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["zscore", "minmax", "concat"])
def test_a_pair_that_lacks_a_stream_is_compared_by_the_others_in_proportion(kind):
    given = streams()
    fused_QG = fuse(given, WEIGHTS, kind)
    complete = given.where_complete(fused_QG)
    lacking_QG = ~(given.query["smin"][:, None] & given.gallery["smin"])
    lacking_QG &= given.query["gait"][:, None] & given.gallery["gait"]
    others = StreamDistances({name: given[name] for name in ("ssin", "gait")})
    part = given.where_complete
    blend_QG = {"zscore": 0, "minmax": 0, "concat": 0}[kind]
    for name, share in (("ssin", 0.5 / 0.8), ("gait", 0.3 / 0.8)):
        own_QG = others[name].distance_QG
        unit = {"zscore": part(own_QG).std(), "minmax": np.ptp(part(own_QG)), "concat": 1.0}[kind]
        blend_QG = blend_QG + share / unit * own_QG
    expected_QG = (blend_QG - part(blend_QG).mean()) / part(blend_QG).std() * complete.std() + complete.mean()
    assert lacking_QG.any()
    np.testing.assert_allclose(fused_QG[lacking_QG], expected_QG[lacking_QG], atol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_without_a_stream_in_common_is_infinitely_far_and_no_other(kind):
    given = streams(first=0.4, without=0.5)
    fused_QG = fuse(given, WEIGHTS, kind)
    common_QG = np.any([given.query[name][:, None] & given.gallery[name] for name in NAMES], axis=0)
    assert 0 < common_QG.mean() < 1
    np.testing.assert_array_equal(np.isfinite(fused_QG), common_QG)
    assert (fused_QG[~common_QG] == np.inf).all()


def test_streams_of_weight_zero_have_equal_weights_where_there_are_no_others():
    given = streams(first=0.3)
    only = {"ssin": 1.0, "smin": 0.0, "gait": 0.0}
    without_QG = ~(given.query["ssin"][:, None] & given.gallery["ssin"])
    for name in ("smin", "gait"):
        without_QG &= given.query[name][:, None] & given.gallery[name]
    assert without_QG.any()
    halves = [given.where_complete(given[name].distance_QG).std() for name in ("smin", "gait")]
    blend_QG = given["smin"].distance_QG / halves[0] + given["gait"].distance_QG / halves[1]
    fused_QG = fuse(given, only)
    np.testing.assert_allclose(np.argsort(fused_QG[without_QG]), np.argsort(blend_QG[without_QG]))


@pytest.mark.parametrize("normalisation", [kind for kind in KINDS if kind != "rank"])
@pytest.mark.parametrize("weights", [WEIGHTS, {"ssin": 1.0, "smin": 0.0, "gait": 0.0}])
def test_a_fused_distance_ranks_like_the_fusion_that_it_was_fitted_to(normalisation, weights):
    given = streams(first=0.3)
    fixed = FusedDistance.fitted(given, weights, normalisation)
    assert len(fixed.terms) == 7, "one for each set of streams"
    with np.errstate(invalid="ignore"):
        apart_QG = fixed.of(given.matrices, given.query, given.gallery) - fuse(given, weights, normalisation)
    np.testing.assert_allclose(apart_QG[np.isfinite(apart_QG)], apart_QG[0, np.isfinite(apart_QG[0])][0], atol=1e-9)


def test_a_pair_is_as_far_apart_whoever_else_is_there() -> None:
    given = streams()
    fixed = FusedDistance.fitted(given, WEIGHTS, "zscore")
    whole = fixed.of(given.matrices, given.query, given.gallery)
    one = fixed.of(
        {name: matrix_QG[2:3, :5] for name, matrix_QG in given.matrices.items()},
        {name: valid_Q[2:3] for name, valid_Q in given.query.items()},
        {name: valid_G[:5] for name, valid_G in given.gallery.items()},
    )
    np.testing.assert_array_equal(one[0], whole[2, :5])


def test_a_complete_tracklet_is_at_distance_zero_from_itself() -> None:
    flags = dict.fromkeys(NAMES, np.ones(1, np.bool_))
    fixed = FusedDistance.fitted(streams(), WEIGHTS, "minmax")
    assert fixed.of(dict.fromkeys(NAMES, np.zeros((1, 1))), flags, flags) == 0


@pytest.mark.parametrize(
    ("weights", "normalisation", "words"),
    [
        (WEIGHTS, "rank", "no distance of a pair"),
        (WEIGHTS | {"gait": 0.5}, "zscore", r"sum to 1, found ssin 0\.5, smin 0\.2"),
    ],
)
def test_what_is_no_distance_of_a_pair_is_refused(weights, normalisation, words) -> None:
    with pytest.raises(ValueError, match=words):
        FusedDistance.fitted(streams(), weights, normalisation)


def test_weights_of_other_streams_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weights must be of ssin, smin, gait, found ssin 0\.5, smin 0\.5"):
        fuse(streams(), {"ssin": 0.5, "smin": 0.5})


def test_constants_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted numbers"):
        FusedDistance.of_before(float("nan"), 1.0, 1.0, 0.0)


def test_the_grid_of_three_streams_is_the_whole_simplex_and_that_of_two_as_before() -> None:
    grid = weight_grid(NAMES, 0.05)
    assert len(grid) == 231
    assert len({tuple(round(share, 6) for share in weights.values()) for weights in grid}) == 231
    for weights in grid:
        assert sum(weights.values()) == pytest.approx(1, abs=1e-12)
        assert min(weights.values()) >= 0
    assert weight_grid(NAMES[:2], 0.05) == [pair_weights(NAMES[:2], share) for share in np.linspace(0, 1, 21).tolist()]


def test_the_weights_chosen_for_three_streams_use_the_one_that_tells_people_apart() -> None:
    rng = np.random.default_rng(3)
    query, gallery = Rows(np.arange(20), np.zeros(20, int)), Rows(np.repeat(np.arange(20), 3), np.ones(60, int))
    told_QG = (query.pids[:, None] != gallery.pids) * 1.0
    noise = {"ssin": 9.0, "smin": 9.0, "gait": 0.6}
    flags = np.ones(20, bool), np.ones(60, bool)
    given = StreamDistances(
        {name: Distances(told_QG + loud * rng.random((20, 60)), *flags) for name, loud in noise.items()}
    )
    found = choose([part_with(query, gallery, given)], ["zscore", "minmax"], step=0.1)
    assert found.offer.weights["gait"] > 0.6
    assert found.curve_WS.shape == (66, 3), "weights of all but the first, and the mAP"
    assert found.mAP > found.curve_WS[:, -1].max() - 0.05
