"""Two nodes of real SLURM, brought up and taken down."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.launching import ROOT, launch

DEADLINE = 300  # seconds that any job here may take on two busy cores
CLUSTER = "nodes: 2\ngpus_per_node: 0\ncpus_per_task: 1\nmem_gb: 1\nminutes: 60\nwarn_seconds: 30\npartition: main\n"

UNENDED = ("", "PENDING", "RUNNING", "SIGNALING", "COMPLETING", "REQUEUED", "PREEMPTED")  # states of a job that goes on


class Slurm:
    """A running cluster and what a user does with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = {"SLURM_CONF": str(folder / "etc" / "slurm.conf")}
        activated = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        self.environment = {**os.environ, **self.variables, "PATH": activated}

    def call(self, *command: object, **variables: str) -> str:
        done = subprocess.run(
            [*map(str, command)],
            env={**self.environment, **variables},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def launch(self, *arguments: object, **variables: str) -> dict[str, str]:
        """Job ids of `launch/slurm.py`, by name of the job."""
        code, out, err = launch("launch/slurm.py", *arguments, **self.variables, **variables)
        assert code == 0, err
        return ids(out)

    def devcluster(self, action: str) -> None:
        self.call(sys.executable, ROOT / "slurm" / "devcluster", action, "--folder", self.folder)

    def state(self, job: str) -> str:
        """SLURM's word for where a job is; the accounting knows the end, the queue everything before it."""
        queued = subprocess.run(
            ["squeue", "-h", "-j", job, "-o", "%T"], env=self.environment, capture_output=True, text=True, check=False
        ).stdout.strip()
        return queued or self.call("sacct", "-X", "-n", "-P", "-j", job, "-o", "state").split(" ")[0]

    def wait(self, job: str, *states: str) -> str:
        """Wait until a job is in one of `states`; another end fails the test."""
        deadline = time.monotonic() + DEADLINE
        while (state := self.state(job)) not in states:
            assert state in UNENDED, f"job {job} is {state}"
            assert time.monotonic() < deadline, f"job {job} is still {state}, wanted {states}"
            time.sleep(0.3)
        return state

    def occupy(self, seconds: int) -> str:
        """Let a job that preempts others take both nodes; its number."""
        both = ("-p", "high", "-N2", "--exclusive", "--wrap", f"sleep {seconds}", "-o/dev/null")
        return self.call("sbatch", "--parsable", *both)

    def wait_once_requeued(self, job: str) -> None:
        """Wait until a job has succeeded, having been queued again exactly once."""
        self.wait(job, "COMPLETED")
        assert self.restarts(job) == 1

    def restarts(self, job: str) -> int:
        fields = dict(pair.split("=", 1) for pair in self.call("scontrol", "show", "job", job).split() if "=" in pair)
        return int(fields["Restarts"])


def ids(out: str) -> dict[str, str]:
    return {line.split(":")[0]: line.split()[2].rstrip(",") for line in out.splitlines() if ": job " in line}


def bring_up(*options: str) -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="slm-", dir="/tmp")) / "c"  # sockets want short paths
    folder.parent.chmod(0o755)  # and munge folders that are not private
    devcluster = [sys.executable, str(ROOT / "slurm" / "devcluster")]
    up = subprocess.run([*devcluster, "up", "--folder", folder, *options], capture_output=True, text=True, check=False)
    if "not found" in up.stderr:
        reason = f"no SLURM on this machine: {up.stderr.strip()}"
        pytest.fail(reason) if os.environ.get("REQUIRE_SLURM") else pytest.skip(reason)
    assert up.returncode == 0, up.stderr
    try:
        yield Slurm(folder)
    finally:
        down = subprocess.run([*devcluster, "down", "--folder", folder], capture_output=True, text=True, check=False)
        assert down.returncode == 0, down.stderr
        assert not folder.exists()
        folder.parent.rmdir()
