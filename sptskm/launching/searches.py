"""Hyper-parameter search apart from Ray: its search file, its trials as training runs, and its best trials."""

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sptskm.common.atomic import write_text
from sptskm.common.reading import read_json
from sptskm.config import Config, ConfigError
from sptskm.configfile import changed_keys, find_file, load_final, to_dict, to_yaml
from sptskm.configfile import load as load_config
from sptskm.data import read_dataset
from sptskm.data.splits import changed_data
from sptskm.launching.plan import Plan
from sptskm.training.allocation import is_main
from sptskm.training.signals import StopFlag
from sptskm.tuning import SEARCHES, Search, Settings, Trial, check_search, configured, load_search, rank_trials

if TYPE_CHECKING:
    from sptskm.evaluation import Fusion

Searches = Mapping[str, Search]
"""Hyper-parameter searches by stream."""

WINNER, RETRAINED = "winner", "retrained"
RUN = "run"  # in the folder of a trial, whose other files are Tune's
ASKED = "asked.json"  # in the folder of a stream's search


def options(parser: argparse.ArgumentParser) -> None:
    """Add the hyper-parameter search options to a launcher's parser."""
    parser.add_argument("--search", type=Path, metavar="FILE", help="what varies, as in configs/search/*.yaml")
    parser.add_argument(
        "--retrain", action="store_true", help="train what was found once more, on all training identities"
    )


def load_searches(plan: Plan, file: Path) -> Searches:
    """Read the searches of a plan's streams from a search file, and check them against the configurations.

    Raises ConfigError or FileNotFoundError, and errors as `read_dataset` where a search is continued.
    """
    file = find_file(file, "configs/search")
    known = load_search(file)
    for config in plan.configs:
        if config.stream not in known:
            raise ConfigError(f"{file} has no section {config.stream}, and --stream asks for it")
        check_search(file, known[config.stream], config)
        if known[config.stream].method == "optuna" and find_spec("optuna") is None:
            raise ConfigError(f"{file}: method is optuna, which is not installed here (pip install optuna)")
        _check_same(plan, known[config.stream])
    return {config.stream: known[config.stream] for config in plan.configs}


def _check_same(plan: Plan, search: Search) -> None:
    """Raise ConfigError if a search would be continued with other rules: Tune keeps the rules of its start."""
    home = search_folder(plan) / search.stream
    if not (home / ASKED).exists():
        if any(home.glob("*/trial.json")):
            raise ConfigError(f"{home} holds a search of an earlier version, wanted another --run")
        return
    try:
        before = json.loads((home / ASKED).read_text())
        changed = changed_keys(before, _asked(plan, search))
    except (ValueError, AttributeError):
        raise ConfigError(f"{home / ASKED} is no record of a search, wanted another --run") from None
    if changed:
        raise ConfigError(
            f"{home} holds a search with other settings ({'; '.join(changed)}), wanted another --run, or that folder "
            "deleted"
        )
    _check_same_data(home, plan.config(search.stream))


def _check_same_data(home: Path, config: Config) -> None:
    """Raise ConfigError if the trials of a search, as far as they say, were trained on other data than there are now.

    Their scores could not be compared with those of further trials.
    """
    for path in sorted(home.glob(f"*/{RUN}/data.json")):
        with suppress(ValueError, OSError, KeyError):
            before = read_json(path, dict[str, str])["fingerprint"]
            break
    else:
        return
    now = read_dataset(config.data.root, False).training_fingerprint
    if changed := changed_data({"fingerprint": before}, {"fingerprint": now}):
        raise ConfigError(
            f"{home} holds a search on other data ({changed[0]}), wanted another --run, or that folder deleted"
        )


def _asked(plan: Plan, search: Search) -> dict[str, Any]:
    config = to_dict(replace(plan.config(search.stream), run=""))
    space = {name: asdict(draw) for name, draw in search.space.items()}
    rules = {**vars(search), "space": {name.replace(".", "/"): draw for name, draw in space.items()}}
    return json.loads(json.dumps({"search": rules, "config": config}))


def note(plan: Plan, search: Search) -> None:
    """Write the rules of a search to its folder before it starts."""
    home = search_folder(plan) / search.stream
    home.mkdir(parents=True, exist_ok=True)
    write_text(home / ASKED, json.dumps(_asked(plan, search), indent=1))


def search_folder(plan: Plan) -> Path:
    """Return the folder of a plan's searches, which holds one experiment of Tune per stream."""
    return plan.folder / SEARCHES


def trial_folder(plan: Plan, stream: str, number: int) -> Path:
    """Return Tune's folder of a trial."""
    return search_folder(plan) / stream / f"{number:04d}"


