"""Ranks that are asked to stop leave together, whoever was asked, by which signal, and whatever they were doing."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers.launching import members
from helpers.small import free_port, on_ranks, small_config

from sptskm.common.endings import EXIT_STOPPED, EXIT_UNREACHABLE
from sptskm.config import Config
from sptskm.configfile import to_yaml
from sptskm.training.rundir import RunDir
from sptskm.training.setup import Setup
from sptskm.training.signals import stop_flag
from sptskm.training.trainer import Trainer, train
from sptskm.training.world import join

SHIPPED = "data.workers=2"  # what configs/mars-ssin.yaml trains with; 0 would not show what becomes of the loaders
SHORT = ["train.epochs=1", "model.dropout=0.5", "extract.batch=1", "train.validate_every=1"]
SAVES = {"step": 1, "validation": 0, "save": 1}  # of rank 0 after the signal; all is saved before a validation
ALONE, BOTH = (1,), (0, 1)


class Case(NamedTuple):
    """Who is sent what, and when: the process of a rank, or all processes of it, loaders included."""

    moment: str
    signals: tuple[int, ...]
    ranks: tuple[int, ...]
    group: bool

    def __str__(self) -> str:
        names = "+".join(signal.Signals(number).name.removeprefix("SIG") for number in self.signals)
        whom = "all processes of" if self.group else "the process of"
        return f"{names} in a {self.moment} to {whom} {'both ranks' if self.ranks == BOTH else f'rank {self.ranks[0]}'}"


CASES = [
    Case("step", (signal.SIGTERM, signal.SIGCONT), BOTH, group=True),  # SLURM
    Case("step", (signal.SIGTERM,), ALONE, group=False),
    Case("step", (signal.SIGUSR1,), BOTH, group=True),
    Case("step", (signal.SIGUSR2,), ALONE, group=True),
    Case("step", (signal.SIGINT,), BOTH, group=True),  # Ctrl-C
    Case("validation", (signal.SIGTERM, signal.SIGCONT), BOTH, group=True),
    Case("validation", (signal.SIGUSR2,), ALONE, group=False),
    Case("save", (signal.SIGTERM, signal.SIGCONT), BOTH, group=True),
    Case("save", (signal.SIGUSR1,), (0,), group=True),
]


class SignalledTrainer(Trainer):
    """Is sent real signals the first time it comes to a moment: inside a step, a validation or a save."""

    case: Case | None = None
    passed, saves_after = False, 0

    def reached(self, moment: str) -> None:
        if self.case is None or self.passed or moment != self.awaited(self.case):
            return
        self.passed = True
        for number in self.case.signals if self.world.rank in self.case.ranks else ():
            os.killpg(0, number) if self.case.group else os.kill(os.getpid(), number)

    def awaited(self, case: Case) -> str:
        return "step" if case.moment == "save" and not self.world.is_main else case.moment  # rank 1 does not write

    def exchange(self, terms: Any) -> Any:
        found = super().exchange(terms)
        self.reached("step")
        return found

    def validate(self) -> Any:
        embed = self.network.embed

        def embed_and_signal(*inputs: Any) -> Any:
            self.reached("validation")
            return embed(*inputs)

        self.network.embed = embed_and_signal
        try:
            return super().validate()
        finally:
            self.network.embed = embed

    def save(self) -> None:
        self.saves_after += self.passed and self.world.is_main
        self.reached("save")
        super().save()


def trained(config: Config, case: Case | None = None) -> tuple[bool, int]:
    """As `train` does, with signals; whether the run has finished, and how often it was saved after them."""
    with (
        stop_flag(config.train.leave_seconds) as flag,
        join(config.train.threads, config.train.timeout_minutes) as world,
        RunDir(config.run).locked() if world.is_main else nullcontext(),
    ):
        trainer = SignalledTrainer(Setup.of(config, world), world, flag)
        trainer.case = case
        return trainer.run().finished, trainer.saves_after


def stop_and_continue(walkers: Path, folder: Path) -> list[tuple[Any, ...]]:
    """What each case came to: finished at first, saves after the signal, finished at last; runs are in `folder`."""
    os.setpgid(0, 0)  # a group of this rank and its loaders, as a step of SLURM is
    with join(threads=1, timeout_minutes=1):
        assert train(case_config(walkers, folder / "whole", "")).finished
        found = []
        for number, case in enumerate(CASES):
            config = case_config(walkers, folder / str(number), case.moment)
            found.append((*trained(config, case), trained(config)[0]))
    return found


def case_config(walkers: Path, run: Path, moment: str) -> Config:
    often = ["train.save_steps=1"] if moment == "save" else []
    return small_config("ssin", walkers, run, SHIPPED, *SHORT, *often)


@pytest.fixture(scope="module")
def cases(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[tuple[Any, ...]]]]:
    """All cases, tried by the same two ranks one after the other."""
    folder = tmp_path_factory.mktemp("cases")
    return folder, on_ranks(2, stop_and_continue, walkers, folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=map(str, CASES))
def test_both_ranks_leave_at_once_having_saved_once_and_continue_bit_equal(cases, number):
    folder, found = cases
    for rank, saves in enumerate([SAVES[CASES[number].moment], 0]):
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
    port = free_port()
    lonely = start_rank(0, endless, port)
    wait_for_listener(port, lonely)
    time.sleep(0.5)  # it waits in C++ now, where no handler of Python runs
    assert lonely.poll() is None
    lonely.send_signal(number)
    assert lonely.wait(30) == EXIT_STOPPED


@pytest.mark.slow
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


def wait_for_listener(port: int, rank: subprocess.Popen[str]) -> None:
    """Wait until somebody listens on a port, without disturbing him."""
    listening = re.compile(rf":{port:04X} \S+ 0A ")
    deadline = time.monotonic() + 60
    while not any(listening.search(Path(f"/proc/net/{table}").read_text()) for table in ("tcp", "tcp6")):
        assert time.monotonic() < deadline
        assert rank.poll() is None, rank.communicate()[1]
        time.sleep(0.05)


def wait_for_checkpoint(run: Path, ranks: Sequence[subprocess.Popen[str]], after: Path = Path()) -> None:
    deadline = time.monotonic() + 60
    while max(run.glob("checkpoint-*.pt"), default=after) == after:
        assert time.monotonic() < deadline
        assert all(rank.poll() is None for rank in ranks), [rank.communicate()[1] for rank in ranks]
        time.sleep(0.05)


@pytest.mark.slow
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
    before = signal.getsignal(signal.SIGUSR1)
    with stop_flag(0.2, lambda: overdue.append(True)) as stop:
        assert signal.getsignal(signal.SIGUSR1) != before
        os.kill(os.getpid(), signal.SIGUSR1)
        while not stop.requested:
            time.sleep(0.001)
    time.sleep(0.3)
    assert not overdue
    assert signal.getsignal(signal.SIGUSR1) == before


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


def test_training_in_another_thread_hears_no_signals_and_goes_to_its_end(walkers, tmp_path):
    """As a function that Ray Tune calls."""
    config = small_config("ssin", walkers, tmp_path / "run", SHIPPED, "train.epochs=1")
    before = signal.getsignal(signal.SIGTERM)  # Ray's, where its tests ran in this process
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train, config).result().finished
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture(scope="module")
def short_run(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained SSIN."""
    run = tmp_path_factory.mktemp("short") / "ssin"
    assert train(small_config("ssin", walkers, run, "train.epochs=1")).finished
    return run


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("command", ["extract", "evaluate"])
def test_an_extraction_signalled_with_its_loaders_leaves_nothing_half_done_and_no_process(
    walkers, short_run, tmp_path, command, number
):
    out = tmp_path / "features.npz" if command == "extract" else tmp_path / "final"
    data = ["--data", walkers] if command == "extract" else []
    command_line = [command, short_run, *data, "--out", out, "--overrides", SHIPPED, "extract.batch=1"]
    process = subprocess.Popen([sys.executable, "-m", "sptskm.cli", *command_line], start_new_session=True)
    while len(members(process.pid)) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    for _ in range(3):  # SLURM sends it to the step, and a batch script once more
        os.killpg(process.pid, number)
    assert process.wait(30) == EXIT_STOPPED
    assert not members(process.pid)
    assert not out.is_file()
    assert not out.is_dir() or not list(out.iterdir())
