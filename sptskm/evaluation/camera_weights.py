"""A fusion weight for each camera of the query, to be used only where held-out identities say that it is better.

Shape suffixes: W weights, Q queries, G gallery rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.evaluation.fusion import Normalisation, StreamDistances, best_weight, choose_weight, fuse
from sptskm.evaluation.metrics import Rows
from sptskm.evaluation.protocols import Integers
from sptskm.evaluation.statistics import paired_difference

FOLDS: Final = 5
SHRUNK_BY: Final = 20  # queries
LEVEL: Final = 0.05


@dataclass(frozen=True)
class CameraWeights:
    """Weights of SMIN by the camera of the query, and how these did beside one weight for all.

    The mAPs are cross-validated: every query is ranked by weights that were chosen on other identities.
    """

    weights: Mapping[int, float]
    """Chosen on all held-out identities."""
    single: float
    """The one weight; also of cameras that no held-out query is from."""
    single_mAP: float
    own_mAP: float
    p: float
    """Of the paired permutation test over identities."""
    folds: int

    @property
    def used(self) -> bool:
        """Whether they won: a higher mAP, and not by chance."""
        return self.own_mAP > self.single_mAP and self.p <= LEVEL

    def of(self, camids_Q: Integers) -> NDArray[np.float64]:
        """The weight of each query (Q,)."""
        return np.array([self.weights.get(camera, self.single) for camera in camids_Q.tolist()], np.float64)


def choose_camera_weights(
    precision_WQ: NDArray[np.float64], query: Rows, weights: Sequence[float], seed: int = 0
) -> CameraWeights:
    """Weights by camera from the average precision of every query at every weight, of held-out identities.

    A camera's weight is the best for its own queries together with 20 that are as all are on average, so that a camera
    with few queries stays near the single weight. Whether that is better is found on up to five parts of the
    identities, drawn by the seed, each ranked by the weights of the other parts. Raises ValueError where fewer than two
    identities have a query that counts.
    """
    counted_Q = ~np.isnan(precision_WQ[0])
    precision_WQ, query = precision_WQ[:, counted_Q], query.part(counted_Q)
    pids, identity_Q = np.unique(query.pids, return_inverse=True)
    folds = min(FOLDS, len(pids))
    if folds < 2:
        raise DataError(f"{len(pids)} held-out identities have queries that count, wanted 2 for weights by camera")
    fold_Q = np.random.default_rng([seed, 0xCA]).permutation(len(pids))[identity_Q] % folds
    single_Q, own_Q = np.empty((2, len(query)))
    for fold in range(folds):
        within_Q = fold_Q == fold
        single, own = _chosen(precision_WQ[:, ~within_Q], query.camids[~within_Q], weights)
        for q in np.flatnonzero(within_Q).tolist():
            single_Q[q] = precision_WQ[weights.index(single), q]
            own_Q[q] = precision_WQ[weights.index(own.get(int(query.camids[q]), single)), q]
    single, own = _chosen(precision_WQ, query.camids, weights)
    p = paired_difference(single_Q, own_Q, query.pids).p
    return CameraWeights(own, single, float(single_Q.mean()), float(own_Q.mean()), p, folds)


def _chosen(
    precision_WQ: NDArray[np.float64], camids_Q: Integers, weights: Sequence[float]
) -> tuple[float, dict[int, float]]:
    """The single weight, and that of each camera."""
    single, curve_W2 = choose_weight(precision_WQ, weights)
    own = {}
    for camera in np.unique(camids_Q).tolist():
        of_camera_WQ = precision_WQ[:, camids_Q == camera]
        score_W = of_camera_WQ.sum(axis=1) + SHRUNK_BY * curve_W2[:, 1]
        own[camera] = best_weight(np.stack([curve_W2[:, 0], score_W / (of_camera_WQ.shape[1] + SHRUNK_BY)], axis=1))
    return single, own


def fuse_by_camera(
    streams: StreamDistances, query: Rows, chosen: CameraWeights, normalisation: Normalisation
) -> NDArray[np.float64]:
    """Fused distances (Q, G), those of each query at the weight of its camera; they rank, as `fuse` says."""
    flags = streams.valid_query_Q, streams.valid_gallery_G
    weight_Q = chosen.of(query.camids)
    fused_QG = np.empty(streams.ssin_QG.shape)
    for weight in np.unique(weight_Q).tolist():
        own_Q = weight_Q == weight
        fused_QG[own_Q] = fuse(streams.ssin_QG, streams.smin_QG, *flags, weight, normalisation)[own_Q]
    return fused_QG
