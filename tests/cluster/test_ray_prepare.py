"""Masks and skeletons as tasks of a real Ray."""

import os
import signal
from pathlib import Path

from helpers.launching import end, processes, start
from helpers.networks import contents, frames_only, write_posehg3d
from helpers.runs import until

from sptskm import cli


def worker(data: Path) -> int | None:
    """Pid of a process of Ray that makes a shard, once something is made."""
    if not contents(data, "joint3d"):
        return None
    return next((pid for pid, _, line in processes() if line.startswith("ray::made")), None)


def test_shards_in_ray_survive_a_killed_worker_and_end_with_the_bytes_of_an_undisturbed_run(
    walkers: Path, tmp_path: Path
) -> None:
    data, whole = frames_only(walkers, tmp_path / "data"), frames_only(walkers, tmp_path / "whole")
    weights = write_posehg3d(tmp_path)
    assert cli.main(["prepare", "skeletons", "--data", str(whole), "--weights", str(weights)]) == 0
    words = ["launch/tune.py", "--prepare", "skeletons", "--data", data, "--weights", weights, "--shards", 2]
    launcher = start(*words)
    until("a shard at work", lambda: launcher.poll() is not None or worker(data))
    if pid := worker(data):
        os.kill(pid, signal.SIGKILL)
    code, out, err = end(launcher)
    assert code == 0, err
    total = len(contents(whole, "joint3d"))
    assert out.strip() == f"{total} of {total} skeletons are there"
    assert contents(data, "joint3d") == contents(whole, "joint3d")
