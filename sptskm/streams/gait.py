"""Gait: the stream of silhouettes over time, which needs masks alone."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sptskm.config import GaitClips, GaitLoss, GaitModel
from sptskm.data.clips import Inputs, Source
from sptskm.data.silhouette_clips import SilhouetteSource
from sptskm.data.silhouettes import MaskReader, store_of
from sptskm.data.tracklets import IntArray, Tracklets
from sptskm.models import Gait
from sptskm.models.gait import GaitOutput
from sptskm.training.loading import loaded
from sptskm.training.losses import Gather, batch_all_triplet, identity_loss
from sptskm.training.precision import Precision
from sptskm.training.streams import Input, Stream, Terms, warn_of_single_tracklets


class GaitStream(Stream):
    """Stream of sets of aligned silhouettes."""

    classifier = "classifier"

    def __init__(self, clips: GaitClips, model: GaitModel, loss: GaitLoss) -> None:
        self.clips, self.model_config, self.weights = clips, model, loss

    def source(self, table: Tracklets, rows: IntArray, precision: Precision) -> SilhouetteSource:
        reader = MaskReader(table, self.clips)
        with closing(loaded(reader, rows.tolist(), self.workers, pinned=False)) as read:
            store = store_of(reader, rows, read)
        return SilhouetteSource(store.to(precision.device), self.clips)

    def model(self, num_classes: int, pretrained: bool = True) -> Gait:  # noqa: ARG002 - there are no pretrained weights
        return Gait(num_classes, **vars(self.model_config), size=(self.clips.height, self.clips.width))

    @torch.inference_mode()
    def fit(self, model: nn.Module, source: Source, rows: IntArray, pids: IntArray) -> None:
        """Take the constants of the static branch from average silhouettes of the training tracklets, on the CPU."""
        if (branch := getattr(model, "averages", None)) is None:
            return
        warn_of_single_tracklets("gait", pids)
        assert isinstance(source, SilhouetteSource)
        averages_NHW = []
        for row in rows.tolist():
            (silhouettes,) = source.read(row, source.all_clips(row))
            averages_NHW.append(branch.averages(silhouettes.cpu()).mean(dim=0))
        branch.fit(torch.stack(averages_NHW), pids)

    def inputs(self) -> Sequence[Input]:
        silhouettes = (torch.rand(2, 3, self.clips.height, self.clips.width) > 0.5).float()
        return (Input("silhouettes", silhouettes, {0: "batch", 1: "length"}),)

    def prepare(self, inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
        return tuple(x.to(device, dtype, non_blocking=True) for x in inputs)

    def picture(self, inputs: Inputs) -> NDArray[np.uint8]:
        from sptskm.report.figures import silhouette_sheet

        (silhouettes,) = (x.float().cpu().numpy() for x in inputs)
        return silhouette_sheet(silhouettes)

    def loss(self, output: GaitOutput, labels: Tensor, gather: Gather) -> Terms:
        w, parts = self.weights, output.logits.shape[1]
        identity = identity_loss(output.logits.flatten(0, 1), labels.repeat_interleave(parts), w.smoothing)
        triplet = batch_all_triplet(output.embeddings, labels, w.margin, gather)
        return {"identity": identity, "triplet": triplet, "total": w.identity * identity + w.triplet * triplet}
