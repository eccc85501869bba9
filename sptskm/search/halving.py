"""Asynchronous successive halving (Li et al., MLSys 2020) by records alone, for trials that share no scheduler."""

from collections.abc import Iterator, Sequence

import numpy as np

from sptskm.search.records import Score, Trial
from sptskm.search.space import Search


def rungs(search: Search) -> Iterator[int]:
    """Epochs at which a trial must be among the best: the grace, and each `reduction` times the one before."""
    epochs = search.grace_epochs
    while epochs < search.epochs:
        yield epochs
        epochs *= search.reduction


def goes_on(trial: Trial, others: Sequence[Trial], search: Search) -> bool:
    """Whether a trial is trained beyond its last score.

    At each rung it must be within the best 1 / reduction of all trials of its stream that have come so far, itself
    included; the first to come always is.
    """
    before = trial.scores[-2].epoch if len(trial.scores) > 1 else 0
    for rung in (rung for rung in rungs(search) if before < rung <= trial.epochs):
        own = trial.scores[-1].mAP
        rivals = [at.mAP for other in others if other.name != trial.name and (at := _at(other, rung))]
        if rivals and own < np.quantile([*rivals, own], 1 - 1 / search.reduction):
            return False
    return True


def _at(trial: Trial, epoch: int) -> Score | None:
    """The first score at or after an epoch."""
    return next((score for score in trial.scores if score.epoch >= epoch), None)
