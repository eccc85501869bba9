"""How sure a number is: intervals, and whether two rankings of the same queries really differ.

A person's queries (of several cameras) tend to be found, or not, together, so it is identities that are drawn, with all
their queries: drawing single queries would call too much certain. scipy.stats draws and counts; it is imported where it
is used, because that takes half a second.
Shape suffixes: Q queries that count, I their identities.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError

Floats = NDArray[np.float64]
Labels = NDArray[Any]

SAMPLES: Final = 10_000
BATCH: Final = 500  # samples drawn at once, to bound memory
DECIMALS: Final = 9  # of sums over identities: what is equal but for rounding counts as equal


def bootstrap_interval(values_Q: Floats, pids_Q: Labels, samples: int = SAMPLES) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean over queries, their identities drawn with replacement.

    (Efron and Tibshirani, 1993; by clusters: Cameron and Miller, 2015.) It says how much the mean depends on which
    people there happen to be; not how much on the seed of a training. That of a single identity is its mean. Raises
    DataError without queries and for NaN.
    """
    from scipy.stats import bootstrap

    def mean(sums: Floats, counts: Floats, axis: int) -> Floats:
        return sums.sum(axis) / counts.sum(axis)

    data = by_identity(_checked(values_Q), pids_Q)
    if len(data[0]) == 1:  # scipy refuses it
        return (float(mean(*data, 0)),) * 2
    found = bootstrap(
        data, mean, paired=True, vectorized=True, method="percentile", n_resamples=samples, batch=BATCH,
        random_state=np.random.default_rng([0, 0xB0075]),
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


@dataclass(frozen=True)
class Difference:
    """The advantage of b over a on the same queries."""

    mean: float
    """The mean of b minus a."""
    low: float
    """The ends of its 95 % interval over identities."""
    high: float
    p: float
    """The two-sided p-value of the paired permutation test: how often chance alone gives a difference as large."""
    better: int
    """The number of queries for which b is better."""
    worse: int
    same: int


def paired_difference(a_Q: Floats, b_Q: Floats, pids_Q: Labels, samples: int = SAMPLES) -> Difference:
    """Compare two results of the same queries (average precisions, or 1 and 0 for a hit at some rank).

    The test exchanges a and b of some identities, as it may be done when neither is better (Smucker et al., CIKM 2007).
    Raises DataError for different lengths, without queries and for NaN.
    """
    a, b = _checked(a_Q), _checked(b_Q)
    if a.shape != b.shape:
        raise DataError(f"the results are of {len(a)} and {len(b)} queries, wanted the same")
    change_Q = b - a
    low, high = bootstrap_interval(change_Q, pids_Q, samples)
    p = _p_of_signs(by_identity(change_Q, pids_Q)[0], np.abs, samples)
    better, worse = int((change_Q > 0).sum()), int((change_Q < 0).sum())
    return Difference(float(change_Q.mean()), low, high, p, better, worse, len(change_Q) - better - worse)


def p_better(change_I: Floats, samples: int = SAMPLES) -> float:
    """Return how often chance alone gives identities a mean change (I,) as far above 0: a one-sided p-value.

    The signs of the changes are exchanged, as in `paired_difference`. Raises DataError without identities and for NaN.
    """
    return _p_of_signs(_checked(change_I), lambda sums: sums, samples)


def _p_of_signs(change_I: Floats, size: Callable[[Floats], Floats], samples: int) -> float:
    """Return the share of all ways to choose the signs of the changes (I,) whose sum has as large a `size`.

    Where there are more than `samples` ways, so many are drawn, and the observed one is counted with them.
    """
    from scipy.stats import permutation_test

    def statistic(change: Floats, axis: int) -> Floats:
        return size(change.sum(axis)).round(DECIMALS)

    if len(change_I) == 1:  # scipy refuses it; beside a change of 0 its two signs have the same shares
        change_I = np.append(change_I, 0.0)
    found = permutation_test(
        (change_I,), statistic, permutation_type="samples", vectorized=True, alternative="greater",
        n_resamples=samples, batch=BATCH, random_state=np.random.default_rng([0, 0x7E57]),
    )  # fmt: skip
    return float(found.pvalue)


def by_identity(values_Q: Floats, pids_Q: Labels) -> tuple[Floats, Floats]:
    """Return the sum and the number of each identity's values (I,)."""
    if len(pids_Q) != len(values_Q):
        raise DataError(f"there are {len(pids_Q)} identities for {len(values_Q)} queries, wanted one for each")
    identity_Q = np.unique(pids_Q, return_inverse=True)[1]
    sums_I, counts_I = (np.bincount(identity_Q, weights).astype(np.float64) for weights in (values_Q, None))
    return sums_I, counts_I


def _checked(values_Q: Floats) -> Floats:
    values = np.asarray(values_Q, np.float64)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise DataError(
            f"wanted one number for each query, found {values.dtype} {values.shape} with NaN or without any"
        )
    return values
