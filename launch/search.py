"""What the launchers share about searches: trials as training runs, and what becomes of the best."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from launch.plan import Plan
from sptskm.cli import sentence
from sptskm.config import Config, ConfigError
from sptskm.configfile import load as load_config
from sptskm.configfile import load_final, to_yaml
from sptskm.search import (
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
from sptskm.training.endings import Stopped, Unreachable
from sptskm.training.signals import StopFlag

if TYPE_CHECKING:
    from sptskm.final import HeldOut

FOLDER, WINNER, RETRAINED = "search", "winner", "retrained"


def options(parser: argparse.ArgumentParser) -> None:
    """What may be typed about a search behind any launcher that knows one."""
    parser.add_argument("--search", type=Path, metavar="FILE", help="what varies, as in configs/search/*.yaml")
    parser.add_argument(
        "--retrain", action="store_true", help="train what was found once more, on all training identities"
    )


def load(plan: Plan, file: Path) -> Search:
    """A search file, checked against the configurations that it varies. Raises ConfigError or FileNotFoundError."""
    search = load_search(file)
    if search.method == "optuna" and find_spec("optuna") is None:
        raise ConfigError(f"{file}: method is optuna, which is not installed here (pip install optuna)")
    for config in plan.configs:
        check(search, config)
    return search


def folder(plan: Plan) -> Path:
    """Where the trials of a plan lie."""
    return plan.folder / FOLDER


def trial(plan: Plan, search: Search, stream: str, number: int, settings: Settings) -> tuple[Trial, Config]:
    """One trial and the run that it is; no file of test is read in it."""
    place = str(folder_of(folder(plan), stream, number))
    config = configured(plan.config(stream), settings)
    config = replace(
        config,
        run=place,
        data=replace(config.data, test=False),
        train=replace(config.train, epochs=search.epochs, validate_every=search.validate_every),
    )
    return Trial(stream, number, settings, search.workers, place), config


def blind(plan: Plan) -> Plan:
    """The same plan for somebody who may not see the test part of the data."""
    configs = tuple(replace(config, data=replace(config.data, test=False)) for config in plan.configs)
    return replace(plan, configs=configs)


def left(plan: Plan, search: Search, stream: str) -> list[tuple[Trial, Config]]:
    """The trials of a stream that have not come to an end yet, or have failed."""
    done = {trial.name for trial in read_trials(folder(plan)) if trial.end in ("finished", "ended early")}
    drawn = enumerate(search.drawn(stream))
    every = [trial(plan, search, stream, number, settings) for number, settings in drawn]
    return [(one, config) for one, config in every if one.name not in done]


def run_trial(trial: Trial, config: Config, stop: StopFlag, follow: Callable[[Score], bool]) -> None:
    """Train a trial as one of its ranks. Rank 0 keeps the record; `follow` hears its scores, and ends it by False.

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
        recorder.end("ended early" if ended else "finished")


def best_trials(plan: Plan, trials: Sequence[Trial]) -> dict[str, Trial]:
    """The best trial of each stream of a plan; ConfigError when one has none with a score."""
    found = {config.stream: ranked(trials, config.stream) for config in plan.configs}
    if missing := [stream for stream, own in found.items() if not own]:
        raise ConfigError(f"no trial of {missing[0]} in {folder(plan)} has a score; see why they failed, or search on")
    return {stream: own[0] for stream, own in found.items()}


def conclude(plan: Plan, search: Search, stop: StopFlag) -> str:
    """Choose the best trials and how they are fused, and write both down; the table on rank 0, empty on the others.

    Every rank calls it alike. Raises ConfigError when a stream has no trial with a score, Stopped, Unreachable.
    """
    from sptskm.final import fuse_held_out
    from sptskm.report.search import text, write_page

    trials = read_trials(folder(plan))
    best = best_trials(plan, trials)
    runs = [best[config.stream].folder for config in plan.configs]
    chosen = fuse_held_out(runs, plan.final, stop) if len(runs) == 2 else None
    if not is_main():
        return ""
    winner(plan, search, best, chosen)
    write_page(trials, search.epochs, folder(plan))
    lines = [text(trials, search.epochs), f"best settings: {plan.folder / WINNER}"]
    if chosen is not None:
        scores = ", ".join(f"{name} {mAP:.1%}" for name, mAP in chosen.mAP.items())
        lines.append(f"held-out mAP {scores} ({chosen.normalisation}, weight of SMIN {chosen.weight:.2f})")
    return "\n".join(lines)


def winner(plan: Plan, search: Search, best: Mapping[str, Trial], chosen: "HeldOut | None") -> None:
    """Write the best settings as configurations: `--config FOLDER/winner` trains them as any others."""
    home = plan.folder / WINNER
    home.mkdir(parents=True, exist_ok=True)
    final = plan.final
    if chosen is not None:
        final = replace(final, weight=chosen.weight, normalisation=chosen.normalisation)
    (home / "final.yaml").write_text(to_yaml(final))
    for config in plan.configs:
        found = configured(config, best[config.stream].settings)
        found = replace(found, train=replace(found.train, epochs=search.epochs), run="")
        (home / f"{config.stream}.yaml").write_text(to_yaml(found))


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
