"""Picklable jobs that hold only settings; heavy imports happen on the compute node.

An interrupted job returns itself; all its work is in its run folder.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import submitit
from submitit.helpers import Checkpointable

from sptskm.common.console import set_up_logging
from sptskm.common.endings import EXIT_UNREACHABLE, Stopped, Unreachable
from sptskm.config import Config, Final
from sptskm.launching.plan import Plan
from sptskm.launching.requeue import requeue
from sptskm.training.allocation import number_of, port, set_variables
from sptskm.training.signals import StopFlag, ignore_stopping, stop_flag

log = logging.getLogger(__name__)

RANK_0_FIRST = 3.0  # seconds that a stuck rank gives rank 0 to requeue the job

_T = TypeVar("_T")


@dataclass(frozen=True)
class TrainJob(Checkpointable):
    """Job that trains one stream, or continues it."""

    config: Config
    requeues: int
    """How often it may be requeued."""

    def __call__(self) -> dict[str, Any]:
        return attend(self._train, self.config.train.leave_seconds, self.requeues)

    def _train(self, stop: StopFlag) -> dict[str, Any]:
        return trained(self.config, stop)


@dataclass(frozen=True)
class FinalJob(Checkpointable):
    """Job that extracts features, fuses the streams and writes the report."""

    runs: tuple[str, ...]
    out: str
    settings: Final
    leave_seconds: float
    requeues: int

    def __call__(self) -> str:
        return attend(self._evaluate, self.leave_seconds, self.requeues)

    def _evaluate(self, stop: StopFlag) -> str:
        return evaluated(self.runs, self.out, self.settings, stop)


def trained(config: Config, stop: StopFlag) -> dict[str, Any]:
    """Train a stream and return its outcome as a dictionary.

    Raises Stopped when training was asked to leave before its end.
    """
    from sptskm.training.trainer import train

    outcome = train(config, stop)
    if not outcome.finished:
        raise Stopped
    return vars(outcome)


def evaluated(runs: Sequence[str], out: str | Path, settings: Final, stop: StopFlag) -> str:
    """Run the final job, print its table and return it; the text is empty on ranks other than the first."""
    from sptskm.final import final

    results = final(runs, out, settings, stop=stop)
    if results is None:
        return ""
    print(results.text())
    return results.text()


def final_job(plan: Plan, requeues: int) -> FinalJob:
    """Return the final job of a plan."""
    runs = tuple(config.run for config in plan.configs)
    return FinalJob(runs, str(plan.out), plan.final, plan.configs[0].train.leave_seconds, requeues)


def attend(work: Callable[[StopFlag], _T], leave_seconds: float, requeues: int) -> _T:
    """Run `work` as one rank of a job and return its result.

    A rank that was asked to stop, or has lost another rank, exits here without a result.
    """
    resubmit: Callable[..., Any] = signal.getsignal(signal.SIGUSR2)  # type: ignore[assignment]  # submitit's
    rank = _enter_world()
    with stop_flag(leave_seconds, lambda: _leave_stuck(rank, requeues)) as stop:
        try:
            done = work(stop)
        except Stopped:
            _leave(rank, requeues, resubmit)
        except Unreachable as error:
            log.error("%s", error)
            sys.stderr.flush()
            # without an exception for submitit to store, the batch script treats the job as one to retry
            os._exit(EXIT_UNREACHABLE)
    ignore_stopping()  # Python has no handlers while it ends, and a job whose work is done would fail by a signal
    return done


def _enter_world() -> int:
    """Set the variables that sptskm reads from submitit's view of the allocation, and return this rank's number."""
    here = submitit.JobEnvironment()
    _forget_earlier_start(here)
    set_variables(
        here.global_rank,
        here.num_tasks,
        here.local_rank,
        here.num_tasks // here.num_nodes,
        "127.0.0.1" if here.num_nodes == 1 else here.hostnames[0],  # a machine's own name may not resolve
        port(int(here.raw_job_id), number_of("SLURM_RESTART_COUNT") or 0),
    )
    set_up_logging(here.global_rank)
    return here.global_rank


def _forget_earlier_start(environment: Any) -> None:
    """Delete what an earlier start of a requeued job has left.

    Its result must not count as the new one's, and submitit would fail on a temporary file of a killed write.
    """
    paths = environment.paths
    pickles = [paths.result_pickle, *([paths.submitted_pickle] if environment.global_rank == 0 else [])]
    for path in (paths.result_pickle, *(pickle.with_suffix(".pkl.save_tmp") for pickle in pickles)):
        path.unlink(missing_ok=True)


def _leave(rank: int, limit: int, resubmit: Callable[..., Any]) -> NoReturn:
    """Exit from a saved but unfinished job: rank 0 requeues it, and no rank writes a result."""
    ignore_stopping()  # further signals would ask for the same
    if rank == 0:
        if os.environ.get("SLURM_JOB_ID"):
            requeue(limit)
        else:
            resubmit(signal.SIGUSR2, None)  # submitit's own handler; it does not return
    os._exit(0)


def _leave_stuck(rank: int, limit: int) -> None:
    """Force-exit a rank that hangs after a stop request; its last checkpoint counts.

    Runs outside of the main thread.
    """
    try:
        if rank:
            time.sleep(RANK_0_FIRST)
        log.warning("rank %d was asked to leave and waits for others in vain", rank)
        if os.environ.get("SLURM_JOB_ID"):
            requeue(limit)
    finally:
        sys.stderr.flush()
        os._exit(EXIT_UNREACHABLE)
