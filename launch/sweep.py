"""A search as trials of Ray Tune. Tune gives them room and starts them again; their records say who goes on.

Everything a search knows lies in the folders of its trials, so that the same command continues one whose driver was
killed: trials with an end are kept, the others continue from their checkpoints.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler

from launch import search as searches
from launch.plan import Plan
from launch.trials import Follower, fit, lead, logs, loss
from launch.workers import Team
from sptskm.search import Recorder, Score, Search, Trial, folder_of, goes_on, name_of, read_trial, read_trials
from sptskm.training.signals import StopFlag


def sweep(plan: Plan, search: Search, team: Team, stop: StopFlag) -> None:
    """Run the trials of a search that have not come to an end; what they came to is in their records."""
    follower = SearchFollower(plan, search, team, stop)
    drawing: dict[str, Any] = {}
    space: dict[str, Any] = {}
    if search.method == "optuna":
        from launch.optuna_draws import OptunaDraws

        drawing["search_alg"] = OptunaDraws(plan, search)
        drawing["num_samples"] = -1  # until it has no more
    else:
        left = waiting(plan, search)
        if not left:
            return
        space["trial"] = tune.grid_search(
            [{"stream": t.stream, "number": t.number, "settings": t.settings} for t in left]
        )
    how = tune.TuneConfig(scheduler=Ending(plan, search), **drawing)
    fit(tune.with_parameters(attempt, plan=plan, search=search, team=team), team, space, how, follower)


def waiting(plan: Plan, search: Search) -> list[Trial]:
    """Trials without an end, the streams in turn."""
    left = [trial for config in plan.configs for trial, _ in searches.left(plan, search, config.stream)]
    return sorted(left, key=lambda trial: (trial.number, trial.stream))


def attempt(settings: Mapping[str, Any], plan: Plan, search: Search, team: Team) -> dict[str, str]:
    """A trial, as Tune calls it: its ranks from their start to their end, with every score."""
    trial, config = searches.trial(plan, search, **settings["trial"])
    end = lead(team, logs(plan) / f"{trial.name}.log", "attempt", (trial, config))
    if end not in ("finished", "stopped") and (record := read_trial(trial.folder)) and not record.end:
        Recorder(trial.folder).end("failed", end)
    return {"end": end}


class Ending(FIFOScheduler):
    """Ends a trial when the records of the others say so."""

    def __init__(self, plan: Plan, search: Search) -> None:
        super().__init__()
        self.folder, self.search = searches.folder(plan), search

    def on_trial_result(self, _controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Called with every score of a trial, and with its end, which has none."""
        mine = record_of(trial, self.folder)
        if mine is None or "mAP" not in result or result["epoch"] >= self.search.epochs:
            return self.CONTINUE
        score = Score(**{name: result[name] for name in Score.__annotations__})
        # its own record may reach this node late
        mine = replace(mine, scores=[*(old for old in mine.scores if old.epoch < score.epoch), score])
        return self.CONTINUE if goes_on(mine, read_trials(self.folder), self.search) else self.STOP


def record_of(trial: TuneTrial, home: Path) -> Trial | None:
    """What a trial of Tune has left so far."""
    return read_trial(folder_of(home, trial.config["trial"]["stream"], trial.config["trial"]["number"]))


class SearchFollower(Follower):
    """Says how the trials of a search go, and notes the ends that they cannot note themselves."""

    def __init__(self, plan: Plan, search: Search, team: Team, stop: StopFlag) -> None:
        super().__init__(plan, team, search.retries, stop)
        self.search, self.home = search, searches.folder(plan)

    def name(self, trial: TuneTrial) -> str:
        """Stream and number."""
        return name_of(trial.config["trial"]["stream"], trial.config["trial"]["number"])

    def on_trial_result(self, *_: Any, **known: Any) -> None:
        """One line for each score."""
        values = known["result"]
        if "mAP" in values:
            line = f"{self.name(known['trial'])} epoch {values['epoch']}/{self.search.epochs}  "
            print(f"{line}held-out mAP {values['mAP']:.1%} rank-1 {values['rank1']:.1%}", file=sys.stderr)

    def on_trial_complete(self, *_: Any, **known: Any) -> None:
        """A trial that was ended early is gone before it can say so."""
        self._note(known["trial"], "ended early", "")

    def on_trial_error(self, *_: Any, **known: Any) -> None:
        """A trial that has lost its workers too often."""
        self._note(known["trial"], "failed", loss(known["trial"]))

    def _note(self, trial: TuneTrial, end: Any, reason: str) -> None:
        record = record_of(trial, self.home)
        if record is None or self.stop.requested:
            return
        if not record.end:
            Recorder(record.folder).end(end, reason)
            record = replace(record, end=end, reason=reason)
        told = f"{record.end}: {record.reason}" if record.reason else record.end
        print(f"{record.name} {told}", file=sys.stderr)
