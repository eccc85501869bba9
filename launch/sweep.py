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

from launch import generations
from launch import search as searches
from launch.plan import Plan
from launch.search import Searches
from launch.trials import Follower, Teams, fit, lead, loss
from sptskm.search import Recorder, Score, Search, Trial, folder_of, goes_on, name_of, read_trial, read_trials
from sptskm.training.signals import StopFlag


def sweep(plan: Plan, searched: Searches, teams: Teams, stop: StopFlag) -> None:
    """Run the trials of all searches that have not come to an end; what they came to is in their records."""
    follower = SearchFollower(plan, searched, teams, stop)
    searches.show(plan, searched, seconds=0)
    method = next(iter(searched.values())).method
    if method == "optuna":
        from launch.optuna_draws import OptunaDraws

        _run({}, follower, search_alg=OptunaDraws(plan, searched), num_samples=-1)  # until it has no more
        return
    for generation in range(max(generations.count(search) for search in searched.values())):
        left = [task for search in searched.values() for task in _tasks(plan, search, generation)]
        if left and not stop.requested:
            left.sort(key=lambda task: task["number"])  # the streams in turn
            _run({"trial": tune.grid_search(left)}, follower)


def _tasks(plan: Plan, search: Search, generation: int) -> list[dict[str, Any]]:
    epochs = generations.begin(plan, search, generation)
    left = searches.left(plan, search, epochs)
    return [{"stream": search.stream, "number": n, "settings": s, "epochs": epochs} for n, s in left]


def _run(space: Mapping[str, Any], follower: "SearchFollower", **how: Any) -> None:
    known = {"plan": follower.plan, "searched": follower.searched, "teams": follower.teams}
    how["scheduler"] = Ending(follower.plan, follower.searched)
    fit(tune.with_parameters(attempt, **known), lambda task: task["trial"]["stream"], space, follower, **how)


def attempt(settings: Mapping[str, Any], plan: Plan, searched: Searches, teams: Teams) -> dict[str, str]:
    """A trial, as Tune calls it: its ranks from their start to their end, with every score."""
    task = settings["trial"]
    search = searched[task["stream"]]
    trial, config = searches.trial(plan, search, task["number"], task["settings"], task["epochs"])
    end = lead(teams[trial.stream], plan.logs / f"{trial.name}.log", "attempt", (trial, config, search))
    if end not in ("finished", "stopped") and (record := read_trial(trial.folder)) and not record.end:
        Recorder(trial.folder).end("failed", end)
    return {"end": end}


class Ending(FIFOScheduler):
    """Ends a trial when the records of the others say so."""

    def __init__(self, plan: Plan, searched: Searches) -> None:
        super().__init__()
        self.folder, self.searched = searches.folder(plan), searched

    def on_trial_result(self, _controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Called with every score of a trial, and with its end, which has none."""
        mine = record_of(trial, self.folder)
        if mine is None or "mAP" not in result or result["epoch"] >= trial.config["trial"]["epochs"]:
            return self.CONTINUE
        score = Score(**{name: result[name] for name in Score.__annotations__})
        # its own record may reach this node late
        mine = replace(mine, scores=[*(old for old in mine.scores if old.epoch < score.epoch), score])
        return self.CONTINUE if goes_on(mine, read_trials(self.folder), self.searched[mine.stream]) else self.STOP


def record_of(trial: TuneTrial, home: Path) -> Trial | None:
    """What a trial of Tune has left so far."""
    return read_trial(folder_of(home, trial.config["trial"]["stream"], trial.config["trial"]["number"]))


class SearchFollower(Follower):
    """Says how the trials of a search go, and notes the ends that they cannot note themselves."""

    def __init__(self, plan: Plan, searched: Searches, teams: Teams, stop: StopFlag) -> None:
        super().__init__(plan, teams, next(iter(searched.values())).retries, stop)
        self.searched, self.home = searched, searches.folder(plan)

    def name(self, trial: TuneTrial) -> str:
        """Stream and number."""
        return name_of(trial.config["trial"]["stream"], trial.config["trial"]["number"])

    def on_trial_result(self, *_: Any, **known: Any) -> None:
        """One line for each score."""
        values = known["result"]
        if "mAP" in values:
            epochs = self.searched[known["trial"].config["trial"]["stream"]].epochs
            line = f"{self.name(known['trial'])} epoch {values['epoch']}/{epochs}  "
            print(f"{line}held-out mAP {values['mAP']:.1%} rank-1 {values['rank1']:.1%}", file=sys.stderr)

    def on_trial_complete(self, *_: Any, **known: Any) -> None:
        """A trial that was ended early is gone before it can say so; others may have had no room to write it."""
        end = known["trial"].last_result.get("end", "ended early")
        told = end in ("ended early", "finished", "stopped")
        self._note(known["trial"], end if told else "failed", "" if told else end)

    def on_trial_error(self, *_: Any, **known: Any) -> None:
        """A trial that has lost its workers too often."""
        self._note(known["trial"], "failed", loss(known["trial"]))

    def _note(self, trial: TuneTrial, end: Any, reason: str) -> None:
        record = record_of(trial, self.home)
        if record is None or end == "stopped" or self.stop.requested:
            return
        if not record.end:
            Recorder(record.folder).end(end, reason)
            record = replace(record, end=end, reason=reason)
        told = f"{record.end}: {record.reason}" if record.reason else record.end
        print(f"{record.name} {told}", file=sys.stderr)
        searches.show(self.plan, self.searched)
