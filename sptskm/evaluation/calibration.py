"""Calibrated distances: how likely two tracklets show the same person, by a logistic model of held-out pairs.

The model is Platt's (Advances in Large Margin Classifiers, 1999): the log-odds fall in proportion to the distance, and
the targets are a little inside 0 and 1, so that a stream that separates all pairs keeps a finite slope. Both kinds of
pairs count alike, so that the probability is that at even odds: it does not depend on how many people there were, and
its log-odds are the logarithm of the likelihood ratio, to which the odds of other data can be added.

Shape suffixes: M pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from sptskm.common.errors import DataError
from sptskm.evaluation.distances import Floats


@dataclass(frozen=True)
class Calibration:
    """Log-odds that a pair shows one person, at even odds: intercept - slope * distance."""

    intercept: float
    slope: float
    """Not negative; 0 for a stream whose distances say nothing."""

    def probability(self, distance: Floats) -> NDArray[np.float64]:
        """Return the probability that a pair shows one person; 0 for an infinite distance."""
        with np.errstate(invalid="ignore"):  # 0 * inf
            odds = self.intercept - self.slope * np.asarray(distance, np.float64)
        found: NDArray[np.float64] = expit(np.where(np.isinf(distance), -np.inf, odds))
        return found


def calibrate(distance_M: Floats, same_M: NDArray[np.bool_]) -> Calibration:
    """Fit the model to pairs of which it is known whether they show one person.

    Raises DataError where one kind of pairs is missing, and for distances that are not finite.
    """
    distance, same = np.asarray(distance_M, np.float64), np.asarray(same_M, np.bool_)
    kinds = np.count_nonzero(same), np.count_nonzero(~same)
    if not all(kinds):
        raise DataError(f"there are {kinds[0]} pairs of one person and {kinds[1]} of two, wanted some of both")
    if not np.isfinite(distance).all():
        raise DataError("distances to calibrate must be finite, found NaN or infinity")
    centre, unit = distance.mean(), distance.std() or 1.0
    place_M = (distance - centre) / unit
    weight_M = np.where(same, 0.5 / kinds[0], 0.5 / kinds[1])
    target_M = np.where(same, (kinds[0] + 1) / (kinds[0] + 2), 1 / (kinds[1] + 2))

    def loss(values: Floats) -> tuple[float, NDArray[np.float64]]:
        odds_M = values[0] - values[1] * place_M
        miss_M = weight_M * (expit(odds_M) - target_M)
        entropy_M = weight_M * (np.logaddexp(0, odds_M) - target_M * odds_M)
        return float(entropy_M.sum()), np.array([miss_M.sum(), -(miss_M @ place_M)])

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(None, None), (0, None)], tol=1e-12)
    slope = float(found.x[1]) / unit
    return Calibration(float(found.x[0] + slope * centre), slope)
