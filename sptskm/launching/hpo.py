"""Hyper-parameter search with Ray Tune: each stream of a search file is an experiment of its own.

Tune draws, stops early, restarts and records the trials; `tune.ExperimentAnalysis(RUN/search/STREAM)` reads them. The
same command continues a search from Tune's snapshot of the experiment and the last checkpoint that Tune knows.
"""

import json
import math
import os
import secrets
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import schedulers
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback
from ray.tune.search import BasicVariantGenerator

from sptskm.common.atomic import write_text
from sptskm.common.endings import Stopped
from sptskm.config import ConfigError
from sptskm.launching import searches
from sptskm.launching.plan import Plan
from sptskm.launching.ray_runs import CREWS, Follower, Teams, failure_reason, lead, room_for
from sptskm.launching.searches import Searches
from sptskm.launching.storage import whole_files
from sptskm.launching.workers import Failed, Team, Values, ask_to_stop
from sptskm.training.signals import StopFlag
from sptskm.tuning import Distribution, Score, Search, Trial, encoded, grid_points, name_of, present, settings_of

METRIC, BEST, EPOCH, SECONDS = "validation/mAP", "validation/best mAP", "epoch", "seconds"
EXCHANGE = "exchange"  # the epoch as PBT counts it
SNAPSHOT_SECONDS = "1"  # between snapshots of the experiment
TABLE_SECONDS, PAGE_SECONDS = 30, 30.0
FAILURE = "failure.json"
ENDS = {"TERMINATED": "ended early", "ERROR": "failed"}

FOLLOWERS: dict[str, "SearchFollower"] = {}
"""Callbacks of the searches in this process, by stream."""


def run_searches(plan: Plan, searched: Searches, teams: Teams, stop: StopFlag) -> list[Trial]:
    """Run or continue the trials of all streams and return them. Raises Stopped when `stop` is set meanwhile."""
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = SNAPSHOT_SECONDS
    command = secrets.token_hex(8)
    for stream, one in searched.items():
        FOLLOWERS[stream] = SearchFollower(plan, searched, one, teams, stop)
    tuners = [_tuner(plan, one, teams[stream], command) for stream, one in searched.items()]
    with ThreadPoolExecutor(len(tuners)) as beside:  # in the main thread Tune would install its own USR1 handler
        runs = []
        for stream, tuner in zip(searched, tuners, strict=True):
            runs.append(beside.submit(tuner.fit))
            while not (FOLLOWERS[stream].begun.wait(0.1) or runs[-1].done()):
                pass  # Tune's registry of trainables is not thread-safe
    errors = [error for run in runs if (error := run.exception())]
    if stop.requested:
        raise Stopped
    for error in errors:
        traceback.print_exception(error, file=sys.stdout)  # into ray.log, beside Ray's other output
    if errors:
        raise Failed(str(errors[0].__cause__ or errors[0])) from errors[0]
    return trials_of(plan, searched)


def _tuner(plan: Plan, search: Search, team: Team, command: str) -> tune.Tuner:
    """Return the Tuner of a stream: a new one, or the one of an earlier command (ConfigError if it is damaged)."""
    home = searches.search_folder(plan) / search.stream
    trainable = tune.with_resources(_trainable(plan, search, team, command), room_for(team))
    if snapshots := sorted(home.glob("experiment_state-*.json")):
        try:
            json.loads(snapshots[-1].read_text())
            return tune.Tuner.restore(
                str(home), trainable=trainable, resume_errored=True, storage_filesystem=whole_files()
            )
        except Exception as error:  # damaged pickles can raise almost anything
            raise ConfigError(f"{home}: the search cannot be continued ({error}), wanted another --run") from None
    searches.note(plan, search)
    first = present(plan.config(search.stream), search.space)
    return tune.Tuner(
        trainable,
        param_space={name: domain(draw) for name, draw in search.space.items()},
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            num_samples=len(list(grid_points(search.space))) if search.method == "grid" else search.trials,
            search_alg=searcher(search, first),
            scheduler=scheduler(search),
            reuse_actors=True,
            trial_name_creator=partial(_trial_name, search=search),
            trial_dirname_creator=partial(_trial_dirname, search=search),
        ),
        run_config=tune.RunConfig(
            name=search.stream,
            storage_path=str(searches.search_folder(plan)),
            storage_filesystem=whole_files(),
            failure_config=tune.FailureConfig(max_failures=search.retries),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=None if search.scheduler == "pbt" else 1),
            callbacks=[FOLLOWERS[search.stream], JsonLoggerCallback(), CSVLoggerCallback()],
            progress_reporter=Table(search.stream),
            verbose=1,
        ),
    )


