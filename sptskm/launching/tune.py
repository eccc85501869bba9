"""Search hyper-parameters, train and evaluate in Ray: on this machine, or on a running Ray cluster.

    sptskm tune --stream both --config configs/demo
    sptskm tune --stream both --fixed --address 10.0.0.1:6379 --workers 4

Without --address it starts a private Ray that nobody else can join, and shuts it down on exit. slurm/ray.sbatch starts
Ray inside a SLURM job. The same command continues a run that was stopped or has lost its machine.
"""

import argparse
import logging
import math
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
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sptskm.common.console import Messages
from sptskm.common.endings import EXIT_BAD_INPUT, EXIT_STOPPED, Stopped, Unreachable, is_ours
from sptskm.common.processes import STOPPING
from sptskm.config import STREAMS, ConfigError
from sptskm.configfile import CHECKOUT
from sptskm.launching import earlier, estimates, preparing, searches, snapshot
from sptskm.launching.local import request, visible_gpus
from sptskm.launching.plan import Plan, check, make_folder, make_plan, parser, refused
from sptskm.launching.ray_environment import ENVIRONMENT, set_niceness
from sptskm.launching.searches import Searches
from sptskm.provenance import tell_jobs
from sptskm.training.allocation import number_of
from sptskm.training.signals import StopFlag, stop_flag

if TYPE_CHECKING:
    from sptskm.launching.workers import Team

