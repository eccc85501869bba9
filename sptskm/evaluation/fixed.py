"""A fused distance of one pair of tracklets: the constants of a fusion, fixed on one distance matrix.

`fuse` ranks a matrix by constants of that matrix. Here they are kept, so that what two tracklets are apart does not
depend on which others there are: for a search, for re-ranking, for other programs.

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
    """ssin * SSIN's distance + smin * SMIN's, or, where either has no skeleton, alone * SSIN's + offset.

    A tracklet is at distance 0 from itself, if it has a skeleton.
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
        """The one that ranks `streams` as `fuse` does, but for rounding.

        With "concat" it is one of features of length 1, as there. Raises ValueError for "rank", which is a property of
        a whole ranking, for an unknown normalisation, and for a weight outside 0..1.
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
        """Fused distances (Q, G); both_QG: both tracklets have a skeleton. SMIN's of other pairs may be anything."""
        fused_QG = self.ssin * ssin_QG + self.smin * np.where(both_QG, smin_QG, 0)
        return np.where(both_QG, fused_QG, self.alone * ssin_QG + self.offset)
