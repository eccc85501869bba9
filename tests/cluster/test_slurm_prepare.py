"""Masks and skeletons as arrays of jobs on a real SLURM."""

import os
import signal
from pathlib import Path

from helpers.launching import launch, processes
from helpers.networks import contents, frames_only, write_posehg3d
from helpers.nodes import Slurm, ids
from helpers.runs import until

from sptskm import cli
from sptskm.data import read_mars


def shard_process(data: Path, job: str) -> int | None:
    """Pid of the process that works on a shard of an array."""
    array, _, number = job.partition("_")
    wanted = {f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={number}", "SLURM_PROCID=0"}
    found = (pid for pid, environment, line in processes() if wanted <= set(environment) and "submitit" in line)
    return next(found, None) if contents(data, "joint3d") else None


def test_shards_in_jobs_survive_a_kill_and_the_last_job_lists_what_is_missing(
    slurm: Slurm, walkers: Path, cluster_file: Path, tmp_path: Path
) -> None:
    data, whole = frames_only(walkers, tmp_path / "data"), frames_only(walkers, tmp_path / "whole")
    weights = write_posehg3d(tmp_path)
    assert cli.main(["prepare", "skeletons", "--data", str(whole), "--weights", str(weights)]) == 0
    words = ["--prepare", "skeletons", "--data", data, "--weights", weights, "--shards", 2, "--cluster", cluster_file]
    code, out, err = launch("launch/slurm.py", *words, **slurm.variables)
    assert code == 0, err
    jobs = ids(out)
    array = next(line.split()[2] for line in out.splitlines() if ": jobs " in line)
    until("a shard that has made something", lambda: shard_process(data, array))
    if pid := shard_process(data, array):
        os.kill(pid, signal.SIGKILL)
    slurm.wait(jobs["verify"], "COMPLETED")
    assert contents(data, "joint3d") == contents(whole, "joint3d")
    broken = read_mars(data).path(0, 0, "frames")
    broken.write_bytes(b"no picture")
    read_mars(data).path(0, 0, "skeletons").unlink()
    code, out, err = launch("launch/slurm.py", *words, **slurm.variables)
    assert code == 0, err
    slurm.wait(ids(out)["verify"], "FAILED")
    log = (data / "prepared" / "skeletons" / "jobs" / f"{ids(out)['verify']}_0_log.err").read_text()
    assert f"frame {broken}: corrupt, not a readable image" in log
