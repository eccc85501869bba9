"""SMIN: identity from 3D skeleton sequences by ST-GCN (Zhang et al., IEEE TMM 2020).

The released code lacks the file of this network. The known parts are built here: ST-GCN, global average pooling,
FC + BN as the feature, FC to the classes. D = 1024 and the L2 normalisation follow SSIN's heads.
Beyond the paper, each off by default: bones as further channels, the standard deviation over time in pooling, the mean
with the mirror image's embedding, and a static branch of body measures beside the network (`sptskm.models.body`).
Legend: B clips, T frames, D embedding, S static branch.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sptskm.data.mirror import mirrored
from sptskm.data.skeletons import PARENTS
from sptskm.models.body import BodyMeasures
from sptskm.models.graph import GraphName
from sptskm.models.stgcn import STGCN, Pooling

Measures = Literal["body", "body+motion"]


class SMINOutput(NamedTuple):
    """Outputs for training: logits (B, num_classes) and the L2-normalised embedding (B, D)."""

    logits: Tensor
    embedding: Tensor


class SMIN(nn.Module):
    """Network from skeletons (B, 4, T, 14) and optional valid frames (B, T) to an embedding per clip.

    `graph` "spatial" is the correct skeleton graph, "published" the released one without any edge between
    joints. `model.backbone` gives the pooled ST-GCN features. The keywords are those of `sptskm.config.SminModel`.
    `static` is the share of the body measures in the squared distance of two embeddings; they have no weights to train,
    but constants that `body.fit` takes from the training people. 0 leaves them out.
    """

    def __init__(  # noqa: PLR0913  # the settings of the network
        self,
        num_classes: int,
        graph: GraphName = "spatial",
        *,
        width: int = 64,
        embedding_dim: int = 1024,
        dropout: float = 0.5,
        bones: bool = False,
        pooling: Pooling = "mean",
        mirror: bool = False,
        static: float = 0.0,
        measures: Measures = "body",
    ) -> None:
        super().__init__()
        self.bones, self.mirror, self.static = bones, mirror, static
        self.backbone = STGCN(graph, in_channels=7 if bones else 4, width=width, dropout=dropout, pooling=pooling)
        self.fc = nn.Linear(self.backbone.out_channels, embedding_dim)
        self.feat_bn = nn.BatchNorm1d(embedding_dim)
        self.cls = nn.Linear(embedding_dim, num_classes)
        self.body = BodyMeasures(measures == "body+motion") if static else None
        self.embedding_dim = embedding_dim + (self.body.dim if self.body else 0)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise as published: conv N(0, 0.02), BN weight N(1, 0.02), linear N(0, 0.001)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(module.weight, mean=1.0, std=0.02)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.001)
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, skeletons: Tensor, valid: Tensor | None = None) -> SMINOutput:
        feature_BD = self._feature(skeletons, valid)
        return SMINOutput(self.cls(feature_BD), F.normalize(feature_BD, dim=1))

    def embed(self, skeletons: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the L2-normalised embedding (B, D) by which tracklets are compared."""
        embedding_BD = F.normalize(self._feature(skeletons, valid), dim=1)
        if self.mirror:
            mirrored_BD = F.normalize(self._feature(mirrored(skeletons), valid), dim=1)
            embedding_BD = F.normalize(embedding_BD + mirrored_BD, dim=1)
        if self.body is None:
            return embedding_BD
        static_BS = self.body(skeletons, valid).to(embedding_BD.dtype)
        return torch.cat([(1 - self.static) ** 0.5 * embedding_BD, self.static**0.5 * static_BS], dim=1)

    def _feature(self, skeletons: Tensor, valid: Tensor | None) -> Tensor:
        channels = with_bones(skeletons) if self.bones else skeletons
        return self.feat_bn(self.fc(self.backbone(channels, valid)))


def with_bones(skeletons_B4TV: Tensor) -> Tensor:
    """Append each joint's way from its neighbour toward the neck: (B, 7, T, 14); the neck's is zero."""
    points = skeletons_B4TV[:, :3]
    return torch.cat([skeletons_B4TV, points - points[..., list(PARENTS)]], dim=1)
