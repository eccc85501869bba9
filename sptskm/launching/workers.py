"""Ranks as Ray actors: the processes of a run in a Ray cluster, started, followed and ended together.

Imports neither ray.tune nor torch: every worker imports this module, and each import delays its start.
"""

import logging
import os
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sptskm.common.console import set_up_logging
from sptskm.common.endings import Stopped, Unreachable, is_ours, sentence
from sptskm.config import Config, ConfigError, Final
from sptskm.launching.plan import Plan
from sptskm.training.allocation import interface_of, is_main, set_variables
from sptskm.training.signals import StopFlag
from sptskm.tuning import Search, Trial

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
FAREWELL_SECONDS = 20.0  # for the other ranks to end by themselves after a failure, each with its reason
FOLDER_SECONDS = 120.0  # for a file server to release the locks of a lost node
NAME = "sptskm-rank-"  # prefix of the ranks' actor names, unique in this program's namespace

Values = Mapping[str, Any]


class Failed(Exception):
    """A rank failed by its own fault; the message is one sentence or a traceback."""


class Gone(Unreachable):
    """A worker or its node died."""


REASONS = (Failed, Gone, Unreachable, Stopped)  # each may be a consequence of those before it


@dataclass(frozen=True)
class Team:
    """Workers of a run: how many, and the CPUs and GPUs of each."""

    workers: int
    cpus: int
    gpus: float

    @property
    def bundle(self) -> dict[str, float]:
        """Return the resources of one worker as Ray counts them."""
        return {"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}

    def __str__(self) -> str:
        gpu = "" if not self.gpus else " and a GPU" if self.gpus == 1 else f" and {self.gpus:g} of a GPU"
        each = f"{self.cpus} CPU{'s' * (self.cpus > 1)}{gpu}"
        return f"a worker of {each}" if self.workers == 1 else f"{self.workers} workers of {each} each"


@dataclass(frozen=True)
class WorkerAddress:
    """Location of a worker, with a port that was free there a moment ago."""

    node: str
    """Ray's id of the node; several nodes may share an address."""
    address: str
    port: int


class Worker:
    """One rank, in its own process. Ray calls its methods from threads, two at a time."""

    def __init__(self) -> None:
        self.stopping = StopFlag()
        self.reports: deque[Values] = deque()

    def place(self) -> WorkerAddress:
        """Return the node of this worker, with an address and port where the others can meet it."""
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        return WorkerAddress(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), port)

    def enter(self, rank: int, places: Sequence[WorkerAddress], file: Path) -> None:
        """Set torchrun's variables for a rank of a run, and redirect all output to `file`."""
        self.stopping.requested = False  # a request that stopped the previous run
        self.reports.clear()
        here = places[rank]
        if not file.parent.is_dir():
            raise Failed(
                f"{file.parent}: no such folder on node {here.address}, wanted --run in a folder that all nodes share"
            )
        _redirect_output(file)
        set_up_logging(rank)
        neighbours = [other for other, place in enumerate(places) if place.node == here.node]
        meeting = places[0]
        set_variables(rank, len(places), neighbours.index(rank), len(neighbours), meeting.address, meeting.port)
        if not ray.get_gpu_ids():  # Ray hides no GPUs from actors that asked for none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if len(neighbours) < len(places) and (interface := interface_of(here.address)):
            # gloo resolves the host's own name, which may fail or give the loopback address
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)

    def train(self, config: Config) -> None:
        """Train a stream, or continue it. Raises Stopped, Unreachable or Failed if it does not finish."""
        from sptskm.training.trainer import train

        with _explained():
            if is_main():
                self._wait_for(config.run)
            if not train(config, self.stopping, self.reports.append).finished:
                raise Stopped

    def attempt(self, trial: Trial, config: Config, start: tuple[str, Mapping[str, Any]]) -> None:
        """Train a trial of a hyper-parameter search, or continue it.

        `start` is the folder of the checkpoint that Tune provides, with the number, settings and epoch of the trial
        that wrote it. Every score is reported with the folder of a checkpoint for Tune, which deletes it. Raises as
        `train`.
        """
        from sptskm.report.trial_pages import begin_page
        from sptskm.training.takeover import put_aside, rewind, take_over
        from sptskm.training.trainer import train

        folder, known = start
        last: Values = {}
        clock = time.monotonic()

        def tell(values: Values) -> None:
            nonlocal last, clock
            if "validation/mAP" in values:
                now = time.monotonic()
                last = {**values, "seconds": now - clock, "checkpoint": str(put_aside(config))}
                clock = now
                if values["epoch"] < config.train.epochs:
                    self.reports.append(last)

        with _explained():
            if is_main():
                self._wait_for(config.run)
                if folder and (known["number"], known["settings"]) != (trial.number, trial.settings):
                    take_over(Path(folder), config)
                else:
                    rewind(Path(folder) if folder else None, config, known.get("epoch", 0))
                begin_page(trial)
            if not train(config, self.stopping, tell).finished:
                raise Stopped
            if (
                last and last["epoch"] == config.train.epochs
            ):  # the last report comes after training, since Tune may end a trial at any score
                self.reports.append(last)

    def conclude(self, plan: Plan, searched: Mapping[str, Search], trials: Sequence[Trial]) -> str:
        """Choose among the trials of the searches; rank 0 returns the table. Raises as `train`."""
        from sptskm.launching.searches import conclude

        with _explained():
            return conclude(plan, searched, trials, self.stopping)

    def _wait_for(self, run: str) -> None:
        """Wait until the run's folder is not locked by rank 0 of an earlier attempt.

        Its lock lasts until its process, or its node's lease on the file server, has ended.
        """
        from sptskm.training.rundir import RunDir

        deadline = time.monotonic() + FOLDER_SECONDS
        while time.monotonic() < deadline and not self.stopping.requested:
            try:
                with RunDir(run).locked():
                    return
            except ConfigError as error:
                log.info("waits: %s", error)
                time.sleep(1)

    def evaluate(self, runs: Sequence[str], out: str, settings: Final) -> str:
        """Run the final job; rank 0 returns the table. Raises as `train`."""
        from sptskm.final import final

        with _explained():
            results = final(runs, out, settings, stop=self.stopping)
        return results.text() if results else ""

    def stop(self) -> None:
        """Ask this rank to leave at the end of the current step."""
        self.stopping.requested = True

    def news(self) -> list[Values]:
        """Return the reports since the last call."""
        return [self.reports.popleft() for _ in range(len(self.reports))]


