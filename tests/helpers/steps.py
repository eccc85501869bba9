"""The first training step of a run, whose gradient must not depend on the number of ranks."""

import numpy as np
import torch
from torch import Tensor

from sptskm.config import Config
from sptskm.training.setup import Setup
from sptskm.training.signals import StopFlag
from sptskm.training.trainer import Trainer
from sptskm.training.world import World


def first_gradient(config: Config, world: World) -> tuple[Trainer, dict[str, Tensor]]:
    """A trainer behind the backward pass of its first step in float64, and the terms of the loss."""
    trainer = Trainer(Setup.of(config, world), world, StopFlag())
    trainer.model.train()
    batch = next(trainer.setup.batches(0, pinned=False))
    inputs = trainer.setup.stream.prepare(tuple(batch.inputs), world.device, torch.float64)
    terms = trainer.setup.stream.loss(trainer.model(*inputs), trainer.setup.labels(batch.row), world.gather)
    terms["total"].backward()
    return trainer, terms


def gradients_of(trainer: Trainer) -> dict[str, np.ndarray]:
    """The gradient of every parameter that has one."""
    return {name: p.grad.numpy() for name, p in trainer.network.named_parameters() if p.grad is not None}
