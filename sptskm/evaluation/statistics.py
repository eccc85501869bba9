"""How sure a number is: intervals, and whether two rankings of the same queries really differ.

A person's queries (of several cameras) tend to be found, or not, together, so it is identities that are drawn, with all
their queries: drawing single queries would call too much certain.
Shape suffixes: Q queries that count, I their identities, S samples.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError

Floats = NDArray[np.float64]
Labels = NDArray[Any]

SAMPLES: Final = 10_000
BLOCK: Final = 500  # samples drawn at once, to bound memory
LEVEL: Final = 0.95


def bootstrap_interval(values_Q: Floats, pids_Q: Labels, seed: int = 0, samples: int = SAMPLES) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean over queries, their identities drawn with replacement.

    (Efron and Tibshirani, 1993; by clusters: Cameron and Miller, 2015.) It says how much the mean depends on which
    people there happen to be; not how much on the seed of a training. Raises ValueError without queries and for NaN.
    """
    sums_I, counts_I = by_identity(_checked(values_Q), pids_Q)
    rng = np.random.default_rng([seed, 0xB0075])
    means = []
    for done in range(0, samples, BLOCK):
        drawn_SI = rng.integers(len(sums_I), size=(min(BLOCK, samples - done), len(sums_I)))
        means.append(sums_I[drawn_SI].sum(axis=1) / counts_I[drawn_SI].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


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


def paired_difference(a_Q: Floats, b_Q: Floats, pids_Q: Labels, seed: int = 0, samples: int = SAMPLES) -> Difference:
    """Compare two results of the same queries (average precisions, or 1 and 0 for a hit at some rank).

    The test exchanges a and b of random identities, as it may be done when neither is better (Smucker et al., CIKM
    2007). Raises ValueError for different lengths, without queries and for NaN.
    """
    a, b = _checked(a_Q), _checked(b_Q)
    if a.shape != b.shape:
        raise DataError(f"the results are of {len(a)} and {len(b)} queries, wanted the same")
    change_Q = b - a
    rng = np.random.default_rng([seed, 0x7E57])
    sums_I, _ = by_identity(change_Q, pids_Q)
    as_large, mean = 0, abs(change_Q.mean())
    for done in range(0, samples, BLOCK):
        signs_SI = rng.choice([-1.0, 1.0], size=(min(BLOCK, samples - done), len(sums_I)))
        # what is equal but for rounding counts as equal
        as_large += int(np.count_nonzero(np.abs(signs_SI @ sums_I) / len(change_Q) >= mean - 1e-12))
    low, high = bootstrap_interval(change_Q, pids_Q, seed, samples)
    better, worse = int((change_Q > 0).sum()), int((change_Q < 0).sum())
    p = (as_large + 1) / (samples + 1)
    return Difference(float(change_Q.mean()), low, high, p, better, worse, len(change_Q) - better - worse)


def p_better(change_I: Floats, seed: int = 0, samples: int = SAMPLES) -> float:
    """Return how often chance alone gives identities a mean change (I,) as far above 0: a one-sided p-value.

    The signs of the changes are exchanged, as in `paired_difference`: in all ways where there are no more than
    `samples`, else in random ones. Raises DataError without identities and for NaN.
    """
    change = _checked(change_I)
    total, count = change.sum(), len(change)
    if 2**count <= samples:
        ways_SI = np.array(list(product((-1.0, 1.0), repeat=count)))
        return float(np.mean(ways_SI @ change >= total - 1e-12))
    rng, as_large = np.random.default_rng([seed, 0x7E57]), 0
    for done in range(0, samples, BLOCK):
        signs_SI = rng.choice([-1.0, 1.0], size=(min(BLOCK, samples - done), count))
        as_large += int(np.count_nonzero(signs_SI @ change >= total - 1e-12))
    return (as_large + 1) / (samples + 1)


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
