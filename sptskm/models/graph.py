"""Build the adjacency of the 14-joint skeleton for ST-GCN (Yan et al. 2018), with numpy only.

Legend: K partitions, V joints. A[k, v, w] carries joint v to joint w.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import ConfigError
from sptskm.data.skeletons import EDGES

GraphName = Literal["spatial", "published"]
NUM_JOINTS = 14
CENTRE = 1  # the neck


def adjacency(graph: GraphName) -> NDArray[np.float64]:
    """Return the (K, V, V) adjacency, columns normalised by degree.

    "spatial" is ST-GCN's partition: self loops, neighbours not farther from the neck than the target, and
    the farther ones. "published" is what the released SMIN computes: its hop search returns inside the
    edge loop, so only self loops survive and no joint ever sees another (kept to reproduce its numbers).
    Raises ConfigError for another graph.
    """
    if graph not in ("spatial", "published"):
        raise ConfigError(f"SMIN's graph is 'spatial' or 'published', not {graph!r}")
    hop_VV = _hops() if graph == "spatial" else np.where(np.eye(NUM_JOINTS) > 0, 0.0, np.inf)
    reachable_VV = (hop_VV <= 1).astype(np.float64)
    normal_VV = reachable_VV / reachable_VV.sum(axis=0)
    return _spatial_partition(hop_VV, normal_VV)


def _hops() -> NDArray[np.float64]:
    """Return hop distances up to 1; larger ones are infinite, as in ST-GCN with max_hop 1."""
    hop_VV = np.full((NUM_JOINTS, NUM_JOINTS), np.inf)
    np.fill_diagonal(hop_VV, 0)
    for i, j in EDGES:
        hop_VV[i, j] = hop_VV[j, i] = 1
    return hop_VV


def _spatial_partition(hop_VV: NDArray[np.float64], normal_VV: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply ST-GCN's spatial rule; joints more than one hop from the neck all count as equally far from it."""
    to_centre_V = hop_VV[:, CENTRE]
    source, target = to_centre_V[:, None], to_centre_V[None, :]
    self_VV = hop_VV == 0
    neighbour_VV = hop_VV == 1
    masks = (
        self_VV,
        neighbour_VV & (source >= target),
        neighbour_VV & (source < target),
    )
    return np.stack([np.where(mask, normal_VV, 0) for mask in masks])
