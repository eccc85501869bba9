"""Batch normalisation over all ranks that also runs on CPUs (torch's own needs GPUs).

Legend: W ranks, C channels; a batch is (B, C, ...), and a vector (C,) is seen as (1, C, 1, ...) where it meets one.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sptskm.models.full_precision import full_precision

Collective = Callable[[Tensor], Tensor]


class SyncedBatchNorm(_BatchNorm):
    """Batch normalisation whose statistics cover all positions of all ranks, also for unequal batches.

    It has the parameters, buffers and names of the layer it replaces, and gives the result of one process on the whole
    batch. It costs one collective in each direction; on CPUs the collectives cost more than the arithmetic.
    """

    gather: Collective
    """Concatenates the rows of all ranks: (1, ...) to (W, ...)."""
    total: Collective
    """Sums over ranks."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input, got {input.dim()}D")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = full_precision(input)
        mean_C, var_C, count = moments(x.detach(), self.gather)
        self._update(mean_C, var_C, count)
        y = _Normalise.apply(x, self.weight, self.bias, mean_C, var_C, count, self.eps, self.total)
        return y.to(input.dtype)

    @torch.no_grad()
    def _update(self, mean_C: Tensor, var_C: Tensor, count: Tensor) -> None:
        momentum = cast(float, self.momentum)
        unbiased_C = var_C * count / (count - 1).clamp(min=1)
        cast(Tensor, self.running_mean).lerp_(mean_C.to(cast(Tensor, self.running_mean).dtype), momentum)
        cast(Tensor, self.running_var).lerp_(unbiased_C.to(cast(Tensor, self.running_var).dtype), momentum)
        cast(Tensor, self.num_batches_tracked).add_(1)

    @classmethod
    def convert(cls, module: nn.Module, gather: Collective, total: Collective) -> nn.Module:
        """Replace every batch normalisation layer below `module` and keep its parameters and buffers."""
        if isinstance(module, _BatchNorm):
            synced = cls(module.num_features, module.eps, module.momentum)
            synced.load_state_dict(module.state_dict())
            synced.weight, synced.bias = module.weight, module.bias
            synced.running_mean, synced.running_var = module.running_mean, module.running_var
            synced.num_batches_tracked = module.num_batches_tracked
            synced.gather, synced.total = gather, total
            return synced.train(module.training)
        for name, child in module.named_children():
            setattr(module, name, cls.convert(child, gather, total))
        return module


def moments(x: Tensor, gather: Collective) -> tuple[Tensor, Tensor, Tensor]:
    """Compute mean (C,), biased variance (C,) and number of positions () over the batches (B, C, ...) of all ranks.

    The moments of each rank are combined, weighted by its positions (Chan et al. 1979). This avoids differences of
    large sums.
    """
    count = x.new_tensor(x.numel() / x.shape[1])
    own = count.clamp(min=1)  # a rank may have no position
    mean_C = x.sum(_axes(x)) / own
    var_C = (x - _wide(mean_C, x)).square().sum(_axes(x)) / own
    everyone = gather(torch.cat([mean_C, var_C, count[None]])[None])
    means_WC, vars_WC, counts_W1 = everyone.split([len(mean_C), len(mean_C), 1], dim=1)
    count = counts_W1.sum()
    shares_W1 = counts_W1 / count.clamp(min=1)
    mean_C = (shares_W1 * means_WC).sum(0)
    return mean_C, (shares_W1 * (vars_WC + (means_WC - mean_C).square())).sum(0), count


class _Normalise(torch.autograd.Function):
    """Normalisation (x - mean) / sqrt(var + eps) * weight + bias, where mean and var depend on x of all ranks."""

    @staticmethod
    def forward(  # noqa: PLR0913  # the variables of the formula
        ctx: Any,
        x: Tensor,
        weight_C: Tensor,
        bias_C: Tensor,
        mean_C: Tensor,
        var_C: Tensor,
        count: Tensor,
        eps: float,
        total: Collective,
    ) -> Tensor:
        ctx.save_for_backward(x, weight_C, mean_C, torch.rsqrt(var_C + eps), count)
        ctx.total = total
        return F.batch_norm(x, mean_C, var_C, weight_C, bias_C, eps=eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = grads
        x, weight_C, mean_C, inverse_C, count = ctx.saved_tensors
        centred = x - _wide(mean_C, x)
        sums_2C = torch.stack([dy.sum(_axes(x)), (dy * centred).sum(_axes(x))])
        dbias_C, dweight_C = sums_2C[0], sums_2C[1] * inverse_C
        shift_C, slope_C = ctx.total(sums_2C) / count  # gradients of all ranks through the mean and the variance
        dx = dy - _wide(shift_C, x)
        dx.addcmul_(centred, _wide(slope_C * inverse_C.square(), x), value=-1)
        return dx.mul_(_wide(weight_C * inverse_C, x)), dweight_C, dbias_C, None, None, None, None, None


def _axes(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def _wide(vector_C: Tensor, x: Tensor) -> Tensor:
    return vector_C.view([1, -1] + [1] * (x.dim() - 2))
