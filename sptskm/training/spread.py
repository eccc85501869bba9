"""Scores of features by all ranks together, each multiplying on its GPU where it has one.

For galleries that one process takes too long for.
Shape suffixes: Q queries, G gallery rows, D feature length, T queries of a tile, S gallery rows of a strip.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from sptskm.evaluation import Rows, Scores, evaluate_features
from sptskm.evaluation.distances import TILE, Doubles, Floats, SquaredDistances
from sptskm.training.world import World


def evaluate_spread(
    query_features_QD: Floats, gallery_features_GD: Floats, query: Rows, gallery: Rows, protocol: str, world: World
) -> Scores:
    """What `evaluate_features` gives, on every rank; all call it alike, and each ranks a share of the queries.

    The same bits for any number of ranks on CPUs; GPUs multiply in float64 as well, but differ in the last bits.
    Raises as `evaluate_features`.
    """
    share = -(-len(query) // (world.size * TILE)) * TILE  # tiles as in one process: the same products
    rows = np.arange(world.rank * share, min((world.rank + 1) * share, len(query)))
    elsewhere = None if world.device.type == "cpu" else partial(multiply_on, world.device)
    prepared = SquaredDistances(gallery_features_GD, elsewhere)
    own = evaluate_features(query_features_QD[rows], prepared, query.part(rows), gallery, protocol)
    return Scores.joined(world.collect(own))


def multiply_on(device: torch.device, strip_DS: Doubles) -> Callable[[Doubles], Doubles]:
    """The strip goes to the device once; tiles (T, D) go there and their products (T, S) come back."""
    there_DS = torch.from_numpy(strip_DS).to(device)
    return lambda tile_TD: (torch.from_numpy(tile_TD).to(device) @ there_DS).cpu().numpy()
