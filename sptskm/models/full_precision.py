"""Arithmetic that must not be rounded to half precision, whatever the rest of a network computes in.

Legend: B clips, K numbers of a clip, S numbers of the result.
"""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Convert half precision to float32, and leave other types: sums over many values in half are inaccurate."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def exact_product(rows_BK: Tensor, matrix_KS: Tensor) -> Tensor:
    """Multiply in the precision of the inputs; a matrix product would be rounded to bfloat16 under autocast."""
    return (rows_BK[:, :, None] * matrix_KS).sum(dim=1)
