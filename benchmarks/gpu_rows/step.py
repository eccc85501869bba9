"""A training step of any stream on made-up clips that lie on the device: what training does between two batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sptskm.config import STREAMS, Config
from sptskm.configfile import apply_overrides
from sptskm.models.recomputing import recompute
from sptskm.training.extract import channels_last
from sptskm.training.optimisers import make_optimizer
from sptskm.training.precision import Precision
from sptskm.training.streams import compiled, stream_of
from sptskm.training.trainer import set_training, upload

SMALL = ["model.width=4"]
SMALL_OF = {
    "ssin": ["model.embedding_dim=8", "model.depths=[1,1,1,1]", "clips.frames=2", "clips.height=64", "clips.width=32"],
    "smin": ["model.embedding_dim=8", "clips.frames=8"],
}
CLASSES = 625  # identities of MARS's training part
STAGES = ("forward", "loss", "backward", "optimiser")


def config_of(name: str, small: bool, *overrides: str) -> Config:
    """Return the published configuration of a stream, or a small one."""
    return apply_overrides(STREAMS[name].defaults, [*(SMALL + SMALL_OF.get(name, []) if small else []), *overrides])


def inputs_of(config: Config, clips: int, device: torch.device, dtype: torch.dtype, gaps: bool = False) -> list[Tensor]:
    """Return random inputs of the network, as prepared; with `gaps` a fifth of the frames of a skeleton is missing."""
    draw = torch.Generator().manual_seed(0)
    found: list[Tensor] = []
    for one in stream_of(config).inputs():
        shape = list(one.example.shape)
        for axis, name in one.free.items():
            shape[axis] = clips if name == "batch" else int(getattr(config.clips, "frames", shape[axis]))
        if one.example.dtype == torch.bool:  # frames that are valid: on the host, and left out if all are
            if gaps:
                found.append(torch.rand(shape, generator=draw) > 0.2)
            continue
        x = torch.rand(shape, generator=draw).to(device, dtype)
        if x.dim() == 5 and device.type == "cuda":  # the layout in which frames come
            x = x.movedim(2, -1).contiguous().movedim(-1, 2)
        found.append(x)
    return found


@dataclass
class Step:
    """One step of training: forward, loss, backward, norm of the gradient, optimiser."""

    config: Config
    clips: int
    device: torch.device
    compile: str = ""
    """Mode of torch.compile; "default" is what train.compile does."""
    last: bool = True
    """Whether convolutions have channels last on a GPU, as in training."""
    checkpointed: bool = False
    """What train.recompute does."""
    gaps: bool = False
    stages: Callable[[str], Any] = field(default=lambda _: nullcontext())
    gather: Callable[[Tensor], Tensor] = field(default=lambda rows: rows)
    """Concatenates the rows of all ranks, for mining."""

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.stream = stream_of(self.config)
        self.precision = Precision.of(self.config.train.precision, self.device)
        self.network = self.stream.model(CLASSES)
        if self.device.type != "cpu" or self.precision.dtype != torch.float32:  # fake tensors cannot be moved
            self.network.to(self.device, self.precision.dtype)
        if self.last and self.device.type == "cuda":
            channels_last(self.network)
        if self.checkpointed:
            recompute(self.network)
        set_training(self.network, "sync")
        self.forward = self._forward()
        self.optimizer = make_optimizer(self.config, self.network)
        self.scaler = self.precision.scaler()
        self.inputs = inputs_of(self.config, self.clips, self.device, self.precision.dtype, self.gaps)
        identities = max(2, self.clips // self.config.sampling.tracklets)
        self.labels = upload(torch.arange(self.clips) % identities, self.device)

    def _forward(self) -> Callable[..., Any]:
        if not self.compile:
            return self.network
        if self.compile == "default":
            return compiled(self.network)
        return torch.compile(self.network, mode=self.compile)

    def __call__(self) -> list[float]:
        """Do the step and return its loss and gradient norm, the one thing that the host waits for."""
        with self.stages("forward"), self.precision.autocast():
            output = self.forward(*self.inputs)
        with self.stages("loss"):
            terms = self.stream.loss(output, self.labels, self.gather)
        with self.stages("backward"):
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(terms["total"]).backward()
            self.scaler.unscale_(self.optimizer)
            norm = torch.nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        found = torch.stack([terms["total"].detach(), norm.to(terms["total"].dtype)]).tolist()
        with self.stages("optimiser"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return list(found)


@contextmanager
def activations(found: list[int], known: Sequence[Tensor] = ()) -> Iterator[None]:
    """Append the bytes of every distinct tensor that autograd saves inside the block, `known` ones left out."""
    kept = list(known)  # held, so that no later tensor gets the same address
    seen = {x.untyped_storage()._cdata for x in kept}

    def save(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            kept.append(x)
            found.append(storage.nbytes())
        return x

    with torch.autograd.graph.saved_tensors_hooks(save, lambda x: x):
        yield
