"""Probabilities that two tracklets show one person."""

import numpy as np
import pytest
from helpers.pairs import part_with
from scipy.special import expit

from sptskm.common.errors import DataError
from sptskm.evaluation import (
    PROTOCOLS,
    Calibration,
    Distances,
    FusedDistance,
    Part,
    Rows,
    StreamDistances,
    calibrate,
    calibrated,
    evaluate,
    fuse,
    pair_weights,
    slopes_of,
)


def pairs(rng, same, other, apart=2.0):
    """Draw distances of two normal distributions of spread 1; the log-odds are then a line of slope `apart`."""
    distance = np.concatenate([rng.normal(0, 1, same), rng.normal(apart, 1, other)])
    return distance, np.arange(same + other) < same


def test_the_true_probabilities_are_found_whatever_the_share_of_pairs():
    """Equal normal distributions `apart` from each other have log-odds apart * (apart / 2 - distance)."""
    for same, other in ((4000, 4000), (2000, 40_000)):
        found = calibrate(*pairs(np.random.default_rng(0), same, other))
        assert (found.intercept, found.slope) == (pytest.approx(2, abs=0.2), pytest.approx(2, abs=0.15))
        places = np.linspace(-2, 4, 13)
        np.testing.assert_allclose(found.probability(places), expit(2 * (1 - places)), atol=0.03)


def test_the_unit_of_the_distance_does_not_matter():
    distance, same = pairs(np.random.default_rng(1), 300, 3000)
    once, scaled = calibrate(distance, same), calibrate(1000 * distance + 7, same)
    np.testing.assert_allclose(scaled.probability(1000 * distance + 7), once.probability(distance), atol=1e-4)


def test_a_stream_that_says_nothing_has_even_odds_everywhere():
    rng = np.random.default_rng(2)
    noise = calibrate(rng.normal(size=5000), rng.random(5000) < 0.1)
    assert noise.probability(np.array([-2.0, 2.0])) == pytest.approx(0.5, abs=0.1)
    wrong = calibrate(*pairs(rng, 500, 5000, apart=-2.0))  # nearer when it is somebody else
    assert wrong.slope == 0
    assert wrong.probability(np.array([0.0, 9.0])) == pytest.approx(0.5, abs=0.01)


def test_a_perfect_stream_keeps_finite_probabilities():
    found = calibrate(np.array([0.0, 0.1, 5.0, 5.1]), np.array([True, True, False, False]))
    assert np.isfinite([found.intercept, found.slope]).all()
    near, middle, far = found.probability(np.array([0.05, 2.55, 5.05]))
    assert near > 0.6
    assert middle == pytest.approx(0.5, abs=0.01)
    assert far < 0.4


def test_tracklets_without_anything_in_common_are_not_the_same():
    for one in (Calibration(3.0, 2.0), Calibration(3.0, 0.0)):
        assert one.probability(np.array([np.inf])) == 0


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(DataError, match="2 pairs of one person and 0 of two, wanted some of both"):
        calibrate(np.zeros(2), np.ones(2, bool))
    with pytest.raises(DataError, match="must be finite"):
        calibrate(np.array([0, np.inf]), np.array([True, False]))


def evidence_of(noise: dict[str, float], seed: int, people: int = 20, sizes: dict[str, float] | None = None) -> Part:
    """Make people whose distances are 1 for others and 0 for themselves, with noise of a stream's own loudness."""
    rng, size = np.random.default_rng(seed), 3 * people
    query = Rows(np.arange(people), np.zeros(people, int))
    gallery = Rows(np.repeat(np.arange(people), 3), np.ones(size, int))
    told_QG, flags = (query.pids[:, None] != gallery.pids) * 1.0, (np.ones(people, bool), np.ones(size, bool))
    unit = sizes or {}
    streams = {
        name: Distances(unit.get(name, 1.0) * (told_QG + loud * rng.normal(size=(people, size))), *flags)
        for name, loud in noise.items()
    }
    given = StreamDistances(streams)
    return part_with(query, gallery, given)


def test_a_stream_of_noise_takes_nothing_from_calibrated_distances_of_equal_weights() -> None:
    """With z-scores the same weights lose a third and more."""
    noise = {"ssin": 0.5, "smin": 0.5, "gait": 60.0}
    known, others = evidence_of(noise, 1), evidence_of(noise, 2)
    slopes = slopes_of([known])
    assert slopes["gait"] < 0.05 * slopes["ssin"]
    streams, equal = others.distances("calibrated"), dict.fromkeys(noise, 1 / 3)

    def mAP(distance_QG: np.ndarray) -> float:
        return evaluate(distance_QG, others.query, others.gallery, PROTOCOLS["torchreid"]).mAP

    pair = StreamDistances({name: streams[name] for name in ("ssin", "smin")})
    without = mAP(fuse(pair, pair_weights(("ssin", "smin"), 0.5), "calibrated", slopes))
    assert mAP(fuse(streams, equal, "calibrated", slopes)) > without - 0.02
    assert mAP(fuse(streams, equal, "zscore")) < without - 0.1


def test_the_unit_of_a_stream_does_not_change_calibrated_distances() -> None:
    noise = {"ssin": 1.0, "smin": 2.0}
    plain, other = evidence_of(noise, 3), evidence_of(noise, 3, sizes={"smin": 1000.0})
    found = [
        fuse(
            one.distances("calibrated"),
            {"ssin": 0.5, "smin": 0.5},
            "calibrated",
            slopes_of([one]),
        )
        for one in (plain, other)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


def test_the_calibrated_distance_of_two_tracklets_ranks_as_the_fusion_and_knows_the_probability() -> None:
    noise = {"ssin": 0.6, "smin": 1.2}
    known, others = evidence_of(noise, 4, people=60), evidence_of(noise, 5, people=60)
    slopes, weights = slopes_of([known]), {"ssin": 0.7, "smin": 0.3}
    streams = others.distances("calibrated")
    distance = FusedDistance.fitted(streams, weights, "calibrated", slopes)
    fused_QG = distance.of(streams.matrices, streams.query, streams.gallery)
    np.testing.assert_allclose(fused_QG, fuse(streams, weights, "calibrated", slopes))
    chance_QG = calibrated([known], "calibrated", distance).probability(fused_QG)
    same_QG = others.query.pids[:, None] == others.gallery.pids
    for low in np.arange(0.1, 0.9, 0.2):  # of pairs at even odds with such a probability, so many show one person
        there_QG = (chance_QG >= low) & (chance_QG < low + 0.2)
        right, wrong = (there_QG & same_QG).sum() / same_QG.sum(), (there_QG & ~same_QG).sum() / (~same_QG).sum()
        assert right / (right + wrong) == pytest.approx(low + 0.1, abs=0.15)


def test_calibrated_distances_are_refused_without_slopes() -> None:
    streams = evidence_of({"ssin": 1.0, "smin": 2.0}, 0).distances("calibrated")
    with pytest.raises(DataError, match="need a slope of each stream, found none"):
        fuse(streams, {"ssin": 0.5, "smin": 0.5}, "calibrated")
