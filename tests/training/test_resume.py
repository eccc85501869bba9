"""Starting is resuming: a stopped and continued run is the uninterrupted run, bit for bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small import small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sptskm.common.errors import ConfigError, DataError
from sptskm.config import Config
from sptskm.training.meters import Meters
from sptskm.training.rundir import RunDir
from sptskm.training.trainer import Trainer, train

EPOCHS = 3
STRONG = (
    "clips.scale=auto clips.mirrored=true model.bones=true model.pooling=mean+std model.mirror=true "
    "model.static=0.4 model.measures=body+motion"
)
STREAM_OPTIONS = {
    "ssin": ["model.dropout=0.5", "data.workers=1"],
    "smin": ["model.dropout=0.5", "model.width=32", *STRONG.split()],  # as wide networks compute on a CPU
    "gait": ["model.mirror=true", "model.static=0.4", "model.static_rows=[0,14,40,64]"],
}


def config_of(stream: str, walkers: Path, run: Path, *overrides: str) -> Config:
    """Dropout, augmentation and a rate change in the middle: everything that could differ."""
    return small_config(stream, walkers, run, f"train.epochs={EPOCHS}", *STREAM_OPTIONS[stream], *overrides)


def newest(run: Path) -> dict[str, Any]:
    return torch.load(max(run.glob("checkpoint-*.pt")), weights_only=True)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.equal(b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def assert_same_end(run: Path, reference: Path) -> None:
    found, expected = newest(run), newest(reference)
    for part in ("model", "optimizer", "scaler", "step", "epochs_done", "best_mAP"):
        assert equal(found[part], expected[part]), part
    assert equal(torch.load(run / "best.pt", weights_only=True)["model"], best(reference))


def best(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "best.pt", weights_only=True)["model"]


@pytest.fixture
def signal_after_step(monkeypatch):
    """Send this process a real signal during the given step (counted over the whole life of the test)."""

    def arrange(step: int, number: int = signal.SIGTERM) -> None:
        add, seen = Meters.add, [0]

        def add_and_signal(self: Meters, *arguments: Any) -> None:
            seen[0] += 1
            if seen[0] == step:
                os.kill(os.getpid(), number)
            add(self, *arguments)

        monkeypatch.setattr(Meters, "add", add_and_signal)

    return arrange


@pytest.fixture(scope="module")
def uninterrupted(walkers, tmp_path_factory):
    """Finished runs of all streams, made once."""
    runs = {}
    for stream in STREAM_OPTIONS:
        runs[stream] = tmp_path_factory.mktemp("uninterrupted") / stream
        assert train(config_of(stream, walkers, runs[stream])).finished
    return runs


@pytest.mark.parametrize("stream", ["ssin", "smin", "gait"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_stopping_after_any_step_and_starting_again_changes_no_bit(
    walkers, tmp_path, uninterrupted, signal_after_step, stream, step
):
    config = config_of(stream, walkers, tmp_path / "run")
    signal_after_step(step)
    outcome = train(config)
    # the flag is agreed on at the next step
    assert (outcome.finished, outcome.step) == (False, step + 1)
    assert train(config).finished
    assert_same_end(tmp_path / "run", uninterrupted[stream])


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_every_signal_a_scheduler_sends_is_a_request_to_save_and_leave(walkers, tmp_path, signal_after_step, number):
    signal_after_step(1, number)
    assert not train(config_of("smin", walkers, tmp_path / "run")).finished
    assert newest(tmp_path / "run")["step"] == 2


def test_many_stops_in_one_run_change_no_bit(walkers, tmp_path, uninterrupted, monkeypatch):
    add = Meters.add

    def add_and_signal(self: Meters, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        add(self, *arguments)

    monkeypatch.setattr(Meters, "add", add_and_signal)
    config = config_of("ssin", walkers, tmp_path / "run")
    starts = 1
    while not train(config).finished:
        starts += 1
    assert starts > 2
    assert_same_end(tmp_path / "run", uninterrupted["ssin"])


def test_tensorboard_has_every_step_once_after_a_stop(walkers, tmp_path, monkeypatch, signal_after_step):
    monkeypatch.setattr("sptskm.training.trainer.LOG_EVERY", 1)
    config = config_of("ssin", walkers, tmp_path / "run")
    signal_after_step(2)
    train(config)
    for path in sorted((tmp_path / "run").glob("checkpoint-*.pt"))[1:]:
        path.unlink()  # as if the newest had never been written: its steps are done, and logged, again
    train(config)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    steps = [event.step for event in events.Scalars("loss/total")]
    assert steps == list(range(newest(tmp_path / "run")["step"]))


def test_loss_scaling_state_survives_a_stop(walkers, tmp_path, signal_after_step):
    """float16 begins with an overflow: the step is skipped and the scale halved."""
    half = ["train.precision=float16"]
    train(config_of("smin", walkers, tmp_path / "whole", *half))
    config = config_of("smin", walkers, tmp_path / "run", *half)
    signal_after_step(1)
    train(config)
    assert newest(tmp_path / "run")["scaler"]["scale"] > 0
    train(config)
    found, expected = newest(tmp_path / "run"), newest(tmp_path / "whole")
    assert equal(found["scaler"], expected["scaler"])
    assert equal(found["model"], expected["model"])


def test_a_kill_between_a_validation_and_the_next_checkpoint_changes_no_bit(
    walkers, tmp_path, uninterrupted, monkeypatch
):
    class Killed(BaseException):
        pass

    def kill(values: Any) -> None:
        if values["epoch"] == 2:
            raise Killed

    monkeypatch.setattr(Trainer, "may_save", lambda _: False)
    config = config_of("ssin", walkers, tmp_path / "run")
    with pytest.raises(Killed):
        train(config, report=kill)
    assert newest(tmp_path / "run")["epochs_done"] == 1
    assert train(config).finished
    assert_same_end(tmp_path / "run", uninterrupted["ssin"])
    found, expected = (
        [(event.step, event.value) for event in EventAccumulator(str(run)).Reload().Scalars("validation/mAP")]
        for run in (tmp_path / "run", uninterrupted["ssin"])
    )
    assert found == expected


def test_pretrained_weights_are_read_by_a_new_run_only(walkers, tmp_path, signal_after_step):
    """Afterwards their file may be elsewhere, or gone."""
    gone = "model.pretrained=gone.pth"
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        train(config_of("ssin", walkers, tmp_path / "new", gone))
    signal_after_step(1)
    assert not train(config_of("ssin", walkers, tmp_path / "run")).finished
    assert train(config_of("ssin", walkers, tmp_path / "run", gone)).finished


@pytest.mark.parametrize("other", ["bfloat16", "float16"])
def test_a_run_goes_on_in_the_numbers_of_another_device_and_says_so(
    walkers, tmp_path, signal_after_step, monkeypatch, caplog, other
):
    config = config_of("smin", walkers, tmp_path / "run", "train.epochs=1")
    signal_after_step(1)
    assert not train(config).finished
    monkeypatch.setattr("sptskm.training.precision.automatic", lambda _: other)
    assert train(config).finished
    assert f"trained in float32 so far, continued in {other}: other roundings" in caplog.text


def test_a_checkpoint_that_does_not_say_its_precision_is_continued(walkers, tmp_path, signal_after_step, caplog):
    config = config_of("smin", walkers, tmp_path / "run")
    signal_after_step(1)
    train(config)
    state = newest(tmp_path / "run")
    assert state.pop("precision") == "float32"
    RunDir(tmp_path / "run").save(state, state["step"])
    assert train(config).finished
    assert "other roundings" not in caplog.text


def test_a_truncated_newest_checkpoint_falls_back_to_the_one_before(
    walkers, tmp_path, uninterrupted, signal_after_step, caplog
):
    config = config_of("ssin", walkers, tmp_path / "run", "train.save_steps=1")
    signal_after_step(3)
    train(config)
    broken = max((tmp_path / "run").glob("checkpoint-*.pt"))
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    assert train(config).finished
    assert f"{broken}: is broken (" in caplog.text
    assert_same_end(tmp_path / "run", uninterrupted["ssin"])


def test_a_kill_while_saving_leaves_the_previous_checkpoints(tmp_path, monkeypatch):
    run = RunDir(tmp_path)
    run.save({"step": 1}, 1)
    save = torch.save

    def die_half_way(_state: Any, file: Any) -> None:
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", die_half_way)
    with pytest.raises(KeyboardInterrupt):
        run.save({"step": 2}, 2)
    monkeypatch.setattr(torch, "save", save)
    assert run.newest()[1] == {"step": 1}
    run.save({"step": 3}, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-00000001.pt", "checkpoint-00000003.pt"]


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    """Records locks belong to processes: the other one is real."""
    hold = """
