"""Estimate before a job is queued how long a run takes, and whether its batch fits the memory of its device.

Nothing is computed: the network is built, and a step recorded, with tensors that have shapes but no numbers.
"""

import csv
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sptskm.common.errors import ConfigError
from sptskm.common.reading import read_text
from sptskm.config import Config
from sptskm.data import read_dataset, split_of
from sptskm.data.sampler import num_batches
from sptskm.models.recomputing import recompute
from sptskm.training.logbook import METRICS
from sptskm.training.optimisers import make_optimizer
from sptskm.training.precision import Precision
from sptskm.training.streams import Stream, stream_of

GIGA = 1e9
BESIDE = {"cuda": 1.0, "cpu": 0.5}  # GB: libraries, the context of a GPU and work space of its convolutions
MARGIN = 1.1  # of memory that an allocator cannot use
FAR = 8
MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}


@dataclass(frozen=True)
class Estimate:
    """What a run of one stream takes."""

    stream: str
    per_epoch: int
    epochs: int
    clips: int
    """Clips of the global batch."""
    ranks: int
    state: float
    """GB of weights, gradients and what the optimiser keeps."""
    activations: float
    """GB that the forward pass keeps for the backward pass."""
    device: str
    rate: float = 0.0
    """Clips a second of all ranks; 0 = not known."""
    source: str = ""

    @property
    def steps(self) -> int:
        """Return the steps of the whole run."""
        return self.per_epoch * self.epochs

    @property
    def hours(self) -> float:
        """Return the hours of training at the rate, without validations."""
        return self.steps * self.clips / self.rate / 3600

    @property
    def memory(self) -> float:
        """Return the GB that a rank needs at the peak."""
        return BESIDE[self.device] + MARGIN * (self.state + self.activations)

    @property
    def own(self) -> int:
        """Return the clips of the largest rank's batch."""
        return -(-self.clips // self.ranks)

    def largest(self, granted: float) -> int:
        """Return about how many clips of a rank would fit into `granted` GB."""
        room = (granted - BESIDE[self.device]) / MARGIN - self.state
        return max(0, int(room / self.activations * self.own))

    def text(self, granted: float = 0.0, key: str = "") -> str:
        """Return the estimate in a sentence or three.

        `granted` are the GB of a rank by the setting `key`; 0 = not known.
        """
        told = f"{self.stream}: {self.per_epoch:,} steps x {self.epochs:,} epochs = {self.steps:,} steps"
        told += f" of {self.clips} clips on {self.ranks} rank{'s' * (self.ranks > 1)}; "
        if self.rate:
            told += f"about {duration(self.hours)} at {self.rate:.4g} clips/s ({self.source})"
        else:
            told += "no hours without a rate (--rate CLIPS_PER_SECOND or --rate RUN, --measure STEPS)"
        told += (
            f"\n{self.stream}: about {size(self.memory)} GB of memory a rank: {size(self.state)} weights, gradients "
            f"and optimiser, {size(self.activations)} activations of {self.own} clips, and what surrounds them"
        )
        if not granted:
            return f"{told}; whether that fits is not known without {key}" if key else told
        most = self.largest(granted)  # far beyond the batch losses take memory, which is not counted
        clips = f"about {most} clips a rank would" if most < FAR * self.own else f"{FAR} times as many clips would"
        if self.memory <= granted:
            return f"{told}; fits the {granted:.3g} GB of {key}, and {clips}"
        return (
            f"{told}\n{self.stream}: does NOT fit the {granted:.3g} GB of {key}, {clips}: take more ranks, a smaller "
            "batch, train.recompute=true or train.accumulate=2"
        )


def duration(hours: float) -> str:
    """Return a time in hours, or in minutes if it is shorter than two hours."""
    return f"{hours:.0f} hours" if hours >= 20 else f"{hours:.1f} hours" if hours >= 2 else f"{60 * hours:.0f} minutes"


def size(gigabytes: float) -> str:
    """Return gigabytes with the digits that tell something."""
    return f"{gigabytes:.1f}" if gigabytes >= 0.1 else f"{gigabytes:.2g}"


def estimate(config: Config, ranks: int, device: str, rate: str = "", measure: int = 0) -> Estimate:
    """Estimate a run on `ranks` devices ("cuda" or "cpu").

    `rate` is a number of clips a second of all ranks, or an earlier run (its folder or metrics.csv). `measure` steps
    on this machine give one otherwise, times the ranks. Raises ConfigError or DataError in one sentence.
    """
    table = read_dataset(config.data.root, config.data.test)
    split = split_of(table, config.data)
    per_epoch = num_batches(config.sampling, split.train, table.pids_N[split.train])
    clips = config.sampling.identities * config.sampling.tracklets
    state, activations = memory(config, len(split.classes), -(-clips // ranks), ranks, device)
    speed, source = 0.0, ""
    if rate:
        speed, source = rate_of(rate)
    elif measure:
        own = -(-clips // ranks)
        seconds = measured(config, len(split.classes), own, measure)
        here = "cuda" if torch.cuda.is_available() else "cpu"
        names = {"cuda": "GPU", "cpu": "CPU"}
        source = f"{measure} steps of a rank on this {names[here]} without data"
        source += f", times {ranks}" * (ranks > 1) + f", not on a {names[device]} of the cluster" * (here != device)
        speed = ranks * own / seconds
    sizes = (state / GIGA, activations / GIGA)
    return Estimate(config.stream, per_epoch, config.train.epochs, clips, ranks, *sizes, device, speed, source)


def gpu_memory() -> float:
    """Return the GB of the first GPU that PyTorch sees; 0 without one."""
    return torch.cuda.get_device_properties(0).total_memory / GIGA if torch.cuda.is_available() else 0.0


def rate_of(text: str) -> tuple[float, str]:
    """Return clips a second and where they are from: a number, or the median over the epochs of an earlier run."""
    try:
        if (number := float(text)) > 0:
            return number, "as given"
    except ValueError:
        path = Path(text)
        path = path / METRICS if path.is_dir() else path
        rows = list(csv.DictReader(io.StringIO(read_text(path))))
        try:
            speeds = [float(row["clips per s"]) for row in rows]
        except (KeyError, TypeError, ValueError):
            raise ConfigError(
                f"{path}: has no column of numbers 'clips per s', wanted the {METRICS} of a run"
            ) from None
        if speeds and (number := median(speeds)) > 0:
            return number, f"{path}, {len(speeds)} epoch{'s' * (len(speeds) > 1)}"
    raise ConfigError(f"--rate is {text}, wanted a positive number of clips a second or the folder of a run")


def memory(config: Config, classes: int, clips: int, ranks: int, device: str) -> tuple[float, float]:
    """Return the bytes of a rank's state, and those that its forward pass over `clips` clips keeps."""
    name = config.train.precision
    cast = Precision.of(
        ("bfloat16" if device == "cuda" else "float32") if name == "auto" else name, torch.device("cpu")
    )
    stream = stream_of(config)
    with torch.device("meta"):  # numbers that are drawn cannot be looked at, as some networks do
        network = stream.model(classes, pretrained=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="cpu")
        weights = sum(value.nbytes for value in network.state_dict().values())
        trained = sum(p.nbytes for p in network.parameters() if p.requires_grad)
        copies = 1 + MOMENTS[config.optim.algorithm] + (ranks > 1)  # ranks exchange gradients in a copy of them
        state = weights * (1 + bool(config.optim.ema)) + trained * copies
        if config.train.recompute:
            recompute(network)
        part = -(-clips // config.train.accumulate)
        inputs = inputs_of(stream, config, part)
        found: list[int] = [x.nbytes for x in inputs]
        with kept(found, list(network.parameters())), block_inputs(network, found), cast.autocast():
            network.train()(*inputs)
    double = 2 if cast.dtype == torch.float64 else 1
    return float(double * state), float(double * sum(found))


def inputs_of(stream: Stream, config: Config, clips: int) -> list[Tensor]:
    """Return inputs of the network for so many training clips without gaps."""
    found = []
    for one in stream.inputs():
        shape = list(one.example.shape)
        for axis, name in one.free.items():
            shape[axis] = clips if name == "batch" else int(getattr(config.clips, "frames", shape[axis]))
        if one.example.dtype != torch.bool:  # frames that are valid are left out where all are
            found.append(torch.rand(shape))
    return found


@contextmanager
def kept(found: list[int], known: Sequence[Tensor]) -> Iterator[None]:
    """Append the bytes of every distinct tensor that autograd keeps inside the block, `known` ones left out."""
    held = list(known)  # so that no later tensor gets the place of one of them
    seen = {x.untyped_storage()._cdata for x in held}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            held.append(x)
            found.append(storage.nbytes())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        yield


@contextmanager
def block_inputs(network: nn.Module, found: list[int]) -> Iterator[None]:
    """Append the bytes of the inputs of blocks that are computed again, which autograd does not see kept."""

    def add(_block: nn.Module, inputs: tuple[Any, ...]) -> None:
        found.extend(x.nbytes for x in inputs if isinstance(x, Tensor) and x.requires_grad)

    again = [block for block in network.modules() if "forward" in vars(block)]
    hooks = [block.register_forward_pre_hook(add) for block in again]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def measured(config: Config, classes: int, clips: int, steps: int) -> float:
    """Return the median seconds of steps on made-up clips on this machine's device, after one that does not count."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = Precision.of(config.train.precision, device)
    stream = stream_of(config)
    network = stream.model(classes, pretrained=False).to(device, precision.dtype).train()
    if config.train.recompute:
        recompute(network)
    optimizer, scaler = make_optimizer(config, network), precision.scaler()
    inputs = [x.to(device, precision.dtype) for x in inputs_of(stream, config, clips)]
    labels = torch.arange(clips, device=device) // max(1, min(config.sampling.tracklets, clips // 2))
    seconds = []
    for _ in range(1 + steps):
        began = time.perf_counter()
        with precision.autocast():
            output = network(*inputs)
        total = stream.loss(output, labels, lambda rows: rows)["total"]
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        total.item()  # waits for a GPU
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])
