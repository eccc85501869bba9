"""The options `--prepare masks --data DIR --weights FILE`, for every launcher that offers them."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sptskm.config import ConfigError
from sptskm.data import read_any
from sptskm.preparation import command
from sptskm.preparation.command import KINDS, Wanted, common_options, verify_all
from sptskm.preparation.weights_cache import blazepose_weights
from sptskm.preparation.work import home, precision_of

USAGE = "Masks and skeletons on the cluster: python launch/{}.py --prepare masks --help"


def is_asked_for(arguments: Sequence[str] | None) -> bool:
    """Return whether a command line has `--prepare`; None stands for the command line of this process."""
    words = sys.argv[1:] if arguments is None else arguments
    return any(word.partition("=")[0] == "--prepare" for word in words)


def verified(wanted: Wanted) -> tuple[bool, str]:
    """Check whether all masks or skeletons exist, and return that with a text for the user."""
    return verify_all(wanted.kinds, wanted.data, compare=True)


def command_line() -> argparse.ArgumentParser:
    """Return a parser with the `--prepare` options that the launchers share."""
    options = argparse.ArgumentParser(description="Make masks or skeletons on a cluster.", allow_abbrev=False)
    options.add_argument("--prepare", choices=tuple(KINDS), required=True)
    common_options(options)
    options.set_defaults(shards=16)
    return options


def wanted_of(chosen: argparse.Namespace) -> Wanted:
    """Return what a command line asks to prepare, with absolute paths. Raises ConfigError or DataError."""
    if chosen.shards < 1:
        raise ConfigError(f"--shards is {chosen.shards}, wanted at least 1")
    if chosen.data is None:
        raise ConfigError("--data is missing, wanted the folder of a data set in the MARS layout, or a manifest")
    wanted = command.wanted_of(KINDS[chosen.prepare], chosen)
    weights = wanted.weights.absolute() if wanted.weights else None
    if weights is not None and not weights.exists() and not Path(f"{weights}.index").is_file():
        raise ConfigError(f"--weights is {weights}, where there is no file, folder or checkpoint prefix")
    if wanted.method == "blazepose":
        blazepose_weights()
    read_any(chosen.data)
    return replace(wanted, data=chosen.data.absolute(), weights=weights)


def check_method_weights(wanted: Wanted) -> None:
    """Raise the error that the jobs would: for weights that are damaged, not finite, or of another network.

    Torch is imported only if there are weights.
    """
    if wanted.weights is not None:
        from sptskm.models import open_jppnet, open_posehg3d

        open_jppnet(wanted.weights) if wanted.method == "jppnet" else open_posehg3d(wanted.weights)


def resolved(wanted: Wanted, gpus: bool) -> Wanted:
    """Fix the precision before any shard starts, so that all shards use the same. Raises ConfigError."""
    return replace(wanted, precision=precision_of(wanted.method, wanted.precision, gpus))


def jobs_folder(wanted: Wanted) -> Path:
    """Return the folder in the data set where jobs keep their files."""
    return home(wanted.data, wanted.kinds[0]) / "jobs"
