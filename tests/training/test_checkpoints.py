"""Checkpoints: what cannot be read is not absent, what is broken is kept aside, what is there is verified."""

import errno
import io
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small import small_config

from sptskm.common.errors import ConfigError, DataError
from sptskm.training import checkpoints
from sptskm.training.checkpoints import Broken, Unreadable, read, write
from sptskm.training.rundir import RunDir, of_a_run
from sptskm.training.trainer import train

STATE = {"model": {"weight": torch.linspace(-1, 1, 3000)}, "optimizer": {"state": {0: {"exp_avg": torch.ones(500)}}}}


@pytest.fixture
def run(tmp_path) -> RunDir:
    """A run of three saves, of which two are there."""
    found = RunDir(tmp_path / "run")
    for step in (1, 2, 3):
        found.save({**STATE, "step": step}, step)
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


@pytest.fixture
def failing(monkeypatch):
    """Let reading a file fail in its middle, as a disk, a server or the memory does."""

    def arrange(name: str, error: BaseException) -> None:
        asked = checkpoints._File._asked

        def fail(self: Any, buffer: Any) -> Any:
            if Path(self.name).name == name and self.tell() > 0:
                raise error
            return asked(self, buffer)

        monkeypatch.setattr(checkpoints, "BLOCK", 1024)
        monkeypatch.setattr(checkpoints._File, "_asked", fail)

    return arrange


