"""What differs between streams, as the rest of training asks for it: clips, network and loss.

All other parts of training (sampling, loop, validation, extraction) are shared. The streams themselves are above this
room, in `sptskm.streams`.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sptskm.config import STREAMS, Config
from sptskm.data.clips import Inputs, Source
from sptskm.data.tracklets import IntArray, Tracklets
from sptskm.evaluation import Features
from sptskm.evaluation.insight import Insight
from sptskm.models.stgcn import STGCN
from sptskm.training.losses import Gather
from sptskm.training.precision import Precision

if TYPE_CHECKING:
    from sptskm.training.explain import Lens

log = logging.getLogger(__name__)

Terms = dict[str, Tensor]  # named loss terms of one rank, "total" among them


class Input(NamedTuple):
    """An input of a network, for its export: two clips of at least two frames, with the free axes by name."""

    name: str
    example: Tensor
    free: Mapping[int, str]


def warn_of_single_tracklets(stream: str, pids_N: IntArray) -> None:
    """Log a warning where nobody to train on has two tracklets, from which a learned metric takes what to trust."""
    if len(np.unique(pids_N)) == len(pids_N):
        log.warning(
            "%s: each of %d people to train on has one tracklet, so that model.static cannot learn how tracklets of "
            "one person differ, and weighs its measures alike",
            stream,
            len(pids_N),
        )


class Stream(ABC):
    """A stream; it is made from the sections `clips`, `model` and `loss` of its configuration."""

    classifier: ClassVar[str]
    """Name in the network's state of the weight that has a row for each training identity."""
    workers: int = 0
    """Processes that may read for its source (`data.workers`)."""

    @abstractmethod
    def source(self, table: Tracklets, rows: IntArray, precision: Precision) -> Source:
        """Return the source of the clips of `rows`. A MemorySource is read here and may be kept on the device."""

    @abstractmethod
    def model(self, num_classes: int, pretrained: bool = True) -> nn.Module:
        """Build the network, with pretrained weights if the configuration names a file and `pretrained` is true.

        It has `embedding_dim`, and `embed(*inputs)` returns embeddings (B, embedding_dim) of length 1.
        """

    def fit(self, model: nn.Module, source: Source, rows: IntArray, pids: IntArray) -> None:  # noqa: B027
        """Set constants of a new network from the training tracklets and their identities; by default nothing."""

    @abstractmethod
    def inputs(self) -> Sequence[Input]:
        """Return the inputs of the network in order, as examples."""

    @abstractmethod
    def prepare(self, inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
        """Convert inputs as they were cut to inputs of the network, on the device."""

    @abstractmethod
    def picture(self, inputs: Inputs) -> NDArray[np.uint8]:
        """Draw prepared training clips as an RGB picture (H, W, 3).

        matplotlib is imported here, because only rank 0 draws, and only at its first step.
        """

    def explain(self, model: nn.Module, lens: "Lens", test: Features) -> Insight:  # noqa: ARG002
        """Show what the network goes by, from a few test tracklets with these features; by default nothing."""
        return Insight()

    @abstractmethod
    def loss(self, output: Any, labels: Tensor, gather: Gather) -> Terms:
        """Compute the loss terms of this rank's clips (B,), mined in the global batch."""


def stream_of(config: Config) -> Stream:
    """Return the stream that the configuration selects."""
    module, _, name = STREAMS[config.stream].code.partition(":")
    kind: Callable[..., Stream] = getattr(import_module(module), name)
    stream = kind(config.clips, config.model, config.loss)
    stream.workers = config.data.workers
    return stream


def compiled(model: nn.Module) -> Callable[..., Any]:
    """Compile a network with torch.compile except for the value-dependent part, which gives a single graph break.

    The compiler is imported here only: the import costs a second of CPU time in every process.
    """
    for module in model.modules():
        if isinstance(module, STGCN):
            module.frames_of = torch.compiler.disable(module.frames_of)
    return torch.compile(model)
