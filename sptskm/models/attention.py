"""SSIN's mask-guided attention: image features attend to each other, guided by the silhouette.

Energies are not scaled and reach thousands, where bfloat16 has steps of 16, and a softmax turns their differences
into ratios. Everything up to the attention is therefore computed in float32 or better, also under autocast.

Legend: B clips, N images, C channels, T frames, H rows, W columns, P positions, K projected channels.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from sptskm.models.full_precision import full_precision


class CrossAttention(nn.Module):
    """2D attention of SSIN, per image: image and mask features (N, C, H, W) to (N, C, H, W).

    energy E[p, q] = sum_k f[k, p] g[k, q] (no scaling), A = softmax over q, mask energy
    R[k, p] = sum_q h[k, q] A[p, q], mask attention S = softmax of R over positions,
    output = gamma * v(m * S) + X. f, g, m project the image features X, h the mask features.
    """

    def __init__(self, channels: int, projected: int) -> None:
        super().__init__()
        self.f = nn.Conv2d(channels, projected, 1)
        self.g = nn.Conv2d(channels, projected, 1)
        self.h = nn.Conv2d(channels, projected, 1)
        self.m = nn.Conv2d(channels, projected, 1)
        self.v = nn.Conv2d(projected, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, image_NCHW: Tensor, mask_NCHW: Tensor) -> Tensor:
        attention_NKP = self.attention(image_NCHW, mask_NCHW)
        m_NKHW = self.m(image_NCHW)
        attended_NKHW = m_NKHW * attention_NKP.view_as(m_NKHW)
        return self.gamma * self.v(attended_NKHW) + image_NCHW

    def attention(self, image_NCHW: Tensor, mask_NCHW: Tensor) -> Tensor:
        """Compute the mask attention S (N, K, P)."""
        with _no_autocast(image_NCHW):
            image, mask = full_precision(image_NCHW), full_precision(mask_NCHW)
            return mask_attention(self.f(image).flatten(2), self.g(image).flatten(2), self.h(mask).flatten(2))


class SpaceTimeAttention(nn.Module):
    """3D attention of SSIN over all positions of a clip: (B, C, T, H, W) twice to (B, C, T, H, W).

    As published, and unlike the 2D form: the query is h of the image features, the mask values are the
    same h of the mask features, all projections keep C channels, and there is no identity path:
    output = gamma * (m(X) * S) + BN(W_z(X)). The published layer f exists in checkpoints but is never
    used; it is frozen here because it can have no gradient.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.f = nn.Conv3d(channels, channels, 1).requires_grad_(False)
        self.g = nn.Conv3d(channels, channels, 1)
        self.h = nn.Conv3d(channels, channels, 1)
        self.m = nn.Conv3d(channels, channels, 1)
        self.W_z = nn.Sequential(nn.Conv3d(channels, channels, 1), nn.BatchNorm3d(channels))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, image_BCTHW: Tensor, mask_BCTHW: Tensor) -> Tensor:
        attention = self.attention(image_BCTHW, mask_BCTHW).view_as(image_BCTHW)
        attended = self.m(image_BCTHW) * attention
        return self.gamma * attended + self.W_z(image_BCTHW)

    def attention(self, image_BCTHW: Tensor, mask_BCTHW: Tensor) -> Tensor:
        """Compute the mask attention S (B, C, P)."""
        with _no_autocast(image_BCTHW):
            image, mask = full_precision(image_BCTHW), full_precision(mask_BCTHW)
            return mask_attention(self.h(image).flatten(2), self.g(image).flatten(2), self.h(mask).flatten(2))


def mask_attention(query_NKP: Tensor, key_NKP: Tensor, mask_NKP: Tensor) -> Tensor:
    """Compute the attention (N, K, P) that the silhouette guides; each channel sums to 1 over positions."""
    energy_NPQ = query_NKP.transpose(1, 2) @ key_NKP
    attention_NPQ = energy_NPQ.softmax(dim=-1)
    mask_energy_NKP = mask_NKP @ attention_NPQ.transpose(1, 2)
    return mask_energy_NKP.softmax(dim=-1)


def _no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return a context without autocast; an empty context if autocast is off already."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
