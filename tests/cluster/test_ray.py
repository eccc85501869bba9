"""Runs in real Rays, a cluster of nodes and Rays beside each other: what is asserted are final weights and states."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.launching import end, processes_with, start, write_configs
from helpers.nodes import Slurm
from helpers.runs import assert_same_end, ended_trials, experiment, until, until_training
from helpers.small import on_ranks, small_config

from sptskm.training.trainer import train

EPOCHS = 4
BIN = Path(sys.executable).parent
DEADLINE = 60  # seconds for a Ray to end; only a hanging one meets it
# a dead node is seen within seconds instead of sixteen, and ranks share the machine with other tests
WATCHFUL = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_worker_niceness": "0",
}


class Cluster:
    """A running Ray whose nodes are processes of this machine: a head without CPUs, and nodes with one CPU each."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets want short paths
        self.token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.address = ""

    def up(self, nodes: int) -> None:
        """The head, and some nodes."""
        options = ["--port=0", f"--temp-dir={self.folder}", "--include-dashboard=false", "--disable-usage-stats"]
        self._start(0, "--head", *options)
        self.address = (self.folder / "ray_current_cluster").read_text()
        for _ in range(nodes):
            self.add()

    def _start(self, cpus: int, *options: str) -> None:
        number = len(self.nodes)
        common = [f"--num-cpus={cpus}", "--num-gpus=0", "--object-store-memory=100000000", "--block"]
        log = self.folder / f"node-{number}.log"
        with log.open("wb") as output:
            node = subprocess.Popen(
                [BIN / "ray", "start", *options, *common],
                env={**os.environ, **self.token, "RAY_AUTH_MODE": "token", **WATCHFUL},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.nodes.append(node)
        # two at once on one machine, with one folder, may wait for each other for ever
        until(f"node {number}", lambda: "Ray runtime started" in log.read_text())

    def add(self) -> None:
        """A further node."""
        self._start(1, f"--address={self.address}")

    def running(self) -> list[subprocess.Popen[bytes]]:
        """The nodes that have not ended."""
        return [node for node in self.nodes if node.poll() is None]

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Let a node vanish with all that runs on it."""
        for pid in [node.pid, *descendants(node.pid)]:
            os.kill(pid, signal.SIGKILL)
        node.wait()

    def launcher(self, *arguments: object) -> subprocess.Popen[str]:
        """`launch/tune.py` as a process that joins this Ray."""
        return start("launch/tune.py", "--address", self.address, *arguments, **self.token)

    def down(self) -> None:
        for node in reversed(self.running()):
            node.terminate()
            node.wait(DEADLINE)
        until("no process of this Ray", lambda: not processes_with(self.token["RAY_AUTH_TOKEN"]))
        shutil.rmtree(self.folder)


def descendants(pid: int) -> list[int]:
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(further for child in children for further in descendants(child))]


def rank(log: Path) -> int | None:
    """Pid of the rank that writes into a log, while it lives."""
    for path in Path("/proc").glob("[0-9]*/fd/1"):
        with suppress(OSError):
            if path.readlink() == log:
                return int(path.parts[2])
    return None


def pid_in_training(run: Path, number: int, launcher: subprocess.Popen[str]) -> int:
    """Pid of a rank of SSIN in the middle of its training."""
    saved, log = run / "ssin", run / "jobs" / f"ssin-{number}.log"
    until(f"a checkpoint in {saved}", lambda: launcher.poll() is not None or list(saved.glob("checkpoint-*.pt")))
    found = rank(log)
    assert found, end(launcher)
    return found


@pytest.fixture(scope="module")
def plain(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SSIN trained on two ranks without Ray."""
    run = tmp_path_factory.mktemp("plain") / "ssin"
    ends = on_ranks(2, train, small_config("ssin", walkers, run, f"train.epochs={EPOCHS}"))
    assert all(end.finished for end in ends)
    return run


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    found = Cluster()
    try:
        found.up(nodes=2)
        yield found
    finally:
        found.down()


@pytest.fixture
def words(walkers: Path, tmp_path: Path) -> list[object]:
    """Words behind `launch/tune.py` for SSIN on two workers, whose run is in `tmp_path`."""
    configs = write_configs(tmp_path / "configs", walkers)
    words = ["--fixed", "--stream", "ssin", "--workers", 2, "--config", configs, "--run", tmp_path / "run"]
    return [*words, f"train.epochs={EPOCHS}"]


def test_a_run_across_two_nodes_survives_a_killed_worker_and_a_lost_node_and_ends_with_the_bits_of_two_plain_ranks(
    cluster: Cluster, words: list[object], tmp_path: Path, plain: Path
) -> None:
    run = tmp_path / "run"
    launcher = cluster.launcher(*words, "--nodes", 3)
    first, second = (pid_in_training(run, number, launcher) for number in range(2))
    os.kill(second, signal.SIGKILL)
    until("a new first rank", lambda: rank(run / "jobs" / "ssin-0.log") not in (None, first))
    first = pid_in_training(run, 0, launcher)
    cluster.kill(next(node for node in cluster.running() if first in descendants(node.pid)))
    cluster.add()
    code, out, err = end(launcher)
    assert code == 0, err
    assert "its worker process has died; starts again (1 of 3)" in err
    assert "starts again (2 of 3)" in err
    assert_same_end(run / "ssin", plain)
    assert out.startswith("queries ")
    assert (run / "final" / "results.json").is_file()


def test_a_search_goes_on_when_a_node_is_lost_and_ends_whole(cluster: Cluster, walkers: Path, tmp_path: Path) -> None:
    run, file = tmp_path / "run", tmp_path / "search.yaml"
    file.write_text("trials: 4\nepochs: 6\nscheduler: none\nsmin:\n  optim.lr: {loguniform: [1.0e-3, 1.0e-1]}\n")
    configs = write_configs(tmp_path / "configs", walkers)
    launcher = cluster.launcher("--stream", "smin", "--config", configs, "--run", run, "--search", file, "--nodes", 3)
    logs = [run / "jobs" / f"smin-{number:04d}-0.log" for number in range(2)]
    until("a score", lambda: launcher.poll() is not None or list(run.glob("search/smin/0001/checkpoint_*")))
    lost = rank(logs[1])
    assert lost, end(launcher)
    cluster.kill(next(node for node in cluster.running() if lost in descendants(node.pid)))
    code, out, err = end(launcher)
    cluster.add()
    assert code == 0, err
    assert re.search(r"smin-0001: .*; starts again \(1 of 2\)", err), err
    trials = experiment(run, "smin").values()
    assert [(trial["status"], trial["results"][-1]["epoch"]) for trial in trials] == [("TERMINATED", 6)] * 4
    assert out.startswith("smin ")


def test_the_workers_of_a_killed_launcher_end_and_the_cluster_stays(
    cluster: Cluster, words: list[object], tmp_path: Path
) -> None:
    nodes = cluster.running()
    launcher = cluster.launcher(*words)
    pid_in_training(tmp_path / "run", 0, launcher)
    launcher.kill()
    end(launcher)
    logs = [tmp_path / "run" / "jobs" / f"ssin-{number}.log" for number in range(2)]
    until("no ranks", lambda: not any(map(rank, logs)))
    assert cluster.running() == nodes


def test_two_launchers_on_one_machine_have_rays_of_their_own_whatever_the_environment_says(
    cluster: Cluster, words: list[object], tmp_path: Path, plain: Path
) -> None:
    deep = tmp_path / ("x" * 150)
    deep.mkdir()
    hostile = {"RAY_ADDRESS": cluster.address, "TMPDIR": str(deep), "HOME": "/nowhere"}
    short = ["--fixed", "--stream", "smin", "--config", tmp_path / "configs", "--run", tmp_path / "short"]
    first = start("launch/tune.py", *short, **hostile)
    until("a rank of the first", lambda: first.poll() is not None or rank(tmp_path / "short" / "jobs" / "smin-0.log"))
    second = start("launch/tune.py", *words, **hostile)
    code, _, err = end(first)
    assert code == 0, err
    assert second.poll() is None, "this was meant to end while the other goes on"
    code, _, err = end(second)
    assert code == 0, err
    assert_same_end(tmp_path / "run" / "ssin", plain)
    # a worker of Ray that was told to end may take a moment
    until("no process of these Rays", lambda: not processes_with(str(deep)))


def test_a_search_over_both_streams_in_a_job_of_slurm_is_preempted_and_goes_on_on_two_nodes(
    slurm: Slurm, walkers: Path, tmp_path: Path
) -> None:
    run, file = tmp_path / "run", tmp_path / "search.yaml"
    rules = "trials: 2\nepochs: 4\ngrace_epochs: 2\nworkers: 2\n"
    file.write_text(f"{rules}ssin:\n  loss.margin: {{uniform: [0, 1]}}\nsmin:\n  loss.margin: {{uniform: [0, 1]}}\n")
    resources = ["-p", "main", "-N2", "-c1", "--mem=2G", "--gpus-per-node=0", f"--output={tmp_path / 'log'}"]
    words = ["--stream", "both", "--config", write_configs(tmp_path / "configs", walkers), "--run", run]
    job = slurm.call("sbatch", "--parsable", *resources, "slurm/ray.sbatch", *words, "--search", file)
    until("a trial that has ended", lambda: any(ended_trials(run).values()))
    before = {name: trial for name, trial in ended_trials(run).items() if trial}
    slurm.wait(slurm.occupy(seconds=1), "COMPLETED")
    slurm.wait_once_requeued(job)
    after = ended_trials(run)
    assert len(after) == 4
    assert all(after.values())
    assert before.items() <= after.items(), "what had ended was not done again"
    assert "best settings" in (tmp_path / "log").read_text()
    assert (run / "final" / "results.json").is_file()
    until("no process of the job", lambda: not processes_with(f"SLURM_JOB_ID={job}"))


def test_a_job_of_slurm_with_its_own_ray_is_preempted_and_ends_with_the_same_bits_and_no_process_left(
    slurm: Slurm, words: list[object], tmp_path: Path, plain: Path
) -> None:
    resources = ["-p", "main", "-N2", "-c1", "--mem=2G", "--gpus-per-node=0", f"--output={tmp_path / 'log'}"]
    job = slurm.call("sbatch", "--parsable", *resources, "slurm/ray.sbatch", *words)
    until_training(tmp_path / "run" / "ssin")
    slurm.wait(slurm.occupy(seconds=1), "COMPLETED")
    slurm.wait_once_requeued(job)
    assert_same_end(tmp_path / "run" / "ssin", plain)
    assert (tmp_path / "run" / "final" / "results.json").is_file()
    until("no process of the job", lambda: not processes_with(f"SLURM_JOB_ID={job}"))
    assert not list(Path("/tmp").glob(f"r{job}.*"))
