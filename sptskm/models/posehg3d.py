"""pose-hg-3d, second version (Zhou et al., ICCV 2017): the 16 joints of a person as heat maps and depth maps.

A ResNet-50, three transposed convolutions and two 1x1 heads (Xiao et al., ECCV 2018). Layers carry the published
names, so that published weights load by name.
Legend: N images, C channels, J = 16 joints in MPII's order, H rows, W columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from sptskm.models.resnet import ResNet

NUM_JOINTS = 16


class PoseMaps(NamedTuple):
    """Likelihood of each joint and its depth at that position, both (N, 16, H/4, W/4) and unbounded.

    Trained toward Gaussians of height 1 and toward depths divided by the side of the cropped square.
    """

    hm_NJHW: Tensor
    depth_NJHW: Tensor


class PoseHG3D(nn.Module):
    """Network from normalised crops (N, 3, H, W), published 256 x 256, to maps of a quarter of their size.

    H and W are multiples of 32. `depths` are the bottleneck counts of the trunk, `width` the channels of its stem;
    the transposed convolutions have four times as many. The defaults are the published network.
    """

    def __init__(self, depths: Sequence[int] = (3, 4, 6, 3), width: int = 64) -> None:
        super().__init__()
        trunk = ResNet(depths, width)
        # published names have no prefix for the trunk, so its layers are attributes of this module
        self.conv1, self.bn1, self.relu, self.maxpool = trunk.conv1, trunk.bn1, trunk.relu, trunk.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4
        channels = 4 * width
        self.deconv_layers = nn.Sequential(
            *_upsampling(trunk.out_channels, channels),
            *_upsampling(channels, channels),
            *_upsampling(channels, channels),
        )
        self.depth = nn.Conv2d(channels, NUM_JOINTS, 1)
        self.hm = nn.Conv2d(channels, NUM_JOINTS, 1)

    def forward(self, x_N3HW: Tensor) -> PoseMaps:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x_N3HW))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        x = self.deconv_layers(x)
        return PoseMaps(self.hm(x), self.depth(x))


def _upsampling(in_channels: int, out_channels: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Build a transposed convolution that doubles height and width."""
    deconvolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
    return deconvolution, nn.BatchNorm2d(out_channels), nn.ReLU()
