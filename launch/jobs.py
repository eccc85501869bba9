"""Picklable jobs: settings and nothing else. Heavy imports happen on the compute node.

A job that is interrupted returns itself; everything it has done is in its run folder.
"""

import logging
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import submitit

from launch.plan import Plan
from sptskm.config import Config, Final
from sptskm.report.console import set_up_logging

log = logging.getLogger(__name__)


def _enter_world() -> int:
    """Give sptskm the variables it looks for, from submitit's view of the allocation; this rank's number."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)  # whatever the submitting shell had set
    environment = submitit.JobEnvironment()
    _forget_earlier_start(environment)
    if environment.num_tasks > 1:
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if environment.num_nodes == 1:
            os.environ["MASTER_ADDR"] = "127.0.0.1"  # a machine's own name need not resolve
    set_up_logging(environment.global_rank)
    return environment.global_rank


def _forget_earlier_start(environment: Any) -> None:
    """A requeued job must not pass for its earlier self, nor stumble over a file cut off when that was killed."""
    paths = environment.paths
    pickles = [paths.result_pickle, *([paths.submitted_pickle] if environment.global_rank == 0 else [])]
    for path in (paths.result_pickle, *(pickle.with_suffix(".pkl.save_tmp") for pickle in pickles)):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class TrainJob:
    """Train one stream, or continue it."""

    config: Config
    requeues: int
    """How often it may be queued again."""

    def __call__(self) -> dict[str, Any]:
        resubmit: Callable[..., Any] = signal.getsignal(signal.SIGUSR2)  # type: ignore[assignment]
        rank = _enter_world()
        from sptskm.training.trainer import train

        outcome = train(self.config)
        if not outcome.finished:
            leave(rank, self.requeues, resubmit)
        return vars(outcome)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit queues again."""
        return submitit.helpers.DelayedSubmission(self)


@dataclass(frozen=True)
class FinalJob:
    """Extract, fuse and report."""

    runs: tuple[str, ...]
    out: str
    settings: Final

    def __call__(self) -> str:
        _enter_world()
        from sptskm.final import final

        results = final(self.runs, self.out, self.settings)
        if results is None:  # a rank other than the first
            return ""
        print(results.text())
        return results.text()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """What submitit queues again."""
        return submitit.helpers.DelayedSubmission(self)


def final_job(plan: Plan) -> FinalJob:
    """The final job of a plan."""
    return FinalJob(tuple(config.run for config in plan.configs), str(plan.out), plan.final)


def leave(rank: int, limit: int, resubmit: Callable[..., Any]) -> None:
    """End a saved but unfinished job: rank 0 has it queued again, and no rank leaves a result behind."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # whatever else is sent has been answered already
    if rank == 0:
        if job_id := os.environ.get("SLURM_JOB_ID"):
            requeue(job_id, int(os.environ.get("SLURM_RESTART_COUNT", 0)), limit)
        else:
            resubmit(signal.SIGUSR2, None)  # submitit's own handler; it does not return
    os._exit(0)


def requeue(job_id: str, restarts: int, limit: int) -> None:
    """Put a running SLURM job back into the queue; RuntimeError when it has been there too often.

    A preempted job and one at its time limit are still running when they are asked to leave. A cancelled one is
    not, and must not come back, although it was sent the same signal.
    """
    state = subprocess.run(["squeue", "-h", "-j", job_id, "-o", "%T"], capture_output=True, text=True, check=False)
    if state.stdout.strip() != "RUNNING":
        log.info("job %s is %s and is not queued again", job_id, state.stdout.strip().lower() or "gone")
        return
    if restarts >= limit:
        raise RuntimeError(f"job {job_id} was restarted {restarts} times, the limit; the same command continues it")
    subprocess.run(["scontrol", "requeue", job_id], check=True)
