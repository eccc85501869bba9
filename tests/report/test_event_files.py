"""TensorBoard shows every start of a run in its order, whatever the clocks said; a file that cannot grow is named."""

import errno
import io
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from sptskm.report.event_files import record
from sptskm.report.tensorboard import Board


def log_from(folder: Path, first: int, last: int) -> None:
    board = Board(folder, first)
    for step in range(first, last):
        board.scalars({"loss": float(step)}, step)
    board.close()


def steps(folder: Path) -> list[int]:
    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("loss")]


@pytest.mark.parametrize("clocks", [(2e9, 1e9, 1.5e9), (1e9, 1e9, 1e9), (1e9, 1.0, 2e9), (1e9, 2e9, 3e9)])
def test_the_order_of_starts_decides_and_not_the_clock(tmp_path, monkeypatch, clocks):
    for start, clock in enumerate(clocks):
        monkeypatch.setattr(time, "time", lambda now=clock: now)
        log_from(tmp_path, 10 * start, 10 * start + 15)  # five steps are done again
    assert steps(tmp_path) == list(range(35))


def test_a_start_after_one_of_another_program_comes_later_too(tmp_path):
    log_from(tmp_path, 0, 15)
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "events.out.tfevents.4000000000.zebra.123.0")  # a node whose clock is far ahead
    log_from(tmp_path, 10, 20)
    assert steps(tmp_path) == list(range(20))


def test_what_was_added_is_seen_before_the_run_ends(tmp_path):
    board = Board(tmp_path)
    board.scalars({"loss": 1.0}, 0)
    assert board._writer is not None
    board._writer.flush()
    assert steps(tmp_path) == [0]


def test_a_full_disk_names_the_event_file(tmp_path):
    board = Board(tmp_path)
    board.scalars({"loss": 1.0}, 0)
    events = board._writer._get_file_writer().event_writer
    events._file.close()
    events._file = open("/dev/full", "wb")  # noqa: PTH123, SIM115
    with pytest.raises(OSError, match=r"No space left on device: '.*/events\.out\.tfevents\.") as raised:
        board.scalars({f"loss/{number}": 1.0 for number in range(1000)}, 1)
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("content", [b"", b"an event", bytes(range(256)) * 40])
def test_records_are_those_of_tensorboards_own_writer(content):
    file = io.BytesIO()
    RecordWriter(file).write(content)
    assert record(content) == file.getvalue()
