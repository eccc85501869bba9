"""When a job goes back into the queue. Programs of SLURM are stood in for here; tests/cluster/ has the real ones."""

import os
from pathlib import Path

import pytest

from sptskm.launching.requeue import requeue, retry

JOB = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "3"}


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Stands in for the scheduler: a state to report, and what it was asked for."""

    class Queue:
        folder = tmp_path / "jobs"

        def says(self, state: str) -> None:
            (tmp_path / "state").write_text(state)

        @property
        def asked(self) -> list[str]:
            log = tmp_path / "asked"
            return log.read_text().splitlines() if log.exists() else []

    programs = {"squeue": f"cat {tmp_path}/state", "scontrol": f'echo "$@" >> {tmp_path}/asked'}
    for name, line in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    Queue.folder.mkdir()
    queue = Queue()
    queue.says("RUNNING")
    return queue


def test_a_running_job_is_queued_again(queue):
    assert requeue(4, JOB)
    assert queue.asked == ["requeue 7"]


def test_a_member_of_an_array_is_queued_again_without_the_others(queue):
    member = {**JOB, "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}
    (queue.folder / "5_1_0_result.pkl").touch()
    assert retry(queue.folder, 2, member)
    assert requeue(4, member)
    assert queue.asked == ["requeue 5_2"] * 2


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "PENDING", ""])
def test_a_cancelled_job_and_one_that_is_queued_already_are_left_alone(queue, state):
    queue.says(state)
    assert not requeue(4, JOB)
    assert queue.asked == []


def test_the_limit_of_restarts_ends_it(queue):
    with pytest.raises(RuntimeError, match="job 7 was restarted 3 times, the limit; the same command continues it"):
        requeue(3, JOB)
    assert queue.asked == []


def test_a_job_whose_ranks_vanished_without_a_word_is_tried_again_as_often_as_allowed(queue, capsys):
    tried = [retry(queue.folder, 2, JOB) for _ in range(3)]
    assert tried == [True, True, False]
    assert queue.asked == ["requeue 7"] * 2
    assert "has lost ranks or nodes 3 times" in capsys.readouterr().err


def test_a_rank_that_said_why_it_failed_is_believed(queue):
    (queue.folder / "7_1_result.pkl").touch()
    assert not retry(queue.folder, 2, JOB)
    assert queue.asked == []


def test_losses_of_another_job_do_not_count(queue):
    Path(queue.folder / "6_losses.log").write_text("a\nb\nc\n")
    assert retry(queue.folder, 1, JOB)
