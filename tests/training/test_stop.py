"""Ranks that are asked to stop leave together, whoever was asked, by which signal, and whatever they were doing."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small import free_port, on_ranks, small_config

from sptskm.config import Config
from sptskm.configfile import to_yaml
from sptskm.endings import EXIT_STOPPED, EXIT_UNREACHABLE
from sptskm.training import trainer
from sptskm.training.meters import Meters
from sptskm.training.rundir import RunDir
from sptskm.training.signals import stop_flag
from sptskm.training.trainer import train
from sptskm.training.world import join

# saves of rank 0 after the signal; before a validation everything is saved already
MOMENTS = {"step": 1, "validation": 0, "save": 1}
SIGNALS = [(signal.SIGTERM,), (signal.SIGTERM, signal.SIGCONT), (signal.SIGUSR1,), (signal.SIGUSR2,)]
ASKED = {"step": [(1,), (0, 1)], "validation": [(1,), (0, 1)], "save": [(0,), (0, 1)]}
CASES = [(moment, numbers, ranks) for moment in MOMENTS for numbers in SIGNALS for ranks in ASKED[moment]]


class Signalling:
    """Sends this process real signals the first time it comes to a moment of a run."""

    def __init__(self) -> None:
        self.moment, self.numbers, self.saves_after = "", (), 0

    def arrange(self, moment: str, numbers: Sequence[int]) -> None:
        self.moment, self.numbers, self.saves_after = moment, tuple(numbers), 0

    def reached(self, moment: str) -> None:
        if moment == self.moment:
            self.moment = ""
            for number in self.numbers:
                os.kill(os.getpid(), number)

    def hook(self) -> None:
        """The moments are inside a step, in the middle of a validation, and between the halves of a save."""
        add, embed, save = Meters.add, trainer.extract.__globals__["_embed"], RunDir.save

        def stepping(*arguments: Any) -> None:
            self.reached("step")
            add(*arguments)

        def validating(*arguments: Any) -> Any:
            self.reached("validation")
            return embed(*arguments)

        def saving(*arguments: Any) -> None:
            self.saves_after += not self.moment
            self.reached("save")
            save(*arguments)

        Meters.add, RunDir.save = stepping, saving
        trainer.extract.__globals__["_embed"] = validating


def stop_and_continue(walkers: Path, folder: Path) -> list[tuple[Any, ...]]:
    """What each case came to: finished at first, saves after the signal, finished at last; runs are in `folder`."""
    found, signalling = [], Signalling()
    signalling.hook()
    with join(threads=1, timeout_minutes=1) as world:
        assert train(case_config(walkers, folder / "whole", "")).finished
        for number, (moment, numbers, ranks) in enumerate(CASES):
            config = case_config(walkers, folder / str(number), moment)
            # a rank that does not write is asked in a step instead
            here = "step" if moment == "save" and not world.is_main else moment
            signalling.arrange(here, numbers if world.rank in ranks else ())
            first = train(config)
            found.append((first.finished, signalling.saves_after, train(config).finished))
    return found


def case_config(walkers: Path, run: Path, moment: str) -> Config:
    often = ["train.save_steps=1"] if moment == "save" else []
    return small_config("smin", walkers, run, "extract.batch=1", "model.dropout=0.5", *often)


@pytest.fixture(scope="module")
def cases(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[tuple[Any, ...]]]]:
    """All cases, tried by the same two ranks one after the other."""
    folder = tmp_path_factory.mktemp("cases")
    return folder, on_ranks(2, stop_and_continue, walkers, folder)


def name(case: tuple[str, tuple[int, ...], tuple[int, ...]]) -> str:
    moment, numbers, ranks = case
    signals = "+".join(signal.Signals(number).name.removeprefix("SIG") for number in numbers)
    return f"{signals} in a {moment} to {'all ranks' if len(ranks) == 2 else f'rank {ranks[0]}'}"


@pytest.mark.parametrize("number", range(len(CASES)), ids=map(name, CASES))
def test_both_ranks_leave_at_once_having_saved_once_and_continue_bit_equal(cases, number):
    folder, found = cases
    for rank, saves in enumerate([MOMENTS[CASES[number][0]], 0]):
        assert found[rank][number] == (False, saves, True), f"rank {rank}"
    end, expected = (
        torch.load(max((folder / run).glob("checkpoint-*.pt")), weights_only=True) for run in (str(number), "whole")
    )
    assert (end["step"], end["best_mAP"]) == (expected["step"], expected["best_mAP"])
    assert all(end["model"][key].equal(value) for key, value in expected["model"].items())


def start_rank(rank: int, config: Path, port: int, *overrides: str) -> subprocess.Popen[str]:
    """`sptskm train` as one of two ranks."""
    meeting = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen(
        [sys.executable, "-m", "sptskm.cli", "train", config, *overrides],
        env={**os.environ, **meeting},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def endless(walkers: Path, tmp_path: Path) -> Path:
    """A configuration that trains until somebody ends it."""
    config = small_config("smin", walkers, tmp_path / "run", "train.epochs=100000", "train.leave_seconds=2")
    (tmp_path / "endless.yaml").write_text(to_yaml(config))
    return tmp_path / "endless.yaml"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_rank_that_waits_for_others_to_appear_leaves_when_asked(endless, number):
    lonely = start_rank(0, endless, free_port())
    time.sleep(5)  # torch is loaded and the rank waits in C++, where no handler of Python runs
    assert lonely.poll() is None
    lonely.send_signal(number)
    assert lonely.wait(30) == EXIT_STOPPED


def test_a_rank_beside_a_stuck_one_leaves_when_asked_and_one_beside_a_killed_one_at_once(endless, tmp_path):
    port = free_port()
    ranks = [start_rank(rank, endless, port) for rank in (0, 1)]
    wait_for_checkpoint(tmp_path / "run", ranks)
    ranks[1].send_signal(signal.SIGSTOP)
    time.sleep(1)
    assert ranks[0].poll() is None
    ranks[0].send_signal(signal.SIGTERM)
    assert ranks[0].wait(30) == EXIT_STOPPED
    ranks[1].kill()
    port = free_port()
    ranks = [start_rank(rank, endless, port) for rank in (0, 1)]
    begun = max((tmp_path / "run").glob("checkpoint-*.pt"))
    wait_for_checkpoint(tmp_path / "run", ranks, after=begun)
    ranks[1].kill()
    _, said = ranks[0].communicate(timeout=60)
    assert ranks[0].returncode == EXIT_UNREACHABLE
    assert said.splitlines()[-1].startswith("sptskm: rank 0 has lost another rank: "), said


def wait_for_checkpoint(run: Path, ranks: Sequence[subprocess.Popen[str]], after: Path = Path()) -> None:
    deadline = time.monotonic() + 60
    while max(run.glob("checkpoint-*.pt"), default=after) == after:
        assert time.monotonic() < deadline
        assert all(rank.poll() is None for rank in ranks), [rank.communicate()[1] for rank in ranks]
        time.sleep(0.05)


def test_a_port_that_is_taken_is_one_sentence(endless):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        rank = start_rank(0, endless, taken.getsockname()[1])
        _, said = rank.communicate(timeout=60)
    assert rank.returncode == EXIT_UNREACHABLE
    assert said.splitlines()[-1].startswith("sptskm: rank 0 does not meet the other 1 at 127.0.0.1:"), said


def test_a_block_that_ends_in_time_is_left_in_peace():
    overdue: list[bool] = []
    with stop_flag(0.2, lambda: overdue.append(True)) as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        while not stop.requested:
            time.sleep(0.001)
    time.sleep(0.3)
    assert not overdue
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_block_ends_while_a_loader_process_that_was_started_in_it_lives():
    """An error's traceback keeps the loader and its processes, which are copies of this one with all its sockets."""
    with stop_flag():
        loader = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True)
        loader.start()
        late: list[bool] = []  # a failure of this test would be a hang
        rescue = threading.Timer(10, lambda: late.append(True) or loader.kill())
        rescue.start()
    assert not late
    rescue.cancel()
    loader.kill()


def test_a_block_that_does_not_end_is_overdue_once():
    overdue: list[bool] = []
    with stop_flag(0.05, lambda: overdue.append(True)):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(0.1)
    assert overdue == [True]