def domain(draw: Distribution) -> Any:
    """Return Tune's search-space domain for a setting."""
    if draw.kind in ("choice", "quantised"):  # Tune's own steps begin at 0, those of a search file at its lower end
        return tune.choice([encoded(member) for member in draw.members])
    low, high = draw.values
    if draw.kind == "integer":
        return tune.randint(int(low), int(high) + 1)
    return (tune.loguniform if draw.kind == "loguniform" else tune.uniform)(low, high)


def searcher(search: Search, first: Mapping[str, Any]) -> Any:
    """Return Tune's searcher for the method of a search file; `first` is the unchanged configuration."""
    if search.method == "grid":
        points = [{name: encoded(value) for name, value in point.items()} for point in grid_points(search.space)]
        return BasicVariantGenerator(points_to_evaluate=points, random_state=search.seed)
    if search.method == "random":
        point = {name: encoded(value) for name, value in first.items()}
        return BasicVariantGenerator(points_to_evaluate=[point], random_state=search.seed)
    from optuna import logging
    from ray.tune.search.optuna import OptunaSearch

    logging.set_verbosity(logging.WARNING)
    point = {name: _drawable(draw, first.get(name, draw.values[0])) for name, draw in search.space.items()}
    return OptunaSearch(seed=search.seed, points_to_evaluate=[point])


def _drawable(draw: Distribution, value: Any) -> Any:
    """Return the nearest value that Optuna can draw; it accepts only points with a value for every setting."""
    if draw.kind == "choice":
        return encoded(value if value in draw.values else draw.values[0])
    return draw.nearest(value)


def scheduler(search: Search) -> Any:
    """Return Tune's scheduler for the rules of a search file."""
    if search.scheduler in ("asha", "hyperband"):
        rungs = int(math.log(search.epochs / search.grace_epochs, search.reduction) + 1e-9) + 1
        return schedulers.AsyncHyperBandScheduler(
            time_attr=EPOCH,
            max_t=search.epochs,
            grace_period=search.grace_epochs,
            reduction_factor=search.reduction,
            brackets=rungs if search.scheduler == "hyperband" else 1,
            stop_last_trials=False,
        )
    if search.scheduler == "median":
        return schedulers.MedianStoppingRule(
            time_attr=EPOCH, grace_period=search.grace_epochs, min_time_slice=search.epochs
        )
    if search.scheduler == "pbt":
        lists = {name: domain(draw) for name, draw in search.space.items()}
        return schedulers.PopulationBasedTraining(
            time_attr=EXCHANGE,
            perturbation_interval=search.grace_epochs,
            hyperparam_mutations={name: getattr(one, "categories", one) for name, one in lists.items()},
            quantile_fraction=1 / search.reduction,
            custom_explore_fn=partial(within, search.space),
            synch=False,  # a synchronous population would wait for a failed member for ever
        )
    return schedulers.FIFOScheduler()


def within(space: Mapping[str, Distribution], settings: dict[str, Any]) -> dict[str, Any]:
    """Clip settings that PBT has multiplied to their ranges."""
    numbers = {name for name, draw in space.items() if draw.kind not in ("choice", "quantised")}
    return {name: space[name].nearest(value) if name in numbers else value for name, value in settings.items()}


def _number(trial: TuneTrial) -> int:
    return int(Path(str(trial.path)).name)


def _trial_name(trial: TuneTrial, search: Search) -> str:
    return name_of(search.stream, int(_trial_dirname(trial, search)))


def _trial_dirname(trial: TuneTrial, search: Search) -> str:
    first = (
        1 if search.method == "optuna" else 0
    )  # Optuna's trials are numbered from 1, those of other searchers from 0
    return f"{int(str(trial.experiment_tag).partition('_')[0]) - first:04d}"


def _trainable(plan: Plan, search: Search, team: Team, command: str) -> Any:
    """Return the trainable of a stream; it is named after the stream, as Tune tells trainables apart by name."""

    def train_trial(settings: Mapping[str, Any]) -> None:
        attempt(settings, plan, search, team, command)

    train_trial.__name__ = train_trial.__qualname__ = search.stream
    return train_trial


