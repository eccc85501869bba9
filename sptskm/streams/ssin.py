"""SSIN: the stream of frames and the masks (silhouettes) of the person in them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sptskm.config import SsinClips, SsinLoss, SsinModel
from sptskm.data.augment import show_together
from sptskm.data.clips import FrameSource, Inputs
from sptskm.data.tracklets import IntArray, Tracklets
from sptskm.models import SSIN, load_pretrained
from sptskm.models.ssin import SSINOutput
from sptskm.training.losses import Gather, batch_hard_triplet, identity_loss
from sptskm.training.precision import Precision
from sptskm.training.streams import Input, Stream, Terms


class SsinStream(Stream):
    """Stream of frames and silhouettes."""

    classifier = "conv_cls.weight"

    def __init__(self, clips: SsinClips, model: SsinModel, loss: SsinLoss) -> None:
        self.clips, self.model_config, self.weights = clips, model, loss

    def source(self, table: Tracklets, rows: IntArray, precision: Precision) -> FrameSource:  # noqa: ARG002 - reads nothing yet
        return FrameSource(table, self.clips, on_device=precision.device.type == "cuda")

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

    def inputs(self) -> Sequence[Input]:
        size, free = (self.clips.height, self.clips.width), {0: "batch", 1: "length"}
        frames, masks = torch.rand(2, 3, 3, *size), torch.rand(2, 3, *size)
        return Input("frames", frames, free), Input("masks", masks, free)

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
