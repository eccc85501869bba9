"""Training runs as trials of Ray Tune: a small driver each, which starts ranks in its placement group.

A run keeps its checkpoints in its own folder and continues from them, so a restarted trial needs nothing else.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from sptskm.common.endings import Stopped, Unreachable
from sptskm.launching.plan import Plan
from sptskm.launching.workers import Crew, Failed, Team, Values, ask_to_stop
from sptskm.training.signals import StopFlag

Teams = Mapping[str, Team]
"""Teams by stream."""

CREWS: dict[Team, Crew] = {}
"""Idle workers, kept in the process of a trial for the next one."""

FOLDER = "ray"  # in the folder of the runs: what Tune writes
LEAVE_SECONDS = "30"  # time limit for the ranks of a trial that Tune has ended to be ready for the next one
IDLE_SECONDS = 30.0  # before the user is told that no trial runs


def train_streams(plan: Plan, teams: Teams, retries: int, stop: StopFlag) -> dict[str, str]:
    """Train the streams of a plan, side by side if there is room, and return how each ended.

    That is "finished", "stopped", or why it failed. A trial that loses a worker or a node is started again up to
    `retries` times.
    """
    follower = Follower(plan, teams, retries, stop)
    space = {"stream": tune.grid_search([*plan.runs])}
    driven = tune.with_parameters(drive, plan=plan, teams=teams)
    tuner = tune.Tuner(
        tune.with_resources(driven, lambda settings: room_for(teams[plan.config(settings["stream"]).stream])),
        param_space=space,
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            name=FOLDER,
            storage_path=str(plan.folder),
            failure_config=tune.FailureConfig(max_failures=retries),
            callbacks=[follower],
            stop=follower,
            verbose=0,
        ),
    )
    with ThreadPoolExecutor(1) as beside:  # in the main thread Tune would install its own USR1 handler
        beside.submit(tuner.fit).result()
    return {trial.config["stream"]: _end(trial) for trial in follower.trials}


def room_for(team: Team) -> tune.PlacementGroupFactory:
    """Return the resources of a trial that runs on this team."""
    # the driver needs no resources: Ray drops its empty bundle, and the next bundle is rank 0's
    return tune.PlacementGroupFactory([{}] + [team.bundle] * team.workers, strategy="PACK")


def drive(settings: Mapping[str, Any], plan: Plan, teams: Teams) -> dict[str, str]:
    """Run a trial for Tune: train one stream from start to end and pass on its reports."""
    name = settings["stream"]
    config = plan.config(name)
    team, file = teams[config.stream], plan.logs / f"{name}.log"
    return {"end": lead(team, file, "train", (config,), lambda values: tune.report(dict(values)))}


def lead(team: Team, file: Path, method: str, arguments: Sequence[Any], heard: Callable[[Values], None]) -> str:
    """Run a method of Worker on all ranks of a trial, and pass on their reports in order.

    Returns how it ended: "finished", "stopped", or the reason of a failure by its own fault. Raises Unreachable when a
    worker is lost. The workers are kept for the next trial in this process that needs the same resources; without such
    a trial they end with the process.
    """
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = LEAVE_SECONDS  # Tune's limit for ending a trial before the next one

    def report(news: list[Values]) -> None:
        for values in news:
            heard(values)

    crew = CREWS.pop(team, None) or _hire(team)
    try:  # Tune may restart the trial after an exception
        crew.work(file, method, arguments, report)
    except (Stopped, SystemExit) as asked:
        CREWS[team] = crew
        if isinstance(asked, Stopped):
            return "stopped"
        raise
    except BaseException as failure:
        crew.end()
        if isinstance(failure, Failed):
            return str(failure)
        raise
    CREWS[team] = crew
    return "finished"


def _hire(team: Team) -> Crew:
    group = ray.util.get_current_placement_group()
    assert group is not None
    return Crew(team, group)


def run_final_job(plan: Plan, team: Team, retries: int, stop: StopFlag) -> str:
    """Run the final job and return its table. Raises as `perform`."""
    runs = [config.run for config in plan.configs]
    return perform(plan, team, retries, stop, "final", "evaluate", (runs, str(plan.out), plan.final))


def perform(  # noqa: PLR0913  # what is done, by whom, and how often
    plan: Plan, team: Team, retries: int, stop: StopFlag, name: str, method: str, arguments: Sequence[Any]
) -> str:
    """Run a method of Worker on a team in a placement group of its own, and return rank 0's result.

    Raises Failed, Stopped, or Unreachable when workers were lost more than `retries` times.
    """
    for failures in range(retries + 1):
        try:
            return _perform(plan, team, stop, name, method, arguments)
        except Unreachable as error:
            if failures == retries:
                raise
            print(f"{name}: {error}; starts again ({failures + 1} of {retries})", file=sys.stderr)
    raise AssertionError("it has returned or raised")


def _perform(plan: Plan, team: Team, stop: StopFlag, name: str, method: str, arguments: Sequence[Any]) -> str:
    def heed(_news: list[Values]) -> None:
        if stop.requested:
            ask_to_stop()

    group = ray.util.placement_group([team.bundle] * team.workers, strategy="PACK")
    try:
        while not group.wait(1):
            if stop.requested:
                raise Stopped
        crew = Crew(team, group)
        try:
            return crew.work(plan.logs / f"{name}.log", method, arguments, heed)
        finally:
            crew.end()
    finally:
        ray.util.remove_placement_group(group)


class Follower(tune.Callback, tune.Stopper):
    """Callback that prints the progress of a plan's trials, and asks them to leave when `stop` is set."""

    def __init__(self, plan: Plan, teams: Teams, retries: int, stop: StopFlag) -> None:
        self.plan, self.teams, self.retries, self.stop = plan, teams, retries, stop
        self.trials: list[Trial] = []
        self.idle_since = time.monotonic()
        self.told = False

    def name(self, trial: Trial) -> str:
        """Return the name that messages use for a trial."""
        return str(trial.config["stream"])

    @property
    def running(self) -> bool:
        """Return whether any trial runs."""
        return any(trial.status == Trial.RUNNING for trial in self.trials)

    def on_step_begin(self, *_: Any, **known: Any) -> None:
        """Pass on a stop request, and print once that Ray has no room; Tune calls this several times a second."""
        self.trials = known["trials"]
        if self.stop.requested:
            ask_to_stop()
        if self.running:
            self.idle_since, self.told = time.monotonic(), False
        elif time.monotonic() - self.idle_since > IDLE_SECONDS and not self.told:
            wanted = " or ".join(sorted({str(team) for team in self.teams.values()}))
            print(f"waiting until Ray has room for {wanted}", file=sys.stderr)
            self.told = True

    def on_trial_result(self, *_: Any, **known: Any) -> None:
        """Print one line for each epoch."""
        values, stream = known["result"], self.name(known["trial"])
        if "epoch" in values:
            line = f"{stream} epoch {values['epoch']:.0f}/{self.plan.config(stream).train.epochs}"
            if "total" in values:  # missing when a run continues after the last step of an epoch
                line += f"  total {values['total']:.3f}"
            if "validation/mAP" in values:
                line += f"  held-out mAP {values['validation/mAP']:.1%} rank-1 {values['validation/rank-1']:.1%}"
            print(line, file=sys.stderr)

    def on_trial_recover(self, *_: Any, **known: Any) -> None:
        """Print why a trial starts again."""
        trial: Trial = known["trial"]
        if self.stop.requested:  # it will not start again
            return
        again = f"starts again ({trial.num_failures} of {self.retries})"
        print(f"{self.name(trial)}: {failure_reason(trial)}; {again}", file=sys.stderr)

    def __call__(self, *_: Any) -> bool:
        """Return False: Tune never ends a trial, as its ranks leave by themselves."""
        return False

    def stop_all(self) -> bool:
        """Return whether Tune should start no more trials."""
        return self.stop.requested and not self.running


def _end(trial: Trial) -> str:
    if trial.status == Trial.ERROR:
        return f"{failure_reason(trial)}; the same command continues"
    return str(trial.last_result.get("end", "stopped"))  # one that never ran has no result


def failure_reason(trial: Trial) -> str:
    """Return the reason why a trial was lost, without Ray's traceback: the last line of Tune's error file."""
    text = Path(trial.error_file).read_text() if trial.error_file else ""
    last = (text.strip().splitlines() or ["unknown reason"])[-1].strip()
    return re.sub(r"^[\w.]+: ", "", last).partition(". ")[0]  # without the name of the exception
