"""A Ray job on this machine: what is refused, how it stops, and that it trains as any other launcher does."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from helpers.launching import broken_walkers, end, launch, processes, processes_with, start, write_configs
from helpers.small import small_config

from sptskm.config import ConfigError
from sptskm.launching import tune
from sptskm.launching.ray_environment import NICENESS, set_niceness
from sptskm.training.trainer import train

EPOCHS = 3


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(max(run.glob("checkpoint-*.pt")), weights_only=True)["model"]


def words(configs: Path, run: Path, stream: str, *more: object) -> list[object]:
    return ["launch/tune.py", "--fixed", "--stream", stream, "--config", configs, "--run", run, *more]


def until_no_process_is_left(mark: object) -> None:
    deadline = time.monotonic() + 60  # a worker of Ray that was told to end may take a moment
    while left := processes_with(f"MARK={mark}"):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_the_command_line_answers_without_torch_and_ray():
    code, out, err = launch("-c", "import sys, sptskm.launching.tune; print({'torch', 'ray'} & set(sys.modules))")
    assert (code, out) == (0, "set()\n"), err


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--workers=0", "--workers is 0, wanted at least 1"),
        ("--workers=3", "ssin: the global batch of 4 clips"),
        ("--cpus-per-worker=0", "--cpus-per-worker is 0, wanted at least 1"),
        ("--gpus-per-worker=2", "--gpus-per-worker is 2, wanted 0 or 1"),
        ("--retries=-1", "--retries is -1, wanted at least 0"),
        ("--nodes=2", "--nodes waits for a running cluster, wanted --address with it"),
        ("--retrain", "--fixed searches for nothing, wanted it without --search and --retrain"),
        ("--address=auto", "--address is auto, wanted HOST:PORT of a running Ray"),
        ("--address=127.0.0.1:1", "where no Ray answers"),
    ],
)
def test_what_cannot_work_is_refused_before_ray_is_started(option, sentence, configs, tmp_path, capsys):
    _, *options = map(str, words(configs, tmp_path / "run", "both", option))
    assert tune.main(options) == 2
    error = capsys.readouterr().err
    assert error.startswith("sptskm tune: ")
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("given", "found"), [(None, "0"), ("", "0"), ("19", "19"), ("-5", "-5")])
def test_workers_of_ray_have_the_priority_of_others_unless_the_environment_says_another(given, found, monkeypatch):
    monkeypatch.delenv(NICENESS, raising=False)
    if given is not None:
        monkeypatch.setenv(NICENESS, given)
    set_niceness()
    assert os.environ.get(NICENESS) == found


@pytest.mark.parametrize("given", ["low", "1.5", "0 ", "1000"])
def test_a_priority_of_which_ray_would_die_is_refused_in_a_sentence(given, monkeypatch):
    monkeypatch.setenv(NICENESS, given)
    with pytest.raises(ConfigError, match=f"RAY_worker_niceness is '{given}' in the environment, wanted a whole"):
        set_niceness()


def test_a_configuration_without_a_search_file_wants_one(configs, tmp_path, capsys):
    assert tune.main(["--stream", "both", "--config", str(configs), "--run", str(tmp_path / "run")]) == 2
    assert "has no search file configs/search/configs.yaml, wanted --search FILE or --fixed" in capsys.readouterr().err


def test_what_a_search_file_says_is_not_said_on_the_command_line(configs, tmp_path, capsys):
    _, _, *options = map(str, words(configs, tmp_path / "run", "both", "--workers=2"))
    assert tune.main(options) == 2
    assert "--workers, --cpus-per-worker and --gpus-per-worker are for --fixed" in capsys.readouterr().err


@pytest.mark.slow
def test_more_than_ray_has_is_refused(configs, tmp_path):
    command = words(configs, tmp_path / "run", "both", "--cpus-per-worker", 1000)
    code, out, err = launch(*command, MARK=str(tmp_path))
    assert (code, out) == (2, "")
    assert err.startswith(
        "launch/tune.py: --workers is 1, but Ray has no room for a worker of 1000 CPUs: its nodes have "
    )
    until_no_process_is_left(tmp_path)


def test_a_server_that_is_no_ray_is_refused(configs, tmp_path):
    program = "import sys; from sptskm.launching import tune; tune.JOIN_SECONDS = 2; sys.exit(tune.main(sys.argv[1:]))"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        _, *options = words(configs, tmp_path / "run", "both", "--address", address)
        code, out, err = launch("-c", program, *options)
    assert (code, out) == (2, "")
    assert f"--address is {address}, where no Ray lets this machine in" in err


@pytest.mark.slow
def test_both_streams_stop_when_asked_and_the_same_command_ends_with_the_bits_of_plain_runs(walkers, configs, tmp_path):
    run, plain = tmp_path / "run", tmp_path / "plain"
    command = words(configs, run, "both", f"train.epochs={EPOCHS}")
    launcher = start(*command, MARK=str(tmp_path))
    deadline = time.monotonic() + 180  # where other tests run beside this one
    while not list(run.glob("ssin/checkpoint-*.pt")):
        assert launcher.poll() is None, end(launcher)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(processes_with(f"MARK={tmp_path}")) > 5, "the launcher, its Ray and the workers"
    ours = [pid for pid, environment, line in processes() if f"MARK={tmp_path}" in environment and "ray::" in line]
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in ours} == {os.getpriority(os.PRIO_PROCESS, 0)}
    launcher.send_signal(signal.SIGUSR1)
    code, out, err = end(launcher)
    assert (code, out) == (75, ""), err
    assert f"stopped as asked; the same command continues in {run}" in err
    assert not (run / "ssin" / "result.json").exists(), "this was the middle of training"
    until_no_process_is_left(tmp_path)
    code, out, err = launch(*command)
    assert code == 0, err
    assert [line.split()[:2] for line in out.splitlines()[2:5]] == [["all", "SSIN"], ["all", "SMIN"], ["all", "fused"]]
    assert out.endswith(f"\n\ntensorboard --logdir {run}\n")
    assert f"ssin epoch {EPOCHS}/{EPOCHS}" in err
    for stream in ("ssin", "smin"):
        assert train(small_config(stream, walkers, plain / stream, f"train.epochs={EPOCHS}")).finished
        found, expected = weights(run / stream), weights(plain / stream)
        assert all(found[name].equal(value) for name, value in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("program", ["tune", "local"])
def test_runs_that_leave_a_fold_out_are_trained_before_the_final_job_asks_them(program, configs, tmp_path):
    command = [word for word in words(configs, tmp_path / "run", "both") if program == "tune" or word != "--fixed"]
    command[0] = f"launch/{program}.py"
    code, out, err = launch(*command, "final.folds=2", "data.held_out=0", "train.epochs=1", MARK=str(tmp_path))
    assert code == 0, err
    assert "held-out identities" in out
    for fold in (1, 2):
        for stream in ("ssin", "smin"):
            assert (tmp_path / "run/folds" / str(fold) / stream / "result.json").exists()


@pytest.mark.slow
def test_a_fault_of_the_run_itself_is_told_in_one_sentence_and_not_tried_again(walkers, tmp_path):
    broken = broken_walkers(walkers, tmp_path / "walkers")
    configs = write_configs(tmp_path / "configs", tmp_path / "walkers")
    code, out, err = launch(*words(configs, tmp_path / "run", "ssin", "--workers", 2))
    assert (code, out) == (1, "")
    assert any(err.startswith(f"ssin failed: frame {path}: corrupt") for path in broken)
    assert err.count("\n") == 1
