"""ST-GCN (Yan et al., AAAI 2018) for one person, aware of frames that have no skeleton.

Invalid frames have no influence: temporal convolutions see zeros there (as in their padding), and batch statistics
and the final average leave them out. Padding therefore never changes a result.

On a CPU wide networks have the channels of a joint side by side ("channels last"), which saves the copies that other
orders need.

Legend: B clips, C channels, T frames, V joints, K graph partitions, F valid frames of the batch, N = B*T frames,
J joints that are the source of an edge in a partition, R such joints of all partitions.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sptskm.models.dropout import Dropout
from sptskm.models.full_precision import eager_on_cpu
from sptskm.models.graph import NUM_JOINTS, GraphName, adjacency

Pooling = Literal["mean", "mean+std"]
TEMPORAL_KERNEL = 9
LEAST_VARIANCE = 1e-5  # below it the root's slope would be too steep
WIDE = 32  # channels of the first block from which a network on a CPU has channels last; demos keep their roundings
# (output channels in units of width, temporal stride) of the ten blocks
BLOCKS = ((1, 1), (1, 1), (1, 1), (1, 1), (2, 2), (2, 1), (2, 1), (4, 2), (4, 1), (4, 1))


class Frames(NamedTuple):
    """Valid frames of a batch at one of the network's temporal resolutions."""

    valid_BT: Tensor
    places: tuple[Tensor, ...] | None
    """Clip and time (F,) of each valid frame, in order; None if no batch statistics are computed."""


