"""SSIN: image sequences and their silhouettes (Zhang et al., IEEE TMM 2020), in both published variants.

Module names are the published ones, so that published checkpoints load by name.
Legend: B clips, T frames, N = B*T images, H rows, W columns, C channels, D embedding of one branch.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sptskm.models.attention import CrossAttention, SpaceTimeAttention
from sptskm.models.resnet import MaskLayer, ResidualLayer, ResNet, kaiming_fan_out

Variant = Literal["2d", "3d"]
Pooling = Literal["max", "mean"]


class SSINLogits(NamedTuple):
    """Class scores (B, num_classes) of the three branches."""

    image: Tensor
    mask: Tensor
    glob: Tensor


class SSINOutput(NamedTuple):
    """Outputs for training: the logits of the three branches and the L2-normalised embedding (B, D_out)."""

    logits: SSINLogits
    embedding: Tensor


class Branches(NamedTuple):
    """One vector (B, D) per clip from each branch, after BN and set pooling."""

    image: Tensor
    mask: Tensor
    glob: Tensor


class SSIN(nn.Module):
    """Network from frames (B, T, 3, H, W) in [0, 1] and masks (B, T, H, W) in [0, 1] to an embedding per clip.

    `variant` "2d" attends within each frame and embeds image, mask and global branch (3*D numbers);
    "3d" attends over the whole clip and embeds image and global branch (2*D numbers).
    `depths` and `mask_depths` are bottleneck counts, `width` the stem's channels; the defaults are the paper's
    ResNet-50 and its twin with one block per stage. Any H and W are accepted (published: 256 x 128).
    """

    def __init__(  # noqa: PLR0913 - one keyword per field of the configuration's model section
        self,
        num_classes: int,
        variant: Variant = "2d",
        *,
        depths: Sequence[int] = (3, 4, 6, 3),
        mask_depths: Sequence[int] = (1, 1, 1, 1),
        width: int = 64,
        embedding_dim: int = 1024,
        dropout: float = 0.5,
        pooling: Pooling = "max",
    ) -> None:
        super().__init__()
        if variant not in ("2d", "3d"):
            raise ValueError(f"SSIN has the variants '2d' and '3d', not {variant!r}")
        self.variant: Variant = variant
        self.pooling: Pooling = pooling
        self.img_base = ResNet(depths, width).as_sequential()
        self.mask_base = ResNet(mask_depths, width, grey=True).as_sequential()
        top = 32 * width  # 2048 in the paper; the levels below have half and a quarter of it
        self.attenblock0 = _attention(variant, top, top // 8)
        self.attenblock1 = _attention(variant, top // 2, top // 8)
        self.attenblock2 = _attention(variant, top // 4, top // 16)
        self.conv_layer1 = ResidualLayer(top, top // 2)
        self.conv_layer2 = ResidualLayer(top // 2, top // 4)
        self.mask_layer1 = MaskLayer(top, top // 2)
        self.mask_layer2 = MaskLayer(top // 2, top // 4)
        self.glob_layer1 = ResidualLayer(top, top // 2)
        self.glob_layer2 = ResidualLayer(top // 2, top // 4)
        self.fc_img = nn.Linear(top // 4, embedding_dim)
        self.fc_mask = nn.Linear(top // 4, embedding_dim)
        self.fc_glob = nn.Linear(top // 4, embedding_dim)
        self.img_feat_bn = nn.BatchNorm1d(embedding_dim)
        self.mask_feat_bn = nn.BatchNorm1d(embedding_dim)
        self.glob_feat_bn = nn.BatchNorm1d(embedding_dim)
        self.drop = nn.Dropout(dropout)
        self.conv_cls = nn.Linear(embedding_dim, num_classes)
        self.mask_cls = nn.Linear(embedding_dim, num_classes)
        self.glob_cls = nn.Linear(embedding_dim, num_classes)
        self.reset_parameters()

    @property
    def embedding_dim(self) -> int:
        """Return the length of a clip's embedding."""
        return int(self.conv_cls.in_features) * (3 if self.variant == "2d" else 2)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise as published; trunks start from `load_resnet` weights if these are given."""
        kaiming_fan_out(self)
        for linear in (self.fc_img, self.fc_mask, self.fc_glob):
            nn.init.kaiming_normal_(linear.weight, mode="fan_out")
            nn.init.zeros_(linear.bias)
        for linear in (self.conv_cls, self.mask_cls, self.glob_cls):
            nn.init.normal_(linear.weight, std=0.001)
            nn.init.zeros_(linear.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, frames: Tensor, masks: Tensor) -> SSINOutput:
        branches = self._branches(frames, masks)
        logits = SSINLogits(
            self.conv_cls(self.drop(branches.image)),
            self.mask_cls(self.drop(branches.mask)),
            self.glob_cls(self.drop(branches.glob)),
        )
        return SSINOutput(logits, self._join(branches))

    def embed(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Compute the L2-normalised embedding (B, 3*D) or (B, 2*D) by which tracklets are compared."""
        return self._join(self._branches(frames, masks))

    def _join(self, branches: Branches) -> Tensor:
        parts = branches if self.variant == "2d" else (branches.image, branches.glob)
        return F.normalize(torch.cat(parts, dim=1), dim=1)

    def _branches(self, frames: Tensor, masks: Tensor) -> Branches:
        _check_shapes(frames, masks)
        T = frames.shape[1]
        x = self.img_base(frames.flatten(0, 1))  # (N, C, h, w)
        k = self.mask_base(masks.flatten(0, 1).unsqueeze(1))  # published: three equal channels
        g = self._attend(self.attenblock0, x, k, T)  # (B, C, h, w)
        x, k = self.conv_layer1(x), self.mask_layer1(k)
        g = self.glob_layer1(g) + self._attend(self.attenblock1, x, k, T)
        x, k = self.conv_layer2(x), self.mask_layer2(k)
        g = self.glob_layer2(g) + self._attend(self.attenblock2, x, k, T)
        x, k, g = (F.relu(y).mean(dim=(2, 3)) for y in (x, k, g))  # (N, C), (N, C), (B, C)
        return Branches(
            self._set_pool(self.img_feat_bn(self.fc_img(x)), T),
            self._set_pool(self.mask_feat_bn(self.fc_mask(k)), T),
            self.glob_feat_bn(self.fc_glob(g)),
        )

    def _attend(self, block: nn.Module, x: Tensor, k: Tensor, T: int) -> Tensor:
        """Attend image features and take the maximum over the T frames: (N, C, h, w) twice to (B, C, h, w)."""
        if self.variant == "2d":
            return block(x, k).unflatten(0, (-1, T)).amax(dim=1)
        clips = (y.unflatten(0, (-1, T)).transpose(1, 2) for y in (x, k))  # (B, C, T, h, w)
        return block(*clips).amax(dim=2)

    def _set_pool(self, x_ND: Tensor, T: int) -> Tensor:
        x_BTD = x_ND.unflatten(0, (-1, T))
        return x_BTD.amax(dim=1) if self.pooling == "max" else x_BTD.mean(dim=1)


def _attention(variant: Variant, channels: int, projected: int) -> nn.Module:
    return CrossAttention(channels, projected) if variant == "2d" else SpaceTimeAttention(channels)


def _check_shapes(frames: Tensor, masks: Tensor) -> None:
    if frames.dim() != 5 or frames.shape[2] != 3:
        raise ValueError(f"frames must be (B, T, 3, H, W), got {tuple(frames.shape)}")
    expected = frames.shape[:2] + frames.shape[3:]
    if masks.shape != expected:
        raise ValueError(f"masks must be {tuple(expected)} beside these frames, got {tuple(masks.shape)}")
