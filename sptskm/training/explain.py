"""Show what a trained stream looks at, on a few test tracklets and in seconds. The network is not changed.

Legend: n of the test tracklets, T frames.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sptskm.data.clips import Inputs
from sptskm.data.tracklets import IntArray, Tracklets
from sptskm.evaluation import Features
from sptskm.evaluation.insight import Insight
from sptskm.training.setup import Setup
from sptskm.training.world import World


@dataclass(frozen=True, eq=False)
class Lens:
    """Single clips of test tracklets, as a stream's network receives and embeds them."""

    setup: Setup
    world: World

    @property
    def table(self) -> Tracklets:
        """Return the table of tracklets."""
        return self.setup.table

    def clip(self, row: int) -> Inputs:
        """Return the middle test clip of a tracklet as input of the network."""
        clips_cT = self.setup.source.all_clips(row)
        middle = len(clips_cT) // 2
        inputs = self.setup.source.read(row, clips_cT[middle : middle + 1])
        return self.setup.stream.prepare(inputs, self.world.device, self.setup.precision.dtype)

    @torch.inference_mode()
    def embed(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """Return the embeddings (B, D) of clips on the CPU."""
        with self.setup.precision.autocast():
            return model.embed(*inputs).float().cpu()  # type: ignore[operator, no-any-return]


def explain(model: nn.Module, setup: Setup, test: Features, world: World) -> Insight:
    """Compute what a stream's `explain` shows for a few queries; nothing if there is no query.

    `test` are the features of the test tracklets. One process does it alone, with the model in the state of extraction.
    """
    if not len(setup.table.query):
        return Insight()
    model.eval()
    return setup.stream.explain(model, Lens(setup, world), test)


def evenly(rows_n: IntArray, count: int) -> IntArray:
    """Return at most `count` of these rows, evenly spaced."""
    return rows_n[np.unique(np.linspace(0, len(rows_n) - 1, min(count, len(rows_n))).round().astype(int))]