class GraphConv(nn.Module):
    """Spatial graph convolution: (B, C_in, T, V) and A (K, V, V) to (B, C_out, T, V).

    `sources` are the joints of each partition that A carries anywhere; the other rows of A must be 0. Where they are
    given, a CPU takes channels last; without them the sum over partitions is written as in the published code.
    """

    def __init__(
        self, in_channels: int, out_channels: int, partitions: int, sources: Sequence[Sequence[int]] | None = None
    ) -> None:
        super().__init__()
        self.partitions = partitions
        self.conv = nn.Conv2d(in_channels, out_channels * partitions, 1)
        self.sources = sources

    def forward(self, x_BCTV: Tensor, A_KVV: Tensor) -> Tensor:
        if self.sources and eager_on_cpu(x_BCTV):
            return self._by_joints(x_BCTV, A_KVV, self.sources)
        y_BKCTV = self.conv(x_BCTV).unflatten(1, (self.partitions, -1))
        return torch.einsum("bkctv,kvw->bctw", y_BKCTV, A_KVV)

    def _by_joints(self, x_BCTV: Tensor, A_KVV: Tensor, sources: Sequence[Sequence[int]]) -> Tensor:
        """Convolve in each partition the joints that have an edge there, and sum over edges in one product a frame."""
        x_BTVC = x_BCTV.permute(0, 2, 3, 1)
        assert self.conv.bias is not None, "the published convolution has one"
        weights, biases = self.conv.weight.chunk(self.partitions), self.conv.bias.chunk(self.partitions)
        parts: list[Tensor] = []
        used: list[int] = []
        for k, joints in enumerate(sources):
            if joints:
                x_BTJC = x_BTVC if len(joints) == NUM_JOINTS else x_BTVC.index_select(2, torch.tensor(joints))
                y_BCTJ = F.conv2d(x_BTJC.permute(0, 3, 1, 2), weights[k], biases[k])
                parts.append(y_BCTJ.permute(0, 2, 3, 1))
                used += [k * NUM_JOINTS + joint for joint in joints]
        y_NRC = torch.cat(parts, dim=2).flatten(0, 1)
        A_VR = A_KVV.flatten(0, 1).index_select(0, torch.tensor(used)).T
        sum_NVC = torch.bmm(A_VR.expand(len(y_NRC), -1, -1), y_NRC)
        return sum_NVC.unflatten(0, x_BTVC.shape[:2]).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Graph convolution, BN, ReLU, temporal convolution, BN, dropout, residual (if any), ReLU."""

    recomputable = True

    def __init__(  # noqa: PLR0913  # the settings of a block
        self,
        in_channels: int,
        out_channels: int,
        partitions: int,
        *,
        sources: Sequence[Sequence[int]] | None = None,
        stride: int = 1,
        dropout: float = 0.0,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.has_residual = residual
        self.gcn = GraphConv(in_channels, out_channels, partitions, sources)
        kernel, pad = (TEMPORAL_KERNEL, 1), ((TEMPORAL_KERNEL - 1) // 2, 0)
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, kernel, (stride, 1), pad),
            nn.BatchNorm2d(out_channels),
            Dropout(dropout),
        )
        self.residual: nn.Sequential | None = None  # None means the identity
        if residual and (in_channels != out_channels or stride != 1):
            projection = nn.Conv2d(in_channels, out_channels, 1, (stride, 1))
            self.residual = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x_BCTV: Tensor, A_KVV: Tensor, before: Frames | None, after: Frames | None) -> Tensor:
        """Apply the block; `before` and `after` are the frames of input and output, None if all are valid."""
        bn_in, relu, conv, bn_out, dropout = self.tcn
        y = relu(batch_norm(bn_in, self.gcn(x_BCTV, A_KVV), before))
        y = dropout(batch_norm(bn_out, conv(y), after))
        return F.relu(self._add_residual(y, x_BCTV, after))

    def _add_residual(self, y_BCTV: Tensor, x_BCTV: Tensor, frames: Frames | None) -> Tensor:
        if not self.has_residual:
            return y_BCTV
        if self.residual is None:
            return y_BCTV + x_BCTV
        conv, bn = self.residual
        return y_BCTV + batch_norm(bn, conv(x_BCTV), frames)


class STGCN(nn.Module):
    """Network from skeletons (B, 4, T, 14) and optional valid frames (B, T) to pooled features (B, `out_channels`).

    Channels are x, y, z, confidence, and those of `in_channels` beyond four. Features are means over joints and time
    (4*width); with the pooling "mean+std" the standard deviations over time follow them. Without `valid` every frame
    counts. A clip without a valid frame gives zeros. Leave `valid` on the host, also for a network on a GPU: training
    looks up the valid frames there. The adjacency is the buffer `A`; each block scales it by learned `edge_importance`.
    """

    A: Tensor

    def __init__(
        self,
        graph: GraphName = "spatial",
        *,
        in_channels: int = 4,
        width: int = 64,
        dropout: float = 0.5,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        edges_KVV = adjacency(graph)
        A_KVV = torch.tensor(edges_KVV, dtype=torch.float32)
        partitions = A_KVV.shape[0]
        self.graph: GraphName = graph
        self.in_channels = in_channels
        self.pooling: Pooling = pooling
        self.out_channels = 4 * width * len(pooling.split("+"))
        self.register_buffer("A", A_KVV)
        self.data_bn = nn.BatchNorm1d(in_channels * NUM_JOINTS)
        self.sources = None
        if width >= WIDE:
            self.sources = [edges_VV.any(axis=1).nonzero()[0].tolist() for edges_VV in edges_KVV]
        blocks = [Block(in_channels, width, partitions, sources=self.sources, residual=False)]
        for (before, _), (after, stride) in pairwise(BLOCKS):
            channels = (before * width, after * width)
            blocks.append(Block(*channels, partitions, sources=self.sources, stride=stride, dropout=dropout))
        self.st_gcn_networks = nn.ModuleList(blocks)
        self.edge_importance = nn.ParameterList(nn.Parameter(torch.ones_like(A_KVV)) for _ in self.st_gcn_networks)
        self.frames_of = frames_of  # its shapes depend on values; `streams.compiled` keeps torch.compile out of it

    def forward(self, skeletons: Tensor, valid: Tensor | None = None) -> Tensor:
        self._check_shapes(skeletons, valid)
        frames: Sequence[Frames | None] = [None] * (1 + len(BLOCKS))
        if valid is not None:
            frames = self.frames_of(valid, [stride for _, stride in BLOCKS], skeletons.device, select=self.training)
        x = self._normalise_input(skeletons, frames[0])
        if self.sources and eager_on_cpu(x):
            x = x.contiguous(memory_format=torch.channels_last)
        ways = zip(self.st_gcn_networks, self.edge_importance, pairwise(frames), strict=True)
        for block, importance, (before, after) in ways:
            x = block(x, self.A * importance, before, after)
        return self._pool(x, frames[-1])

    def _pool(self, x_BCTV: Tensor, frames: Frames | None) -> Tensor:
        """Average over joints and valid frames, and append the standard deviation over time if asked to."""
        if frames is None:
            mean_BC = x_BCTV.mean(dim=(2, 3))
        else:
            count_B1 = frames.valid_BT.sum(dim=1, keepdim=True).clamp(min=1)
            mean_BC = x_BCTV.mean(dim=3).sum(dim=2) / count_B1
        if self.pooling == "mean":
            return mean_BC
        squares_BCT = (x_BCTV.mean(dim=3) - mean_BC[..., None]).square()
        if frames is None:
            variance_BC = squares_BCT.mean(dim=2)
        else:
            variance_BC = (squares_BCT * frames.valid_BT[:, None]).sum(dim=2) / count_B1
        return torch.cat([mean_BC, (variance_BC + LEAST_VARIANCE).sqrt()], dim=1)

    def _normalise_input(self, x_BCTV: Tensor, frames: Frames | None) -> Tensor:
        """Normalise each joint's coordinates by BN; the published channel order is joint * 4 + coordinate."""
        flat_BVCT = x_BCTV.permute(0, 3, 1, 2).flatten(1, 2)
        flat = batch_norm(self.data_bn, flat_BVCT, frames)
        return flat.unflatten(1, (NUM_JOINTS, -1)).permute(0, 2, 3, 1)

    def _check_shapes(self, skeletons: Tensor, valid: Tensor | None) -> None:
        if skeletons.dim() != 4 or skeletons.shape[1::2] != (self.in_channels, NUM_JOINTS):
            raise ValueError(
                f"skeletons must be (B, {self.in_channels}, T, {NUM_JOINTS}), got {tuple(skeletons.shape)}"
            )
        if valid is not None and valid.shape != skeletons.shape[::2]:
            raise ValueError(f"valid must be {tuple(skeletons.shape[::2])}, got {tuple(valid.shape)}")


