"""JPPNet, human parsing with pose (Liang et al. 2018, "Look into Person"), for inference.

A ResNet-101 of output stride 8 feeds a parsing and a pose net; one refinement of the pose and two of the parsing see
the results of both. Strided layers are padded as TensorFlow's "SAME" does, more behind than before. Batch
normalisation always uses the stored statistics.

Legend: N images, C channels, H rows, W columns, h = H/8 and w = W/8 (rounded up); L = 20 labels, J = 16 joints.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sptskm.common.errors import DataError

LABELS = 20
JOINTS = 16
RATES = (6, 12, 18, 24)
BN_EPSILON = 1e-3
EXPANSION = 4

_BN_LEAVES = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_PARTS = {"shortcut": "branch1", "a": "branch2a", "b": "branch2b", "c": "branch2c"}


class Outputs(NamedTuple):
    """The three parsing logits (N, L, h, w) and the two pose maps (N, J, h, w), coarse to fine."""

    parsing: tuple[Tensor, Tensor, Tensor]
    pose: tuple[Tensor, Tensor]


class FixedBatchNorm(nn.Module):
    """(x - mean) / sqrt(variance + 1e-3) * weight + bias with stored statistics, also in training.

    Computed in float32 also for x in half precision.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return F.batch_norm(
            x_NCHW, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=BN_EPSILON
        )


class ConvReLU(nn.Conv2d):
    """k x k convolution with bias that keeps the size, and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return F.relu(super().forward(x_NCHW))


class Unit(nn.Module):
    """Residual unit 1x1 (with the stride), 3x3 with holes, 1x1: (N, C, H, W) to (N, 4*mid, H/s, W/s)."""

    def __init__(self, in_channels: int, mid: int, stride: int, dilation: int) -> None:
        super().__init__()
        out_channels = mid * EXPANSION
        self.conv_shortcut: nn.Conv2d | None = None
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.bn_shortcut = FixedBatchNorm(out_channels)
        self.conv_a = nn.Conv2d(in_channels, mid, 1, stride, bias=False)
        self.bn_a = FixedBatchNorm(mid)
        self.conv_b = nn.Conv2d(mid, mid, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn_b = FixedBatchNorm(mid)
        self.conv_c = nn.Conv2d(mid, out_channels, 1, bias=False)
        self.bn_c = FixedBatchNorm(out_channels)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        identity = x_NCHW if self.conv_shortcut is None else self.bn_shortcut(self.conv_shortcut(x_NCHW))
        y = F.relu(self.bn_a(self.conv_a(x_NCHW)))
        y = F.relu(self.bn_b(self.conv_b(y)))
        return F.relu(self.bn_c(self.conv_c(y)) + identity)


class Backbone(nn.Module):
    """Images (N, 3, H, W) to stage 4 (N, 16*width, h, w) and stage 5 (N, 32*width, h, w)."""

    def __init__(self, depths: Sequence[int], width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, bias=False)
        self.bn1 = FixedBatchNorm(width)
        self.stage2 = _stage(width, width, depths[0])
        self.stage3 = _stage(width * 4, width * 2, depths[1], stride=2)
        self.stage4 = _stage(width * 8, width * 4, depths[2], dilation=2)
        self.stage5 = _stage(width * 16, width * 8, depths[3], dilation=4)

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.bn1(self.conv1(pad_same(x_NCHW, kernel=7, stride=2))))
        y = F.max_pool2d(pad_same(y, kernel=3, stride=2, value=-torch.inf), 3, stride=2)
        stage4 = self.stage4(self.stage3(self.stage2(y)))
        return stage4, self.stage5(stage4)


class AtrousSum(nn.Module):
    """Logits of the labels: the sum of four 3x3 convolutions with holes of different rates."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.rates = nn.ModuleList(nn.Conv2d(in_channels, LABELS, 3, padding=r, dilation=r) for r in RATES)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        first, second, third, fourth = (conv(x_NCHW) for conv in self.rates)
        return first + second + third + fourth


