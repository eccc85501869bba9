"""Dropout whose random numbers are cheap on a CPU. Legend: M numbers, P = ceil(M / 8) random bytes."""

import torch
from torch import Tensor, nn

from sptskm.models.full_precision import full_on_cpu


class Dropout(nn.Dropout):
    """Dropout of independent numbers (Srivastava et al., JMLR 2014) that draws one bit for each at a rate of a half.

    PyTorch draws 64 bits for each number on a CPU, one after the other: an eighth of a training step of SMIN. Other
    rates and devices and half precision have PyTorch's dropout.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.p == 0.5 and full_on_cpu(x):
            return x * _zero_or_two(x)
        return super().forward(x)


@torch.no_grad()
def _zero_or_two(x: Tensor) -> Tensor:
    """Return 0 or 2, each with probability a half, for every number of x, in its layout."""
    bytes_P = torch.randint(256, (-(-x.numel() // 8),), dtype=torch.uint8)
    bits_8P = (bytes_P >> torch.arange(8, dtype=torch.uint8)[:, None]) & 1
    drawn = torch.empty_like(x)
    drawn.as_strided((x.numel(),), (1,)).copy_(bits_8P.flatten()[: x.numel()])
    return drawn.mul_(2)
