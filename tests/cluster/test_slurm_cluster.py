"""Jobs on a real two-node SLURM cluster: what is asserted are final weights and states."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Slurm
from launching import processes_naming, write_configs

EPOCHS = 12


@pytest.fixture(scope="session")
def configs(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_configs(tmp_path_factory.mktemp("configs"), walkers)


def options(configs: Path, cluster_file: Path, run: Path, stream: str) -> list[object]:
    words = ["--stream", stream, "--config", configs, "--cluster", cluster_file, "--run", run]
    return [*words, f"train.epochs={EPOCHS}", "train.validate_every=6"]


def end_of(run: Path) -> dict[str, Any]:
    state = torch.load(max(run.glob("checkpoint-*.pt")), weights_only=True)
    return {**{f"model {k}": v for k, v in state["model"].items()}, "step": state["step"], "best": state["best_mAP"]}


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        same = found[name].equal(value) if isinstance(value, torch.Tensor) else found[name] == value
        assert same, name


def wait_for_steps(run: Path) -> None:
    """Until the run has written its first checkpoint: it is in the middle of training then."""
    deadline = time.monotonic() + 90
    while not list(run.glob("checkpoint-*.pt")):
        assert time.monotonic() < deadline, f"nothing happens in {run}"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def finished(slurm: Slurm, configs: Path, cluster_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both streams and the final job, uninterrupted, DDP across both nodes."""
    run = tmp_path_factory.mktemp("finished") / "run"
    jobs = slurm.launch(*options(configs, cluster_file, run, "both"))
    assert list(jobs) == ["ssin", "smin", "final"]
    assert slurm.state(jobs["final"]) == "PENDING"
    slurm.wait(jobs["final"], "COMPLETED")
    return run


def test_both_streams_train_across_two_nodes_and_the_final_job_follows(finished: Path) -> None:
    results = json.loads((finished / "final" / "results.json").read_text())
    assert {line["stream"] for line in results["results"]} == {"ssin", "smin", "fused"}
    for stream in ("ssin", "smin"):
        assert torch.load(max((finished / stream).glob("checkpoint-*.pt")), weights_only=True)["world"] == 2


@pytest.mark.parametrize("kind", ["slurm", "slurm_term_only"])
def test_a_preempted_job_is_requeued_once_and_ends_with_the_same_bits(
    request: pytest.FixtureRequest, kind: str, configs: Path, cluster_file: Path, tmp_path: Path, finished: Path
) -> None:
    slurm: Slurm = request.getfixturevalue(kind)
    job = slurm.launch(*options(configs, cluster_file, tmp_path / "run", "ssin"))["ssin"]
    wait_for_steps(tmp_path / "run" / "ssin")
    rival = slurm.call("sbatch", "--parsable", "-p", "high", "-N2", "--exclusive", "--wrap", "sleep 1", "-o/dev/null")
    slurm.wait(rival, "COMPLETED")
    slurm.wait(job, "COMPLETED")
    assert slurm.restarts(job) == 1
    assert_equal(end_of(tmp_path / "run" / "ssin"), end_of(finished / "ssin"))


def test_a_cancelled_job_has_saved_and_does_not_come_back(
    slurm: Slurm, configs: Path, cluster_file: Path, tmp_path: Path
) -> None:
    jobs = slurm.launch(*options(configs, cluster_file, tmp_path / "run", "smin"))
    wait_for_steps(tmp_path / "run" / "smin")
    slurm.call("scancel", jobs["smin"])
    assert slurm.wait(jobs["smin"], "CANCELLED") == "CANCELLED"
    assert slurm.wait(jobs["final"], "CANCELLED") == "CANCELLED"
    time.sleep(8)  # longer than a requeued job waits
    assert slurm.state(jobs["smin"]) == "CANCELLED"
    assert not processes_naming(str(tmp_path))
    assert end_of(tmp_path / "run" / "smin")["step"] > 0


def test_a_failed_stream_cancels_the_final_job(slurm: Slurm, walkers: Path, cluster_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(walkers, data)
    for frame in (data / "bbox_train").rglob("*F003.jpg"):
        frame.write_bytes(b"broken")  # which is not among the files looked at before submission
    configs = write_configs(tmp_path / "configs", data)
    jobs = slurm.launch(*options(configs, cluster_file, tmp_path / "run", "both"))
    assert slurm.wait(jobs["ssin"], "FAILED") == "FAILED"
    assert slurm.wait(jobs["final"], "CANCELLED") == "CANCELLED"
    log = (tmp_path / "run" / "jobs" / f"{jobs['ssin']}_0_log.err").read_text()
    assert "F003.jpg: corrupt, not a readable image" in log
    slurm.wait(jobs["smin"], "COMPLETED")


def test_a_killed_rank_ends_its_job_which_is_queued_again_and_ends_with_the_same_bits(
    slurm: Slurm, configs: Path, cluster_file: Path, tmp_path: Path, finished: Path
) -> None:
    words = options(configs, cluster_file, tmp_path / "run", "ssin")
    job = slurm.launch(*words)["ssin"]
    wait_for_steps(tmp_path / "run" / "ssin")
    other = _rank_of(job, 0)
    os.kill(_rank_of(job, 1), signal.SIGKILL)
    wait_for_end(other, seconds=60)
    slurm.wait(job, "COMPLETED")
    assert slurm.restarts(job) == 1
    assert_equal(end_of(tmp_path / "run" / "ssin"), end_of(finished / "ssin"))


def wait_for_end(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} still runs after {seconds} s"
        time.sleep(0.1)


def _rank_of(job: str, rank: int) -> int:
    """Pid of the training process of a rank of a job."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        wanted = {b"SLURM_JOB_ID=" + job.encode(), b"SLURM_PROCID=" + str(rank).encode()}
        if wanted <= set(variables) and b"submitit" in command:
            return int(path.parent.name)
    raise AssertionError(f"no process of rank {rank} of job {job}")
