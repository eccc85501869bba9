"""Average the weights of a network over its last steps; the average is validated, kept and used, not trained on."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn


class Average:
    """Exponential moving average of weights and of the statistics of batch normalisation (Polyak averaging).

    After step s (0-based), average = d * average + (1 - d) * weights with d = min(decay, (1 + s) / (10 + s)), so that
    the first weights do not last. A decay of 0 stands for no average: `network` is then the trained network itself.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = deepcopy(network).eval().requires_grad_(False) if decay else network

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after a step."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        ours, theirs = self.network.state_dict(), network.state_dict()
        floating = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_([ours[n] for n in floating], [theirs[n] for n in floating], 1 - decay)
        for name in ours.keys() - set(floating):  # counters
            ours[name].copy_(theirs[name])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the average; nothing without one."""
        return {"average": self.network.state_dict()} if self.decay else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint; one without an average begins it."""
        if self.decay:
            self.network.load_state_dict(state.get("average", state["model"]))
