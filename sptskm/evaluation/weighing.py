"""Weights of the streams, from how far apart each puts two people on whom its network did not train.

The gap of a person is the mean distance of pairs with another person minus that of pairs of the person alone. Where
distances spread alike and streams err apart, Fisher's discriminant (Annals of Eugenics, 1936) adds the streams in
proportion to gap / variance. A mean gap of few people is partly luck, whose expected square is that of its standard
error: it is shrunk by the positive part of 1 - error^2 / gap^2 (after James and Stein, 1961), so that a stream whose
gap is no larger than its error has no weight. No weights are tried, so none is the best by chance: docs/fusion.md says
what that is worth.

Where clothes are known, pairs of the person in the same clothes are left out: they are easy, and a stream that tells
clothes would take a share from those that tell people in other clothes as well.

Shape suffixes: M pairs, S streams, I identities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.evaluation.fusion import Weights
from sptskm.evaluation.statistics import Floats, Labels

CHANGING: Final = 3
"""Identities with pairs in other clothes below which all pairs of a person count."""


@dataclass(frozen=True, eq=False)
class Gaps:
    """How far apart streams put pairs of one person and of two, in the units in which their distances are added.

    gap_SI: NaN where an identity lacks one kind of pairs. variance_S: that of all distances of a stream. Raises
    DataError where no identity has both kinds.
    """

    streams: Sequence[str]
    gap_SI: Floats
    variance_S: Floats
    changed_clothes: bool = False
    """Whether pairs of one person are those in other clothes alone."""

    def __post_init__(self) -> None:
        if np.isnan(self.gap_SI).all():
            raise DataError("no held-out query has a positive; fusion weights cannot be chosen")

    def weights(self, chosen_I: NDArray[np.bool_] | None = None) -> Weights:
        """Return the weights that some identities (I,), else all of them, choose.

        The stream with the largest gap for its variance has all weight where no gap is larger than its error.
        """
        gap_SI = self.gap_SI if chosen_I is None else self.gap_SI[:, chosen_I]
        known_SI = ~np.isnan(gap_SI)
        count_S = np.maximum(known_SI.sum(axis=1), 1)
        mean_S = np.where(known_SI, gap_SI, 0).sum(axis=1) / count_S
        squares_S = np.where(known_SI, gap_SI - mean_S[:, None], 0) ** 2
        error_S = squares_S.sum(axis=1) / np.maximum(count_S - 1, 1) / count_S  # squared
        place_S = np.divide(mean_S, self.variance_S, out=np.zeros(len(mean_S)), where=self.variance_S > 0)
        sure_S = (mean_S > 0) & (mean_S**2 > error_S)
        share_S = np.where(sure_S, place_S * (1 - error_S / np.where(sure_S, mean_S, 1) ** 2), 0)
        if not share_S.any():
            share_S[np.argmax(place_S)] = 1
        return dict(zip(self.streams, (share_S / share_S.sum()).tolist(), strict=True))


def gaps_by_identity(distance_M: Floats, same_M: NDArray[np.bool_], pids_M: Labels, pids_I: Labels) -> Floats:
    """Return the gap of each identity (I,) of `pids_I`; `pids_M` holds that of the query of each pair."""
    place_M = np.searchsorted(pids_I, pids_M)
    means = []
    for kind_M in (~same_M, same_M):
        count_I = np.bincount(place_M[kind_M], minlength=len(pids_I))
        sum_I = np.bincount(place_M[kind_M], distance_M[kind_M], minlength=len(pids_I))
        means.append(np.divide(sum_I, count_I, out=np.full(len(pids_I), np.nan), where=count_I > 0))
    return means[0] - means[1]
