"""A second command into a folder of runs: attached to what is queued, refused with what differs, or told it is done."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sptskm.common.atomic import write_text
from sptskm.configfile import to_yaml
from sptskm.data import read_dataset, split_of
from sptskm.launching import earlier, local, slurm, tune
from sptskm.launching.plan import Plan, make_plan


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """Programs of SLURM: sbatch counts, squeue shows the lines of a file (number|state|reason|folder)."""
    programs, lines = tmp_path / "programs", tmp_path / "lines"
    programs.mkdir()
    lines.touch()
    for name, script in (("sbatch", "exit 1"), ("squeue", f'cat "{lines}"')):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    submitted = []

    def queue(folder, _cluster, _job, name, after=""):
        submitted.append((name, after))
        number = str(40 + len(submitted))
        paths = SimpleNamespace(stderr=folder / f"{number}_0_log.err", stdout=folder / f"{number}_0_log.out")
        return SimpleNamespace(job_id=number, paths=paths)

    monkeypatch.setattr(slurm, "queue", queue)

    def show(run: Path, **states: str) -> None:
        place = run / "jobs" / "code-1"
        lines.write_text("".join(f"{number[1:]}|{state}|None|{place}\n" for number, state in states.items()))

    return SimpleNamespace(show=show, submitted=submitted, programs=programs)


@pytest.fixture
def words(configs, tmp_path) -> list[str]:
    return ["--stream", "both", "--config", str(configs), "--run", str(tmp_path / "run")]


def plan_of(words: list[str]) -> Plan:
    return make_plan(slurm.command_line().parse_intermixed_args(words))


ALL = [("ssin", ""), ("smin", ""), ("final", "afterok:41:42")]


def test_the_same_command_is_attached_to_what_is_queued_and_another_is_told_what_differs(
    scheduler, words, tmp_path, capsys
):
    assert slurm.main(words) == 0
    assert scheduler.submitted == ALL
    scheduler.show(tmp_path / "run", _41="RUNNING", _42="PENDING", _43="PENDING")
    capsys.readouterr()
    assert slurm.main(words) == 0
    assert scheduler.submitted == ALL, "nothing new"
    log = tmp_path / "run" / "jobs" / "41_0_log.err"
    assert f"ssin: job 41 of an earlier command is running, log {log}\n" in capsys.readouterr().out
    assert slurm.main([*words, "ssin.optim.lr=0.25", "final.rerank=true"]) == 2
    error = capsys.readouterr().err
    assert "has jobs in the queue (ssin 41 running, smin 42 pending, final 43 pending) with other settings " in error
    assert "(final.rerank: False -> True; ssin.optim.lr: 0.001 -> 0.25)" in error
    assert "another --run, or `scancel 41 42 43` before" in error
    assert slurm.main(["--stream", "ssin", *words[2:]]) == 2
    assert "(smin: asked for -> not asked for)" in capsys.readouterr().err
    for launcher in (lambda: local.main(words), lambda: tune.main([*words, "--fixed"])):
        assert launcher() == 2
        assert "jobs 41 42 43 of SLURM are queued for it" in capsys.readouterr().err
    assert scheduler.submitted == ALL


def test_watching_again_follows_the_jobs_that_are_there(scheduler, words, tmp_path, monkeypatch):
    slurm.main(words)
    scheduler.show(tmp_path / "run", _41="RUNNING", _42="RUNNING", _43="PENDING")
    followed = []
    monkeypatch.setattr(
        slurm, "watch", lambda jobs: followed.append({name: job.job for name, job in jobs.items()}) or 0
    )
    assert slurm.main([*words, "--watch"]) == 0
    assert followed == [{"ssin": "41", "smin": "42", "final": "43"}]


def test_a_stream_that_has_failed_is_submitted_again_beside_the_one_that_goes_on(scheduler, words, tmp_path):
    slurm.main(words)
    scheduler.show(tmp_path / "run", _42="RUNNING", _41="FAILED")
    assert slurm.main(words) == 0
    assert scheduler.submitted == [*ALL, ("ssin", ""), ("final", "afterok:42:44")]
    assert earlier.read_record(plan_of(words)).jobs == {"smin": "42", "ssin": "44", "final": "45"}


def test_a_final_job_that_slurm_is_about_to_cancel_is_not_waited_for(scheduler, words, tmp_path):
    slurm.main(words)
    scheduler.show(tmp_path / "run", _41="FAILED", _42="COMPLETED", _43="PENDING")
    assert slurm.main(words) == 0
    assert scheduler.submitted == [*ALL, ("ssin", ""), ("smin", ""), ("final", "afterok:44:45")]


def test_numbers_that_are_somebody_elses_jobs_by_now_do_not_count(scheduler, words, tmp_path):
    slurm.main(words)
    scheduler.show(tmp_path / "other", _41="RUNNING", _42="RUNNING", _43="PENDING")
    assert slurm.main([*words, "optim.lr=0.25"]) == 0
    assert len(scheduler.submitted) == 6


def test_a_scheduler_that_does_not_answer_is_no_empty_queue(scheduler, words, capsys):
    slurm.main(words)
    (scheduler.programs / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: timed out' >&2; exit 1\n")
    assert slurm.main(words) == 2
    assert (
        "whether its jobs 41,42,43 are queued is unknown (slurm_load_jobs error: timed out)" in capsys.readouterr().err
    )
    assert scheduler.submitted == ALL


@pytest.mark.parametrize("record", ["", "[]", '{"jobs": {"ssin": "7 --help"}}', '{"jobs": 3}'])
def test_a_record_that_cannot_be_made_out_is_no_submission(record, scheduler, words, tmp_path):
    jobs = tmp_path / "run" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / earlier.RECORD).write_text(record)
    assert slurm.main(words) == 0
    assert scheduler.submitted == ALL


def trained(plan: Plan) -> None:
    """What training leaves in the folders of a plan, as far as launchers look."""
    for config in plan.configs:
        folder = Path(config.run)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(to_yaml(config))
        (folder / "checkpoint-00000004.pt").touch()
        (folder / "result.json").write_text("{}")


def test_a_finished_plan_is_said_to_be_so_and_more_epochs_are_submitted(scheduler, words, tmp_path, capsys):
    slurm.main(words)
    trained(plan_of(words))
    assert slurm.main(words) == 0
    assert len(scheduler.submitted) == 6, "its final job has not been done"
    (tmp_path / "run" / "final").mkdir()
    (tmp_path / "run" / "final" / "results.json").write_text("{}")
    capsys.readouterr()
    assert slurm.main([*words, "--watch"]) == 0
    assert f"finished by an earlier command with these settings; the results are in {tmp_path / 'run' / 'final'}\n" in (
        capsys.readouterr().out
    )
    assert len(scheduler.submitted) == 6
    assert slurm.main([*words, "train.epochs=9"]) == 0
    assert len(scheduler.submitted) == 9


@pytest.mark.parametrize("launcher", [local, slurm])
def test_a_folder_with_another_run_is_refused_with_what_differs(
    launcher, scheduler, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(local, "Children", None)
    trained(plan_of(words))
    assert launcher.main([*words, "smin.optim.lr=0.25", "train.epochs=9"]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'run' / 'smin'}: holds another run (optim.lr: 0.01 -> 0.25); choose another --run" in error
    assert scheduler.submitted == []


@pytest.mark.parametrize("launcher", [local, slurm])
def test_a_folder_with_a_run_on_other_data_is_refused_before_anything_is_queued(
    launcher, scheduler, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(local, "Children", None)
    found = plan_of(words)
    trained(found)
    for config in found.configs:
        table = read_dataset(config.data.root)
        data = split_of(table, config.data).data_of(table)
        write_text(Path(config.run) / "data.json", json.dumps(data))
    earlier.refuse_other_runs(found)
    write_text(tmp_path / "run/smin/data.json", json.dumps(data | {"fingerprint": "00"}))
    assert launcher.main(words) == 2
    error = capsys.readouterr().err
    told = f"holds another run (fingerprint of the training data: 00 -> {data['fingerprint']}); choose another --run"
    assert f"{tmp_path / 'run' / 'smin'}: {told}" in error
    assert scheduler.submitted == []


@pytest.mark.parametrize("text", ["{}", '{"fingerprint": "00"}', '{"name": "walkers"}', "[]", "", "{"])
def test_where_the_folder_does_not_say_its_data_the_run_itself_decides(text, words):
    found = plan_of(words)
    trained(found)
    for config in found.configs:
        write_text(Path(config.run) / "data.json", text)
    earlier.refuse_other_runs(found)


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("launcher", [local, slurm])
def test_a_folder_in_which_somebody_trains_is_refused_with_the_process(launcher, scheduler, words, tmp_path, capsys):
    folder = tmp_path / "run" / "ssin"
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", HOLD, str(folder / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert launcher.main(words) == 2
        holder.communicate()
    assert f"{folder}: process {holder.pid} is training in this folder" in capsys.readouterr().err
    assert scheduler.submitted == []
    assert earlier.training_in(folder) is None, "a lock file without a holder is no lock"


def test_two_commands_do_not_submit_into_one_folder_at_once(scheduler, words, tmp_path, capsys):
    jobs = tmp_path / "run" / "jobs"
    jobs.mkdir(parents=True)
    command = [sys.executable, "-c", HOLD, str(jobs / earlier.LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert slurm.main(words) == 2
        holder.communicate()
    assert "another command is submitting into it, wanted one at a time" in capsys.readouterr().err
    assert scheduler.submitted == []


@pytest.mark.parametrize("launcher", [local, slurm])
def test_a_folder_that_cannot_be_is_one_sentence(launcher, scheduler, words, tmp_path, capsys):
    (tmp_path / "file").touch()
    for impossible in ("/proc/x", str(tmp_path / "file" / "run")):
        assert launcher.main([*words[:-1], impossible]) == 2
        error = capsys.readouterr().err
        assert f"{impossible}" in error
        assert "cannot be written (" in error
        assert error.count("\n") == 1
    assert scheduler.submitted == []


def test_settings_of_a_plan_are_what_json_gives_back(words):
    found = earlier.submitted_settings(plan_of(words))
    assert json.loads(json.dumps(found)) == found
    assert found["ssin.optim.milestones"] == [1]
    assert fcntl.F_GETLK
