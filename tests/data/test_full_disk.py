"""A disk that takes no more: every command says which file it could not write, and leaves no half of it."""

import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.handmade import write_files

from sptskm.cli import main
from sptskm.data import read_dataset
from sptskm.data.packs.writing import pack

SYNTH = "--train-ids 2 --test-ids 2 --cameras 2 --tracklets-per-camera 1 1 --frames 4 5 --distractors 0 --junk 0"


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The limit that any process may set itself; the system then says that a file is too large."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("synth {home}/out --workers 1 " + SYNTH, "partial/.*/info/train_name.txt"),
        ("pack {home}/files {home}/out --workers 1", "out/train-0000.zip"),
        ("unpack {home}/pack {home}/out", "out/bbox_train/0003/"),
        ("import mars {home}/files {home}/manifest.jsonl", "manifest.jsonl"),
    ],
)
def test_a_command_on_a_full_disk_names_the_file(
    command: str, named: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path / "files")
    pack(read_dataset(tmp_path / "files"), tmp_path / "pack", workers=1)
    before = set(tmp_path.rglob("*"))
    with no_file_larger_than(300):
        assert main(command.format(home=tmp_path).split()) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if "File too large" in line]
    assert len(said) == 1
    assert re.search(rf"^sptskm: \[Errno 27\] File too large: '{tmp_path}/\S*{named}", said[0])
    left = [path for path in set(tmp_path.rglob("*")) - before if path.is_file() and "unfinished" not in path.parts]
    assert not [path for path in left if path.name.endswith(".partial") or path.stat().st_size == 300], left
