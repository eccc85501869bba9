"""What the launchers share about searches: trials as training runs, and what becomes of the best."""

import argparse
import fcntl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from launch.plan import Plan
from sptskm.atomic import write_text
from sptskm.config import Config, ConfigError
from sptskm.configfile import find_file, load_final, to_yaml
from sptskm.configfile import load as load_config
from sptskm.endings import Stopped, Unreachable, sentence
from sptskm.search import (
    DONE,
    Recorder,
    Score,
    Search,
    Settings,
    Trial,
    check,
    configured,
    folder_of,
    load_search,
    ranked,
    read_trials,
)
from sptskm.training.allocation import is_main
from sptskm.training.signals import StopFlag

if TYPE_CHECKING:
    from sptskm.final import HeldOut

Searches = Mapping[str, Search]
"""By stream."""

PAGE_SECONDS = 30.0  # at least between two versions of the page that a running search shows
FOLDER, WINNER, RETRAINED = "search", "winner", "retrained"


def options(parser: argparse.ArgumentParser) -> None:
    """What may be typed about a search behind any launcher that knows one."""
    parser.add_argument("--search", type=Path, metavar="FILE", help="what varies, as in configs/search/*.yaml")
    parser.add_argument(
        "--retrain", action="store_true", help="train what was found once more, on all training identities"
    )


def load(plan: Plan, file: Path, retrain: bool) -> Searches:
    """What a search file says of a plan's streams, checked against their configurations.

    Raises ConfigError or FileNotFoundError.
    """
    if retrain and plan.final.camera_weights:
        raise ConfigError("final.camera_weights is true, but --retrain leaves no held-out identities to choose them on")
    file = find_file(file, "configs/search")
    known = load_search(file)
    for config in plan.configs:
        if config.stream not in known:
            raise ConfigError(f"{file} has no section {config.stream}, and --stream asks for it")
        check(known[config.stream], config)
        if known[config.stream].method == "optuna" and find_spec("optuna") is None:
            raise ConfigError(f"{file}: method is optuna, which is not installed here (pip install optuna)")
    return {config.stream: known[config.stream] for config in plan.configs}


def folder(plan: Plan) -> Path:
    """Where the trials of a plan lie."""
    return plan.folder / FOLDER


def trial(plan: Plan, search: Search, number: int, settings: Settings, epochs: int) -> tuple[Trial, Config]:
    """One trial and the run that it is, up to an epoch; no file of test is read in it."""
    place = str(folder_of(folder(plan), search.stream, number))
    config = configured(plan.config(search.stream), settings)
    config = replace(
        config,
        run=place,
        data=replace(config.data, test=False),
        train=replace(config.train, epochs=epochs, validate_every=search.validate_every),
    )
    return Trial(search.stream, number, settings, search.workers, place), config


def blind(plan: Plan) -> Plan:
    """The same plan for somebody who may not see the test part of the data."""
    configs = tuple(replace(config, data=replace(config.data, test=False)) for config in plan.configs)
    return replace(plan, configs=configs)


def left(plan: Plan, search: Search, epochs: int) -> list[tuple[int, Settings]]:
    """Number and settings of the trials that are not trained up to an epoch and have not ended, or have failed."""
    known = {trial.number: trial for trial in own_trials(plan, search)}
    drawn = dict(enumerate(search.drawn(plan.config(search.stream))))
    if search.scheduler != "pbt":
        done = {number for number, trial in known.items() if trial.end in DONE}
        return [(number, settings) for number, settings in drawn.items() if number not in done]
    settings = drawn | {number: trial.settings for number, trial in known.items()}
    last = epochs == search.epochs
    there = {n for n, trial in known.items() if trial.epochs >= epochs and (trial.end in DONE or not last)}
    return [(number, own) for number, own in settings.items() if number not in there]


def own_trials(plan: Plan, search: Search) -> list[Trial]:
    """The trials of one stream that have begun."""
    return [trial for trial in read_trials(folder(plan)) if trial.stream == search.stream]


