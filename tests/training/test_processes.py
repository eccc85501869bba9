"""Helpers of a process: deaf to what a scheduler sends to all processes of a job, and gone when it is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.launching import members
from torch.utils.data import Dataset

from sptskm.common.processes import STOPPING
from sptskm.training.loading import loaded

PROGRAMS = {
    "loader": """
from torch.utils.data import Dataset
from sptskm.training.loading import loaded

class Slow(Dataset):
    def __getitem__(self, number):
        time.sleep(0.01)
        return number

work = loaded(Slow(), range(ITEMS), workers=2, pinned=False)
""",
    "pool": """
from functools import partial
from sptskm.data.parallel import in_parallel

work = in_parallel(partial(max, 0), range(ITEMS), workers=2)
""",
}
AROUND = """
import os, signal, sys, time
ITEMS = int(sys.argv[1])
if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    print("ready", flush=True)
%s
if __name__ == "__main__":
    first = next(work)
    print("working", flush=True)
    if len(sys.argv) > 2:
        time.sleep(600)
    print(sum(work, first), flush=True)
    os._exit(0)  # Python gives signals their default actions back when it ends
"""


def start(kind: str, folder: Path, *words: object) -> subprocess.Popen[str]:
    """A program with helpers of a kind in a process group of its own, once it has begun to start them."""
    (folder / "program.py").write_text(AROUND % PROGRAMS[kind])
    program = subprocess.Popen(
        [sys.executable, folder / "program.py", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout.readline() == "ready\n", program.communicate()[1]
    return program


@pytest.mark.parametrize("kind", PROGRAMS)
def test_helpers_work_on_whatever_is_sent_to_their_group_from_their_first_moment_on(tmp_path, kind):
    program = start(kind, tmp_path, 100)
    while program.poll() is None:
        for number in STOPPING:
            os.killpg(program.pid, number)
        time.sleep(0.02)
    out, err = program.communicate(timeout=60)
    assert (out, program.returncode, err) == (f"working\n{sum(range(100))}\n", 0, "")


@pytest.mark.parametrize("kind", PROGRAMS)
def test_helpers_are_gone_with_a_process_that_was_killed(tmp_path, kind):
    program = start(kind, tmp_path, 100, "wait")
    assert program.stdout.readline() == "working\n"
    assert len(members(program.pid)) >= 3
    program.kill()
    program.wait()
    deadline = time.monotonic() + 10
    while members(program.pid):
        assert time.monotonic() < deadline, members(program.pid)
        time.sleep(0.01)


class Stuck(Dataset):
    """Its items after the first never come, as from a file system that hangs."""

    def __getitem__(self, number: int) -> int:
        if number:
            time.sleep(600)
        return number


def test_loaders_that_a_file_system_holds_do_not_hold_up_a_run_that_leaves():
    batches = loaded(Stuck(), range(100), workers=2, pinned=False)
    assert next(batches) == 0
    began = time.monotonic()
    batches.close()
    assert time.monotonic() - began < 4


def test_what_fails_in_a_loader_is_raised_and_the_loaders_end_though_the_traceback_keeps_them():
    class Failing(Dataset):
        def __getitem__(self, number: int) -> int:
            raise ValueError(f"number {number}")

    before = children()
    with pytest.raises(ValueError, match="number 0"):
        list(loaded(Failing(), range(9), workers=2, pinned=False))
    assert children() <= before


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_a_stopping_signal_that_comes_while_a_helper_starts_is_heard_afterwards(tmp_path):
    program = start("pool", tmp_path, 10, "wait")
    program.stdout.readline()
    assert not blocked(program.pid) & set(STOPPING)
    program.kill()
    program.wait()


def blocked(pid: int) -> set[int]:
    mask = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk"))
    bits = int(mask.split()[1], 16)
    return {number for number in signal.valid_signals() if bits >> (number - 1) & 1}
