"""ResNet trunk (He et al. 2016) without pooling and classifier, with torchvision's key names.

ReLU and the sum of a block are done in place: nothing else needs what BN or a convolution has made, and new memory
costs as much as the arithmetic.
Legend: N images, C channels, H rows, W columns, P positions of the result, M = N*P.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sptskm.common.errors import ConfigError

EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1: (N, C_in, H, W) to (N, 4*planes, H/s, W/s)."""

    recomputable = True

    def __init__(self, in_channels: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = planes * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        identity = x_NCHW if self.downsample is None else self.downsample(x_NCHW)
        y = self.bn1(self.conv1(x_NCHW)).relu_()
        y = self.bn2(self.conv2(y)).relu_()
        return self.bn3(self.conv3(y)).add_(identity).relu_()


class GreyConv(nn.Conv2d):
    """Convolution of images whose channels are all the same: these may be given as one channel.

    The weights are then summed over the channels, which gives the same by linearity for a third of the arithmetic and
    without the copies of the image. Parameters, and the gradient of each, are those of the published convolution.
    """

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if x_NCHW.shape[1] > 1:
            return super().forward(x_NCHW)
        return self._conv_forward(x_NCHW, self.weight.sum(dim=1, keepdim=True), self.bias)


class ResNet(nn.Module):
    """Images (N, 3, H, W) to features (N, 32*width, H/32, W/32).

    `depths` are the bottleneck counts of the four stages ((3, 4, 6, 3) is ResNet-50), `width` the
    channels of the stem (64 in the paper). With `grey` the three channels of an image are the same, and it may be
    given as (N, 1, H, W). `last_stride` is that of the fourth stage; with 1 the map is (H/16, W/16).
    """

    def __init__(
        self, depths: Sequence[int] = (3, 4, 6, 3), width: int = 64, *, grey: bool = False, last_stride: int = 2
    ) -> None:
        super().__init__()
        if len(depths) != 4 or min(depths) < 1:
            raise ConfigError(f"depths must be four positive block counts, got {tuple(depths)}")
        self.out_channels = 8 * width * EXPANSION
        kind = GreyConv if grey else nn.Conv2d
        self.conv1 = kind(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(width, width, depths[0], stride=1)
        self.layer2 = _stage(width * 4, width * 2, depths[1], stride=2)
        self.layer3 = _stage(width * 8, width * 4, depths[2], stride=2)
        self.layer4 = _stage(width * 16, width * 8, depths[3], stride=last_stride)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.as_sequential()(x_NCHW)

    def as_sequential(self) -> nn.Sequential:
        """Return the same layers as a list: index 0 is conv1, 1 bn1, 4..7 layer1..4 (SSIN's published key names)."""
        return nn.Sequential(*self.children())


def _stage(in_channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, planes, stride)
    rest = (Bottleneck(planes * EXPANSION, planes) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


LARGE = 4_000_000
"""Numbers of weights; small networks keep the bits of their convolutions."""


class WideConv(nn.Conv2d):
    """Convolution, without bias, whose weights may far outnumber the positions it is applied at.

    Where it is, a CPU's backward pass of a strided convolution takes twice the time of a product of the weights with
    the patches of the image, which gives the same numbers within rounding. GPUs, half precision and passes without
    gradient keep the convolution.
    """

    def forward(self, x_NCHW: Tensor) -> Tensor:
        plain = x_NCHW.device.type != "cpu" or torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled()
        if plain or self.weight.numel() < max(LARGE, 4 * x_NCHW.numel()):
            return super().forward(x_NCHW)
        rows = (x_NCHW.shape[2] + 2 * int(self.padding[0]) - self.kernel_size[0]) // self.stride[0] + 1
        patches_NCP = F.unfold(x_NCHW, self.kernel_size, self.dilation, self.padding, self.stride)  # type: ignore[arg-type]
        patches_MC = patches_NCP.transpose(1, 2).flatten(0, 1)
        y_MC = patches_MC @ self.weight.flatten(1).T
        return y_MC.unflatten(0, (len(x_NCHW), rows, -1)).permute(0, 3, 1, 2).contiguous()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and an identity (published key of its projection: `downsample.downsample`)."""

    recomputable = True

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = WideConv(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = WideConv(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: Projection | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = Projection(in_channels, out_channels, stride)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        identity = x_NCHW if self.downsample is None else self.downsample(x_NCHW)
        y = self.bn1(self.conv1(x_NCHW)).relu_()
        return self.bn2(self.conv2(y)).add_(identity).relu_()


class Projection(nn.Module):
    """1x1 convolution with the stride, and BN."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.downsample = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.downsample(x_NCHW)


class ResidualLayer(nn.Module):
    """Two basic blocks, the first with stride 2: (N, C_in, H, W) to (N, C_out, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(BasicBlock(in_channels, out_channels, 2), BasicBlock(out_channels, out_channels))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.layers(x_NCHW)


class ConvRelu(nn.Module):
    """3x3 convolution without bias, and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.conv2d(x_NCHW).relu_()


class MaskLayer(nn.Module):
    """Two 3x3 convolutions with ReLU, then max pooling: (N, C_in, H, W) to (N, C_out, H/2, W/2).

    Odd sizes are rounded up like in the parallel strided convolutions; published sizes are even.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.mask_block = nn.Sequential(
            ConvRelu(in_channels, out_channels), ConvRelu(out_channels, out_channels), nn.MaxPool2d(2, ceil_mode=True)
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.mask_block(x_NCHW)


@torch.no_grad()
def kaiming_fan_out(module: nn.Module) -> None:
    """Initialise a convolution as published: Kaiming normal, fan-out, ReLU gain."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