OBJECT_STORE_BYTES = 100_000_000  # holds only settings and results of epochs
LEAVE_SECONDS = 20.0  # before unsaved shards are given up
NODES_SECONDS = 60.0  # for all nodes of a new cluster to join
KNOCK_SECONDS, JOIN_SECONDS = 5.0, 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the plan of a command line and return the exit code (75: stopped, the same command continues)."""
    if preparing.is_asked_for(arguments):
        return prepare(arguments)
    chosen = command_line().parse_intermixed_args(arguments)
    try:
        _check_options(chosen)
        plan = make_plan(chosen)
        searched = searched_by(plan, chosen)
        ranks = dict.fromkeys(STREAMS, chosen.workers) | {name: search.workers for name, search in searched.items()}
        check(searches.without_test_split(plan) if searched else plan, ranks)
        estimates.check_rate(chosen, len(plan.configs))
        if chosen.estimate:
            print(estimates.estimate_text(plan, ranks, chosen))
            return 0
        make_folder(plan.folder)
        tell_jobs()
        earlier.refuse_queued(plan)
        if not searched:
            earlier.refuse_other_runs(plan)
        for config in plan.configs:
            request(config, config.run)  # fails now if a folder cannot be written
        request(plan.final, plan.out)
        os.chdir(snapshot.take(plan.logs))  # Ray's workers import from this folder first
    except (ValueError, OSError) as error:
        if not is_ours(error):
            raise
        return refused("tune", error)
    try:
        code, table = _in_ray(plan, searched, chosen)
    except ConfigError as error:
        return refused("tune", error)
    if table:
        print(f"{table}\n\n{plan.tensorboard_command()}")
    return code


def prepare_command_line() -> argparse.ArgumentParser:
    """Return the parser of `sptskm tune --prepare`."""
    options = preparing.command_line()
    options.add_argument("--address", metavar="HOST:PORT", help="a running Ray cluster (default: one of its own, here)")
    options.add_argument("--nodes", type=int, help="wait until that cluster has so many nodes")
    return options


def prepare(arguments: Sequence[str] | None) -> int:
    """Prepare masks or skeletons, with as many shards at a time as there is room for."""
    chosen = prepare_command_line().parse_args(arguments)
    try:
        _check_address(chosen)
        wanted = preparing.wanted_of(chosen)
        preparing.check_method_weights(wanted)
        folder = preparing.jobs_folder(wanted)
        os.chdir(snapshot.take(folder))
        with joined(folder, chosen.address, LEAVE_SECONDS) as stop:
            from sptskm.launching.shards import make

            nodes_of_ray(chosen.nodes or 1)
            complete, text = make(wanted, stop)
    except (ValueError, OSError) as error:
        if not is_ours(error):
            raise
        return refused("tune", error)
    if stop.requested:
        print("stopped as asked; the same command continues", file=sys.stderr)
        return EXIT_STOPPED
    print(text)
    return 0 if complete else EXIT_BAD_INPUT


def searched_by(plan: Plan, chosen: argparse.Namespace) -> Searches:
    """Return the hyper-parameter searches that a command line asks for; none with --fixed."""
    if chosen.fixed:
        return {}
    return searches.load_searches(plan, chosen.search or _shipped(chosen.config))


def _shipped(config: Path) -> Path:
    """Return the search file that belongs to a folder of configurations."""
    file = Path("configs/search") / f"{config.resolve().name}.yaml"
    if not any((place / file).is_file() for place in (Path(), CHECKOUT)):
        raise ConfigError(f"{config} has no search file {file}, wanted --search FILE or --fixed")
    return file


def command_line() -> argparse.ArgumentParser:
    """Return the parser of `sptskm tune`."""
    options = parser("Train and evaluate as a Ray job.", preparing.USAGE.format("tune"))
    estimates.options(options)
    options.add_argument(
        "--address", metavar="HOST:PORT", help="a running Ray cluster (default: a Ray of its own, here)"
    )
    options.add_argument("--nodes", type=int, help="wait until that cluster has so many nodes")
    options.add_argument(
        "--workers", type=int, default=1, help="ranks of each stream, with --fixed (a search file has its own)"
    )
    options.add_argument("--cpus-per-worker", type=int, default=1, help="with --fixed")
    options.add_argument("--gpus-per-worker", type=int, help="with --fixed: 0 or 1 (default: 1 where Ray has GPUs)")
    options.add_argument("--retries", type=int, default=3, help="how often a stream that loses a worker starts again")
    searches.options(options)
    options.add_argument(
        "--fixed", action="store_true", help="search for nothing: train the configurations as they are"
    )
    return options


def _check_options(chosen: argparse.Namespace) -> None:
    for option, least in (("workers", 1), ("cpus_per_worker", 1), ("retries", 0)):
        if (found := getattr(chosen, option)) < least:
            raise ConfigError(f"--{option.replace('_', '-')} is {found}, wanted at least {least}")
    if chosen.gpus_per_worker not in (None, 0, 1):
        raise ConfigError(f"--gpus-per-worker is {chosen.gpus_per_worker}, wanted 0 or 1")
    if chosen.fixed and (chosen.search or chosen.retrain):
        raise ConfigError("--fixed searches for nothing, wanted it without --search and --retrain")
    if not chosen.fixed and (chosen.workers, chosen.cpus_per_worker, chosen.gpus_per_worker) != (1, 1, None):
        raise ConfigError(
            "--workers, --cpus-per-worker and --gpus-per-worker are for --fixed; a search file has its own "
            "(workers, cpus_per_worker, gpus_per_worker)"
        )
    _check_address(chosen)


def _check_address(chosen: argparse.Namespace) -> None:
    if chosen.nodes is not None and not chosen.address:
        raise ConfigError("--nodes waits for a running cluster, wanted --address with it")
    if chosen.address:
        _knock(chosen.address)


def _knock(address: str) -> None:
    """Raise ConfigError for an address where nobody listens: Ray would try to connect for a minute."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--address is {address}, wanted HOST:PORT of a running Ray, as `ray start --head` shows it")
    try:
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
    except OSError as error:
        raise ConfigError(f"--address is {address}, where no Ray answers ({error})") from None


