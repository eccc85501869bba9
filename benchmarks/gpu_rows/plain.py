"""Both streams' networks written plainly, as their papers and the released code describe them, without this project.

They have the published names, so that they take the weights of `sptskm.models` and must give the same numbers.
Legend: B clips, T frames, N = B*T images, C channels, H rows, W columns, V joints, K partitions, P positions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Outputs = tuple[list[Tensor], Tensor]
"""Logits of each classifier, and the embedding."""


class Bottleneck(nn.Module):
    def __init__(self, before: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or before != 4 * planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


def trunk(counts: tuple[int, ...]) -> nn.Sequential:
    """Build a ResNet without pooling and classifier."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    before = 64
    for stage, count in enumerate(counts):
        planes = 64 * 2**stage
        blocks = []
        for number in range(count):
            blocks.append(Bottleneck(before, planes, 2 if stage and not number else 1))
            before = 4 * planes
        layers.append(nn.Sequential(*blocks))
    return nn.Sequential(*layers)


class Attention(nn.Module):
    def __init__(self, channels: int, projected: int) -> None:
        super().__init__()
        self.f, self.g, self.h, self.m = (nn.Conv2d(channels, projected, 1) for _ in range(4))
        self.v = nn.Conv2d(projected, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        N, _, H, W = x.shape
        f = self.f(x).view(N, -1, H * W)
        g = self.g(x).view(N, -1, H * W)
        h = self.h(mask).view(N, -1, H * W)
        attention = F.softmax(torch.bmm(f.permute(0, 2, 1), g), dim=-1)
        mask_attention = F.softmax(torch.bmm(h, attention.permute(0, 2, 1)), dim=-1)
        out = self.v(self.m(x) * mask_attention.view(N, -1, H, W))
        return self.gamma * out + x


class Down(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, 2, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(x)


class BasicBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = Down(before, after) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(BasicBlock(before, after, 2), BasicBlock(after, after, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MaskConv(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(before, after, 3, 1, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2d(x))


class MaskLayer(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.mask_block = nn.Sequential(MaskConv(before, after), MaskConv(after, after), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.mask_block(x)


class PlainSSIN(nn.Module):
    """The published 2D network of frames (B, T, 3, H, W) and masks (B, T, H, W)."""

    def __init__(self, classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.dropout = dropout
        self.img_base, self.mask_base = trunk((3, 4, 6, 3)), trunk((1, 1, 1, 1))
        self.attenblock0, self.attenblock1, self.attenblock2 = (
            Attention(2048, 256),
            Attention(1024, 256),
            Attention(512, 128),
        )
        self.conv_layer1, self.conv_layer2 = Residual(2048, 1024), Residual(1024, 512)
        self.mask_layer1, self.mask_layer2 = MaskLayer(2048, 1024), MaskLayer(1024, 512)
        self.glob_layer1, self.glob_layer2 = Residual(2048, 1024), Residual(1024, 512)
        self.fc_img, self.fc_mask, self.fc_glob = (nn.Linear(512, 1024) for _ in range(3))
        self.img_feat_bn, self.mask_feat_bn, self.glob_feat_bn = (nn.BatchNorm1d(1024) for _ in range(3))
        self.conv_cls, self.mask_cls, self.glob_cls = (nn.Linear(1024, classes) for _ in range(3))

    def forward(self, frames: Tensor, masks: Tensor) -> Outputs:
        B, T, C, H, W = frames.shape
        x = self.img_base(frames.view(B * T, C, H, W))
        k = self.mask_base(masks.view(B * T, 1, H, W).repeat(1, 3, 1, 1))
        g = self.over_time(self.attenblock0(x, k), B, T)
        x, k = self.conv_layer1(x), self.mask_layer1(k)
        g = self.glob_layer1(g) + self.over_time(self.attenblock1(x, k), B, T)
        x, k = self.conv_layer2(x), self.mask_layer2(k)
        g = self.glob_layer2(g) + self.over_time(self.attenblock2(x, k), B, T)
        x, k, g = (F.adaptive_avg_pool2d(F.relu(y), 1).flatten(1) for y in (x, k, g))
        x = self.img_feat_bn(self.fc_img(x)).view(B, T, -1).max(dim=1)[0]
        k = self.mask_feat_bn(self.fc_mask(k)).view(B, T, -1).max(dim=1)[0]
        g = self.glob_feat_bn(self.fc_glob(g))
        embedding = F.normalize(torch.cat([x, k, g], dim=1), dim=1)
        drop = [F.dropout(y, self.dropout, self.training) for y in (x, k, g)]
        return [self.conv_cls(drop[0]), self.mask_cls(drop[1]), self.glob_cls(drop[2])], embedding

    @staticmethod
    def over_time(x: Tensor, B: int, T: int) -> Tensor:
        return x.view(B, T, *x.shape[1:]).max(dim=1)[0]


class GraphConv(nn.Module):
    def __init__(self, before: int, after: int, partitions: int) -> None:
        super().__init__()
        self.partitions = partitions
        self.conv = nn.Conv2d(before, after * partitions, 1)

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        x = self.conv(x)
        B, KC, T, V = x.shape
        x = x.view(B, self.partitions, KC // self.partitions, T, V)
        return torch.einsum("nkctv,kvw->nctw", (x, A)).contiguous()


class GraphBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int, dropout: float, first: bool) -> None:
        super().__init__()
        self.gcn = GraphConv(before, after, 3)
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, (9, 1), (stride, 1), (4, 0)),
            nn.BatchNorm2d(after),
            nn.Dropout(dropout, inplace=True),
        )
        self.first, self.residual = first, None
        if not first and (before != after or stride != 1):
            self.residual = nn.Sequential(nn.Conv2d(before, after, 1, (stride, 1)), nn.BatchNorm2d(after))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        identity: Any = 0 if self.first else x if self.residual is None else self.residual(x)
        return self.relu(self.tcn(self.gcn(x, A)) + identity)


class PlainSMIN(nn.Module):
    """The published network of skeletons (B, 4, T, V), all frames of which are valid."""

    def __init__(self, classes: int, A: Tensor, dropout: float = 0.5) -> None:
        super().__init__()
        self.register_buffer("A", A)
        self.data_bn = nn.BatchNorm1d(4 * 14)
        sizes = [
            (4, 64, 1),
            *[(64, 64, 1)] * 3,
            (64, 128, 2),
            *[(128, 128, 1)] * 2,
            (128, 256, 2),
            *[(256, 256, 1)] * 2,
        ]
        self.st_gcn_networks = nn.ModuleList(
            GraphBlock(*size, dropout if n else 0.0, first=not n) for n, size in enumerate(sizes)
        )
        self.edge_importance = nn.ParameterList([nn.Parameter(torch.ones(A.size())) for _ in sizes])
        self.fc, self.feat_bn, self.cls = nn.Linear(256, 1024), nn.BatchNorm1d(1024), nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Outputs:
        B, C, T, V = x.shape
        x = self.data_bn(x.permute(0, 3, 1, 2).contiguous().view(B, V * C, T))
        x = x.view(B, V, C, T).permute(0, 2, 3, 1).contiguous()
        for block, importance in zip(self.st_gcn_networks, self.edge_importance, strict=True):
            x = block(x, self.A * importance)
        feature = self.feat_bn(self.fc(F.avg_pool2d(x, x.size()[2:]).view(B, -1)))
        return [self.cls(feature)], F.normalize(feature, dim=1)


def smoothed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the released label-smoothed cross entropy."""
    logs = F.log_softmax(logits, dim=1)
    targets = torch.zeros_like(logs).scatter_(1, labels.unsqueeze(1), 1)
    targets = 0.9 * targets + 0.1 / logs.size(1)
    return (-targets * logs).mean(0).sum()


def triplet(embedding: Tensor, labels: Tensor) -> Tensor:
    """Compute the released batch-hard triplet loss, anchor by anchor."""
    n = embedding.size(0)
    squares = embedding.pow(2).sum(dim=1, keepdim=True).expand(n, n)
    distances = (squares + squares.t() - 2 * embedding @ embedding.t()).clamp(min=1e-12).sqrt()
    same = labels.expand(n, n).eq(labels.expand(n, n).t())
    positive = torch.stack([distances[i][same[i]].max() for i in range(n)])
    negative = torch.stack([distances[i][~same[i]].min() for i in range(n)])
    return F.margin_ranking_loss(negative, positive, torch.ones(n), margin=0.3)