class ParsingNet(nn.Module):
    """Stage 5 to logits (N, L, h, w) and context (N, context, h, w)."""

    def __init__(self, in_channels: int, context: int) -> None:
        super().__init__()
        self.classify = AtrousSum(in_channels)
        self.convs = nn.Sequential(ConvReLU(in_channels, 2 * context, 3), ConvReLU(2 * context, context, 3))

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.classify(x_NCHW), self.convs(x_NCHW)


class PoseNet(nn.Module):
    """Stage 4 to joint maps (N, J, h, w) and context (N, context, h, w)."""

    def __init__(self, in_channels: int, context: int) -> None:
        super().__init__()
        sizes = (in_channels, 2 * context, 2 * context, context, context, context, context)
        self.convs = nn.Sequential(*(ConvReLU(i, o, 3) for i, o in pairwise(sizes)))
        self.classify = nn.Sequential(ConvReLU(context, 2 * context, 1), nn.Conv2d(2 * context, JOINTS, 1))

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        features = self.convs(x_NCHW)
        return self.classify(features), features


class Refinement(nn.Module):
    """Refined maps of one task from its own maps, the maps of the other task and its own context (in this order)."""

    def __init__(self, own: int, other: int, context: int, classify: nn.Module) -> None:
        super().__init__()
        self.own_remap = ConvReLU(own, context // 2, 1)
        self.other_remap = ConvReLU(other, context // 2, 1)
        self.convs = nn.Sequential(
            ConvReLU(2 * context, 2 * context, 3),
            ConvReLU(2 * context, context, 5),
            ConvReLU(context, context, 7),
            ConvReLU(context, context, 9),
        )
        self.last = ConvReLU(context, context, 1)
        self.classify = classify

    def forward(self, own_NCHW: Tensor, other_NCHW: Tensor, context_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([self.own_remap(own_NCHW), self.other_remap(other_NCHW), context_NCHW], dim=1)
        context_NCHW = self.convs(joined)
        return self.classify(self.last(context_NCHW)), context_NCHW


class JPPNet(nn.Module):
    """Images (N, 3, H, W), blue, green, red minus their means, to parsing logits and pose maps.

    `depths` are the unit counts of the four stages, `width` the channels of the stem and `context` those that the
    nets hand on; the defaults are the published ones.
    """

    def __init__(self, depths: Sequence[int] = (3, 4, 23, 3), width: int = 64, context: int = 256) -> None:
        super().__init__()
        if len(depths) != 4 or min(depths) < 1:
            raise DataError(f"depths must be four positive unit counts, got {tuple(depths)}")
        if context < 2 or context % 2:
            raise DataError(f"context must be an even number of channels, got {context}")
        self.backbone = Backbone(depths, width)
        self.parsing1 = ParsingNet(width * 32, context)
        self.pose1 = PoseNet(width * 16, context)
        self.pose2 = Refinement(JOINTS, LABELS, context, nn.Conv2d(context, JOINTS, 1))
        self.parsing2 = Refinement(LABELS, JOINTS, context, AtrousSum(context))
        self.parsing3 = Refinement(LABELS, JOINTS, context, AtrousSum(context))

    def forward(self, images_NCHW: Tensor) -> Outputs:
        if images_NCHW.ndim != 4 or images_NCHW.shape[1] != 3:
            raise ValueError(f"images must be (N, 3, H, W), got {tuple(images_NCHW.shape)}")
        stage4, stage5 = self.backbone(images_NCHW)
        parsing1, parsing_context = self.parsing1(stage5)
        pose1, pose_context = self.pose1(stage4)
        pose2, _ = self.pose2(pose1, parsing1, pose_context)
        parsing2, parsing_context = self.parsing2(parsing1, pose1, parsing_context)
        parsing3, _ = self.parsing3(parsing2, pose2, parsing_context)
        return Outputs((parsing1, parsing2, parsing3), (pose1, pose2))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after an axis of `size` under TensorFlow's "SAME" (ceil(size/stride) outputs)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x_NCHW: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad images as TensorFlow's "SAME" does."""
    rows, columns = (same_padding(size, kernel, stride) for size in x_NCHW.shape[2:])
    return F.pad(x_NCHW, (*columns, *rows), value=value)


def tf_names(model: JPPNet) -> dict[str, str]:
    """Map every entry of the model's state dict to its published TensorFlow variable (kernels HWIO, ours OIHW)."""
    names: dict[str, str] = {}
    for name, scope in _scopes(model):
        module = model.get_submodule(name)
        kernel, bias = ("w", "b") if "/" in scope else ("weights", "biases")
        leaves = _BN_LEAVES if isinstance(module, FixedBatchNorm) else {"weight": kernel, "bias": bias}
        names |= {f"{name}.{leaf}": f"{scope}/{leaves[leaf]}" for leaf in module.state_dict()}
    return names


def _scopes(model: JPPNet) -> Iterator[tuple[str, str]]:
    """Yield every layer with weights, with our name and the published one."""
    yield from _backbone_scopes(model.backbone)
    yield from ((f"parsing1.classify.rates.{i}", f"fc1_human_c{i}") for i in range(len(RATES)))
    yield from ((f"parsing1.convs.{i}", f"res5d_branch2{'ab'[i]}_parsing") for i in range(2))
    yield from ((f"pose1.convs.{i}", f"fc1_pose/pose_conv{i + 1}") for i in range(6))
    yield from ((f"pose1.classify.{i}", f"fc1_pose/pose_conv{i + 7}") for i in range(2))
    yield "pose2.own_remap", "fc2_pose/pose_remap"
    yield "pose2.other_remap", "fc2_pose/parsing_remap"
    yield from ((f"pose2.convs.{i}", f"fc2_pose/conv{i + 1}") for i in range(4))
    yield "pose2.last", "fc2_pose/conv5"
    yield "pose2.classify", "fc2_pose/conv6"
    for ours, theirs in (("parsing2", "fc2_parsing"), ("parsing3", "fc3_parsing")):
        yield f"{ours}.own_remap", f"{theirs}/parsing_remap"
        yield f"{ours}.other_remap", f"{theirs}/pose_remap"
        yield from ((f"{ours}.convs.{i}", f"{theirs}/parsing_conv{i + 1}") for i in range(4))
        yield f"{ours}.last", f"{theirs}/parsing_conv5"
        yield from ((f"{ours}.classify.rates.{i}", f"{theirs}/parsing_human{i + 1}") for i in range(len(RATES)))


def _backbone_scopes(backbone: Backbone) -> Iterator[tuple[str, str]]:
    yield "backbone.conv1", "conv1"
    yield "backbone.bn1", "bn_conv1"
    for stage in (2, 3, 4, 5):
        for index, unit in enumerate(backbone.get_submodule(f"stage{stage}").children()):
            for part, branch in _PARTS.items():
                if getattr(unit, f"conv_{part}") is not None:
                    scope = f"{stage}{_unit_id(stage, index)}_{branch}"
                    yield f"backbone.stage{stage}.{index}.conv_{part}", f"res{scope}"
                    yield f"backbone.stage{stage}.{index}.bn_{part}", f"bn{scope}"


def _unit_id(stage: int, index: int) -> str:
    """Return the published unit name: a, b, c in the short stages; a, b1, b2, ... in stages 3 and 4."""
    return f"b{index}" if index and stage in (3, 4) else chr(ord("a") + index)


def _stage(in_channels: int, mid: int, units: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    rest = (Unit(mid * EXPANSION, mid, 1, dilation) for _ in range(units - 1))
    return nn.Sequential(Unit(in_channels, mid, stride, dilation), *rest)
