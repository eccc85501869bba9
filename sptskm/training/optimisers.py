"""Create the optimiser of a run, its learning rate in each epoch, and the limit of its gradient.

All are functions of the configuration and the epoch, so that a run that continues needs nothing but its checkpoint.
"""

from collections.abc import Iterable
from math import cos, isfinite, pi
from typing import Any

import torch
from torch import nn

from sptskm.config import Config


def make_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """Create the optimiser over all parameters that have a gradient.

    Adam and SGD (Nesterov momentum 0.9) add the weight decay to the gradient of every parameter, as published. AdamW
    (Loshchilov and Hutter 2019) shrinks weights beside the gradient step, and only those of more than one dimension:
    biases and the scales of normalisation layers have no decay.

    Adam and AdamW are fused: their step reads and writes each number once. SGD is not, as PyTorch's fused one leaves
    the momentum of a first step unset that the loss scaler of float16 skips.
    """
    optim, groups = config.optim, [{"params": [p for p in model.parameters() if p.requires_grad]}]
    if optim.layer_decay < 1:
        groups = layer_groups(model)
    if optim.algorithm == "adam":
        return torch.optim.Adam(groups, lr=optim.lr, weight_decay=optim.weight_decay, fused=True)
    if optim.algorithm == "adamw":
        groups = [{**group, **part} for group in groups for part in decay_groups(group["params"])]
        return torch.optim.AdamW(groups, lr=optim.lr, weight_decay=optim.weight_decay, fused=True)
    return torch.optim.SGD(groups, optim.lr, momentum=0.9, nesterov=True, weight_decay=optim.weight_decay)


def layer_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Sort parameters by the layer of the trunk that has them.

    A group's `depth` is 1 for the last layer, 2 for the one before it. Parameters behind the trunk have no depth. The
    network has `layers()`, as `models.ssin.SSIN` has.
    """
    layers = model.layers()  # type: ignore[operator]
    inside = {id(p) for layer in layers for p in layer}
    behind = [p for p in model.parameters() if p.requires_grad and id(p) not in inside]
    groups = [{"params": layer, "depth": len(layers) - place} for place, layer in enumerate(layers)]
    return [*groups, {"params": behind}]


def decay_groups(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Sort parameters into those with weight decay and those without (vectors and scalars)."""
    given = list(parameters)
    weights, others = ([p for p in given if (p.ndim > 1) is decays] for decays in (True, False))
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": others, "weight_decay": 0.0, "decays": False}]
    return [group for group in groups if group["params"]]


def set_decay(group: dict[str, Any], decay: float) -> None:
    """Set the weight decay of a parameter group, unless its parameters have none."""
    if group.get("decays", True):
        group["weight_decay"] = decay


def learning_rate(config: Config, epoch: int) -> float:
    """Return the rate of a 0-based epoch.

    "steps" multiplies it by gamma once at each milestone reached. "cosine" falls from `lr` in the first epoch after the
    warm-up toward 0 after the last one (Loshchilov and Hutter 2017). In the w epochs of warm-up, epoch e has the share
    (e + 1) / w of the rate.
    """
    optim, epochs = config.optim, config.train.epochs
    if optim.schedule == "cosine":
        done = max(0, epoch - optim.warmup) / max(1, epochs - optim.warmup)
        rate = optim.lr * (1 + cos(pi * done)) / 2
    else:
        rate = optim.lr * optim.gamma ** sum(epoch >= m for m in optim.milestones)
    return rate * (epoch + 1) / optim.warmup if epoch < optim.warmup else rate


def set_rate(optimizer: torch.optim.Optimizer, rate: float, layer_decay: float) -> None:
    """Set the learning rate of all parameters; those of a layer of the trunk have rate * layer_decay^depth."""
    for group in optimizer.param_groups:
        group["lr"] = rate * layer_decay ** group.get("depth", 0)


def clip_gradient(model: nn.Module, norm: float, largest: float) -> None:
    """Scale the gradient, whose norm over all parameters is known, down to the norm `largest`; 0 = leave it."""
    if largest and isfinite(norm) and norm > largest:
        torch._foreach_mul_([p.grad for p in model.parameters() if p.grad is not None], largest / norm)
