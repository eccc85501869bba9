"""Follow SLURM jobs in the terminal: their states, and the output of their first rank."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sptskm.common.console import table
from sptskm.common.endings import EXIT_INTERRUPTED

ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")
GONE = "GONE"  # SLURM forgets jobs some minutes after their end
STATE_SECONDS, LOG_SECONDS = 3.0, 0.5


@dataclass
class Followed:
    """Job with the amount of its logs already shown."""

    job: str
    logs: Sequence[Path]
    state: str = ""
    reason: str = ""
    ended: bool = False
    shown: dict[Path, int] = field(default_factory=dict)

    def news(self) -> list[str]:
        """Return the complete lines that were added to the logs since the last call."""
        lines = []
        for path in self.logs:
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self.shown.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self.shown[path] = self.shown.get(path, 0) + len(whole + newline)
            lines += whole.decode(errors="replace").splitlines()
        return [line for line in lines if not line.startswith("submitit ")]

    def look(self, state: str, reason: str) -> bool:
        """Store the job's state and return whether it is new.

        The job counts as ended when the same final state is seen twice, since a requeued job passes through one.
        """
        news = (state, reason) != (self.state, self.reason)
        self.ended = not news and state in (*ENDS, GONE)
        self.state, self.reason = state, reason
        return news


def watch(jobs: Mapping[str, Followed]) -> int:
    """Show states and log lines until all jobs have ended, and return the exit code, 0 if all succeeded.

    Ctrl-C does not stop the jobs.
    """
    try:
        while not all(job.ended for job in jobs.values()):
            for name, (state, reason) in states(jobs).items():
                if jobs[name].look(state, reason):
                    print(f"{name}: {state.lower()}{f' ({reason})' if reason else ''}", file=sys.stderr)
            _show_logs(jobs, STATE_SECONDS)
    except KeyboardInterrupt:
        ids = " ".join(job.job for job in jobs.values())
        print(f"\nthe jobs go on; scancel {ids} ends them", file=sys.stderr)
        return EXIT_INTERRUPTED
    _show_logs(jobs, 0)
    print(table(["", "job", "state"], [[name, job.job, job.state.lower()] for name, job in jobs.items()]))
    return int(any(job.state != "COMPLETED" for job in jobs.values()))


def states(jobs: Mapping[str, Followed]) -> dict[str, tuple[str, str]]:
    """Return the state and reason of each job by name.

    They come from the queue, which lists ended jobs for some minutes as well.
    """
    ids = ",".join(job.job for job in jobs.values())
    asked = subprocess.run(
        ["squeue", "-h", "-t", "all", "-j", ids, "-o", "%i|%T|%r"], capture_output=True, text=True, check=False
    )
    if asked.returncode and "Invalid job id" not in asked.stderr:
        return {}  # the scheduler is busy or restarting
    known = {line.split("|")[0]: line.split("|")[1:] for line in asked.stdout.splitlines()}
    found = {}
    for name, job in jobs.items():
        state, reason = known.get(job.job, [GONE, ""])
        found[name] = (state, "" if reason == "None" else reason)
    return found


def _show_logs(jobs: Mapping[str, Followed], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        for name, job in jobs.items():
            for line in job.news():
                print(line if name in line or name == "final" else f"{name}: {line}", flush=True)
        if time.monotonic() >= deadline:
            return
        time.sleep(LOG_SECONDS)