def attempt(settings: Mapping[str, Any], plan: Plan, search: Search, team: Team, command: str) -> None:
    """Run a trial for Tune: train it from start to end and report every score with its checkpoint.

    Raises Failed for a fault of the trial's own, at once if it already failed under the same `command`, and Unreachable
    when a worker is lost.
    """
    own = Path(tune.get_context().get_trial_dir())  # of this attempt and of later ones
    number = int(own.name)
    trial, config = searches.trial(plan, search, number, settings_of(settings, search.space))
    failure = own / FAILURE
    known = json.loads(failure.read_text()) if failure.exists() else {}
    if known.get("command") == command:  # Tune restarts a trial after any failure
        raise Failed(known["reason"])
    failure.unlink(missing_ok=True)
    checkpoint = tune.get_checkpoint()
    start = (checkpoint.path, checkpoint.get_metadata()) if checkpoint else ("", {})
    end = lead(
        team, plan.logs / f"{trial.name}.log", "attempt", (trial, config, start), partial(_report, search, trial)
    )
    if end == "stopped":
        _wait_to_be_ended(team)
    if end != "finished":
        failure.parent.mkdir(parents=True, exist_ok=True)
        write_text(failure, json.dumps({"command": command, "reason": end}))
        raise Failed(end)


def _report(search: Search, trial: Trial, values: Values) -> None:
    """Report a score to Tune, with the checkpoint that rank 0 has copied for it."""
    result: dict[str, Any] = dict(values)
    aside = str(result.pop("checkpoint"))
    checkpoint = tune.Checkpoint.from_directory(aside)
    checkpoint.set_metadata({"number": trial.number, "settings": trial.settings, EPOCH: int(result[EPOCH])})
    if search.scheduler == "pbt":  # no exchange after the last epoch
        result[EXCHANGE] = 0 if result[EPOCH] >= search.epochs else result[EPOCH]
    tune.report(result, checkpoint=checkpoint)
    shutil.rmtree(aside, ignore_errors=True)


def _wait_to_be_ended(team: Team) -> None:
    """Block until Tune ends this trial, whose ranks have left: a trial that returns counts as finished."""
    CREWS.pop(team).end()
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "0"
    threading.Event().wait()


class Table(tune.CLIReporter):
    """Tune's table of the trials on stderr, with an estimate of the time left."""

    def __init__(self, stream: str) -> None:
        super().__init__(
            metric_columns=[EPOCH, METRIC, BEST], max_report_frequency=TABLE_SECONDS, print_intermediate_tables=True
        )
        self.stream, self.ended_before = stream, -1

    def report(self, trials: list[TuneTrial], done: bool, *sys_info: str) -> None:
        """Print the table; the time left is estimated from the trials that ended during this command."""
        ended = sum(trial.is_finished() for trial in trials)
        self.ended_before = ended if self.ended_before < 0 else self.ended_before
        left, here = (self._total_samples or len(trials)) - ended, ended - self.ended_before
        spent = time.time() - (self._start_time or time.time())
        told = f"about {spent * left / here / 60:.0f} min left" if here and left else f"{left} to go"
        table = self._progress_str(trials, done, *sys_info).splitlines()
        # the line about Ray's temporary folder is of no use: Ray copies the files to the run folder
        print("\n".join(line for line in table if not line.startswith("Result logdir")), file=sys.stderr)
        print(f"{self.stream}: {ended} of {ended + left} trials ended, {told}", file=sys.stderr, flush=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "ended_before": -1}