def trial(plan: Plan, search: Search, number: int, settings: Settings) -> tuple[Trial, Config]:
    """Return a trial and its training configuration, which never reads the test part."""
    place = str(trial_folder(plan, search.stream, number) / RUN)
    config = configured(plan.config(search.stream), settings)
    config = replace(
        config,
        run=place,
        data=replace(config.data, test=False),
        train=replace(config.train, epochs=search.epochs, validate_every=search.validate_every),
    )
    return Trial(search.stream, number, settings, search.workers, place), config


def without_test_split(plan: Plan) -> Plan:
    """Return the plan with the test part of the data turned off, and without folds: held-out people judge trials.

    Raises ConfigError where nobody is held out.
    """
    if none := [config.stream for config in plan.configs if config.data.held_out == 0]:
        raise ConfigError(
            f"{none[0]}: data.held_out is 0, wanted a share of the identities, such as data.held_out=0.1: a search "
            "judges its trials on held-out people, and has no folds"
        )
    configs = tuple(replace(config, data=replace(config.data, test=False)) for config in plan.configs)
    return replace(plan, configs=configs, final=replace(plan.final, folds=0))


def best_trials(plan: Plan, trials: Sequence[Trial]) -> dict[str, Trial]:
    """Return the best trial of each stream of a plan; ConfigError if a stream has no trial with a score."""
    found = {config.stream: rank_trials(trials, config.stream) for config in plan.configs}
    if missing := [stream for stream, own in found.items() if not own]:
        raise ConfigError(
            f"no trial of {missing[0]} in {search_folder(plan)} has a score; see why they failed, or search on"
        )
    return {stream: own[0] for stream, own in found.items()}


def conclude(plan: Plan, searched: Searches, trials: Sequence[Trial], stop: StopFlag) -> str:
    """Choose the best trials and their fusion, and write both to files; return the table on rank 0, else "".

    All ranks must call it. Raises ConfigError when a stream has no trial with a score, Stopped, Unreachable.
    """
    from sptskm.evaluation.results import weights_told
    from sptskm.final import fuse_held_out
    from sptskm.report.trial_pages import text, write_page

    best = best_trials(plan, trials)
    runs = [best[config.stream].folder for config in plan.configs]
    open_to_choice = len(runs) > 1 and plan.final.weight is None and not plan.final.weights
    chosen = fuse_held_out(runs, plan.final, stop) if open_to_choice else None
    if not is_main():
        return ""
    fusion, scores = (None, {}) if chosen is None else chosen
    winner(plan, searched, best, fusion)
    write_page(trials, searched, search_folder(plan))
    lines = [text(trials, searched), f"best settings: {plan.folder / WINNER}"]
    if fusion is not None:
        told = ", ".join(f"{name} {mAP:.1%}" for name, mAP in scores.items())
        lines.append(f"held-out mAP {told} ({fusion.normalisation}, {weights_told(fusion.weights)})")
    return "\n".join(lines)


def winner(plan: Plan, searched: Searches, best: Mapping[str, Trial], fusion: "Fusion | None") -> None:
    """Write the best settings as configuration files: `--config FOLDER/winner` trains them."""
    home = plan.folder / WINNER
    home.mkdir(parents=True, exist_ok=True)
    final = plan.final
    if fusion is not None:
        weights = {} if fusion.weight is not None else dict(fusion.weights)
        final = replace(final, weight=fusion.weight, weights=weights, normalisation=fusion.normalisation, folds=0)
    write_text(home / "final.yaml", to_yaml(final))
    for config in plan.configs:
        found = configured(config, best[config.stream].settings)
        found = replace(found, train=replace(found.train, epochs=searched[config.stream].epochs), run="")
        write_text(home / f"{config.stream}.yaml", to_yaml(found))


def retrained(plan: Plan) -> Plan:
    """Return the plan that trains the best settings on all training identities, with none held out."""
    home = plan.folder / WINNER
    configs = []
    for config in plan.configs:
        run = str(plan.folder / RETRAINED / config.stream)
        configs.append(load_config(home / f"{config.stream}.yaml", [f"run={run}", "data.held_out=0"]))
    return Plan(tuple(configs), load_final(home / "final.yaml"), plan.folder)


def found(plan: Plan, trials: Sequence[Trial]) -> Plan:
    """Return the plan that evaluates the best trials without training again."""
    best = best_trials(plan, trials)
    configs = tuple(replace(config, run=best[config.stream].folder) for config in plan.configs)
    return Plan(configs, load_final(plan.folder / WINNER / "final.yaml"), plan.folder)
