"""SSIN: the stream of frames and the masks (silhouettes) of the person in them.

Legend: T frames, C channels, h, w rows and columns of a feature map.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sptskm.config import SsinClips, SsinLoss, SsinModel
from sptskm.data.augment import CROP, erase, show_together
from sptskm.data.clips import FrameSource, Inputs
from sptskm.data.tracklets import IntArray, Tracklets
from sptskm.evaluation import Features
from sptskm.evaluation.insight import Attention, Insight
from sptskm.models import SSIN, load_pretrained
from sptskm.models.ssin import SSINOutput
from sptskm.models.trunks import Trunk, build_trunk, open_trunk
from sptskm.training.explain import Lens, evenly
from sptskm.training.losses import Gather, batch_hard_triplet, identity_loss
from sptskm.training.precision import Precision
from sptskm.training.streams import Input, Stream, Terms
from sptskm.trunkfile import architecture

ATTENDED = 4  # tracklets whose attention is shown


class SsinStream(Stream):
    """Stream of frames and silhouettes."""

    classifier = "conv_cls.weight"

    def __init__(self, clips: SsinClips, model: SsinModel, loss: SsinLoss) -> None:
        self.clips, self.model_config, self.weights = clips, model, loss

    def source(self, table: Tracklets, rows: IntArray, precision: Precision) -> FrameSource:  # noqa: ARG002 - reads nothing yet
        return FrameSource(table, self.clips, on_device=precision.device.type == "cuda")

    def model(self, num_classes: int, pretrained: bool = True) -> SSIN:
        config = self.model_config
        sizes = {name: value for name, value in vars(config).items() if name not in ("pretrained", "architecture")}
        model = SSIN(num_classes, **{**sizes, "trunk": self._trunk(pretrained) if config.trunk else None})
        if config.pretrained and pretrained:
            load_pretrained(model, config.pretrained)
        return model

    def _trunk(self, pretrained: bool) -> Trunk:
        config, folder = self.model_config, Path(self.model_config.trunk)
        found = config.architecture or architecture(folder)
        size, channels = (self.clips.height, self.clips.width), 32 * config.width
        return open_trunk(folder, found, size, channels) if pretrained else build_trunk(found, size, channels)

    def inputs(self) -> Sequence[Input]:
        size, free = (self.clips.height, self.clips.width), {0: "batch", 1: "length"}
        frames, masks = torch.rand(2, 3, 3, *size), torch.rand(2, 3, *size)
        return Input("frames", frames, free), Input("masks", masks, free)

    def prepare(self, inputs: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
        """Move uint8 to the device and scale it to [0, 1] there: a quarter of the bytes, and channels can stay last."""
        placed = len(inputs) > 2 and bool(inputs[2][:, :CROP].any())  # looked up before it is on the device
        frames, masks, *views = (x.to(device, non_blocking=True) for x in inputs)
        if placed:
            frames, masks = show_together(frames, *views), show_together(masks[..., None], *views)[..., 0]
        frames = frames.movedim(-1, 2)
        if device.type != "cuda":
            frames = frames.contiguous()  # channels last is slower on CPUs and faster on GPUs
        frames, masks = frames.to(dtype).div_(255), masks.to(dtype).div_(255)
        return erase(frames, masks, *views) if views and self.clips.erase else (frames, masks)

    def picture(self, inputs: Inputs) -> NDArray[np.uint8]:
        from sptskm.report.figures import clip_sheet

        frames, masks = (x.float().cpu().numpy() for x in inputs)
        return clip_sheet(frames, masks)

    def explain(self, model: nn.Module, lens: Lens, test: Features) -> Insight:  # noqa: ARG002
        """Record the attention maps of a few queries."""
        assert isinstance(model, SSIN)
        chosen = evenly(lens.table.test[lens.table.query], ATTENDED)
        return Insight([_attention(model, lens, int(row)) for row in chosen])

    def loss(self, output: SSINOutput, labels: Tensor, gather: Gather) -> Terms:
        w = self.weights
        image, mask, glob = (identity_loss(logits, labels, w.smoothing) for logits in output.logits)
        triplet = batch_hard_triplet(output.embedding, labels, w.margin, gather)
        identity = w.image * image + w.mask * mask + w.glob * glob
        total = w.identity * identity + w.triplet * triplet
        return {"image": image, "mask": mask, "global": glob, "triplet": triplet, "total": total}


def _attention(model: SSIN, lens: Lens, row: int) -> Attention:
    """Record the first of SSIN's three attentions in a forward pass; the other two have coarser maps."""
    frames, masks = lens.clip(row)
    seen: list[Tensor] = []
    block = model.attenblock0
    hook = block.register_forward_hook(lambda block, inputs, _: seen.append(_map_of(block, *inputs)))
    try:
        lens.embed(model, (frames, masks))
    finally:
        hook.remove()
    return Attention(
        str(lens.table.keys_N[row]),
        frames[0].float().cpu().numpy(),
        masks[0].float().cpu().numpy(),
        seen[0].float().cpu().numpy(),
        float(block.gamma.detach()),  # type: ignore[arg-type, operator]
    )


def _map_of(block: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """Return the mask attention (T, h, w) of one clip: its mean over channels times the number of positions.

    Features (T, C, h, w) have one map per frame, features (1, C, T, h, w) one per clip.
    """
    attention_NKP = block.attention(image, mask)  # type: ignore[operator]
    relative = attention_NKP.float().mean(dim=1) * attention_NKP.shape[2]
    return relative.reshape(-1, *image.shape[-2:])
