"""Train and evaluate as a Ray job: on this machine, or on a running Ray cluster.

    python launch/tune.py --stream both --config configs/demo
    python launch/tune.py --stream both --address 10.0.0.1:6379 --workers 4

Without --address it starts a Ray of its own, which nobody else can join and which ends with it. slurm/ray.sbatch
starts a Ray inside a SLURM job. The same command continues a run that was stopped, or has lost its machine.
"""

import argparse
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from launch.local import request, visible_gpus
from launch.plan import Plan, check, make_plan, parser
from sptskm.cli import EXIT_BAD_INPUT
from sptskm.config import ConfigError
from sptskm.training.endings import EXIT_STOPPED, Stopped, Unreachable
from sptskm.training.signals import StopFlag, stop_flag

if TYPE_CHECKING:
    from launch.workers import Team

OBJECT_STORE_BYTES = 100_000_000  # only settings and results of epochs pass through it
NODES_SECONDS = 60.0  # for the nodes of a cluster that has just been started
KNOCK_SECONDS, JOIN_SECONDS = 5.0, 30.0
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # which prints a table whatever the verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoard shows what the trainer writes
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the plan of a command line; the exit code says how it ended (75: stopped, start again to continue)."""
    chosen = command_line().parse_intermixed_args(arguments)
    try:
        _check_options(chosen)
        plan = make_plan(chosen)
        check(plan, chosen.workers)
        for config in plan.configs:
            request(config, config.run)  # a folder that cannot be written is known now
        request(plan.final, plan.out)
        (plan.folder / "jobs").mkdir(exist_ok=True)
        return _in_ray(plan, chosen)
    except (ValueError, OSError) as error:
        print(f"launch/tune.py: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT


def command_line() -> argparse.ArgumentParser:
    """What may be typed behind `python launch/tune.py`."""
    options = parser("Train and evaluate as a Ray job.")
    options.add_argument(
        "--address", metavar="HOST:PORT", help="a running Ray cluster (default: a Ray of its own, here)"
    )
    options.add_argument("--nodes", type=int, help="wait until that cluster has so many nodes")
    options.add_argument("--workers", type=int, default=1, help="ranks of each stream")
    options.add_argument("--cpus-per-worker", type=int, default=1)
    options.add_argument("--gpus-per-worker", type=int, help="0 or 1 (default: 1 where Ray has GPUs)")
    options.add_argument("--retries", type=int, default=3, help="how often a stream that loses a worker starts again")
    return options


def _check_options(chosen: argparse.Namespace) -> None:
    for option, least in (("workers", 1), ("cpus_per_worker", 1), ("retries", 0)):
        if (found := getattr(chosen, option)) < least:
            raise ConfigError(f"--{option.replace('_', '-')} is {found}, wanted at least {least}")
    if chosen.gpus_per_worker not in (None, 0, 1):
        raise ConfigError(f"--gpus-per-worker is {chosen.gpus_per_worker}, wanted 0 or 1")
    if chosen.nodes is not None and not chosen.address:
        raise ConfigError("--nodes waits for a running cluster, wanted --address with it")
    if chosen.address:
        _knock(chosen.address)


def _knock(address: str) -> None:
    """Refuse an address at which nobody listens: Ray would try it for a minute."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--address is {address}, wanted HOST:PORT of a running Ray, as `ray start --head` shows it")
    try:
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
    except OSError as error:
        raise ConfigError(f"--address is {address}, where no Ray answers ({error})") from None


