"""The static branch of the gait stream: average silhouettes, compared by a metric learned on the training people.

The average of a clip's aligned silhouettes (Han and Bhanu, "Individual recognition using gait energy image", TPAMI
2006) is turned so that all people walk the same way, and cut into bands of rows. Each band has a metric of its own:
its main directions are whitened by how they differ between walks of the same person (within-class covariance
normalisation: Hatch et al., Interspeech 2006). What clothes change counts little where training people change theirs.
Legend: B clips, T frames, H rows, W columns, N tracklets, S pixels of a band, D directions.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sptskm.models.full_precision import exact_product

Floats = NDArray[np.float64]

HALF = 2  # averages are compared at half the size of silhouettes
DIRECTIONS = 100
"""Main directions of a band in which its average silhouettes are compared."""
SHRINK = 0.3
"""Share of the mean variance in the covariance within people: a dozen people cannot tell all directions apart."""
_LEAST = 1e-6  # a direction with less than this share of the largest deviation says nothing


class AverageSilhouettes(nn.Module):
    """Module from silhouettes (B, T, H, W) and optional valid frames (B, T) to vectors (B, `dim`) of length 1.

    `rows` has the first row and the end of each band, as rows of a silhouette of `height`; without any, all rows are
    one band. `fit` sets the constants, which are buffers and so part of every checkpoint. Before it all vectors are 0.
    """

    way: Tensor

    def __init__(self, height: int, width: int, rows: Sequence[int] = ()) -> None:
        super().__init__()
        rows = rows or (0, height)
        self.bands = [slice(first // HALF, end // HALF) for first, end in zip(rows[::2], rows[1::2], strict=True)]
        self.register_buffer("way", torch.zeros(height // HALF, width // HALF))
        for number, band in enumerate(self.bands):
            mean_HW = torch.zeros_like(self.way[band])
            self.register_buffer(f"mean{number}", mean_HW.flatten())
            self.register_buffer(f"directions{number}", torch.zeros(mean_HW.numel(), DIRECTIONS))
        self.dim = DIRECTIONS * len(self.bands)

    def forward(self, silhouettes: Tensor, valid: Tensor | None = None) -> Tensor:
        turned_BHW = self.turned(self.averages(silhouettes, valid))
        bands = []
        for number, band in enumerate(self.bands):
            mean_S, directions_SD = self.get_buffer(f"mean{number}"), self.get_buffer(f"directions{number}")
            apart_BS = turned_BHW[:, band].flatten(1) - mean_S
            bands.append(F.normalize(exact_product(apart_BS, directions_SD), dim=1))
        return torch.cat(bands, dim=1) / len(bands) ** 0.5

    def averages(self, silhouettes: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute average silhouettes (B, H/2, W/2); zeros for a clip without a valid frame."""
        silhouettes = silhouettes.to(self.way.dtype)
        if valid is None:
            average_BHW = silhouettes.mean(dim=1)
        else:
            share_BT = valid / valid.sum(dim=1, keepdim=True).clamp(min=1)
            average_BHW = (silhouettes * share_BT.to(silhouettes)[:, :, None, None]).sum(dim=1)
        return F.avg_pool2d(average_BHW[:, None], HALF)[:, 0]

    def turned(self, averages: Tensor) -> Tensor:
        """Mirror average silhouettes (B, H/2, W/2) of people who walk against the way of the others."""
        mirrored_BHW = averages.flip(2)
        against_B = ((averages - mirrored_BHW) * self.way).sum(dim=(1, 2)) < 0
        return torch.where(against_B[:, None, None], mirrored_BHW, averages)

    @torch.no_grad()
    def fit(self, averages_NHW: Tensor, pids_N: NDArray[np.int64]) -> None:
        """Set the constants from average silhouettes of training tracklets (N, H/2, W/2) and their pids (N,)."""
        averages_NHW = averages_NHW.to(self.way)
        apart_NS = (averages_NHW - averages_NHW.flip(2)).flatten(1)
        self.way.copy_(torch.from_numpy(main_directions(apart_NS.double().cpu().numpy())[:, 0]).view_as(self.way))
        turned_NHW = self.turned(averages_NHW)
        for number, band in enumerate(self.bands):
            mean_S, directions_SD = within_whitened(turned_NHW[:, band].flatten(1).double().cpu().numpy(), pids_N)
            self.get_buffer(f"mean{number}").copy_(torch.from_numpy(mean_S))
            self.get_buffer(f"directions{number}").copy_(torch.from_numpy(directions_SD))


def main_directions(apart_NS: Floats) -> Floats:
    """Return the orthogonal directions (S, DIRECTIONS) of largest deviation from 0, the largest first.

    A direction's largest number is positive. Directions in which nothing deviates are 0.
    """
    _, deviations, axes = np.linalg.svd(apart_NS, full_matrices=False)
    axes = axes[deviations > _LEAST * deviations[0]][:DIRECTIONS]
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1))
    directions_SD = np.zeros((apart_NS.shape[1], DIRECTIONS))
    directions_SD[:, : len(axes)] = (axes * signs).T
    return directions_SD


def within_whitened(values_NS: Floats, pids_N: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the mean (S,) and directions (S, D) along which walks of the same person deviate by 1.

    The covariance within people is shrunk by SHRINK toward its mean variance. If nobody has two walks that differ, the
    directions are only orthogonal.
    """
    mean_S = values_NS.mean(axis=0)
    directions_SD = main_directions(values_NS - mean_S)
    values_ND = (values_NS - mean_S) @ directions_SD
    _, person_N, counts_P = np.unique(pids_N, return_inverse=True, return_counts=True)
    sums_PD = np.zeros((len(counts_P), DIRECTIONS))
    np.add.at(sums_PD, person_N, values_ND)
    within_ND = values_ND - (sums_PD / counts_P[:, None])[person_N]
    covariance_DD = within_ND.T @ within_ND / len(values_ND)
    used = directions_SD.any(axis=0)
    variance = np.trace(covariance_DD) / max(used.sum(), 1)
    if variance <= _LEAST**2:
        return mean_S, directions_SD
    shrunk_DD = (1 - SHRINK) * covariance_DD + SHRINK * variance * np.eye(DIRECTIONS)
    variances_D, axes_DD = np.linalg.eigh(shrunk_DD)
    return mean_S, directions_SD @ axes_DD / np.sqrt(variances_D)
