"""What is written is whole or not there, names its path when it fails, and leaves nothing behind."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sptskm.common.atomic import ENDING, append_text, naming, partial_folder, partial_of, write_bytes, write_text
from sptskm.common.errors import DataError
from sptskm.common.paths import check_inside, exists, is_file, is_folder

WRITER = """
import sys, time
from pathlib import Path
from sptskm.common.atomic import partial_folder, partial_of
kind, path = sys.argv[1], Path(sys.argv[2])
if kind == "file":
    with partial_of(path) as partial:
        partial.write_bytes(b"half")
        print("ready", flush=True)
        time.sleep(60)
with partial_folder(path) as partial:
    (partial / "half").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def writer(kind: str, path: Path) -> "subprocess.Popen[str]":
    """A process in the middle of writing."""
    command = [sys.executable, "-c", WRITER, kind, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_killed_file_is_not_there_and_writing_it_again_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.csv.partial").write_text("somebody else's")
    process = writer("file", tmp_path / "a.csv")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "a.csv").exists()
    write_text(tmp_path / "a.csv", "whole")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.csv": "whole",
        "a.csv.partial": "somebody else's",
    }


def test_a_killed_folder_is_made_again_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = writer("folder", tmp_path / "data")
    process.send_signal(signal.SIGKILL)
    process.wait()
    with partial_folder(tmp_path / "data") as folder:
        assert list(folder.iterdir()) == []
        (folder / "whole").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["data", "data/whole"]


def test_a_folder_that_another_process_makes_is_left_alone(tmp_path: Path) -> None:
    process = writer("folder", tmp_path / "data")
    try:
        with pytest.raises(BlockingIOError, match="another process is writing it"), partial_folder(tmp_path / "data"):
            pytest.fail("it was given the folder")
        assert list(tmp_path.rglob("half"))
    finally:
        process.kill()
        process.wait()


def test_a_folder_of_an_error_vanishes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), partial_folder(tmp_path / "data"):
        raise ValueError("wrong")
    assert list(tmp_path.iterdir()) == []


def test_processes_and_threads_that_write_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(6)]
    threads = [
        threading.Thread(target=lambda own=own: [write_bytes(tmp_path / "a", own) for _ in range(20)])
        for own in contents
    ]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        if is_file(tmp_path / "a"):
            seen.add((tmp_path / "a").read_bytes())
    for thread in threads:
        thread.join()
    assert seen <= set(contents)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_link_that_waits_under_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("as it was")
    (tmp_path / f".a{ENDING}").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=f".a{ENDING}"):
        write_text(tmp_path / "a", "other")
    assert (tmp_path / "precious").read_text() == "as it was"


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def numpy_on_a_full_disk() -> None:
    raise OSError("524288 requested and 0 written")  # what ndarray.tofile says


@pytest.mark.parametrize("failure", [full_disk, numpy_on_a_full_disk])
@pytest.mark.parametrize("way", [partial_of, partial_folder, naming])
def test_a_failure_that_names_no_file_is_given_its_path(
    way: Callable[..., Any], failure: Callable[[], None], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=rf"'{tmp_path / 'a'}'$"), way(tmp_path / "a"):
        failure()
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, signal, sys
from pathlib import Path
from sptskm.common.atomic import append_text, partial_of, write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
path = Path(sys.argv[1])
for write in (
    lambda: write_bytes(path, bytes(9999)),
    lambda: append_text(path, "x" * 9999),
):
    try:
        write()
    except OSError as error:
        print(error)
"""


def test_a_disk_that_takes_no_more_is_said_with_the_path(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "a")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [f"[Errno 27] File too large: '{tmp_path / 'a'}'"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_text_is_added_at_the_end(tmp_path: Path) -> None:
    append_text(tmp_path / "a", "one\n")
    append_text(tmp_path / "a", "two\n")
    assert (tmp_path / "a").read_text() == "one\ntwo\n"


def test_what_may_not_be_looked_at_is_not_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert [ask(tmp_path / "file") for ask in (exists, is_file, is_folder)] == [True, True, False]
    assert [ask(tmp_path) for ask in (exists, is_file, is_folder)] == [True, False, True]
    for absent in (tmp_path / "none", tmp_path / "file" / "below"):
        assert [ask(absent) for ask in (exists, is_file, is_folder)] == [False] * 3
    for number in (errno.EACCES, errno.EIO, errno.ESTALE):
        error = OSError(number, os.strerror(number), "a path")
        monkeypatch.setattr("sptskm.common.paths.os.stat", lambda _, error=error: (_ for _ in ()).throw(error))
        for ask in (exists, is_file, is_folder):
            with pytest.raises(OSError, match="a path"):
                ask(tmp_path / "file")
    monkeypatch.undo()


@pytest.mark.parametrize("name", ["a", "b/c", "inner/a", "loop/a", "b/../a"])
def test_a_path_within_is_fine_whatever_its_way(name: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "b").mkdir(parents=True)
    (home / "inner").symlink_to(home / "b")
    (home / "loop").symlink_to("../home")
    check_inside(home, home / name, tmp_path)


@pytest.mark.parametrize(
    "name", ["../a", "b/../../a", "/a", "out/a", "out/deep/a", "b/out/../x", "", "..", "a\nb", "\x1b"]
)
def test_a_path_that_leaves_is_refused_whatever_its_way(name: str, tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    (home / "b").mkdir(parents=True)
    outside.mkdir()
    (home / "out").symlink_to(outside)
    (home / "b" / "out").symlink_to(outside)
    with pytest.raises(DataError, match=rf"^{tmp_path}: names the file") as caught:
        check_inside(home, home / name, tmp_path)
    assert "\n" not in str(caught.value)


def test_writing_waits_for_another_writer_of_the_same_file(tmp_path: Path) -> None:
    process = writer("file", tmp_path / "a")
    threading.Timer(0.3, process.kill).start()
    began = time.monotonic()
    write_text(tmp_path / "a", "whole")
    assert time.monotonic() - began > 0.1
    process.wait()
    assert (tmp_path / "a").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
