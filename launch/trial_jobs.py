"""Picklable jobs of a search on SLURM: its trials, the choice among them, and what is done with the best."""

from dataclasses import dataclass
from typing import Any

from submitit.helpers import Checkpointable

from launch.jobs import attend, evaluated, trained
from launch.plan import Plan
from launch.search import Searches, conclude, folder, found, retrained, run_trial, show
from sptskm.config import Config
from sptskm.search import Score, Trial, goes_on, read_trial, read_trials
from sptskm.training.allocation import is_main
from sptskm.training.signals import StopFlag


@dataclass(frozen=True)
class TrialJob(Checkpointable):
    """Train one trial, or continue it; it ends by itself when others are better."""

    plan: Plan
    searched: Searches
    trial: Trial
    config: Config
    requeues: int

    def __call__(self) -> None:
        attend(self._train, self.config.train.leave_seconds, self.requeues)

    def _train(self, stop: StopFlag) -> None:
        if is_main():
            show(self.plan, self.searched)
        run_trial(self.trial, self.config, self.searched[self.trial.stream], stop, self._goes_on)
        if is_main():
            show(self.plan, self.searched)

    def _goes_on(self, _score: Score) -> bool:
        mine = read_trial(self.trial.folder)
        return mine is None or goes_on(mine, read_trials(folder(self.plan)), self.searched[mine.stream])


@dataclass(frozen=True)
class ConcludeJob(Checkpointable):
    """Choose among the trials, and how the streams are fused."""

    plan: Plan
    searched: Searches
    requeues: int

    def __call__(self) -> str:
        text = attend(self._conclude, self.plan.configs[0].train.leave_seconds, self.requeues)
        print(text)
        return text

    def _conclude(self, stop: StopFlag) -> str:
        return conclude(self.plan, self.searched, stop)


@dataclass(frozen=True)
class RetrainJob(Checkpointable):
    """Train the best settings of a stream on all training identities."""

    plan: Plan
    stream: str
    requeues: int

    def __call__(self) -> dict[str, Any]:
        return attend(self._train, self.plan.configs[0].train.leave_seconds, self.requeues)

    def _train(self, stop: StopFlag) -> dict[str, Any]:
        return trained(retrained(self.plan).config(self.stream), stop)


@dataclass(frozen=True)
class FoundJob(Checkpointable):
    """Evaluate what a search has found: the best trials, or what was trained once more."""

    plan: Plan
    retrained: bool
    requeues: int

    def __call__(self) -> str:
        return attend(self._evaluate, self.plan.configs[0].train.leave_seconds, self.requeues)

    def _evaluate(self, stop: StopFlag) -> str:
        plan = retrained(self.plan) if self.retrained else found(self.plan)
        runs = [config.run for config in plan.configs]
        return evaluated(runs, plan.out, plan.final, stop)
