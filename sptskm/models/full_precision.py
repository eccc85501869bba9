"""Arithmetic that must not be rounded to half precision, and where a CPU computes without rounding to it.

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


def full_on_cpu(x: Tensor) -> bool:
    """Tell whether a CPU computes in the precision of x, without autocast."""
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def eager_on_cpu(x: Tensor) -> bool:
    """Tell whether a CPU computes in the precision of x right away, without a compiler or an export."""
    return full_on_cpu(x) and not torch.compiler.is_compiling()