def run_trial(trial: Trial, config: Config, search: Search, stop: StopFlag, follow: Callable[[Score], bool]) -> None:
    """Train a trial as one of its ranks, up to the epochs of `config`.

    Rank 0 keeps the record; `follow` hears its scores, and ends it by False.

    Raises Stopped when it was interrupted, and on the other ranks also when it was ended, Unreachable, and whatever
    makes the trial fail, which is recorded.
    """
    from sptskm.report.search import begin_page
    from sptskm.training.trainer import train

    recorder, ended = Recorder(trial.folder), False

    def report(values: Mapping[str, float]) -> None:
        nonlocal ended
        score = recorder.add(values)
        if score and not follow(score) and score.epoch < config.train.epochs:
            ended = stop.requested = True  # agreed on by all ranks in the next step

    if is_main():
        recorder.begin(trial)
        begin_page(trial)
    try:
        outcome = train(config, stop, report)
    except Unreachable:
        raise
    except Exception as error:
        # whichever rank fails first: the others are ended before they can say so
        recorder.end("failed", sentence(error))
        raise
    if not outcome.finished and not ended:
        raise Stopped
    if is_main():
        recorder.end("ended early" if ended else "finished" if config.train.epochs == search.epochs else "paused")


def show(plan: Plan, searched: Searches, seconds: float = PAGE_SECONDS) -> None:
    """Bring the search's page up to date, unless that was done within so many seconds, or is being done.

    A search goes on without it where it cannot be written.
    """
    from sptskm.report.search import write_page

    home = folder(plan)
    with suppress(OSError), _lock(home / "page.lock") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        written = max((file.stat().st_mtime for file in home.glob("events.*")), default=0.0)
        if time.time() - written > seconds:
            write_page(read_trials(home), searched, home)


def _lock(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w")


def best_trials(plan: Plan, trials: Sequence[Trial]) -> dict[str, Trial]:
    """The best trial of each stream of a plan; ConfigError when one has none with a score."""
    found = {config.stream: ranked(trials, config.stream) for config in plan.configs}
    if missing := [stream for stream, own in found.items() if not own]:
        raise ConfigError(f"no trial of {missing[0]} in {folder(plan)} has a score; see why they failed, or search on")
    return {stream: own[0] for stream, own in found.items()}


def conclude(plan: Plan, searched: Searches, stop: StopFlag) -> str:
    """Choose the best trials and how they are fused, and write both down; the table on rank 0, empty on the others.

    Every rank calls it alike. Raises ConfigError when a stream has no trial with a score, Stopped, Unreachable.
    """
    from sptskm.final import fuse_held_out
    from sptskm.report.search import text, write_page

    trials = read_trials(folder(plan))
    best = best_trials(plan, trials)
    runs = [best[config.stream].folder for config in plan.configs]
    open_to_choice = len(runs) == 2 and plan.final.weight is None
    chosen = fuse_held_out(runs, plan.final, stop) if open_to_choice else None
    if not is_main():
        return ""
    winner(plan, searched, best, chosen)
    write_page(trials, searched, folder(plan))
    lines = [text(trials, searched), f"best settings: {plan.folder / WINNER}"]
    if chosen is not None:
        scores = ", ".join(f"{name} {mAP:.1%}" for name, mAP in chosen.mAP.items())
        lines.append(f"held-out mAP {scores} ({chosen.normalisation}, weight of SMIN {chosen.weight:.2f})")
    return "\n".join(lines)


def winner(plan: Plan, searched: Searches, best: Mapping[str, Trial], chosen: "HeldOut | None") -> None:
    """Write the best settings as configurations: `--config FOLDER/winner` trains them as any others."""
    home = plan.folder / WINNER
    home.mkdir(parents=True, exist_ok=True)
    final = plan.final
    if chosen is not None:
        final = replace(
            final, weight=None if final.camera_weights else chosen.weight, normalisation=chosen.normalisation
        )
    write_text(home / "final.yaml", to_yaml(final))
    for config in plan.configs:
        found = configured(config, best[config.stream].settings)
        found = replace(found, train=replace(found.train, epochs=searched[config.stream].epochs), run="")
        write_text(home / f"{config.stream}.yaml", to_yaml(found))


def retrained(plan: Plan) -> Plan:
    """The plan that trains what a search has found on all training identities; it needs no held-out ones any more."""
    home = plan.folder / WINNER
    configs = []
    for config in plan.configs:
        run = str(plan.folder / RETRAINED / config.stream)
        configs.append(load_config(home / f"{config.stream}.yaml", [f"run={run}", "data.held_out=0"]))
    return Plan(tuple(configs), load_final(home / "final.yaml"), plan.folder)


def found(plan: Plan) -> Plan:
    """The plan that evaluates the best trials as they are."""
    best = best_trials(plan, read_trials(folder(plan)))
    configs = tuple(replace(config, run=best[config.stream].folder) for config in plan.configs)
    return Plan(configs, load_final(plan.folder / WINNER / "final.yaml"), plan.folder)