def _redirect_output(file: Path) -> None:
    """Redirect stdout and stderr, also of C++ code, to the end of `file`."""
    with file.open("a") as end:
        for standard in (1, 2):
            os.dup2(end.fileno(), standard)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn an error into Failed with one sentence or a traceback; Stopped and Unreachable pass unchanged."""
    try:
        yield
    except Stopped:
        raise
    except Unreachable as error:
        log.error("%s", error)
        raise
    except Exception as error:
        log.exception("failed")
        told = isinstance(error, ValueError | OSError) and is_ours(error)
        raise Failed(sentence(error) if told else traceback.format_exc()) from None


class Crew:
    """Workers in the bundles of a placement group, reused for one task after another: they import torch once."""

    def __init__(self, team: Team, group: PlacementGroup) -> None:
        self.workers = [_start(team, group, bundle) for bundle in range(team.workers)]

    def work(self, file: Path, method: str, arguments: Sequence[Any], heard: Callable[[list[Values]], None]) -> Any:
        """Run a method of Worker on all workers together, and return rank 0's result.

        `heard` is called several times a second with the new reports of rank 0. The output of the ranks is appended to
        `file`, with the rank in its name. Raises Failed, Stopped, or Unreachable when a worker or its node is lost, and
        whatever `heard` raises.
        """
        places = _together([worker.place.remote() for worker in self.workers])
        files = [file.with_name(f"{file.stem}-{rank}{file.suffix}") for rank in range(len(places))]
        _together([worker.enter.remote(rank, places, files[rank]) for rank, worker in enumerate(self.workers)])
        runs = [getattr(worker, method).remote(*arguments) for worker in self.workers]
        try:
            return _together(runs, lambda: heard(_news(self.workers[0])))[0]
        except SystemExit:  # raised by Tune, which has another trial for this process
            for worker in self.workers:
                worker.stop.remote()
            with suppress(Stopped):
                _together(runs)
            raise

    def end(self) -> None:
        """Kill the workers, whatever they do."""
        for worker in self.workers:
            ray.kill(worker)


def ask_to_stop() -> int:
    """Ask all workers of this program and its trials to leave at the end of the step; return their number."""
    names = [name for name in ray.util.list_named_actors() if name.startswith(NAME)]
    for name in names:
        with suppress(ValueError, RayError):  # the actor has just ended
            ray.get_actor(name).stop.remote()
    return len(names)


def _start(team: Team, group: PlacementGroup, bundle: int) -> Any:
    options = {
        "name": f"{NAME}{uuid4().hex}",
        "num_cpus": team.cpus,
        "num_gpus": team.gpus,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle),
        "max_concurrency": 2,
    }
    return ray.remote(Worker).options(**options).remote()


def _together(calls: list[Any], meanwhile: Callable[[], None] = lambda: None) -> list[Any]:
    """Return the results of all ranks; if some fail, raise the failure that caused the others."""
    ended: list[Any] = []
    while len(ended) < len(calls) and not any(map(_reason, ended)):
        ended, _ = ray.wait(calls, num_returns=len(calls), timeout=POLL_SECONDS)
        meanwhile()
    ended, _ = ray.wait(calls, num_returns=len(calls), timeout=FAREWELL_SECONDS)
    reasons = [reason for call in ended if (reason := _reason(call))]
    if reasons:
        raise min(reasons, key=lambda reason: REASONS.index(type(reason)))
    return ray.get(calls)


def _reason(call: Any) -> Exception | None:
    """Return the error of a rank that has ended, or None if it has succeeded."""
    try:
        ray.get(call)
    except RayTaskError as error:
        return error.cause if isinstance(error.cause, REASONS) else Failed(str(error))
    except RayError as error:
        return Gone(f"a rank is gone: {_brief(error)}")
    return None


def _brief(error: RayError) -> str:
    """Return the useful sentence of Ray's long message about a dead actor: the first of its last line."""
    return str(error).splitlines()[-1].partition(". ")[0]


def _news(worker: Any) -> list[Values]:
    try:
        return ray.get(worker.news.remote())
    except RayError:  # the worker is gone; its method's result will say so
        return []