@pytest.mark.parametrize("seed", range(20))
def test_no_flipped_bit_is_loaded_as_if_it_had_been_written(tmp_path, seed):
    path, rng = tmp_path / "checkpoint.pt", random.Random(seed)
    write(path, STATE)
    whole = path.read_bytes()
    for _ in range(20):
        broken = bytearray(whole)
        broken[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            found = read(path)
        except Broken:
            continue
        assert found["model"]["weight"].equal(STATE["model"]["weight"])
        assert found["optimizer"]["state"][0]["exp_avg"].equal(torch.ones(500))


@pytest.mark.parametrize(
    "harm",
    [
        lambda _: b"",
        lambda whole: whole[:100],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: whole + b"\0",
        lambda whole: b"\0" + whole,
        lambda whole: whole + whole,
        lambda _: b"no checkpoint",
        lambda whole: bytes(len(whole)),
    ],
)
def test_a_file_that_is_cut_off_or_something_else_is_broken(tmp_path, harm):
    path = tmp_path / "checkpoint.pt"
    write(path, STATE)
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(Broken, match=r"checkpoint\.pt: is broken \("):
        read(path)


def test_values_whose_sum_is_not_finite_may_be(tmp_path):
    large = {"weight": torch.full((9,), 3e38)}
    write(tmp_path / "checkpoint.pt", large)
    assert read(tmp_path / "checkpoint.pt")["weight"].equal(large["weight"])


def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path):
    path = tmp_path / "checkpoint.pt"
    write(path, STATE)
    before = path.read_bytes()
    for part, bad in (("model", {"weight": torch.tensor([1.0, float("nan")])}), ("optimizer", [torch.tensor(-1e999)])):
        with pytest.raises(DataError, match=rf"{part}\.\w+ is not finite"):
            write(path, {**STATE, part: bad})
        assert path.read_bytes() == before
        torch.save({**STATE, part: bad}, tmp_path / "other.pt")
        with pytest.raises(Broken, match=rf"{part}\.\w+ is not finite"):
            read(tmp_path / "other.pt")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_what_the_system_does_not_give_is_neither_passed_over_nor_taken_for_broken(run, failing, number):
    before = content(run.path)
    failing("checkpoint-00000003.pt", OSError(number, os.strerror(number)))
    with pytest.raises(Unreadable, match=rf"checkpoint-00000003\.pt: cannot be read \({os.strerror(number)}\)"):
        run.newest(set_aside=True)
    assert content(run.path) == before


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried")])
def test_too_little_memory_says_nothing_about_a_checkpoint(run, monkeypatch, error):
    def load(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(Unreadable, match="not enough memory"):
        run.newest()


def test_a_folder_that_does_not_let_itself_be_listed_is_not_empty(run, monkeypatch):
    def refuse(_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(run.path))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        run.newest()


def test_a_broken_one_is_kept_aside_for_the_one_before_and_new_ones_stay(run, caplog):
    cut(run.checkpoint(3))
    broken = run.checkpoint(3).read_bytes()
    assert run.newest()[1]["step"] == 2
    assert run.checkpoint(3).read_bytes() == broken, "who only reads changes nothing"
    path, state = run.newest(set_aside=True)
    assert (path, state["step"]) == (run.checkpoint(2), 2)
    assert "checkpoint-00000003.pt: is broken" in caplog.text
    assert "is passed over for checkpoint-00000002.pt, and kept as checkpoint-00000003.broken" in caplog.text
    for step in (3, 4, 5):
        run.save({**STATE, "step": step}, step)
        assert run.newest()[1]["step"] == step
    assert (run.path / "checkpoint-00000003.broken").read_bytes() == broken


def test_no_save_drops_what_is_newer_nor_what_is_no_checkpoint(run):
    (run.path / "checkpoint-00000001-of-mine.pt").write_bytes(b"mine")
    run.save({**STATE, "step": 1}, 1)
    assert {path.name for path in run.path.iterdir()} == {
        "checkpoint-00000001-of-mine.pt",
        *(f"checkpoint-0000000{step}.pt" for step in (1, 2, 3)),
    }


def test_steps_are_numbers_however_many_digits_they_have(run):
    for step in (99_999_999, 100_000_000, 100_000_001):
        run.save({**STATE, "step": step}, step)
    assert [path.name for path in run.checkpoints()] == ["checkpoint-100000001.pt", "checkpoint-100000000.pt"]


@pytest.fixture
def begun(walkers, tmp_path) -> tuple[Any, Path]:
    """A short finished run, to be continued."""
    assert train(small_config("smin", walkers, tmp_path / "run", "train.epochs=1")).finished
    return small_config("smin", walkers, tmp_path / "run", "train.epochs=2"), tmp_path / "run"


def test_with_every_checkpoint_broken_training_ends_in_a_sentence_and_touches_nothing(begun):
    config, run = begun
    for path in run.glob("checkpoint-*.pt"):
        cut(path)
    before = content(run)
    with pytest.raises(DataError, match=r"no older checkpoint in .* is whole: nothing was changed"):
        train(config)
    assert content(run) == before


def test_with_a_checkpoint_that_cannot_be_read_training_ends_in_a_sentence_and_touches_nothing(begun, failing):
    config, run = begun
    before = content(run)
    failing(max(run.glob("checkpoint-*.pt")).name, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(DataError, match=r"cannot be read \(Input/output error\), and nothing was changed"):
        train(config)
    assert content(run) == before


def test_a_run_without_checkpoints_does_not_replace_the_best_weights_of_one_before(begun):
    config, run = begun
    for path in run.glob("checkpoint-*.pt"):
        path.unlink()
    before = content(run)
    with pytest.raises(ConfigError, match=r"best\.pt: is there, but no checkpoint to go on from"):
        train(config)
    assert content(run) == before


def test_best_weights_that_are_broken_are_not_replaced_by_others_unasked(begun):
    _, run = begun
    cut(run / "best.pt")
    with pytest.raises(Broken, match=r"best\.pt: is broken"):
        RunDir(run).trained()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_save_that_fails_leaves_the_one_before_and_names_its_file(run, monkeypatch, number, call):
    before = content(run.path)

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        full = type("Full", (io.BytesIO,), {"write": fail})
        monkeypatch.setattr(Path, "open", lambda *_: full())
    with pytest.raises(OSError, match=r"\(what was saved before stays\): .*checkpoint-00000004\.partial") as raised:
        run.save({**STATE, "step": 4}, 4)
    assert raised.value.errno == number
    monkeypatch.undo()
    assert content(run.path) == before


def test_what_is_read_back_otherwise_than_written_is_no_checkpoint(run, monkeypatch):
    before, fsync = content(run.path), os.fsync

    def lose(descriptor: int) -> None:
        os.pwrite(descriptor, b"\0\0\0\0", 5000)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", lose)
    with pytest.raises(OSError, match="read back otherwise than written"):
        run.save({**STATE, "step": 4}, 4)
    assert content(run.path) == before


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"config": [1]}, "is not of a run"),
        ({"provenance": None}, "provenance is None, wanted where its data came from"),
        ({"step": "two"}, "step is 'two', wanted a whole number from 0 on"),
        ({"step": -4}, "step is -4, wanted a whole number from 0 on"),
        ({"epochs_done": 1.5}, "epochs_done is 1.5, wanted a whole number from 0 on"),
        ({"world": 0}, "world is 0, wanted a whole number from 1 on"),
        ({"best_mAP": "x"}, "best_mAP is 'x', wanted a number"),
    ],
)
def test_a_checkpoint_whose_parts_are_of_another_type_is_one_sentence(wrong, told, tmp_path):
    whole = {"config": {}, "model": {}, "provenance": {}, "step": 2, "epochs_done": 1, "world": 1, "best_mAP": -1.0}
    assert of_a_run(tmp_path, whole) == whole
    with pytest.raises(ConfigError, match=told):
        of_a_run(tmp_path, whole | wrong)