def _in_ray(plan: Plan, searched: Searches, chosen: argparse.Namespace) -> tuple[int, str]:
    """Connect to the chosen Ray and call `run`; signals ask all workers to save and leave."""
    patience = max(config.train.leave_seconds for config in plan.configs)
    with joined(plan.logs, chosen.address, patience) as stop:
        teams, everyone = teams_of(plan, searched, chosen, nodes_of_ray(chosen.nodes or 1))
        return run(Request(plan, searched, chosen.retrain, teams, everyone, chosen.retries), stop)


@contextmanager
def joined(logs: Path, address: str | None, patience: float) -> Iterator[StopFlag]:
    """Connect to the chosen Ray inside the block, and yield the flag that signals set."""
    with (
        nullcontext("") if address else short_folder() as folder,
        stop_flag(patience, lambda: _give_up(folder)) as stop,
        Messages(logs / "ray.log") as rest,
        redirect_stdout(rest),  # Ray's messages about dead nodes
        _ray(address, f"{folder}/ray", stop),
    ):
        yield stop


def short_folder() -> "tempfile.TemporaryDirectory[str]":
    """Create a temporary folder, short as Ray's sockets need; Ray opens its own one inside to everybody."""
    return tempfile.TemporaryDirectory(prefix="sptskm-", dir="/tmp", ignore_cleanup_errors=True)


