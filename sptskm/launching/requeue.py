"""Requeue SLURM jobs: those that were asked to stop, and those that lost a rank or a node.

python -m sptskm.launching.requeue FOLDER RETRIES      run by the batch script after its ranks have failed
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from sptskm.common.atomic import append_text
from sptskm.training.allocation import number_of, wanted

log = logging.getLogger(__name__)

PATIENCE = 120  # seconds until SLURM has ended the batch script of a job that it queues again


def job_of(environment: Mapping[str, str]) -> str:
    """Return the id of the running job, with the task id for a member of an array.

    The bare number of an array's last member is also the number of the whole array.
    """
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{wanted('SLURM_ARRAY_TASK_ID', environment)}"
    return wanted("SLURM_JOB_ID", environment)


def requeue(limit: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Requeue the SLURM job of this process, and return whether it was requeued.

    A job that is preempted or at its time limit is still running when it is asked to leave. A cancelled job gets the
    same signal, but is not running any more and must not come back: then returns False. Raises RuntimeError when the
    job was restarted `limit` times.
    """
    job, restarts = job_of(environment), number_of("SLURM_RESTART_COUNT", known=environment) or 0
    asked = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True, check=False)
    if (state := asked.stdout.strip()) != "RUNNING":
        log.info("job %s is %s and is not queued again", job, state.lower() or "gone")
        return False
    if restarts >= limit:
        raise RuntimeError(f"job {job} was restarted {restarts} times, the limit; the same command continues it")
    subprocess.run(["scontrol", "requeue", job], check=True)
    return True


def retry(folder: Path, retries: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Requeue a failed job if it lost a rank, at most `retries` times, and return whether it was requeued.

    A rank that fails by its own fault leaves its exception in `folder`. A rank that is killed leaves nothing, and
    neither do the ranks that lose contact with it.
    """
    job = job_of(environment)
    if any(folder.glob(f"{job}_*_result.pkl")):
        return False
    losses = folder / f"{job}_losses.log"
    before = len(losses.read_text().splitlines()) if losses.exists() else 0
    if before >= retries:
        print(f"job {job} has lost ranks or nodes {before + 1} times; the same command continues it", file=sys.stderr)
        return False
    append_text(losses, f"{time.strftime('%F %T')} restart {environment.get('SLURM_RESTART_COUNT', 0)}\n")
    print(f"job {job} has lost a rank or a node and is queued again", file=sys.stderr)
    return requeue(sys.maxsize, environment)


if __name__ == "__main__":
    if retry(Path(sys.argv[1]), int(sys.argv[2])):
        time.sleep(PATIENCE)