import sys
from sptskm.training.rundir import RunDir
with RunDir(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="another process is training in this folder"), RunDir(tmp_path).locked():
            pass
        other.kill()
    with RunDir(tmp_path).locked():
        pass


def test_last_two_checkpoints_are_kept(tmp_path):
    run = RunDir(tmp_path)
    for step in range(4):
        run.save({"step": step}, step)
    assert [path.name for path in run.checkpoints()] == ["checkpoint-00000003.pt", "checkpoint-00000002.pt"]


def test_a_checkpoint_executes_nothing(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"model": Hostile()}, tmp_path / "checkpoint-00000001.pt")
    with pytest.raises(DataError, match=r"is broken \(holds something else than tensors and plain values\)"):
        RunDir(tmp_path).newest()
    assert not (tmp_path / "executed").exists()


def test_another_configuration_in_the_same_folder_is_refused_by_name(walkers, uninterrupted):
    run = uninterrupted["ssin"]
    with pytest.raises(ConfigError, match=r"optim.lr: 0.001 -> 0.5"):
        train(config_of("ssin", walkers, run, "optim.lr=0.5"))


def test_more_epochs_continue_a_finished_run(walkers, tmp_path):
    run = tmp_path / "run"
    first = train(small_config("smin", walkers, run, "train.epochs=1"))
    second = train(small_config("smin", walkers, run, "train.epochs=2"))
    assert second.finished
    assert second.step == 2 * first.step
    events = EventAccumulator(str(run)).Reload()
    assert [event.step for event in events.Scalars("validation/mAP")] == [first.step - 1, second.step - 1]


def test_a_run_of_before_the_fused_optimizer_continues_with_it(walkers, tmp_path):
    run = tmp_path / "run"
    train(config_of("ssin", walkers, run, "train.epochs=1"))
    path = RunDir(run).checkpoints()[0]
    state = torch.load(path, weights_only=True)
    assert state["optimizer"]["param_groups"][0]["fused"] is True
    state["optimizer"]["param_groups"][0]["fused"] = None  # as PyTorch names it where nothing was asked for
    torch.save(state, path)
    assert train(config_of("ssin", walkers, run)).finished
    assert newest(run)["optimizer"]["param_groups"][0]["fused"] is True
