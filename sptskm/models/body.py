"""The static branch of SMIN: what a clip says about the body, compared by a metric learned on the training people.

The measures of a clip are medians over its frames: lengths of bones, widths, heights and the mean posture, left and
right averaged. Their metric is that of the two-covariance model (Ioffe, "Probabilistic linear discriminant analysis",
ECCV 2006): measures are whitened by how they differ between walks of the same person, and each direction counts by how
much people differ in it. A nearest neighbour on standardised bone lengths is the same without this weighting.
With `motion` there are also measures of how far each joint moves about the middle of the hips: the logarithms of the
ranges of its coordinates over time, without the tenth of the frames at either end.
Legend: B clips, T frames, V = 14 joints, L lengths, K numbers of one frame, S measures, N tracklets.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sptskm.data.skeletons import EDGES, JOINTS, MIRRORED
from sptskm.models.full_precision import exact_product

Floats = NDArray[np.float64]

_HEAD, _NECK = JOINTS.index("head"), JOINTS.index("neck")
_R_SHOULDER, _L_SHOULDER = JOINTS.index("right shoulder"), JOINTS.index("left shoulder")
_R_HIP, _L_HIP = JOINTS.index("right hip"), JOINTS.index("left hip")
_R_ANKLE, _L_ANKLE = JOINTS.index("right ankle"), JOINTS.index("left ankle")
_HIPS, _CHEST = len(JOINTS), len(JOINTS) + 1  # middle of the hips and of the shoulders, added to the joints

# lengths that are no bones: shoulders, hips, trunk, hips to neck and head, head to chest, and both diagonals
_ACROSS = (
    *((_R_SHOULDER, _L_SHOULDER), (_R_HIP, _L_HIP), (_HIPS, _CHEST), (_HIPS, _NECK), (_HIPS, _HEAD)),
    *((_HEAD, _CHEST), (_R_SHOULDER, _L_HIP), (_L_SHOULDER, _R_HIP)),
)
LENGTHS = (*EDGES, *_ACROSS)
_COORDINATES = len(LENGTHS) + 1  # their place among the numbers of a frame, behind lengths and height
_POSTURES = 20  # coordinates that are left when left and right are averaged

CLIP = 5.0
"""Largest distance of a measure from its mean, in standard deviations: a broken skeleton must not decide alone."""
LIFT = 0.25
"""Scale of the measures before they are put on the unit sphere; small values keep Euclidean distances."""
POOLED = 0.7
"""Share of the mean variance between people in each direction's own: a dozen people cannot tell them all apart."""
LEAST_FRAMES = 12
"""Valid frames of a clip from which ranges over time are measured: about half a second, or a step."""
_STILL = 0.01  # metres added to a range before its logarithm: what a sensor's noise may make of standing still
_LEAST = 1e-3  # smallest eigenvalue of the correlation within people
_CONSTANT = 1e-5  # standard deviation in metres below which a measure says nothing


def _mirror_of(length: tuple[int, int]) -> int:
    """Return the number of the length between the mirrored ends."""
    ends = {(MIRRORED[a] if a < len(JOINTS) else a) for a in length}
    return next(number for number, other in enumerate(LENGTHS) if set(other) == ends)


def _averaging() -> NDArray[np.float32]:
    """Return the matrix (K, S) that averages left and right: lengths, the height, then coordinates (14, 3) by joint."""
    columns = []
    count, height = len(LENGTHS), len(LENGTHS)
    total = count + 1 + 3 * len(JOINTS)
    for number, other in enumerate(map(_mirror_of, LENGTHS)):
        if number <= other:
            columns.append({number: 0.5, other: 0.5} if number < other else {number: 1.0})
    columns.append({height: 1.0})
    for joint, other in enumerate(MIRRORED):
        for axis in range(3):
            here, there = (height + 1 + 3 * j + axis for j in (joint, other))
            sign = -1 if axis == 0 else 1
            if joint < other and not (joint == _R_HIP and axis > 0):  # the middle of the hips is the origin
                columns.append({here: 0.5, there: 0.5 * sign})
            elif joint == other and axis > 0:
                columns.append({here: 1.0})
    matrix_KS = np.zeros((total, len(columns)), np.float32)
    for number, column in enumerate(columns):
        for place, share in column.items():
            matrix_KS[place, number] = share
    return matrix_KS


