"""Code that the launchers share: the command line, the plan of runs, and the checks before a start.

Torch is imported only to open pretrained weights, so that a launcher answers quickly on a login node.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from sptskm.common.atomic import write_error
from sptskm.common.endings import EXIT_BAD_INPUT, sentence
from sptskm.common.errors import DataError
from sptskm.common.paths import fold_folder
from sptskm.common.settings import together
from sptskm.config import PAIR, STREAMS, Config, ConfigError, Final, SsinModel
from sptskm.configfile import find_folder, load, load_final
from sptskm.data import Split, Tracklets, hold_out, read_dataset, split_of
from sptskm.data.files import is_there
from sptskm.data.sampler import num_batches, shard
from sptskm.evaluation import (
    check_choosing,
    check_judging,
    fused_streams,
    idle_weights,
    instead_of_people,
    must_choose,
    protocol_of,
)
from sptskm.evaluation.protocols import ENDINGS
from sptskm.report.trackers import check_trackers
from sptskm.sections import SsinClips
from sptskm.trunkfile import completed

GROUPS = ("both", "all")  # of streams, that `--stream` takes beside the name of one
PROBES = 8  # files looked for per modality before a job is started; `sptskm check` looks for all


@dataclass(frozen=True)
class Plan:
    """The training runs to start and the final job that follows them."""

    configs: tuple[Config, ...]
    final: Final
    folder: Path

    @cached_property
    def runs(self) -> dict[str, Config]:
        """Return all training runs by the name of their job: those that leave a fold out, then one of each stream."""
        return {f"{fold.stream}-fold-{n}": fold for n in self._folds for fold in self._leaving_out(n)} | {
            config.stream: config for config in self.configs
        }

    @property
    def _folds(self) -> range:
        return range(1, self.final.folds + 1 if len(self.configs) > 1 else 1)

    def _leaving_out(self, fold: int) -> list[Config]:
        """Return the runs of all streams that leave a fold out. They have no test part, on which none is evaluated."""
        return [
            replace(
                config,
                run=str(fold_folder(config.run, fold)),
                data=replace(config.data, fold=f"{fold}/{self.final.folds}", test=False),
            )
            for config in self.configs
        ]

    def config(self, name: str) -> Config:
        """Return the configuration of a run by the name of its job."""
        return self.runs[name]

    @property
    def out(self) -> Path:
        """Return the folder of the final job's results."""
        return self.folder / "final"

    @property
    def logs(self) -> Path:
        """Return the folder of the jobs: their scripts, their copy of the code, and the logs of each rank."""
        return self.folder / "jobs"

    def tensorboard_command(self) -> str:
        """Return the TensorBoard command for the runs, with its path if it is not on PATH."""
        program = "tensorboard" if shutil.which("tensorboard") else str(Path(sys.executable).with_name("tensorboard"))
        return f"{program} --logdir {self.folder}"


def refused(command: str, why: Exception | str) -> int:
    """Print why a launcher does not go on, behind its name as it was typed, and return the exit code."""
    typed = sys.argv[0] if Path(sys.argv[0]).name == f"{command}.py" else f"sptskm {command}"
    print(f"{typed}: {sentence(why) if isinstance(why, Exception) else why}", file=sys.stderr, flush=True)
    return EXIT_BAD_INPUT


def parser(description: str, epilog: str = "") -> argparse.ArgumentParser:
    """Return a parser with the options that all launchers share.

    Parse with `parse_intermixed_args`: overrides may come before, between and after the options.
    """
    options = argparse.ArgumentParser(description=description, epilog=epilog, allow_abbrev=False)
    options.add_argument(
        "--stream",
        choices=(*STREAMS, *GROUPS),
        required=True,
        help=f"both: {' and '.join(PAIR)}; all: every stream that the folder of --config has a file of",
    )
    options.add_argument(
        "--config",
        type=Path,
        default=Path("configs/mars"),
        help="folder with a file for each stream (ssin.yaml, smin.yaml) and final.yaml",
    )
    options.add_argument("--run", type=Path, help="folder of the runs (default: runs/NAME OF THE CONFIG FOLDER)")
    options.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="e.g. data.root=/data/mars train.epochs=50; ssin.train.epochs=50 for one stream, final.protocol=torchreid",
    )
    return options


