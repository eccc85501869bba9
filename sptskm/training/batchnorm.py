"""Batch normalisation over all ranks that also runs on CPUs (torch's own needs GPUs).

Legend: C channels; a batch is (B, C, ...).
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Sum = Callable[[Tensor], Tensor]


def full_precision(x: Tensor) -> Tensor:
    """At least float32: sums over a batch in half precision are not to be trusted."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class SyncedBatchNorm(_BatchNorm):
    """BN whose batch statistics count every position of every rank, however unequal their shares.

    Same parameters, buffers and names as the layer it replaces. Mean first, then squared deviations, each summed
    over ranks by a sum that passes gradients, so that the result is that of one process.
    """

    total: Sum

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input, got {input.dim()}D")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)
        x = full_precision(input)
        count = self.total(x.new_tensor(x.numel() / self.num_features)).clamp(min=1)
        mean_C = self.total(x.sum(axes)) / count
        centred = x - mean_C.view(shape)
        var_C = self.total(centred.square().sum(axes)) / count
        self._update(mean_C.detach(), var_C.detach(), count.detach())
        scale_C = self.weight * torch.rsqrt(var_C + self.eps)
        return (centred * scale_C.view(shape) + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _update(self, mean_C: Tensor, var_C: Tensor, count: Tensor) -> None:
        momentum = cast(float, self.momentum)
        unbiased_C = var_C * count / (count - 1).clamp(min=1)
        cast(Tensor, self.running_mean).lerp_(mean_C.to(cast(Tensor, self.running_mean).dtype), momentum)
        cast(Tensor, self.running_var).lerp_(unbiased_C.to(cast(Tensor, self.running_var).dtype), momentum)
        cast(Tensor, self.num_batches_tracked).add_(1)

    @classmethod
    def convert(cls, module: nn.Module, total: Sum) -> nn.Module:
        """Replace every BN layer below `module`, keeping its parameters and buffers."""
        if isinstance(module, _BatchNorm):
            synced = cls(module.num_features, module.eps, module.momentum)
            synced.load_state_dict(module.state_dict())
            synced.weight, synced.bias = module.weight, module.bias
            synced.running_mean, synced.running_var = module.running_mean, module.running_var
            synced.num_batches_tracked = module.num_batches_tracked
            synced.total = total
            return synced.train(module.training)
        for name, child in module.named_children():
            setattr(module, name, cls.convert(child, total))
        return module
