"""Count the arithmetic and the memory traffic of a training step by part of its network, without doing it.

FLOPs are those of convolutions and matrix products, 2 for a multiplication and addition (torch.utils.flop_counter),
forward and backward. Bytes are counted operation by operation: every operand read once, every result written once,
views for nothing, as on a GPU without fusion and without a cache. The least traffic is what no fusion removes: each
weight read forward and backward and its gradient written, what is saved for the backward pass written and read, and
the optimiser's numbers.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from gpu_rows.step import Step, activations
from sptskm.config import Config

DEVICES = {"H100 SXM": (989e12, 3.35e12), "H200": (989e12, 4.8e12)}
"""Dense bfloat16 FLOP/s and memory bytes/s by the datasheets."""
OPTIMISER_BYTES = {"adam": 28, "sgd": 20}
"""Of a parameter in a step: weight, gradient and moments read, weight and moments written, in float32."""


@dataclass
class Work:
    """What a part of a step costs."""

    flops: float = 0.0
    bytes: float = 0.0
    operations: int = 0
    seconds: float = 0.0


@dataclass
class Count:
    """The parts of a step (forward, loss and backward), its activations, parameters and optimiser."""

    parts: dict[str, Work]
    saved: int
    """Bytes that the forward pass keeps for the backward pass, parameters left out."""
    parameters: int
    """Numbers that are trained."""
    optimiser: int
    """Bytes that the optimiser and the norm of the gradient move at the least."""

    @property
    def whole(self) -> Work:
        """Return the sum of the parts."""
        parts = self.parts.values()
        return Work(sum(p.flops for p in parts), sum(p.bytes for p in parts), sum(p.operations for p in parts))

    @property
    def least_bytes(self) -> float:
        """Return the traffic that no fusion removes."""
        return 3 * 4 * self.parameters + 2 * self.saved + self.optimiser

    def floor(self, device: str) -> tuple[float, float]:
        """Return the seconds that a device of DEVICES needs at the least for the arithmetic and for the traffic."""
        flops, speed = DEVICES[device]
        return self.whole.flops / flops, self.least_bytes / speed


class Watch(TorchDispatchMode):
    """Add up the work of every operation by the part of the network it belongs to, forward and backward."""

    def __init__(self, part_of: Callable[[set[str]], str]) -> None:
        super().__init__()
        self.part_of, self.parts, self.tracker = part_of, defaultdict[str, Work](Work), ModuleTracker()
        self.forward: dict[int, str] = {}

    def __enter__(self) -> "Watch":
        self.tracker.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.tracker.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        part = self._part()
        began = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        work = self.parts[part]
        work.seconds += time.perf_counter() - began
        if _moves_nothing(func):
            return result
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        work.bytes += sum({id(x): x.numel() * x.element_size() for x in tensors}.values())
        work.operations += 1
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            work.flops += count(*args, **(kwargs or {}), out_val=result)
        return result

    def _part(self) -> str:
        """Return the part of this operation; one of the backward pass belongs where its forward operation did."""
        node = torch._C._current_autograd_node()
        if node is not None and node._sequence_nr() in self.forward:
            return self.forward[node._sequence_nr()]
        part = self.part_of(self.tracker.parents)
        self.forward[torch.autograd._get_sequence_nr() - 1] = part  # the number of the node that autograd has just made
        return part


def _moves_nothing(func: Any) -> bool:
    """Tell whether an operation only looks at a tensor, or returns a view of it."""
    if func.namespace == "prim" or func is torch.ops.aten._unsafe_view.default:
        return True
    return any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)


def part_of(parents: set[str]) -> str:
    """Return the part of either network that an operation belongs to, from the modules around it."""
    names = [name.partition(".")[2] for name in parents if "." in name]
    if any(name.startswith("backbone") for name in names):  # ST-GCN
        for part, told in ((".gcn", "graph convolutions"), (".residual", "residuals"), (".tcn", "temporal")):
            if any(part in name for name in names):
                return f"{told} convolutions, BN, ReLU" if part == ".tcn" else told
        return "blocks' own sums, input BN" if any("st_gcn" in name for name in names) else "input BN, pooling"
    first = min(names, key=len, default="").split(".")[0]
    told = next((told for prefix, told in SSIN_PARTS.items() if first.startswith(prefix)), "")
    ours = any(name.partition(".")[0] in ("SSIN", "SMIN") for name in parents)
    return told or ("heads, pooling, losses" if ours or not first else first)


SSIN_PARTS = {
    "img_base": "image trunk (ResNet-50)", "mask_base": "mask trunk", "attenblock": "attention",
    "conv_layer": "image convolutions", "mask_layer": "mask convolutions", "glob_layer": "global convolutions",
}  # fmt: skip


def count(config: Config, clips: int) -> Count:
    """Count a step of `clips` clips in the number format of the configuration, with tensors that hold no numbers."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        step = Step(config, clips, torch.device("cpu"))
        parts, saved = watched(step)
    parameters = sum(p.numel() for p in step.network.parameters() if p.requires_grad)
    moved = OPTIMISER_BYTES[config.optim.algorithm] + 4
    return Count(parts, saved, parameters, moved * parameters)


def watched(step: Step) -> tuple[dict[str, Work], int]:
    """Do forward, loss and backward of a step; return the work by part, and the bytes saved for the backward pass."""
    saved: list[int] = []
    with Watch(part_of) as watch:
        with activations(saved, known=list(step.network.parameters())), step.precision.autocast():
            output = step.forward(*step.inputs)
            total = step.stream.loss(output, step.labels, lambda rows: rows)["total"]
        total.backward()
    return dict(watch.parts), sum(saved)