def make_plan(options: argparse.Namespace) -> Plan:
    """Build the plan that a command line asks for, without checking it against the data.

    Raises ConfigError or FileNotFoundError naming the file or the override at fault.
    """
    if more := [word for word in options.overrides if word in (*STREAMS, *GROUPS)]:
        legal = f"{', '.join((*STREAMS, *GROUPS[:-1]))} or {GROUPS[-1]}"
        raise ConfigError(f"--stream is {options.stream} {' '.join(more)}, wanted one of {legal}")
    if options.run == Path():  # as of --run "$UNSET"
        raise ConfigError("--run is empty, or the folder in which the command is given, wanted one for the runs alone")
    home = find_folder(options.config)
    names = _asked_for(options.stream, home)
    folder = (options.run or Path("runs") / home.resolve().name).resolve()
    _refuse_strays(names, options.overrides)
    overrides = {name: _for(name, options.overrides) for name in (*names, "final")}
    if any(override.startswith("run=") for chosen in overrides.values() for override in chosen):
        raise ConfigError("run= is an override, wanted --run FOLDER (each stream gets a folder in it)")
    reading: list[Callable[[], Any]] = [partial(load, home / f"{name}.yaml", overrides[name]) for name in names]
    reading.append(partial(load_final, home / "final.yaml", overrides["final"]))
    *configs, final = together(reading)
    for name, config in zip(names, configs, strict=True):
        if config.stream != name:
            raise ConfigError(f"{home / name}.yaml: stream is {config.stream}, wanted {name}")
    if final.protocol.endswith(ENDINGS):
        final = replace(final, protocol=str(Path(final.protocol).absolute()))
    return Plan(tuple(_absolute(config, folder) for config in configs), final, folder)


def _asked_for(stream: str, home: Path) -> Sequence[str]:
    """Return the streams that `--stream` means with a folder of configurations.

    Raises FileNotFoundError for a stream that has no file there, ConfigError for a folder without any.
    """
    there = [name for name in STREAMS if (home / f"{name}.yaml").exists()]
    names = there if stream == "all" else PAIR if stream == "both" else (stream,)
    if not names:
        raise ConfigError(f"{home}: has no file of a stream, wanted {' or '.join(f'{name}.yaml' for name in STREAMS)}")
    if lacking := [name for name in names if name not in there]:
        others = f"; its folder has {', '.join(there)}" if there else ""
        raise FileNotFoundError(f"{home / lacking[0]}.yaml: no such file, and --stream is {stream}{others}")
    return names


def _absolute(config: Config, folder: Path) -> Config:
    """Make the paths of a configuration absolute, since jobs run in other folders."""
    config = replace(config, run=str(folder / config.stream))
    config = replace(config, data=replace(config.data, root=str(Path(config.data.root).absolute())))
    if isinstance(model := config.model, SsinModel):
        paths = {name: getattr(model, name) for name in ("pretrained", "trunk")}
        absolute: dict[str, Any] = {name: str(Path(path).absolute()) for name, path in paths.items() if path}
        config = replace(config, model=replace(model, **absolute))
    return config


def _for(target: str, overrides: Sequence[str]) -> list[str]:
    """Return the overrides for a stream (its own and the common ones) or for the final job (only its own)."""
    chosen = []
    for override in overrides:
        first, _, rest = override.partition(".")
        if first == target:
            chosen.append(rest)
        elif target != "final" and first not in (*STREAMS, "final"):
            chosen.append(override)
    return chosen


