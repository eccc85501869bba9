"""Run a batch through the network at once, or in parts that need the memory of one part."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as Parallel
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from sptskm.data.clips import Inputs


class Passes:
    """The forward and backward pass of one batch after another.

    In parts, every loss still sees the outputs of the whole batch, as mining in the batch needs (Gao et al. 2021,
    GradCache): `outputs` runs the parts without keeping activations, the loss leaves its gradient at these outputs, and
    `backward` runs each part once more and sends its share of the gradient on. That costs one more forward pass. Loss
    and gradient are those of one pass, but for batch normalisation, whose statistics are those of a part.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Callable[..., Any],
        autocast: Callable[[], AbstractContextManager[object]],
        parts: int = 1,
    ) -> None:
        self.model, self.forward, self.autocast, self.parts = model, forward, autocast, parts
        self.pieces: list[Inputs] = []
        self.leaves: list[Tensor] = []
        self.seed: Callable[[int], None] = lambda _: None

    def outputs(self, inputs: Inputs, seed: Callable[[int], None]) -> Any:
        """Return the network's output for the batch; `seed` seeds the dropout of a part by its number."""
        self.pieces, self.seed = list(zip(*(x.tensor_split(self.parts) for x in inputs), strict=True)), seed
        if len(self.pieces) == 1:
            return self._part(0)
        before = [buffer.clone() for buffer in self.model.buffers()]
        with torch.no_grad():
            found = [tree_flatten(self._part(number)) for number in range(len(self.pieces))]
            for buffer, value in zip(self.model.buffers(), before, strict=True):  # statistics are counted once
                buffer.copy_(value)
        self.leaves = [torch.cat(same).requires_grad_() for same in zip(*(flat for flat, _ in found), strict=True)]
        return tree_unflatten(self.leaves, found[0][1])

    def backward(self) -> None:
        """Send the gradient that the loss left at the outputs of parts through the network; ranks exchange it once."""
        if len(self.pieces) == 1:
            return
        sizes = [len(piece[0]) for piece in self.pieces]
        gradients = [leaf.grad.split(sizes) if leaf.grad is not None else None for leaf in self.leaves]
        for number in range(len(self.pieces)):
            last = number + 1 == len(self.pieces)
            with self.model.no_sync() if not last and isinstance(self.model, Parallel) else nullcontext():
                outputs = tree_leaves(self._part(number))
                pairs = [(y, own[number]) for y, own in zip(outputs, gradients, strict=True) if own is not None]
                torch.autograd.backward([y for y, _ in pairs], [gradient for _, gradient in pairs])
        self.leaves = []

    def _part(self, number: int) -> Any:
        self.seed(number)
        with self.autocast():
            return self.forward(*self.pieces[number])
