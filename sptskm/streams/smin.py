"""SMIN: the stream of sequences of 3D skeletons.

Legend: N test tracklets, n of them, T frames, V = 14 joints.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sptskm.config import SminClips, SminLoss, SminModel
from sptskm.data.clips import Inputs, Source
from sptskm.data.skeleton_clips import SkeletonSource
from sptskm.data.skeleton_store import load_skeletons
from sptskm.data.skeletons import JOINTS
from sptskm.data.tracklets import IntArray, Tracklets
from sptskm.evaluation import Features
from sptskm.evaluation.insight import Insight, Joints
from sptskm.models import SMIN
from sptskm.models.smin import SMINOutput
from sptskm.training.explain import Lens, evenly
from sptskm.training.losses import Gather, batch_hard_triplet, identity_loss
from sptskm.training.precision import Precision
from sptskm.training.streams import Input, Stream, Terms, warn_of_single_tracklets

OCCLUDED = 16  # tracklets whose joints are hidden one by one


class SminStream(Stream):
    """Stream of 3D skeletons."""

    classifier = "cls.weight"

    def __init__(self, clips: SminClips, model: SminModel, loss: SminLoss) -> None:
        self.clips, self.model_config, self.weights = clips, model, loss

    def source(self, table: Tracklets, rows: IntArray, precision: Precision) -> SkeletonSource:
        clips = self.clips
        store = load_skeletons(table, rows, clips.normalise, clips.first_frames, clips.fps, clips.scale)
        return SkeletonSource(store.to(precision.device, precision.dtype), self.clips)

    def model(self, num_classes: int, pretrained: bool = True) -> SMIN:  # noqa: ARG002 - there are no pretrained weights
        return SMIN(num_classes, **vars(self.model_config))

    @torch.inference_mode()
    def fit(self, model: nn.Module, source: Source, rows: IntArray, pids: IntArray) -> None:
        """Take the constants of the static branch from the mean measures of the training tracklets, on the CPU."""
        if (body := getattr(model, "body", None)) is None:
            return
        warn_of_single_tracklets("smin", pids)
        assert isinstance(source, SkeletonSource)
        measures_NS = []
        for row in rows.tolist():
            skeletons, valid = source.read(row, source.all_clips(row))
            measures_cS = body.measures(skeletons.cpu().double(), valid)
            measures_NS.append(measures_cS.nanmean(dim=0) if body.motion else measures_cS.mean(dim=0))
        body.fit(torch.stack(measures_NS), pids)

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

    def explain(self, model: nn.Module, lens: Lens, test: Features) -> Insight:
        """Measure how much each joint matters to a few queries."""
        return Insight(joints=_joints(model, lens, test))

    def loss(self, output: SMINOutput, labels: Tensor, gather: Gather) -> Terms:
        w = self.weights
        identity = identity_loss(output.logits, labels, w.smoothing)
        triplet = batch_hard_triplet(output.embedding, labels, w.margin, gather)
        return {"identity": identity, "triplet": triplet, "total": w.identity * identity + w.triplet * triplet}


def _joints(model: nn.Module, lens: Lens, test: Features) -> Joints | None:
    """Measure how far a query moves from its identity's other tracklets when one joint is set to the origin."""
    table, changes, skeletons = lens.table, [], []
    candidates = [n for n in table.query.tolist() if test.valid_N[n] and len(_others(table, test, n))]
    for n in evenly(np.array(candidates, np.int64), OCCLUDED).tolist() if candidates else ():
        skeleton, *valid = lens.clip(int(table.test[n]))
        occluded = skeleton.repeat(1 + len(JOINTS), 1, 1, 1)
        for joint in range(len(JOINTS)):
            occluded[joint + 1, :3, :, joint] = 0
        embedded = lens.embed(model, (occluded, *(v.expand(len(occluded), -1) for v in valid)))
        others = torch.from_numpy(test.features_ND[_others(table, test, n)])
        distances = (embedded[:, None] - others).square().sum(-1).mean(1).double().numpy()
        changes.append(distances[1:] / max(distances[0], 1e-12) - 1)
        skeletons.append(_drawable(skeleton, *valid))
    if not changes:
        return None
    change_nV = np.array(changes)
    error_V = change_nV.std(axis=0, ddof=1) / np.sqrt(len(changes)) if len(changes) > 1 else np.full(14, np.nan)
    return Joints(change_nV.mean(axis=0), error_V, len(changes), skeletons[0])


def _others(table: Tracklets, test: Features, n: int) -> IntArray:
    """Return the other test tracklets of an identity, as positions among the test tracklets."""
    pids_N = table.pids_N[table.test]
    same_N = (pids_N == pids_N[n]) & test.valid_N
    same_N[n] = False
    return np.flatnonzero(same_N)


def _drawable(skeleton: Tensor, valid: Tensor | None = None) -> np.ndarray:
    """Return the first valid skeleton (V, 4) of a clip (1, 4, T, V)."""
    first = 0 if valid is None else int(valid[0].int().argmax())
    return skeleton[0, :, first].T.float().cpu().numpy()
