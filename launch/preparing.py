"""What `--prepare masks --data DIR --weights FILE` means behind any launcher that knows it."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sptskm.config import ConfigError
from sptskm.data import read_dataset
from sptskm.preparation.command import Wanted, common_options
from sptskm.preparation.work import home, precision_of, verify

USAGE = "Masks and skeletons on the cluster: python launch/{}.py --prepare masks --help"


def is_asked_for(arguments: Sequence[str] | None) -> bool:
    """Whether a command line (None: that of this process) is about masks or skeletons."""
    words = sys.argv[1:] if arguments is None else arguments
    return any(word.partition("=")[0] == "--prepare" for word in words)


def verified(wanted: Wanted) -> tuple[bool, str]:
    """Whether everything is there, and what to say of it."""
    return verify(wanted.data, read_dataset(wanted.data), wanted.made)


def command_line() -> argparse.ArgumentParser:
    """The options that all of them have."""
    options = argparse.ArgumentParser(description="Make masks or skeletons on a cluster.", allow_abbrev=False)
    options.add_argument("--prepare", choices=("masks", "skeletons"), required=True)
    common_options(options)
    options.add_argument("--shards", type=int, default=16, help="parts that are made side by side (default: 16)")
    return options


def wanted_of(chosen: argparse.Namespace) -> Wanted:
    """What a command line asks for, with paths that mean the same everywhere. Raises ConfigError or DataError."""
    if chosen.shards < 1:
        raise ConfigError(f"--shards is {chosen.shards}, wanted at least 1")
    weights = chosen.weights.absolute() if chosen.weights else None
    if weights is None and not (chosen.grabcut and chosen.prepare == "masks"):
        raise ConfigError(f"{chosen.prepare} are made by a network: --weights is missing (`sptskm prepare` says more)")
    if weights is not None and not weights.exists() and not Path(f"{weights}.index").is_file():
        raise ConfigError(f"--weights is {weights}, where there is no file, folder or checkpoint prefix")
    read_dataset(chosen.data)
    options = chosen.grabcut, chosen.fast, chosen.flip, chosen.shards
    return Wanted(chosen.prepare, chosen.data.absolute(), weights, *options, precision=chosen.precision)


def check_weights(wanted: Wanted) -> None:
    """Refuse what the jobs would: weights that are damaged, not finite, or of another network. Raises as opening does.

    Torch is imported only where there are any.
    """
    if wanted.weights is not None:
        from sptskm.models import open_jppnet, open_posehg3d

        open_jppnet(wanted.weights) if wanted.made == "masks" else open_posehg3d(wanted.weights)


def resolved(wanted: Wanted, gpus: bool) -> Wanted:
    """The same with the precision that all shards have, known before any of them starts. Raises ConfigError."""
    return replace(wanted, precision=precision_of(wanted.made, wanted.precision, gpus))


def jobs_folder(wanted: Wanted) -> Path:
    """Where jobs keep their files, in the data set."""
    return home(wanted.data, wanted.made) / "jobs"
