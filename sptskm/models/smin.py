"""SMIN: identity from 3D skeleton sequences by ST-GCN (Zhang et al., IEEE TMM 2020).

The released code lacks the file of this network. The known parts are built here: ST-GCN, global average pooling,
FC + BN as the feature, FC to the classes. D = 1024 and the L2 normalisation follow SSIN's heads.
Legend: B clips, T frames, D embedding.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sptskm.models.graph import GraphName
from sptskm.models.stgcn import STGCN


class SMINOutput(NamedTuple):
    """Outputs for training: logits (B, num_classes) and the L2-normalised embedding (B, D)."""

    logits: Tensor
    embedding: Tensor


class SMIN(nn.Module):
    """Network from skeletons (B, 4, T, 14) and optional valid frames (B, T) to an embedding per clip.

    `graph` "spatial" is the correct skeleton graph, "published" the released one without any edge between
    joints. `model.backbone(skeletons)` gives the pooled ST-GCN features (B, 4*width).
    """

    def __init__(
        self,
        num_classes: int,
        graph: GraphName = "spatial",
        *,
        width: int = 64,
        embedding_dim: int = 1024,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.backbone = STGCN(graph, width=width, dropout=dropout)
        self.fc = nn.Linear(self.backbone.out_channels, embedding_dim)
        self.feat_bn = nn.BatchNorm1d(embedding_dim)
        self.cls = nn.Linear(embedding_dim, num_classes)
        self.embedding_dim = embedding_dim
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
        return F.normalize(self._feature(skeletons, valid), dim=1)

    def _feature(self, skeletons: Tensor, valid: Tensor | None) -> Tensor:
        return self.feat_bn(self.fc(self.backbone(skeletons, valid)))