def batch_norm(bn: nn.Module, x: Tensor, frames: Frames | None) -> Tensor:
    """Apply BN to (B, C, T) or (B, C, T, V) over the valid frames only; the others become zero.

    Frames are selected and not weighted: `bn` itself then computes the batch statistics, so synchronised BN counts
    valid frames over all ranks as well. With fixed statistics a frame does not depend on others: zeros are filled in
    afterwards, which gives the same result with shapes that do not depend on values.
    """
    if frames is None:
        return bn(x)
    frames_BTC = x.transpose(1, 2)  # (B, T, C[, V])
    if not bn.training:
        return torch.where(_like(frames.valid_BT, frames_BTC).transpose(1, 2), bn(x), 0)
    assert frames.places is not None, "a network in evaluation has no BN that trains"
    # (F, C, 1[, V]): with the axis of one place behind V, PyTorch 2.13's backward pass on a CPU mistakes some layouts
    selected = frames_BTC[frames.places].unsqueeze(2)
    # the next convolution would turn channels last back; in other layouts CPUs round as they always have
    kept = x.device.type != "cpu" or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    layout = torch.preserve_format if kept else torch.contiguous_format
    out = torch.zeros_like(frames_BTC, memory_format=layout)
    if len(selected):
        out.index_put_(frames.places, bn(selected).squeeze(2))
    return out.transpose(1, 2)


def frames_of(valid_BT: Tensor, strides: Sequence[int], device: torch.device, select: bool) -> list[Frames]:
    """Return the frames before and after each of these strides, on `device`; with `select` also their places.

    The number of valid frames determines shapes. The host counts them once for each resolution in its own memory; else
    every BN, and its backward pass, would wait for the device.
    """
    here_BT = valid_BT.cpu() if select else valid_BT.to(device)
    frames = [_frames(here_BT, device, select)]
    for stride in strides:
        if stride == 1:
            frames.append(frames[-1])
        else:
            here_BT = _strided(here_BT, stride)
            frames.append(_frames(here_BT, device, select))
    return frames


def _frames(valid_BT: Tensor, device: torch.device, select: bool) -> Frames:
    places = valid_BT.nonzero().T.contiguous().to(device, non_blocking=True).unbind() if select else None
    return Frames(valid_BT.to(device, non_blocking=True), places)


def _strided(valid_BT: Tensor, stride: int) -> Tensor:
    """Mark a strided position valid if any of its frames is, so that no clip loses its last valid frame.

    Padding at the end (and no shorter last window) gives the length of the convolutions for any T. The pooling is 2D
    because the exporter fixes T in 1D.
    """
    padded_B1T = F.pad(valid_BT.float(), (0, stride - 1)).unsqueeze(1)
    return F.max_pool2d(padded_B1T, (1, stride)).squeeze(1) > 0


def _like(valid_BT: Tensor, frames_BTC: Tensor) -> Tensor:
    return valid_BT.view(valid_BT.shape + (1,) * (frames_BTC.dim() - 2)).expand_as(frames_BTC)
