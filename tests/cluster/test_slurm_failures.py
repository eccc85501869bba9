"""What goes wrong on clusters, done to real jobs: lost ranks and nodes, stuck ranks, time limits."""

import json
import os
import signal
from pathlib import Path

from helpers.nodes import CLUSTER, Slurm
from helpers.runs import assert_same_end, ended, options, rank_of, until, until_training

from sptskm.data import read_dataset
from sptskm.data.packs.writing import pack


def test_a_killed_rank_ends_its_job_which_is_queued_again_and_ends_with_the_same_bits_before_the_final_job(
    slurm: Slurm, walkers: Path, configs: Path, cluster_file: Path, tmp_path: Path, finished: Path
) -> None:
    packed, disk = tmp_path / "pack", tmp_path / "disk"
    pack(read_dataset(walkers), packed, 100, workers=1)
    from_copies = [f"data.root={packed}", f"data.stage={disk}"]  # which gives the same bits as from files, too
    jobs = slurm.launch(*options(configs, cluster_file, tmp_path / "run", "ssin"), *from_copies)
    until_training(tmp_path / "run" / "ssin")
    other = rank_of(jobs["ssin"], 0)
    os.kill(rank_of(jobs["ssin"], 1), signal.SIGKILL)
    until("the end of the other rank", lambda: ended(other), seconds=60)
    slurm.wait_once_requeued(jobs["ssin"])
    assert_same_end(tmp_path / "run" / "ssin", finished / "ssin")
    slurm.wait(jobs["final"], "COMPLETED")
    alone, both = (json.loads((run / "final" / "results.json").read_text()) for run in (tmp_path / "run", finished))
    assert alone["results"][0] == both["results"][0]
    # a copy of an earlier start is verified before it is used again, and this one may end before that
    copies = {path.name.removesuffix(".unverified") for path in disk.rglob("*.zip*")}
    assert copies == {path.name for path in packed.glob("*.zip")}


def test_a_job_that_loses_a_rank_too_often_fails_and_the_same_command_continues_it(
    slurm: Slurm, configs: Path, tmp_path: Path, finished: Path
) -> None:
    (tmp_path / "never.yaml").write_text(CLUSTER + "retries: 0\n")
    words = options(configs, tmp_path / "never.yaml", tmp_path / "run", "ssin")
    job = slurm.launch(*words)["ssin"]
    until_training(tmp_path / "run" / "ssin")
    os.kill(rank_of(job, 0), signal.SIGKILL)
    assert slurm.wait(job, "FAILED") == "FAILED"
    again = slurm.launch(*words)["ssin"]
    slurm.wait(again, "COMPLETED")
    assert_same_end(tmp_path / "run" / "ssin", finished / "ssin")


def test_a_lost_node_ends_the_ranks_elsewhere_and_the_job_continues_when_it_is_back(
    slurm: Slurm, configs: Path, cluster_file: Path, tmp_path: Path, finished: Path
) -> None:
    job = slurm.launch(*options(configs, cluster_file, tmp_path / "run", "ssin"))["ssin"]
    until_training(tmp_path / "run" / "ssin")
    other = rank_of(job, 0)
    slurm.devcluster("fail")
    until("the end of the rank on the other node", lambda: ended(other), seconds=60)
    slurm.wait(job, "PENDING")
    slurm.devcluster("heal")
    slurm.wait_once_requeued(job)
    assert_same_end(tmp_path / "run" / "ssin", finished / "ssin")


def test_a_rank_beside_a_stuck_one_has_the_job_queued_again(
    slurm: Slurm, configs: Path, cluster_file: Path, tmp_path: Path, finished: Path
) -> None:
    words = options(configs, cluster_file, tmp_path / "run", "ssin")
    job = slurm.launch(*words, "train.leave_seconds=3")["ssin"]
    until_training(tmp_path / "run" / "ssin")
    os.kill(rank_of(job, 1), signal.SIGSTOP)
    os.kill(rank_of(job, 0), signal.SIGUSR2)
    slurm.wait_once_requeued(job)
    assert_same_end(tmp_path / "run" / "ssin", finished / "ssin")


def test_a_job_at_its_time_limit_is_queued_again_however_short_it_is(
    slurm: Slurm, configs: Path, tmp_path: Path, finished: Path
) -> None:
    # SLURM may warn half a minute earlier than it was told to, which must not be before training has begun
    (tmp_path / "short.yaml").write_text(CLUSTER.replace("minutes: 60", "minutes: 2"))
    job = slurm.launch(*options(configs, tmp_path / "short.yaml", tmp_path / "run", "ssin"))["ssin"]
    until_training(tmp_path / "run" / "ssin")
    for rank in (0, 1):  # SLURM wakes them when it warns them
        os.kill(rank_of(job, rank), signal.SIGSTOP)
    slurm.wait_once_requeued(job)
    assert_same_end(tmp_path / "run" / "ssin", finished / "ssin")
