"""SMIN: the stream of sequences of 3D skeletons."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sptskm.config import SminClips, SminLoss, SminModel
from sptskm.data.clips import Inputs, Source
from sptskm.data.skeleton_clips import SkeletonSource
from sptskm.data.skeleton_store import load_skeletons
from sptskm.data.tracklets import IntArray, Tracklets
from sptskm.models import SMIN
from sptskm.models.smin import SMINOutput
from sptskm.training.losses import Gather, batch_hard_triplet, identity_loss
from sptskm.training.precision import Precision
from sptskm.training.streams import Input, Stream, Terms


class SminStream(Stream):
    """Stream of 3D skeletons."""

    classifier = "cls.weight"

    def __init__(self, clips: SminClips, model: SminModel, loss: SminLoss) -> None:
        self.clips, self.model_config, self.weights = clips, model, loss

    def source(self, table: Tracklets, rows: IntArray, precision: Precision) -> SkeletonSource:
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

    def inputs(self) -> Sequence[Input]:
        skeletons, valid = torch.rand(2, 4, 16, 14), torch.rand(2, 16) > 0.2
        free = {0: "batch", 1: "length"}
        return Input("skeletons", skeletons, {0: "batch", 2: "length"}), Input("valid", valid, free)

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