def _give_up(folder: str) -> NoReturn:
    """Abandon workers that do not leave: they end with this process, and their checkpoints are complete."""
    print("not all workers have left in time; the same command continues from the last checkpoint", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(EXIT_STOPPED)


@contextmanager
def _ray(address: str | None, folder: str, stop: StopFlag) -> Iterator[None]:
    """Connect to a running Ray, which is left running, or start a private one inside the block."""
    hanging_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # false under nohup
    # a terminal and SLURM signal all processes; Ray's processes inherit the ignored signals and keep running
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    os.environ.update(ENVIRONMENT)
    if not address:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        set_niceness()
    elif _has_token():  # as `ray start` has found it; with an address Ray does not look for it
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    # failures are reported here, in fewer words
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address:
        _join(address, options)
    else:  # a private Ray, whatever the environment says
        ray.init(
            address="local",
            num_cpus=_cpus(),
            num_gpus=len(visible_gpus()),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=folder,
            **options,
        )
    for number in (*STOPPING, *[signal.SIGHUP] * hanging_up):  # Ray has replaced the handler of TERM
        signal.signal(number, stop)
    try:
        yield
    finally:
        ray.shutdown()


def _has_token() -> bool:
    kept = (Path.home() / ".ray" / "auth_token").exists()
    return kept or "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ


def _join(address: str, options: Mapping[str, Any]) -> None:
    """Join a cluster, or raise ConfigError in one sentence."""
    import ray

    refusal = f"--address is {address}, where no Ray lets this machine in (HOST:PORT of its head; RAY_AUTH_TOKEN)"

    def end() -> None:
        os._exit(refused("tune", refusal))

    overdue = threading.Timer(JOIN_SECONDS, end)  # with some servers Ray would wait for ever
    overdue.start()
    try:
        ray.init(address=address, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{refusal}: {error}") from None
    finally:
        overdue.cancel()


def _cpus() -> int:
    """Return how many CPUs this process may use; Ray would take all of the machine."""
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, number_of("SLURM_CPUS_PER_TASK", 1) or allowed)


def teams_of(
    plan: Plan, searched: Searches, chosen: argparse.Namespace | None, nodes: Sequence[Mapping[str, float]]
) -> "tuple[dict[str, Team], Team]":
    """Return each stream's team, and that of the work for all streams; ConfigError when the nodes lack room.

    Streams without a search take their workers from the command line, `chosen`.
    """
    from sptskm.launching.workers import Team

    has_gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
    teams: dict[str, Team] = {}
    for config in plan.configs:
        rules: Any = searched.get(config.stream, chosen)
        gpus = rules.gpus_per_worker
        if gpus is None or (searched and not has_gpus):
            gpus = int(has_gpus)
        teams[config.stream] = Team(rules.workers, rules.cpus_per_worker, gpus)
        _room(teams[config.stream], nodes)
    largest = max(teams.values(), key=lambda team: (team.gpus, team.workers))
    whole = replace(largest, gpus=math.ceil(largest.gpus))
    return teams, replace(whole, workers=min(_room(whole, nodes), whole.workers * len(teams)))


def _room(team: "Team", nodes: Sequence[Mapping[str, float]]) -> int:
    """Count the workers that Ray has room for; ConfigError when they are too few."""
    room = sum(int(min(node.get(what, 0) // count for what, count in team.bundle.items())) for node in nodes)
    if room < team.workers:
        offer = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ConfigError(f"--workers is {team.workers}, but Ray has no room for {team}: its nodes have {offer}")
    return room


def nodes_of_ray(wanted: int) -> list[dict[str, float]]:
    """Return the resources of each node of the cluster; ConfigError when fewer than `wanted` join in time."""
    import ray

    deadline = time.monotonic() + NODES_SECONDS
    while len(found := [node["Resources"] for node in ray.nodes() if node["Alive"]]) < wanted:
        if time.monotonic() > deadline:
            raise ConfigError(f"--nodes is {wanted}, but after {NODES_SECONDS:.0f} s Ray has {len(found)}")
        time.sleep(0.5)
    return found


@dataclass(frozen=True)
class Request:
    """Plan with its searches, and the teams that run it."""

    plan: Plan
    searched: Searches
    """Empty without a search."""
    retrain: bool
    teams: "Mapping[str, Team]"
    """Teams by stream."""
    everyone: "Team"
    """Team for the work that all streams share."""
    retries: int


def run(asked: Request, stop: StopFlag) -> tuple[int, str]:
    """Search if asked to, train, and run the final job; return the exit code and the tables."""
    from sptskm.launching import ray_runs
    from sptskm.launching.workers import Failed

    plan = asked.plan
    shutil.rmtree(plan.folder / ray_runs.FOLDER, ignore_errors=True)
    texts = []
    try:
        if asked.searched:
            table, plan = _search(asked, stop)
            texts.append(table)
        if asked.retrain or not asked.searched:
            ends = ray_runs.train_streams(plan, asked.teams, asked.retries, stop)
            if stop.requested or any(end != "finished" for end in ends.values()):
                return _explain(ends, plan, stop), "\n\n".join(texts)
        texts.append(ray_runs.run_final_job(plan, asked.everyone, asked.retries, stop))
        return 0, "\n\n".join(texts)
    except Stopped:
        return _explain({"": "stopped"}, plan, stop), "\n\n".join(texts)
    except (Failed, Unreachable, OSError) as error:  # such as an OSError of a full disk
        name = "final" if texts or not asked.searched else "search"
        return _explain({name: str(error)}, plan, stop), "\n\n".join(texts)


def _search(asked: Request, stop: StopFlag) -> tuple[str, Plan]:
    """Run all trials and choose; return the table and the next plan. Raises Stopped, Failed or Unreachable."""
    from sptskm.launching import hpo, ray_runs

    found = hpo.run_searches(asked.plan, asked.searched, asked.teams, stop)
    arguments = (asked.plan, asked.searched, found)
    table = ray_runs.perform(asked.plan, asked.everyone, asked.retries, stop, "search", "conclude", arguments)
    return table, searches.retrained(asked.plan) if asked.retrain else searches.found(asked.plan, found)


def _explain(ends: Mapping[str, str], plan: Plan, stop: StopFlag) -> int:
    """Print how each unfinished job has ended and return the exit code; their work is kept."""
    for name, end in ends.items():
        if end not in ("finished", "stopped"):
            print(f"{name} failed: {end}", file=sys.stderr)
    if stop.requested:
        print(f"stopped as asked; the same command continues in {plan.folder}", file=sys.stderr)
    return EXIT_STOPPED if stop.requested else 1
