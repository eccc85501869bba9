"""Compute the losses of the streams.

Legend: B clips of this rank, G clips of the global batch, D embedding.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sptskm.models.full_precision import full_precision

Gather = Callable[[Tensor], Tensor]


def identity_loss(logits_BN: Tensor, labels_B: Tensor, smoothing: float) -> Tensor:
    """Compute the mean cross entropy against (1-e)*onehot + e/N over N classes (Szegedy et al. 2016)."""
    return F.cross_entropy(full_precision(logits_BN), labels_B, label_smoothing=smoothing)


def batch_hard_triplet(embedding_BD: Tensor, labels_B: Tensor, margin: float, gather: Gather) -> Tensor:
    """Compute the batch-hard triplet hinge loss (Hermans et al. 2017), mean over this rank's anchors.

    Positives and negatives are mined in the global batch. `gather` concatenates over ranks and returns gradients, so
    that the mean over ranks has the value and the gradient of one process. The hardest positive is the anchor itself
    when it has no other. In a batch of a single identity the loss is zero; `Setup` refuses such a batch, because a
    check here would make the CPU wait for the GPU.
    """
    embedding_BD = full_precision(embedding_BD)
    distance_BG = euclidean(embedding_BD, gather(embedding_BD))
    same_BG = labels_B[:, None] == gather(labels_B)[None, :]
    hardest_positive_B = distance_BG.masked_fill(~same_BG, -torch.inf).amax(dim=1)
    hardest_negative_B = distance_BG.masked_fill(same_BG, torch.inf).amin(dim=1)
    return F.relu(hardest_positive_B - hardest_negative_B + margin).mean()


def batch_all_triplet(parts_BPD: Tensor, labels_B: Tensor, margin: float, gather: Gather) -> Tensor:
    """Compute the batch-all triplet hinge loss of every part (Hermans et al. 2017), and its mean over parts.

    A part's loss is the mean over the triplets of the global batch whose hinge is not zero, or zero if there are none.
    This rank adds up those of its own anchors, times the number of ranks: the mean over ranks has the value and the
    gradient of one process.
    """
    parts_PBD = full_precision(parts_BPD).transpose(0, 1)
    every_PGD = gather(full_precision(parts_BPD).contiguous()).transpose(0, 1)
    distance_PBG = torch.stack([euclidean(own, every) for own, every in zip(parts_PBD, every_PGD, strict=True)])
    labels_G = gather(labels_B)
    same_BG = labels_B[:, None] == labels_G[None, :]
    hinge_PBGG = F.relu(distance_PBG[..., :, None] - distance_PBG[..., None, :] + margin)
    hinge_PBGG = hinge_PBGG * (same_BG[:, :, None] & ~same_BG[:, None, :])
    counts_RP = gather((hinge_PBGG > 0).sum(dim=(1, 2, 3))[None])  # of every rank R
    return len(counts_RP) * (hinge_PBGG.sum(dim=(1, 2, 3)) / counts_RP.sum(dim=0).clamp(min=1)).mean()


def euclidean(x_BD: Tensor, y_GD: Tensor) -> Tensor:
    """Compute distances (B, G) as sqrt(max(|x|^2 + |y|^2 - 2xy, 1e-12)), as published."""
    squared_BG = x_BD.square().sum(1)[:, None] + y_GD.square().sum(1)[None, :] - 2 * x_BD @ y_GD.T
    return squared_BG.clamp(min=1e-12).sqrt()
