"""What a result says of how it came about."""

import sys

import pytest

from sptskm.provenance import COMMAND, command, origin, tell_jobs


def test_a_run_records_what_its_user_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMAND, "")
    monkeypatch.setattr(sys, "argv", ["sptskm", "train", "my file.yaml"])
    assert command() == origin()["command"] == "sptskm train 'my file.yaml'"


def test_a_job_records_the_command_of_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMAND, "")
    monkeypatch.setattr(sys, "argv", ["sptskm slurm", "--stream", "both"])
    tell_jobs()
    monkeypatch.setattr(sys, "argv", ["/usr/lib/submitit/core/_submit.py", "folder"])
    assert command() == "sptskm slurm --stream both"


def test_a_worker_of_a_foreign_ray_cluster_records_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMAND, "")
    monkeypatch.setattr(sys, "argv", ["/usr/lib/ray/default_worker.py", "--node-ip-address=127.0.0.1"])
    assert not command()
