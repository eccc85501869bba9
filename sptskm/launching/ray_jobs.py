"""Hyper-parameter search as one SLURM job with a private Ray: one task per node runs a Ray node.

The first task also runs the search. A job that is preempted or near its time limit saves, leaves and is requeued; the
search then continues. Nothing here imports Ray, which reads its token at import.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.helpers import Checkpointable

from sptskm.common.endings import EXIT_STOPPED, Stopped
from sptskm.launching import tune
from sptskm.launching.cluster import Cluster
from sptskm.launching.jobs import attend
from sptskm.launching.plan import Plan
from sptskm.launching.ray_environment import set_niceness
from sptskm.launching.searches import Searches
from sptskm.launching.submission import Queued, queue
from sptskm.training.signals import StopFlag

NAME = "search"
START_SECONDS = 120.0  # for the start of a node of Ray
# the stop signals of the job would kill Ray; the launcher asks its workers to stop
SHELL = ("sh", "-c", 'trap "" USR1 USR2; exec "$0" "$@"')


class PerNode(Cluster):
    """Cluster with one task per node, which has all CPUs and GPUs of the job on that node."""

    @property
    def tasks_per_node(self) -> int:
        """Return 1."""
        return 1


@dataclass(frozen=True)
class SearchJob(Checkpointable):
    """Job that searches, retrains the best settings if asked to, and runs the final job."""

    plan: Plan
    searched: Searches
    retrain: bool
    cluster: PerNode

    def __call__(self) -> str:
        here = submitit.JobEnvironment()
        meeting = self.plan.logs / f"ray-{here.job_id}-{os.environ.get('SLURM_RESTART_COUNT', 0)}.json"
        if here.global_rank:
            serve(meeting, self.cluster)
            os._exit(0)  # submitit would wait for a result of every rank
        patience = max(config.train.leave_seconds for config in self.plan.configs)
        return attend(lambda _stop: self._search(meeting, patience), patience, self.cluster.requeues)

    def _search(self, meeting: Path, patience: float) -> str:
        with head(meeting, self.cluster) as address, tune.joined(self.plan.logs, address, patience) as stop:
            code, table = self._run(stop)
        if code == EXIT_STOPPED:
            raise Stopped
        if code:
            raise RuntimeError(
                f"the search has failed; its log says why, and the same command continues in {self.plan.folder}"
            )
        print(table)
        return table

    def _run(self, stop: StopFlag) -> tuple[int, str]:
        teams, everyone = tune.teams_of(self.plan, self.searched, None, tune.nodes_of_ray(self.cluster.nodes))
        asked = tune.Request(self.plan, self.searched, self.retrain, teams, everyone, self.cluster.retries)
        return tune.run(asked, stop)


def submit(plan: Plan, cluster: Cluster, searched: Searches, retrain: bool) -> Queued:
    """Queue the search. Raises ConfigError if the nodes have no room for a trial, or SLURM refuses."""
    set_niceness()  # jobs inherit the environment
    cpus = cluster.cpus_per_task * cluster.tasks_per_node
    per_node = PerNode(**{**vars(cluster), "cpus_per_task": cpus, "final": {}})
    tune.teams_of(plan, searched, None, [{"CPU": cpus, "GPU": cluster.gpus_per_node}] * cluster.nodes)
    queued = Queued()
    with queued.all_or_none():
        queued.add(NAME, queue(plan.logs, per_node, SearchJob(plan, searched, retrain, per_node), NAME))
    return queued


@contextmanager
def head(meeting: Path, cluster: PerNode) -> Iterator[str]:
    """Start the first node of Ray inside the block and yield its address.

    Joining needs the token, which is written to `meeting`.
    """
    with tune.short_folder() as folder:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        options = ["--head", "--port=0", f"--temp-dir={folder}/ray", "--include-dashboard=false"]
        with node(options, cluster, Path(folder) / "start.log"):
            address = (Path(folder) / "ray" / "ray_current_cluster").read_text()
            meeting.touch(mode=0o600)
            secret = {"address": address, "token": os.environ["RAY_AUTH_TOKEN"], "folder": folder}
            meeting.write_text(json.dumps(secret))
            try:
                yield address
            finally:
                meeting.unlink()


def serve(meeting: Path, cluster: PerNode) -> None:
    """Run a further node of Ray until the first one ends.

    Raises RuntimeError if the first one does not start within START_SECONDS.
    """
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(
            number, signal.SIG_IGN
        )  # only the search handles a stop request, and ends when its trials have saved
    deadline = time.monotonic() + START_SECONDS
    while not meeting.exists() or not (text := meeting.read_text()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{meeting}: the first node has not started its Ray within {START_SECONDS:.0f} s")
        time.sleep(0.5)
    known = json.loads(text)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=known["token"])
    with (
        tune.short_folder() as folder,
        node([f"--address={known['address']}"], cluster, Path(folder) / "start.log"),
    ):
        while meeting.exists():
            time.sleep(0.5)
    shutil.rmtree(known["folder"], ignore_errors=True)  # Ray puts its sockets at the path of the first node's


@contextmanager
def node(options: Sequence[str], cluster: PerNode, log: Path) -> Iterator[None]:
    """Run a node of Ray inside the block.

    It never calls `ray stop`, which ends every Ray on the machine. Raises RuntimeError if the node does not start
    within START_SECONDS.
    """
    common = ["--block", "--disable-usage-stats", f"--object-store-memory={tune.OBJECT_STORE_BYTES}"]
    common += [f"--num-cpus={cluster.cpus_per_task}", f"--num-gpus={cluster.gpus_per_node}"]
    ray = Path(sys.executable).with_name("ray")
    set_niceness()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*SHELL, ray, "start", *options, *common], stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no node of Ray within {START_SECONDS:.0f} s: {log.read_text()}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait()