def _refuse_strays(names: Sequence[str], overrides: Sequence[str]) -> None:
    """Raise ConfigError for an override of a stream that is not trained; it would have no effect."""
    for override in overrides:
        if (first := override.partition(".")[0]) in STREAMS and first not in names:
            raise ConfigError(f"override {override!r}: {first} is not trained, --stream is {' '.join(names)}")


def check(plan: Plan, ranks: Mapping[str, int]) -> None:
    """Check everything that can be checked before the jobs start; `ranks` is how many train each stream.

    Prints a note about weights that change nothing. Raises ConfigError, DataError or FileNotFoundError.
    """
    tables = {data: read_dataset(*data) for data in {(c.data.root, c.data.test) for c in plan.runs.values()}}
    rules = protocol_of(plan.final)
    for table in tables.values():
        check_judging(plan.final, rules, table)
    for name, config in plan.runs.items():
        try:
            _check_stream(config, tables[config.data.root, config.data.test], ranks[config.stream])
        except (ConfigError, DataError) as error:
            raise type(error)(f"{name}: {error}") from None
    held_out = {config.data.held_out for config in plan.configs}
    seeds = {config.data.split_seed for config in plan.configs}
    if len(held_out) > 1 or len(seeds) > 1:
        raise ConfigError("data.held_out and data.split_seed must be the same for all streams that are fused")
    names = fused_streams(plan.final, [config.stream for config in plan.configs])
    choosing = must_choose(plan.final, names)
    if held_out == {0.0} and choosing and not plan.final.folds:
        raise ConfigError(f"data.held_out is 0, so that nobody can choose the fusion: {instead_of_people(plan.final)}")
    if choosing and not plan.final.folds:
        data = plan.configs[0].data
        table = tables[data.root, data.test]
        check_choosing(rules, table, hold_out(table, data.held_out, data.split_seed))
    if note := idle_weights(plan.final, names):
        print(note, file=sys.stderr)


def make_folder(folder: Path) -> None:
    """Create a folder for the runs, or check that it can be written. Raises ConfigError in one sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        why = write_error(folder / "trial")
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise ConfigError(f"{folder}: cannot be written ({why}), wanted another folder for the runs (--run)")


def _check_stream(config: Config, table: Tracklets, ranks: int) -> None:
    split = split_of(table, config.data)
    num_batches(config.sampling, split.train, table.pids_N[split.train])
    shard(np.arange(config.sampling.identities * config.sampling.tracklets), 0, ranks)
    _check_weights(config)
    check_trackers(config.train.wandb, config.train.mlflow)
    _check_files(config, table, split)


def _check_weights(config: Config) -> None:
    if isinstance(config.model, SsinModel) and config.model.pretrained:
        path = Path(config.model.pretrained)
        if not path.is_file():
            raise FileNotFoundError(
                f"model.pretrained is {path}: no such file; compute nodes have no internet, copy it there first"
            )
        from sptskm.models.weights import check_pretrained  # imports torch, which nothing else here needs

        check_pretrained(config.model)
    model, clips = completed(config).model, config.clips
    if isinstance(model, SsinModel) and model.trunk and isinstance(clips, SsinClips):
        from sptskm.models.trunks import check_trunk  # imports torch and transformers

        check_trunk(Path(model.trunk), model.architecture, (clips.height, clips.width))


def _check_files(config: Config, table: Tracklets, split: Split) -> None:
    """Check that some files exist of each modality that the stream needs, in the training and the test rows.

    Looks at PROBES tracklets of each part. Raises DataError.
    """
    for rows in (split.train, table.test) if config.data.test else (split.train,):
        probes = rows[np.linspace(0, len(rows) - 1, min(PROBES, len(rows))).astype(int)]
        for modality in STREAMS[config.stream].needs:
            if not any(is_there(table, int(row), modality) for row in probes):
                where = table.folder(int(probes[0]), modality)
                raise DataError(f"needs {modality}, but none of {len(probes)} tracklets has any, as in {where}")
