"""Define what differs between the two streams: clips, network and weights of the losses.

All other parts of training (sampling, loop, validation, extraction) are shared.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sptskm.config import Config, SminClips, SminLoss, SminModel, SsinClips, SsinLoss, SsinModel
from sptskm.data.augment import show_together
from sptskm.data.clips import FrameSource, Inputs
from sptskm.data.skeleton_clips import SkeletonSource
from sptskm.data.skeleton_store import load_skeletons
from sptskm.data.tracklets import IntArray, Tracklets
from sptskm.models import SMIN, SSIN, load_pretrained
from sptskm.models.smin import SMINOutput
from sptskm.models.ssin import SSINOutput
from sptskm.models.stgcn import STGCN
from sptskm.training.losses import Gather, batch_hard_triplet, identity_loss
from sptskm.training.precision import Precision

Source = FrameSource | SkeletonSource
Terms = dict[str, Tensor]  # named loss terms of one rank, "total" among them


class Stream(Protocol):
    """Interface of a stream."""

    def source(self, table: Tracklets, rows: IntArray, precision: Precision) -> Source:
        """Return the source of the clips of `rows`. SMIN reads its skeletons here and keeps them on the device."""

    def usable(self, source: Source, rows: IntArray) -> IntArray:
        """Return the `rows` for which this stream has any input."""

    def model(self, num_classes: int, pretrained: bool = True) -> nn.Module:
        """Build the network, with pretrained weights if the configuration names a file and `pretrained` is true."""

    def prepare(self, inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
        """Convert inputs as they were cut to inputs of the network, on the device."""

    def picture(self, inputs: Inputs) -> NDArray[np.uint8]:
        """Draw prepared training clips as an RGB picture (H, W, 3).

        matplotlib is imported here, because only rank 0 draws, and only at its first step.
        """

    def loss(self, output: object, labels: Tensor, gather: Gather) -> Terms:
        """Compute the loss terms of this rank's clips (B,), mined in the global batch."""


class SsinStream:
    """Stream of frames and silhouettes."""

    def __init__(self, clips: SsinClips, model: SsinModel, loss: SsinLoss) -> None:
        self.clips, self.model_config, self.weights = clips, model, loss

    def source(self, table: Tracklets, rows: IntArray, precision: Precision) -> Source:  # noqa: ARG002 - reads nothing yet
        return FrameSource(table, self.clips, on_device=precision.device.type == "cuda")

    def usable(self, source: Source, rows: IntArray) -> IntArray:  # noqa: ARG002
        return rows

    def model(self, num_classes: int, pretrained: bool = True) -> SSIN:
        config = self.model_config
        model = SSIN(
            num_classes,
            config.variant,
            depths=config.depths,
            mask_depths=config.mask_depths,
            width=config.width,
            embedding_dim=config.embedding_dim,
            dropout=config.dropout,
            pooling=config.pooling,
        )
        if config.pretrained and pretrained:
            load_pretrained(model, config.pretrained)
        return model

    def prepare(self, inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
        """Move uint8 to the device and scale it to [0, 1] there: a quarter of the bytes, and channels can stay last."""
        frames, masks, *views = (x.to(device, non_blocking=True) for x in inputs)
        if views:
            frames, masks = show_together(frames, *views), show_together(masks[..., None], *views)[..., 0]
        frames = frames.movedim(-1, 2)
        if device.type != "cuda":
            frames = frames.contiguous()  # channels last is slower on CPUs and faster on GPUs
        return frames.to(dtype).div_(255), masks.to(dtype).div_(255)

    def picture(self, inputs: Inputs) -> NDArray[np.uint8]:
        from sptskm.report.figures import clip_sheet

        frames, masks = (x.float().cpu().numpy() for x in inputs)
        return clip_sheet(frames, masks)

    def loss(self, output: SSINOutput, labels: Tensor, gather: Gather) -> Terms:
        w = self.weights
        image, mask, glob = (identity_loss(logits, labels, w.smoothing) for logits in output.logits)
        triplet = batch_hard_triplet(output.embedding, labels, w.margin, gather)
        identity = w.image * image + w.mask * mask + w.glob * glob
        total = w.identity * identity + w.triplet * triplet
        return {"image": image, "mask": mask, "global": glob, "triplet": triplet, "total": total}


class SminStream:
    """Stream of 3D skeletons."""

    def __init__(self, clips: SminClips, model: SminModel, loss: SminLoss) -> None:
        self.clips, self.model_config, self.weights = clips, model, loss

    def source(self, table: Tracklets, rows: IntArray, precision: Precision) -> Source:
        store = load_skeletons(table, rows, self.clips.normalise, self.clips.first_frames, self.clips.fps)
        return SkeletonSource(store.to(precision.device, precision.dtype), self.clips)

    def usable(self, source: Source, rows: IntArray) -> IntArray:
        assert isinstance(source, SkeletonSource)
        return rows[source.store.has_any(rows)]

    def model(self, num_classes: int, pretrained: bool = True) -> SMIN:  # noqa: ARG002 - there are no pretrained weights
        config = self.model_config
        return SMIN(
            num_classes,
            config.graph,
            width=config.width,
            embedding_dim=config.embedding_dim,
            dropout=config.dropout,
        )

    def prepare(self, inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
        """Move skeletons to the device; without missing frames drop the mask (faster), else keep it on the host."""
        skeletons, valid = inputs
        skeletons = skeletons.to(device, dtype, non_blocking=True)
        return (skeletons,) if bool(valid.all()) else (skeletons, valid)

    def picture(self, inputs: Inputs) -> NDArray[np.uint8]:
        from sptskm.report.figures import skeleton_sheet

        skeletons, *valid = (x.cpu().numpy() for x in inputs)
        return skeleton_sheet(skeletons, valid[0] if valid else None)

    def loss(self, output: SMINOutput, labels: Tensor, gather: Gather) -> Terms:
        w = self.weights
        identity = identity_loss(output.logits, labels, w.smoothing)
        triplet = batch_hard_triplet(output.embedding, labels, w.margin, gather)
        return {"identity": identity, "triplet": triplet, "total": w.identity * identity + w.triplet * triplet}


def stream_of(config: Config) -> Stream:
    """Return the stream that the configuration selects."""
    kinds: Mapping[str, type[SsinStream] | type[SminStream]] = {"ssin": SsinStream, "smin": SminStream}
    return kinds[config.stream](config.clips, config.model, config.loss)  # type: ignore[arg-type, return-value]


def compiled(model: nn.Module) -> Callable[..., Any]:
    """Compile a network with torch.compile except for the value-dependent part, which gives a single graph break.

    The compiler is imported here only: the import costs a second of CPU time in every process.
    """
    for module in model.modules():
        if isinstance(module, STGCN):
            module.frames_of = torch.compiler.disable(module.frames_of)
    return torch.compile(model)
