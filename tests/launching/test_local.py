"""Running on this machine: real launchers, their children, and how they end."""

import signal
import sys
import time
from pathlib import Path

import pytest
from helpers.launching import broken_walkers, end, launch, processes_naming, start, write_configs

from sptskm.launching import local
from sptskm.launching.local import share_gpus, visible_gpus

WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("up", flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from sptskm.launching.local import Children
with Children() as children:
    codes = children.run({{name: [sys.executable, "-c", sys.argv[1]] for name in {names}}})
print(sorted(codes.items()), children.asked, children.running)
"""


def table(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith(("all ", "clothes ", "fusion", "protocol"))]


def files(folder: Path, pattern: str) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in folder.rglob(pattern)}


def wait_for(path: Path, pattern: str) -> None:
    deadline = time.monotonic() + 60
    while not list(path.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} in {path}"
        time.sleep(0.05)


@pytest.mark.slow
def test_both_streams_train_and_are_fused_and_the_same_command_again_does_nothing_new(configs, tmp_path):
    run = tmp_path / "run"
    words = ("launch/local.py", "--stream", "both", "--config", configs, "--run", run)
    code, out, err = launch(*words)
    assert code == 0, err
    assert [line.split()[:2] for line in table(out)][:3] == [["all", "SSIN"], ["all", "SMIN"], ["all", "fused"]]
    assert out.endswith(f"\n\ntensorboard --logdir {run}\n")
    assert "ssin epoch 2/2" in err
    assert "smin epoch 2/2" in err
    assert not processes_naming(str(run))
    trained = files(run, "*.pt")
    assert len(trained) == 6, "two checkpoints and the best of each stream"
    code, again, err = launch(*words)
    assert (code, table(again)) == (0, table(out))
    assert "epoch" not in err
    assert files(run, "*.pt") == trained


@pytest.mark.slow
def test_a_stream_on_two_processes_stops_when_asked_and_the_same_command_continues_to_the_end(configs, tmp_path):
    run = tmp_path / "run"
    words = ("launch/local.py", "--stream", "smin", "--nproc", 2, "--config", configs, "--run", run)
    words += ("train.epochs=4", "train.validate_every=4", "sampling.rounds=3")
    launcher = start(*words)
    wait_for(run / "smin", "checkpoint-*.pt")
    assert len(processes_naming(str(run))) >= 4, "the launcher, torchrun and two ranks"
    launcher.send_signal(signal.SIGTERM)
    code, out, err = end(launcher)
    assert code == 75, err
    assert f"smin stopped as asked; the same command continues in {run}" in err
    assert out == ""
    assert not processes_naming(str(run))
    assert not (run / "smin" / "result.json").exists(), "this was the middle of training"
    code, out, err = launch(*words)
    assert code == 0, err
    assert "smin continues from" in err
    assert "epoch 4/4" in err
    assert table(out)[0].startswith("all ")
    assert (run / "smin" / "result.json").is_file()


@pytest.mark.slow
def test_a_broken_frame_fails_the_launcher_with_its_path(walkers, tmp_path):
    broken = broken_walkers(walkers, tmp_path / "walkers")
    configs = write_configs(tmp_path / "configs", tmp_path / "walkers")
    code, out, err = launch("launch/local.py", "--stream", "ssin", "--config", configs, "--run", tmp_path / "run")
    assert code == 1
    assert out == ""
    assert any(f"{path}: corrupt" in err for path in broken)
    assert "ssin failed (ssin: exit 2)" in err
    assert "the same command continues" not in err


@pytest.mark.parametrize("names", [["one"], ["one", "two"]])
def test_a_signal_to_the_parent_asks_every_child_and_waits_for_it(names):
    parent = start("-c", PARENT.format(names=names), WAITS)
    heard = parent.stdout if len(names) == 1 else parent.stderr
    for _ in names:
        assert "up" in heard.readline()
    parent.send_signal(signal.SIGTERM)
    code, out, err = end(parent)
    assert code == 0, err
    assert out == f"{[(name, 75) for name in names]} True {{}}\n"


def test_children_side_by_side_speak_line_by_line_with_their_name():
    code, _, err = launch("-c", PARENT.format(names=["one", "two"]), "import sys; print('hello'); sys.exit('bye')")
    assert code == 0
    assert sorted(err.splitlines()) == ["one: bye", "one: hello", "two: bye", "two: hello"]


def test_a_signal_that_was_ignored_stays_ignored():
    code, out, _ = launch(
        "-c",
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from sptskm.launching.local import Children\n"
        "with Children(): print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, signal.getsignal(signal.SIGTERM))",
    )
    assert code == 0
    assert out.startswith("True <bound method")


@pytest.mark.parametrize("number", [0, -1])
def test_no_processes_are_refused(number, configs, capsys):
    assert local.main(["--stream", "both", "--config", str(configs), "--nproc", str(number)]) == 2
    assert capsys.readouterr().err == f"sptskm local: --nproc is {number}, wanted at least 1\n"


def test_a_batch_that_does_not_divide_over_the_processes_is_refused(configs, capsys):
    assert local.main(["--stream", "both", "--config", str(configs), "--nproc", "3"]) == 2
    assert "ssin: the global batch of 4 clips" in capsys.readouterr().err


class Recorded:
    """Stands for the children of a launcher: remembers commands, ends each group as told."""

    def __init__(self, *ends: dict[str, int], asked: bool = False) -> None:
        self.ends, self.asked, self.groups = list(ends), asked, []

    def __call__(self) -> "Recorded":
        return self

    def __enter__(self) -> "Recorded":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, commands: dict[str, list[str]]) -> dict[str, int]:
        self.groups.append(commands)
        return self.ends.pop(0)


@pytest.fixture
def record(configs, tmp_path, monkeypatch):
    def go(children: Recorded, *words: str, gpus: str = "") -> int:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        monkeypatch.setattr(local, "Children", children)
        return local.main(["--stream", "both", "--config", str(configs), "--run", str(tmp_path / "run"), *words])

    return go


TRAINED, DONE = {"ssin": 0, "smin": 0}, {"final": 0}


@pytest.mark.parametrize(
    ("children", "code", "groups"),
    [
        (Recorded(TRAINED, DONE), 0, 2),
        (Recorded({"ssin": 75, "smin": 0}), 75, 1),
        (Recorded({"ssin": 75, "smin": 1}), 1, 1),
        (Recorded({"ssin": -15, "smin": 1}, asked=True), 75, 1),
        (Recorded(TRAINED, asked=True), 75, 1),
        (Recorded(TRAINED, {"final": 2}), 1, 2),
    ],
    ids=["finished", "stopped", "failed", "asked early", "asked at the end", "final failed"],
)
def test_how_children_end_decides_what_follows(children, code, groups, record):
    assert record(children) == code
    assert len(children.groups) == groups


def test_a_stop_in_the_middle_says_who_stopped_and_where_to_go_on(record, tmp_path, capsys):
    record(Recorded({"ssin": 75, "smin": 0}))
    assert capsys.readouterr().err == f"ssin stopped as asked; the same command continues in {tmp_path / 'run'}\n"


def processes(command: list[str]) -> int:
    numbers = [word.partition("=")[2] for word in command if word.startswith("--nproc-per-node=")]
    return int(numbers[0]) if numbers else 1


@pytest.mark.parametrize(
    ("nproc", "gpus", "devices", "final"),
    [
        (1, "", (None, None), 2),
        (2, "", (None, None), 4),
        (1, "0", ("0", "0"), 1),
        (1, "0,1,2", ("0", "1"), 2),
        (2, "4,5,6,7", ("4,5", "6,7"), 4),
        (2, "0,1,2", ("0,1", "0,1"), 3),
    ],
)
def test_each_process_has_a_gpu_of_its_own_where_there_are_gpus(record, nproc, gpus, devices, final):
    children = Recorded(TRAINED, DONE)
    assert record(children, "--nproc", str(nproc), gpus=gpus) == 0
    training, evaluation = children.groups
    found = [next((w for w in command if w.startswith("CUDA_VISIBLE")), None) for command in training.values()]
    assert found == [name and f"CUDA_VISIBLE_DEVICES={name}" for name in devices]
    assert [processes(command) for command in training.values()] == [nproc, nproc]
    assert processes(evaluation["final"]) == final


def test_more_processes_than_gpus_are_refused(record, capsys):
    assert record(Recorded(), "--nproc", "2", gpus="3") == 2
    assert "--nproc is 2, but there are only 1 GPUs" in capsys.readouterr().err


def test_hidden_gpus_do_not_count(monkeypatch):
    for named in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/nvidia3"), Path("/dev/nvidia5")]))
    assert visible_gpus() == ["0", "1"], "CUDA counts what it sees from 0"


def test_a_child_is_a_plain_command_of_this_python():
    assert local._sptskm(1, (), "train", "x.yaml") == [sys.executable, "-m", "sptskm.cli", "train", "x.yaml"]
    assert share_gpus((), 5, 2) == [(), ()]


def test_a_killed_launcher_takes_its_children_along():
    """Otherwise they would go on unseen, and stand in the way of the same command."""
    parent = start("-c", PARENT.format(names=["ssin", "smin"]), WAITS)
    deadline = time.monotonic() + 30
    while len(processes_naming("sys.exit(75)")) < 3:  # the launcher, whose command line holds the children's, and two
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    parent.kill()
    end(parent)
    while processes_naming("sys.exit(75)"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
