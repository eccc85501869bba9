"""What is shown of jobs that are followed. The scheduler is stood in for here; tests/cluster/ has the real one."""

import pytest

from sptskm.launching import watch
from sptskm.launching.watch import Followed


@pytest.fixture
def log(tmp_path):
    return tmp_path / "7_0_log.err"


def test_whole_lines_are_shown_once_and_those_of_submitit_not_at_all(log):
    job = Followed("7", [log])
    assert job.news() == []
    log.write_text("submitit INFO - starting\nepoch 1\nepo")
    assert job.news() == ["epoch 1"]
    assert job.news() == []
    with log.open("a") as file:
        file.write("ch 2\n")
    assert job.news() == ["epoch 2"]


def test_an_end_counts_when_it_is_seen_twice():
    """A job that is queued again passes by an end."""
    job = Followed("7", [])
    seen = [job.look(state, "") or job.ended for state in ("RUNNING", "NODE_FAIL", "PENDING", "PENDING", "RUNNING")]
    assert seen == [True, True, True, False, True]
    job.look("COMPLETED", "")
    assert not job.ended
    job.look("COMPLETED", "")
    assert job.ended


def test_all_jobs_are_followed_to_their_ends_and_a_failure_is_the_exit_code(log, monkeypatch, capsys):
    monkeypatch.setattr(watch, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(watch, "LOG_SECONDS", 0.0)
    log.write_text("queries\nall 1\n")
    told = iter(
        [("PENDING", "Priority"), ("RUNNING", ""), ("FAILED", "NonZeroExitCode"), ("FAILED", "NonZeroExitCode")]
    )
    monkeypatch.setattr(watch, "states", lambda _: {"ssin": next(told)})
    assert watch.watch({"ssin": Followed("7", [log])}) == 1
    out, err = capsys.readouterr()
    assert err.splitlines() == ["ssin: pending (Priority)", "ssin: running", "ssin: failed (NonZeroExitCode)"]
    assert out.splitlines()[:2] == ["ssin: queries", "ssin: all 1"]
    assert out.splitlines()[-1].split() == ["ssin", "7", "failed"]


def test_who_stops_watching_leaves_the_jobs_alone(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "states", interrupt)
    assert watch.watch({"ssin": Followed("7", []), "smin": Followed("8", [])}) == 130
    assert "the jobs go on; scancel 7 8 ends them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("squeue", "expected"),
    [
        (
            "echo '7|PENDING|Priority'; echo '8|RUNNING|None'",
            {"ssin": ("PENDING", "Priority"), "smin": ("RUNNING", "")},
        ),
        ("echo '8|COMPLETED|None'", {"ssin": ("GONE", ""), "smin": ("COMPLETED", "")}),
        ("echo 'Invalid job id specified' >&2; exit 1", {"ssin": ("GONE", ""), "smin": ("GONE", "")}),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", {}),
    ],
)
def test_states_are_what_the_queue_says_and_nothing_while_it_does_not_answer(tmp_path, monkeypatch, squeue, expected):
    (tmp_path / "squeue").write_text(f"#!/bin/sh\n{squeue}\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert watch.states({"ssin": Followed("7", []), "smin": Followed("8", [])}) == expected
