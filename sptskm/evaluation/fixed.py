"""A fused distance between two tracklets: the constants of a fusion, fixed on one distance matrix.

`fuse` computes its constants from the matrix that it ranks. Here the constants are kept, so that the distance of two
tracklets does not depend on the other tracklets. Retrieval, re-ranking and other programs need this.

Shape suffixes: Q queries, G gallery rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import ConfigError
from sptskm.evaluation.distances import Floats
from sptskm.evaluation.fusion import Normalisation, StreamDistances


@dataclass(frozen=True)
class FusedDistance:
    """The distance ssin * d_SSIN + smin * d_SMIN, or alone * d_SSIN + offset where either tracklet has no skeleton.

    A tracklet with a skeleton is at distance 0 from itself.
    """

    ssin: float
    smin: float
    alone: float
    offset: float

    def __post_init__(self) -> None:
        values = (self.ssin, self.smin, self.alone, self.offset)
        if not np.isfinite(values).all() or min(values[:3]) < 0:
            raise ConfigError(f"the constants of a fused distance are {values}, wanted numbers and no negative factor")

    @classmethod
    def fitted(cls, streams: StreamDistances, weight: float, normalisation: Normalisation) -> "FusedDistance":
        """Fit the constants so that the distance ranks `streams` as `fuse` does, up to rounding.

        With "concat" the features must have length 1, as in `fuse`. Raises ConfigError for "rank", which depends on a
        whole ranking, for an unknown normalisation, and for a weight outside 0..1.
        """
        if not 0.0 <= weight <= 1.0:
            raise ConfigError(f"the fusion weight must be in 0..1, found {weight}")
        ssin, smin = (streams.where_valid(distance) for distance in (streams.ssin_QG, streams.smin_QG))
        if normalisation == "zscore":
            scales = ssin.std(), smin.std()
        elif normalisation == "minmax":
            scales = np.ptp(ssin), np.ptp(smin)
        elif normalisation == "concat":
            scales = 1.0, 1.0
        else:
            raise ConfigError(
                f"normalisation is {normalisation!r}, wanted zscore, minmax or concat: ranks are no distance of a pair"
            )
        factors = float((1.0 - weight) / scales[0]), float(weight / scales[1])
        fused = factors[0] * ssin + factors[1] * smin
        # as in `fuse`: the mean and spread that fused pairs have
        alone = float(fused.std() / ssin.std())
        return cls(*factors, alone, float(fused.mean() - alone * ssin.mean()))

    def of(self, ssin_QG: Floats, smin_QG: Floats, both_QG: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Compute fused distances (Q, G).

        both_QG: both tracklets have a skeleton. The SMIN distances of other pairs are ignored.
        """
        fused_QG = self.ssin * ssin_QG + self.smin * np.where(both_QG, smin_QG, 0)
        return np.where(both_QG, fused_QG, self.alone * ssin_QG + self.offset)