class SearchFollower(Follower):
    """Callback that prints the progress of a stream's search, and ends it once a stop request has been obeyed."""

    def __init__(self, plan: Plan, searched: Searches, search: Search, teams: Teams, stop: StopFlag) -> None:
        super().__init__(plan, teams, search.retries, stop)
        self.searched, self.search = searched, search
        self.begun = threading.Event()

    def setup(self, *_: Any, **known: Any) -> None:
        """Signal that Tune has registered the trainable."""
        del known
        self.begun.set()

    def __reduce__(self) -> Any:
        """Return the reader's own follower on unpickling, since a restored Tuner brings its callbacks along."""
        return _follower, (self.search.stream,)

    def name(self, trial: TuneTrial) -> str:
        """Return the stream and number of a trial."""
        return name_of(self.search.stream, _number(trial))

    def on_step_begin(self, *args: Any, **known: Any) -> None:
        """Print what is waited for; raise Stopped after a stop request once no rank is left."""
        super().on_step_begin(*args, **known)
        if self.stop.requested and not ask_to_stop():
            raise Stopped

    def on_trial_result(self, *_: Any, **known: Any) -> None:
        """Print one line for each score."""
        values = known["result"]
        line = f"{self.name(known['trial'])} epoch {values[EPOCH]:.0f}/{self.search.epochs}  "
        print(f"{line}held-out mAP {values[METRIC]:.1%} rank-1 {values['validation/rank-1']:.1%}", file=sys.stderr)

    def on_trial_complete(self, *_: Any, **known: Any) -> None:
        """Print how a trial has ended."""
        epoch = (known["trial"].last_result or {}).get(EPOCH, 0)
        end = "finished" if epoch >= self.search.epochs else "ended early"
        print(f"{self.name(known['trial'])} {end}", file=sys.stderr)
        update_page(self.plan, self.searched)

    def on_trial_recover(self, *_: Any, **known: Any) -> None:
        """Print why a trial starts again, unless the trial itself is at fault."""
        if not at_fault(known["trial"]):
            super().on_trial_recover(**known)

    def on_trial_error(self, *_: Any, **known: Any) -> None:
        """Print why a trial has failed."""
        print(f"{self.name(known['trial'])} failed: {failure_reason(known['trial'])}", file=sys.stderr)


def _follower(stream: str) -> SearchFollower:
    return FOLLOWERS[stream]


def at_fault(trial: TuneTrial) -> bool:
    """Return whether Tune's error file ends with Failed; a lost node's errors may also say "Failed to connect"."""
    text = Path(trial.error_file).read_text() if trial.error_file else ""
    return f"\n{Failed.__module__}.{Failed.__qualname__}: " in text.rpartition("Failure # ")[2]


def trials_of(plan: Plan, searched: Searches) -> list[Trial]:
    """Read the trials of all searches from Tune's records, sorted by stream and number."""
    return [trial for search in searched.values() for trial in _trials(plan, search)]


def _trials(plan: Plan, search: Search) -> list[Trial]:
    home = searches.search_folder(plan) / search.stream
    if not any(home.glob("experiment_state-*.json")):
        return []
    analysis = tune.ExperimentAnalysis(str(home))
    found = []
    for trial in analysis.trials:
        results = analysis.trial_dataframes[trial.trial_id].to_dict("records")
        if not results and METRIC in (trial.last_result or {}):
            print(f"{trial.path}/result.json: cannot be read, so that only the last score counts", file=sys.stderr)
            results = [trial.last_result]
        found.append(_trial(plan, search, trial, results))
    return sorted(found, key=lambda trial: trial.number)


def _trial(plan: Plan, search: Search, trial: TuneTrial, results: Sequence[Mapping[str, Any]]) -> Trial:
    scores = {
        int(result[EPOCH]): Score(int(result[EPOCH]), result[METRIC], result["validation/rank-1"], result[BEST])
        for result in results
        if METRIC in result
    }  # a repeated epoch counts with its last result
    number, settings = _number(trial), settings_of(trial.config, search.space)
    end: Any = ENDS.get(trial.status, "")
    if end == "ended early" and max(scores, default=0) >= search.epochs:
        end = "finished"
    return Trial(
        search.stream,
        number,
        settings,
        search.workers,
        str(searches.trial_folder(plan, search.stream, number) / searches.RUN),
        [scores[epoch] for epoch in sorted(scores)],
        end,
        failure_reason(trial) if end == "failed" else "",
        sum(result[SECONDS] for result in results),
        max((result["timestamp"] for result in results), default=0.0),
    )


_page = threading.Lock()
_written = 0.0


def update_page(plan: Plan, searched: Searches) -> None:
    """Update the page of a search, at most once in PAGE_SECONDS; the search goes on if that fails."""
    from sptskm.report.trial_pages import write_page

    global _written
    if time.monotonic() - _written < PAGE_SECONDS or not _page.acquire(blocking=False):
        return
    try:
        write_page(trials_of(plan, searched), searched, searches.search_folder(plan))
        _written = time.monotonic()
    except OSError as error:
        print(f"{searches.search_folder(plan)}: the page of the search is not up to date ({error})", file=sys.stderr)
    finally:
        _page.release()
