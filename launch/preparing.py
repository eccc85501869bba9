"""Masks and skeletons as an array of jobs: `python launch/slurm.py --prepare masks --data DIR --weights FILE`."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from submitit.helpers import Checkpointable

from launch.cluster import Cluster
from launch.submission import Queued, queue, queue_array
from sptskm.config import ConfigError
from sptskm.data import DataError, read_dataset
from sptskm.preparation.command import Wanted, common_options, made
from sptskm.preparation.work import home, verify
from sptskm.report.console import set_up_logging


@dataclass(frozen=True)
class PrepareJob(Checkpointable):
    """One shard; started again it goes on where it was, however it ended."""

    wanted: Wanted
    shard: int

    def __call__(self) -> str:
        set_up_logging()
        text = made(self.wanted, self.shard)
        print(text)
        return text


@dataclass(frozen=True)
class VerifyJob(Checkpointable):
    """Whether all shards together are everything; fails with the list of what is missing, and why."""

    wanted: Wanted

    def __call__(self) -> str:
        complete, text = verified(self.wanted)
        if not complete:
            raise DataError(text)
        print(text)
        return text


def verified(wanted: Wanted) -> tuple[bool, str]:
    """Whether everything is there, and what to say of it."""
    return verify(wanted.data, read_dataset(wanted.data), wanted.made)


def command_line() -> argparse.ArgumentParser:
    """What may be typed behind `--prepare` of any launcher that knows it."""
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
    return Wanted(chosen.prepare, chosen.data.absolute(), weights, *options)


def jobs_folder(wanted: Wanted) -> Path:
    """Where jobs keep their files, in the data set."""
    return home(wanted.data, wanted.made) / "jobs"


def submit(wanted: Wanted, cluster: Cluster) -> Queued:
    """Queue the shards, each with one process and at most one GPU, and the verification behind all of them."""
    alone = replace(cluster, nodes=1, gpus_per_node=min(cluster.gpus_per_node, 1), cpu_ranks=1)
    folder, queued = jobs_folder(wanted), Queued()
    with queued.all_or_none():
        jobs = [PrepareJob(wanted, shard) for shard in range(wanted.shards)]
        for shard, job in enumerate(queue_array(folder, alone, jobs, wanted.made)):
            queued.add(f"{wanted.made} {shard}", job)
        after = queued.behind("afterany")
        queued.add("verify", queue(folder, replace(alone, gpus_per_node=0), VerifyJob(wanted), "verify", after))
    return queued
