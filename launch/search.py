"""What the launchers share about searches: trials as training runs, and what becomes of the best."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from launch.plan import Plan
from sptskm.config import Config, Final
from sptskm.configfile import to_yaml
from sptskm.search import Search, Settings, Trial, check, configured, load_search

if TYPE_CHECKING:
    from sptskm.final import HeldOut

FOLDER, WINNER, RETRAINED = "search", "winner", "retrained"


def options(parser: argparse.ArgumentParser) -> None:
    """What may be typed about a search behind any launcher that knows one."""
    parser.add_argument("--search", type=Path, metavar="FILE", help="search for settings, as configs/search/*.yaml say")
    parser.add_argument(
        "--retrain", action="store_true", help="train what was found once more, on all training identities"
    )


def load(plan: Plan, file: Path) -> Search:
    """A search file, checked against the configurations that it varies. Raises ConfigError or FileNotFoundError."""
    search = load_search(file)
    for config in plan.configs:
        check(search, config)
    return search


def folder(plan: Plan) -> Path:
    """Where the trials of a plan lie."""
    return plan.folder / FOLDER


def trial(plan: Plan, search: Search, stream: str, number: int, settings: Settings) -> tuple[Trial, Config]:
    """One trial and the run that it is; no file of test is read in it."""
    base = next(config for config in plan.configs if config.stream == stream)
    place = str(folder(plan) / stream / f"{number:04d}")
    config = configured(base, settings)
    config = replace(
        config,
        run=place,
        data=replace(config.data, test=False),
        train=replace(config.train, epochs=search.epochs, validate_every=search.validate_every),
    )
    return Trial(stream, number, settings, search.workers, place), config


def winner(plan: Plan, search: Search, best: Mapping[str, Trial], chosen: "HeldOut | None") -> Plan:
    """Write the best settings as configurations to be trained, and give the plan that trains them on everybody.

    `--config FOLDER/winner` trains them as any others. Nothing is held out here, so that the fusion is the chosen one.
    """
    home = plan.folder / WINNER
    home.mkdir(parents=True, exist_ok=True)
    final = final_settings(plan, chosen)
    (home / "final.yaml").write_text(to_yaml(final))
    configs = []
    for config in plan.configs:
        found = configured(config, best[config.stream].settings)
        found = replace(found, train=replace(found.train, epochs=search.epochs), run="")
        (home / f"{config.stream}.yaml").write_text(to_yaml(found))
        run = str(plan.folder / RETRAINED / config.stream)
        configs.append(replace(found, run=run, data=replace(found.data, held_out=0.0)))
    return Plan(tuple(configs), final, plan.folder)


def final_settings(plan: Plan, chosen: "HeldOut | None") -> Final:
    """The settings of the final job with the fusion that was chosen."""
    if chosen is None:
        return plan.final
    return replace(plan.final, weight=chosen.weight, normalisation=chosen.normalisation)
