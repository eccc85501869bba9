"""Compute scores on all ranks together, each with its GPU if it has one.

This is for galleries that take a single process too long.
Shape suffixes: D feature length, T queries of a tile, S gallery rows of a strip.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from sptskm.evaluation import Protocol, Rows, Scores, evaluate
from sptskm.evaluation.distances import TILE, Doubles, Floats, SquaredDistances
from sptskm.evaluation.metrics import Blocks
from sptskm.training.world import World

BLOCK = 4 * TILE


def evaluate_spread(distances: Blocks, query: Rows, gallery: Rows, protocol: Protocol, world: World) -> Scores:
    """Compute the result of `evaluate` on every rank; all ranks call it, each ranks a share of the queries.

    Shares begin at tile borders, so that the bits of `SquaredDistances` are the same for any number of ranks.
    Raises as `evaluate`.
    """
    share = -(-len(query) // (world.size * TILE)) * TILE
    first = world.rank * share
    rows = np.arange(len(query))[first : first + share]

    def own(chosen: slice) -> Floats:
        return distances(slice(first + chosen.start, first + chosen.stop))

    return Scores.joined(world.collect(evaluate(own, query.part(rows), gallery, protocol, BLOCK)))


def prepared(gallery_GD: Floats, world: World) -> SquaredDistances:
    """Prepare a gallery for distances to queries on this rank's device, in float64.

    CPUs give the same bits as without ranks; GPUs differ in the last bits.
    """
    return SquaredDistances(gallery_GD, None if world.device.type == "cpu" else partial(multiply_on, world.device))


def multiply_on(device: torch.device, strip_DS: Doubles) -> Callable[[Doubles], Doubles]:
    """Copy the strip to the device once and return a function that multiplies tiles (T, D) to products (T, S)."""
    there_DS = torch.from_numpy(strip_DS).to(device)
    return lambda tile_TD: (torch.from_numpy(tile_TD).to(device) @ there_DS).cpu().numpy()
