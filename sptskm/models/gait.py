"""Gait: identity from sets of silhouettes, by a network of the kind of GaitSet (Chao et al., AAAI 2019).

Convolutions see each silhouette by itself; the maximum over the frames of a clip makes one map of it, whose order does
not matter. A pyramid of horizontal strips (Fu et al., AAAI 2019) cuts the map into parts, and every part has an
embedding, a batch normalisation and a classifier of its own (BNNeck: Luo et al., CVPR Workshops 2019).
Beyond these, each off by default: the mean with the mirror image's embedding, and a static branch of average
silhouettes beside the network (`sptskm.models.averages`).
Legend: B clips, T frames, H rows, W columns, C channels, P parts, D embedding of a part, N identities, S static branch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sptskm.models.averages import AverageSilhouettes


class GaitOutput(NamedTuple):
    """Outputs for training: logits (B, P, num_classes) and embeddings (B, P, D), of every part."""

    logits: Tensor
    embeddings: Tensor


class Gait(nn.Module):
    """Network from silhouettes (B, T, H, W) in [0, 1] and optional valid frames (B, T) to an embedding per clip.

    The first convolution has the stride `stride`; two poolings halve the map again. The map must have at least as many
    rows as the largest number in `strips`. `static` is the share of the average silhouettes in the squared distance of
    two embeddings: 0 leaves them out. They have no weights to train, but constants that `averages.fit` takes from the
    training people, for silhouettes of `size`; `static_rows` are their bands. Beside them, the network is compared
    behind its batch normalisation, so that the distances of both are of one scale.
    """

    def __init__(  # noqa: PLR0913  # the settings of the network
        self,
        num_classes: int,
        *,
        width: int = 64,
        depth: int = 2,
        stride: int = 1,
        strips: Sequence[int] = (1, 2, 4, 8),
        embedding_dim: int = 256,
        mirror: bool = False,
        static: float = 0.0,
        static_rows: Sequence[int] = (),
        size: tuple[int, int] = (64, 44),
    ) -> None:
        super().__init__()
        self.strips, parts = tuple(strips), sum(strips)
        self.mirror, self.static = mirror, static
        self.averages = AverageSilhouettes(*size, static_rows) if static else None
        self.embedding_dim = parts * embedding_dim + (self.averages.dim if self.averages else 0)
        self.frames = nn.Sequential(
            *_stage(1, width, depth, stride),
            nn.MaxPool2d(2),
            *_stage(width, 2 * width, depth),
            nn.MaxPool2d(2),
            *_stage(2 * width, 4 * width, depth),
        )
        self.part_weight = nn.Parameter(torch.empty(parts, 4 * width, embedding_dim))
        self.neck = nn.BatchNorm1d(parts * embedding_dim)
        self.classifier = nn.Parameter(torch.empty(num_classes, parts, embedding_dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise the linear layers by Glorot's rule and convolutions by He's."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        bound = (6 / (self.part_weight.shape[1] + self.part_weight.shape[2])) ** 0.5
        nn.init.uniform_(self.part_weight, -bound, bound)
        nn.init.normal_(self.classifier)

    def forward(self, silhouettes: Tensor, valid: Tensor | None = None) -> GaitOutput:
        parts_BPD = self._parts(silhouettes, valid)
        logits_BPN = torch.einsum("bpd,npd->bpn", self._normalised(parts_BPD), F.normalize(self.classifier, dim=2))
        return GaitOutput(16 * logits_BPN, parts_BPD)

    def embed(self, silhouettes: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the L2-normalised embedding (B, D) by which tracklets are compared."""
        embedding_BD = self._embedding(silhouettes, valid)
        if self.mirror:
            embedding_BD = F.normalize(embedding_BD + self._embedding(silhouettes.flip(3), valid), dim=1)
        if self.averages is None:
            return embedding_BD
        static_BS = self.averages(silhouettes, valid).to(embedding_BD.dtype)
        return F.normalize(
            torch.cat([(1 - self.static) ** 0.5 * embedding_BD, self.static**0.5 * static_BS], dim=1), dim=1
        )

    def _embedding(self, silhouettes: Tensor, valid: Tensor | None) -> Tensor:
        parts_BPD = self._parts(silhouettes, valid)
        if self.averages is not None:
            parts_BPD = self._normalised(parts_BPD)
        return F.normalize(F.normalize(parts_BPD, dim=2).flatten(1), dim=1)

    def _normalised(self, parts_BPD: Tensor) -> Tensor:
        return F.normalize(self.neck(parts_BPD.flatten(1)).view_as(parts_BPD), dim=2)

    def _parts(self, silhouettes_BTHW: Tensor, valid_BT: Tensor | None) -> Tensor:
        B, T = silhouettes_BTHW.shape[:2]
        maps = self.frames(silhouettes_BTHW.flatten(0, 1)[:, None])
        maps_BTCHW = maps.unflatten(0, (B, T))
        if valid_BT is not None:
            maps_BTCHW = maps_BTCHW.masked_fill(~valid_BT[:, :, None, None, None], 0)
        set_BCHW = maps_BTCHW.amax(dim=1)
        strips = [
            strip.mean(dim=(2, 3)) + strip.amax(dim=(2, 3))
            for count in self.strips
            for strip in set_BCHW.tensor_split(count, dim=2)
        ]
        return torch.einsum("bpc,pcd->bpd", torch.stack(strips, dim=1), self.part_weight)


def _stage(inputs: int, outputs: int, depth: int, stride: int = 1) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for number in range(depth):
        first = number == 0
        size = 5 if first and inputs == 1 else 3
        layers += [
            nn.Conv2d(inputs if first else outputs, outputs, size, stride if first else 1, size // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return layers