class BodyMeasures(nn.Module):
    """Module from skeletons (B, 4, T, 14) and valid frames (B, T) to unit vectors (B, S + 1).

    `motion` adds the ranges over time to the measures. `fit` sets the constants, which are buffers and so part of every
    checkpoint. Without it the measures of all clips have the same vector.
    """

    averaging: Tensor
    mean: Tensor
    scale: Tensor
    directions: Tensor

    def __init__(self, motion: bool = False) -> None:
        super().__init__()
        self.motion = motion
        averaging_KS = torch.from_numpy(_averaging())
        count = averaging_KS.shape[1]
        self.moving = slice(_COORDINATES, None), slice(count - _POSTURES, None)  # of K and S
        count += _POSTURES if motion else 0
        self.register_buffer("averaging", averaging_KS, persistent=False)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.zeros(count))
        self.register_buffer("directions", torch.eye(count))
        self.dim = count + 1

    def forward(self, skeletons: Tensor, valid: Tensor | None = None) -> Tensor:
        standard_BS = ((self.measures(skeletons, valid) - self.mean) * self.scale).clamp(-CLIP, CLIP)
        if self.motion:
            standard_BS = torch.where(standard_BS.isnan(), 0.0, standard_BS)  # what a short clip does not tell
        placed_BS = exact_product(standard_BS, self.directions) * LIFT
        return F.normalize(F.pad(placed_BS, (0, 1), value=1.0), dim=1)

    def measures(self, skeletons: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the measures (B, S) in the unit of the skeletons; zeros for a clip without a valid frame.

        Ranges over time are NaN for a clip with fewer than LEAST_FRAMES valid frames.
        """
        points = skeletons[:, :3]
        hips = (points[..., _R_HIP] + points[..., _L_HIP]) / 2
        points = points - hips[..., None]
        chest = (points[..., _R_SHOULDER] + points[..., _L_SHOULDER]) / 2
        with_middles = torch.cat([points, torch.zeros_like(chest)[..., None], chest[..., None]], dim=3)
        first, second = (list(ends) for ends in zip(*LENGTHS, strict=True))
        lengths_BTL = (with_middles[..., first] - with_middles[..., second]).square().sum(dim=1).sqrt()
        y = points[:, 1]
        height_BT1 = (torch.maximum(y[..., _R_ANKLE], y[..., _L_ANKLE]) - y[..., _HEAD])[..., None]
        coordinates_BTC = points.permute(0, 2, 3, 1).flatten(2)
        values_BTK = torch.cat([lengths_BTL, height_BT1, coordinates_BTC], dim=2)
        ordered_BTK, counts_B1 = _ordered(values_BTK, valid)
        medians_BS = exact_product(_at(ordered_BTK, (counts_B1 - 1).clamp(min=0) // 2), self.averaging)
        if not self.motion:
            return medians_BS
        cut_B1 = (counts_B1 - 1).clamp(min=0) // 10
        ranges_BK = _at(ordered_BTK, (counts_B1 - 1).clamp(min=0) - cut_B1) - _at(ordered_BTK, cut_B1)
        moving_BS = exact_product(ranges_BK[:, self.moving[0]], self.averaging[self.moving].abs())
        moving_BS = torch.where(counts_B1 < LEAST_FRAMES, torch.nan, (moving_BS + _STILL).log())
        return torch.cat([medians_BS, moving_BS], dim=1)

    def fit(self, measures_NS: Tensor, pids_N: NDArray[np.int64]) -> None:
        """Set the metric from the mean measures of the training tracklets (N, S) and their identities (N,).

        A measure that a tracklet does not tell (NaN) is taken to be the mean of the others.
        """
        if measures_NS.isnan().any():
            usual_S = measures_NS.nanmean(dim=0).nan_to_num()
            measures_NS = torch.where(measures_NS.isnan(), usual_S, measures_NS)
        mean_S, scale_S, directions_SS = two_covariance(measures_NS.double().cpu().numpy(), pids_N)
        for buffer, value in ((self.mean, mean_S), (self.scale, scale_S), (self.directions, directions_SS)):
            buffer.copy_(torch.from_numpy(value))


def _ordered(values_BTK: Tensor, valid_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the values of each clip in ascending order, valid frames first, and the numbers of valid frames (B, 1)."""
    if valid_BT is None:
        return values_BTK.sort(dim=1).values, torch.ones_like(values_BTK[..., 0], dtype=torch.int64).sum(
            1, keepdim=True
        )
    valid_BT1 = valid_BT.to(values_BTK.device)[..., None]
    return torch.where(valid_BT1, values_BTK, torch.inf).sort(dim=1).values, valid_BT1.sum(dim=1)


def _at(ordered_BTK: Tensor, place_B1: Tensor) -> Tensor:
    """Return the values (B, K) at a place in the order; 0 for a clip without a valid frame."""
    found_BK = ordered_BTK.gather(1, place_B1[..., None].expand(-1, 1, ordered_BTK.shape[2])).squeeze(1)
    return torch.where(torch.isfinite(found_BK), found_BK, 0.0)


def two_covariance(measures_NS: Floats, pids_N: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Return mean (S,), inverse standard deviation (S,) and directions (S, S) of the two-covariance metric.

    The squared distance of standardised measures times the directions is, up to a constant factor, the part of the
    log-likelihood ratio of "same person" that depends on their difference: a direction of variance 1 within and l
    between people counts l / (1 + 2 l). The correlation within people is shrunk toward the identity by the rule of
    Schaefer and Strimmer (2005), the variances between people toward their mean by POOLED. If no person has two
    tracklets, measures are only standardised.
    """
    mean_S, spread_S = measures_NS.mean(axis=0), measures_NS.std(axis=0)
    scale_S = np.divide(1.0, spread_S, out=np.zeros_like(spread_S), where=spread_S > _CONSTANT)
    standard_NS = np.clip((measures_NS - mean_S) * scale_S, -CLIP, CLIP)
    _, person_N, counts_P = np.unique(pids_N, return_inverse=True, return_counts=True)
    means_PS = np.stack([standard_NS[person_N == person].mean(axis=0) for person in range(len(counts_P))])
    freedom = len(standard_NS) - len(counts_P)
    if freedom == 0 or len(counts_P) < 2:
        return mean_S, scale_S, np.eye(len(mean_S))
    within_NS = (standard_NS - means_PS[person_N])[counts_P[person_N] > 1]
    whitening_SS = _whitening(within_NS, freedom)
    between_SS = np.cov((means_PS @ whitening_SS).T) - np.eye(len(mean_S)) * np.mean(1 / counts_P)
    pooled = max(np.trace(between_SS), 0.0) / len(mean_S)
    variances_S, axes_SS = np.linalg.eigh((1 - POOLED) * between_SS + POOLED * pooled * np.eye(len(mean_S)))
    variances_S = np.maximum(variances_S, 0)
    return mean_S, scale_S, whitening_SS @ axes_SS * np.sqrt(variances_S / (1 + 2 * variances_S))


def _whitening(within_NS: Floats, freedom: int) -> Floats:
    """Return the symmetric matrix that gives the deviations within people a shrunk covariance of 1."""
    deviation_S = np.sqrt((within_NS**2).sum(axis=0) / freedom)
    deviation_S[deviation_S < _CONSTANT] = 1.0
    scaled_NS = within_NS / deviation_S
    correlation_SS = scaled_NS.T @ scaled_NS / freedom
    count = len(scaled_NS)
    squared_NS = scaled_NS**2
    sums_SS = squared_NS.T @ squared_NS - 2 * freedom * correlation_SS**2 + count * correlation_SS**2
    error_SS = sums_SS / count**2  # variance of each correlation
    apart = ~np.eye(len(deviation_S), dtype=bool)
    squares = (correlation_SS[apart] ** 2).sum()
    shrunk = 1.0 if squares == 0 else min(1.0, error_SS[apart].sum() / squares)
    correlation_SS[apart] *= 1 - shrunk
    np.fill_diagonal(correlation_SS, 1.0)
    values_S, axes_SS = np.linalg.eigh(correlation_SS)
    root_SS = axes_SS / np.sqrt(np.maximum(values_S, _LEAST)) @ axes_SS.T
    return root_SS / deviation_S[:, None]
