"""Which trials go on, by their records alone: no scheduler is shared, and none has to be restored."""

import math
from collections.abc import Sequence

import numpy as np

from sptskm.search.records import Score, Trial
from sptskm.search.space import Search

ENOUGH = 3  # rivals without which a median says nothing


def goes_on(trial: Trial, others: Sequence[Trial], search: Search) -> bool:
    """Whether a trial is trained beyond its last score; `others` are the trials of its stream, itself perhaps too."""
    rivals = [other for other in others if other.name != trial.name and other.stream == trial.stream]
    if search.scheduler == "asha":
        return _halving(trial, rivals, search, rungs(search))
    if search.scheduler == "hyperband":
        own = bracket(trial.number, search)
        rivals = [rival for rival in rivals if bracket(rival.number, search) == own]
        return _halving(trial, rivals, search, rungs(search)[own:])
    return search.scheduler != "median" or _median(trial, rivals, search)


def rungs(search: Search) -> list[int]:
    """Epochs at which a trial must be among the best: the grace, and each `reduction` times the one before."""
    epochs, found = search.grace_epochs, []
    while epochs < search.epochs:
        found.append(epochs)
        epochs *= search.reduction
    return found


def bracket(number: int, search: Search) -> int:
    """How many of the first rungs a trial is spared by HyperBand (Li et al., JMLR 2018), asynchronously.

    Brackets get as many trials as in the paper, in proportion, so that each costs about the same; trials are dealt
    out one by one to whichever bracket is furthest behind its share.
    """
    last = len(rungs(search))
    sizes = np.array([math.ceil((last + 1) / (left + 1) * search.reduction**left) for left in range(last, -1, -1)])
    dealt = np.zeros(last + 1, int)
    for count in range(1, number + 2):
        own = int(np.argmax(count * sizes / sizes.sum() - dealt))
        dealt[own] += 1
    return own


def _halving(trial: Trial, rivals: Sequence[Trial], search: Search, levels: Sequence[int]) -> bool:
    """Asynchronous successive halving (Li et al., MLSys 2020).

    At each rung a trial must be within the best 1 / reduction of all that have come so far, itself included; the
    first to come always is.
    """
    before = trial.scores[-2].epoch if len(trial.scores) > 1 else 0
    for rung in (rung for rung in levels if before < rung <= trial.epochs):
        own = trial.scores[-1].mAP
        scores = [at.mAP for rival in rivals if (at := _at(rival, rung))]
        if scores and own < np.quantile([*scores, own], 1 - 1 / search.reduction):
            return False
    return True


def _median(trial: Trial, rivals: Sequence[Trial], search: Search) -> bool:
    """The median rule (Golovin et al., KDD 2017): the best score must reach the median of the others' means so far."""
    come = [rival for rival in rivals if rival.epochs >= trial.epochs]
    if trial.epochs < search.grace_epochs or len(come) < ENOUGH or trial.best is None:
        return True
    means = [np.mean([score.mAP for score in rival.scores if score.epoch <= trial.epochs]) for rival in come]
    return trial.best.mAP >= np.median(means)


def _at(trial: Trial, epoch: int) -> Score | None:
    """The first score at or after an epoch."""
    return next((score for score in trial.scores if score.epoch >= epoch), None)