def _in_ray(plan: Plan, chosen: argparse.Namespace) -> int:
    """Do the plan in the Ray that was chosen; signals ask all workers to save and leave."""
    patience = max(config.train.leave_seconds for config in plan.configs)
    # sockets want a short path, others no way in: Ray opens its own folder to everybody
    with (
        tempfile.TemporaryDirectory(prefix="sptskm-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        stop_flag(patience, lambda: _give_up(folder)) as stop,
        _joined(chosen.address) if chosen.address else _own(folder),
    ):
        signal.signal(signal.SIGTERM, stop)  # which Ray has taken
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            signal.signal(signal.SIGHUP, stop)
        team, room = _fit(chosen)
        return run(plan, team, room, chosen.retries, stop)


def _give_up(folder: str) -> NoReturn:
    """Leave workers that do not leave by themselves; they end with this process, and their checkpoints are whole."""
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(EXIT_STOPPED)


@contextmanager
def _own(folder: str) -> Iterator[None]:
    """A Ray on this machine that nobody else can join, and that joins nobody, whatever the environment says."""
    os.environ.update(ENVIRONMENT, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray

    ray.init(
        address="local",
        num_cpus=_cpus(),
        num_gpus=len(visible_gpus()),
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=f"{folder}/ray",
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _joined(address: str) -> Iterator[None]:
    """A Ray that runs already and goes on afterwards."""
    os.environ.update(ENVIRONMENT)
    import ray

    refusal = f"--address is {address}, where no Ray lets this machine in (HOST:PORT of its head; RAY_AUTH_TOKEN)"
    overdue = threading.Timer(JOIN_SECONDS, _refuse, [refusal])  # Ray knows no end
    overdue.start()
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{refusal}: {error}") from None
    finally:
        overdue.cancel()
    try:
        yield
    finally:
        ray.shutdown()


def _refuse(why: str) -> NoReturn:
    print(f"launch/tune.py: {why}", file=sys.stderr, flush=True)
    os._exit(EXIT_BAD_INPUT)


def _cpus() -> int:
    """CPUs that this process may use; Ray would take all of the machine."""
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, int(os.environ.get("SLURM_CPUS_PER_TASK", allowed)))


def _fit(chosen: argparse.Namespace) -> "tuple[Team, int]":
    """The team of each stream, and how many such workers Ray has room for; ConfigError when they are too few."""
    from launch.workers import Team

    nodes = _nodes(chosen.nodes or 1)
    gpus = chosen.gpus_per_worker
    if gpus is None:
        gpus = int(any(node.get("GPU", 0) >= 1 for node in nodes))
    team = Team(chosen.workers, chosen.cpus_per_worker, gpus)
    room = sum(int(min(node.get(what, 0) // count for what, count in team.bundle.items())) for node in nodes)
    if room < team.workers:
        offer = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ConfigError(
            f"--workers is {team.workers}, with {team.cpus} CPUs and {team.gpus} GPUs each, but there is room for "
            f"{room}: Ray's nodes have {offer}"
        )
    return team, room


def _nodes(wanted: int) -> list[dict[str, float]]:
    """What each node of the cluster has, once there are as many as wanted."""
    import ray

    deadline = time.monotonic() + NODES_SECONDS
    while len(found := [node["Resources"] for node in ray.nodes() if node["Alive"]]) < wanted:
        if time.monotonic() > deadline:
            raise ConfigError(f"--nodes is {wanted}, but after {NODES_SECONDS:.0f} s Ray has {len(found)}")
        time.sleep(0.5)
    return found


def run(plan: Plan, team: "Team", room: int, retries: int, stop: StopFlag) -> int:
    """Train the streams, then run the final job on as many workers as there were, in the Ray that was joined."""
    from launch import trials
    from launch.workers import Failed

    shutil.rmtree(plan.folder / trials.FOLDER, ignore_errors=True)
    ends = trials.train(plan, team, retries, stop)
    if stop.requested or any(end != "finished" for end in ends.values()):
        return _explain(ends, plan, stop)
    everyone = replace(team, workers=min(room, team.workers * len(plan.configs)))
    try:
        table = trials.evaluate(plan, everyone, retries, stop)
    except Stopped:
        return _explain({"final": "stopped"}, plan, stop)
    except (Failed, Unreachable) as error:
        return _explain({"final": str(error)}, plan, stop)
    print(f"{table}\n\n{plan.farewell()}")
    return 0


def _explain(ends: Mapping[str, str], plan: Plan, stop: StopFlag) -> int:
    """Say how each job that did not finish has ended; what they have done is kept."""
    for name, end in ends.items():
        if end not in ("finished", "stopped"):
            print(f"{name} failed: {end}", file=sys.stderr)
    if stop.requested:
        print(f"stopped as asked; the same command continues in {plan.folder}", file=sys.stderr)
    return EXIT_STOPPED if stop.requested else 1


if __name__ == "__main__":
    sys.exit(main())
