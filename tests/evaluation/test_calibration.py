"""Probabilities that two tracklets show one person."""

import numpy as np
import pytest
from scipy.special import expit

from sptskm.common.errors import DataError
from sptskm.evaluation.calibration import Calibration, calibrate


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
