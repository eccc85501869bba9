"""SSIN: image sequences and their silhouettes (Zhang et al., IEEE TMM 2020), in both published variants.

Module names are the published ones, so that published checkpoints load by name.
Legend: B clips, T frames, N = B*T images, H rows, W columns, C channels, D embedding of one branch.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sptskm.common.imagenet import IMAGENET_MEAN, IMAGENET_STD
from sptskm.models.attention import CrossAttention, SpaceTimeAttention
from sptskm.models.full_precision import full_precision
from sptskm.models.resnet import MaskLayer, ResidualLayer, ResNet, kaiming_fan_out
from sptskm.models.trunks import Trunk

Variant = Literal["2d", "3d"]
Pooling = Literal["max", "mean"]
GEM_FLOOR = 1e-6  # of features, whose power has no gradient at 0


class SSINLogits(NamedTuple):
    """Class scores (B, num_classes) of the three branches."""

    image: Tensor
    mask: Tensor
    glob: Tensor


class SSINOutput(NamedTuple):
    """Outputs for training: logits of the three branches, and the L2-normalised embedding (B, D_out) for triplets."""

    logits: SSINLogits
    embedding: Tensor


class Branches(NamedTuple):
    """One vector (B, D) per clip from each branch, after set pooling."""

    image: Tensor
    mask: Tensor
    glob: Tensor


class SSIN(nn.Module):
    """Network from frames (B, T, 3, H, W) in [0, 1] and masks (B, T, H, W) in [0, 1] to an embedding per clip.

    `variant` "2d" attends within each frame and embeds image, mask and global branch (3*D numbers);
    "3d" attends over the whole clip and embeds image and global branch (2*D numbers).
    `depths` and `mask_depths` are bottleneck counts, `width` the stem's channels; the defaults are the paper's
    ResNet-50 and its twin with one block per stage. Any H and W are accepted (published: 256 x 128).
    `trunk` takes the place of the ResNet of the frames; the masks keep theirs, and its map is resized to the trunk's.
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
        imagenet: bool = False,
        last_stride: int = 2,
        spatial_pooling: Literal["mean", "gem"] = "mean",
        trunk: Trunk | None = None,
    ) -> None:
        super().__init__()
        if variant not in ("2d", "3d"):
            raise ValueError(f"SSIN has the variants '2d' and '3d', not {variant!r}")
        self.variant: Variant = variant
        self.pooling: Pooling = pooling
        self.imagenet = imagenet and trunk is None
        self.img_base: nn.Module = trunk or ResNet(depths, width, last_stride=last_stride).as_sequential()
        self.mask_base = ResNet(mask_depths, width, grey=True, last_stride=last_stride).as_sequential()
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
        self.exponents = nn.Parameter(torch.full((3,), 3.0)) if spatial_pooling == "gem" else None
        self.reset_parameters()

    @property
    def embedding_dim(self) -> int:
        """Return the length of a clip's embedding."""
        return int(self.conv_cls.in_features) * (3 if self.variant == "2d" else 2)

    def layers(self) -> list[list[nn.Parameter]]:
        """Return the parameters of a trunk of `transformers` by layer, from the first to the last; none without one."""
        return self.img_base.layers() if isinstance(self.img_base, Trunk) else []

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise as published; trunks start from `load_resnet` weights if these are given."""
        for part in self.children():
            kaiming_fan_out(part.project if isinstance(part, Trunk) else part)
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
        return SSINOutput(logits, F.normalize(self._join(branches), dim=1))

    def embed(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Compute the L2-normalised embedding (B, 3*D) or (B, 2*D) by which tracklets are compared."""
        return F.normalize(self._join(self._branches(frames, masks)), dim=1)

    def _join(self, branches: Branches) -> Tensor:
        return torch.cat(branches if self.variant == "2d" else (branches.image, branches.glob), dim=1)

    def _branches(self, frames: Tensor, masks: Tensor) -> Branches:
        """Compute the features of the three branches."""
        _check_shapes(frames, masks)
        T = frames.shape[1]
        x = self.img_base(self._scaled(frames.flatten(0, 1)))  # (N, C, h, w)
        k = self.mask_base(masks.flatten(0, 1).unsqueeze(1))  # published: three equal channels
        if k.shape[2:] != x.shape[2:]:  # a trunk has smaller patches
            k = F.interpolate(k, x.shape[2:], mode="bilinear")
        g = self._attend(self.attenblock0, x, k, T)  # (B, C, h, w)
        x, k = self.conv_layer1(x), self.mask_layer1(k)
        g = self.glob_layer1(g) + self._attend(self.attenblock1, x, k, T)
        x, k = self.conv_layer2(x), self.mask_layer2(k)
        g = self.glob_layer2(g) + self._attend(self.attenblock2, x, k, T)
        x, k, g = (self._pool(F.relu(y), branch) for branch, y in enumerate((x, k, g)))  # (N, C), (N, C), (B, C)
        return Branches(
            self._set_pool(self.img_feat_bn(self.fc_img(x)), T),
            self._set_pool(self.mask_feat_bn(self.fc_mask(k)), T),
            self.glob_feat_bn(self.fc_glob(g)),
        )

    def _scaled(self, frames_NCHW: Tensor) -> Tensor:
        if not self.imagenet:
            return frames_NCHW
        mean, std = (frames_NCHW.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (frames_NCHW - mean) / std

    def _pool(self, x_NCHW: Tensor, branch: int) -> Tensor:
        """Pool features, which are 0 or more, over positions: (N, C); by (mean x^p)^(1/p) for the generalised mean."""
        if self.exponents is None:
            return x_NCHW.mean(dim=(2, 3))
        p = self.exponents[branch]
        return full_precision(x_NCHW).clamp(min=GEM_FLOOR).pow(p).mean(dim=(2, 3)).pow(1 / p).to(x_NCHW.dtype)

    def _attend(self, block: nn.Module, x: Tensor, k: Tensor, T: int) -> Tensor:
        """Attend image features and take the maximum over the T frames: (N, C, h, w) twice to (B, C, h, w)."""
        if self.variant == "2d":
            return block(x, k).unflatten(0, (-1, T)).amax(dim=1)
        clips = (y.unflatten(0, (-1, T)).transpose(1, 2) for y in (x, k))  # (B, C, T, h, w)
        return block(*clips).amax(dim=2)

    def _set_pool(self, x_ND: Tensor, T: int) -> Tensor:
        """Pool over the T frames: (N, D) to (B, D)."""
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
