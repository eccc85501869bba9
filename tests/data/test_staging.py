"""Copies of a pack on a local disk help where they are, and are in nobody's way."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.handmade import write_files

from sptskm.common.errors import DataError
from sptskm.data import Tracklets, read_dataset
from sptskm.data.packs import staging
from sptskm.data.packs.reading import PackFiles, Shards
from sptskm.data.packs.writing import pack

EVERY = np.arange(8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A pack of many zip files."""
    out = tmp_path / "pack"
    pack(read_dataset(write_files(tmp_path / "files")), out, 2, workers=1)
    return out


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """The local disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


def shards_of(table: Tracklets) -> Shards:
    assert isinstance(table.place, PackFiles)
    return table.place.shards


def staged(source: Path, disk: Path, rows: np.ndarray = EVERY) -> Tracklets:
    """A table whose zip files have been copied as far as they will be."""
    table = read_dataset(source)
    staging.stage(table, str(disk), rows)
    copier = shards_of(table).copier
    assert copier is not None
    assert copier.wait(60) == 0
    return table


def copies(disk: Path) -> list[str]:
    return sorted(path.name for path in disk.rglob("*.zip*"))


def zips(source: Path) -> list[str]:
    return sorted(path.name for path in source.glob("*.zip"))


def all_bytes(table: Tracklets) -> list[bytes]:
    return [f.read_bytes() for row in range(len(table)) for f in table.files(row, range(table.lengths[row]), "frames")]


def test_reading_goes_on_from_the_copies_when_the_source_is_gone(
    source: Path, disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = all_bytes(read_dataset(source))
    table = staged(source, disk)
    assert copies(disk) == zips(source)
    for path in source.glob("*.zip"):
        path.unlink()
    assert all_bytes(table) == wanted
    assert f"copies of {len(copies(disk))} files" in capfd.readouterr().err


def test_reading_begins_at_the_source_and_changes_over_without_being_told(source: Path, disk: Path) -> None:
    table = read_dataset(source)
    shards_of(table).copies = disk
    wanted = table.files(0, [0, 1], "frames")
    name = str(table.place.shard_N[0])  # type: ignore[attr-defined]
    (disk / name).write_bytes((source / name).read_bytes())
    (source / name).write_bytes(b"")
    assert table.files(0, [0, 1], "frames") == wanted


def test_only_what_is_needed_is_copied_in_the_order_of_need(
    source: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.array([6, 1, 6, 2])
    table = staged(source, disk, rows)
    names = table.place.shard_N[[6, 1, 2]].tolist()  # type: ignore[attr-defined]
    assert copies(disk) == sorted(names)
    order: list[str] = []
    monkeypatch.setattr(staging, "_copy", lambda source, *_: order.append(source.name))
    staging.copy_all(source, disk, names, os.getppid())
    assert order == names


def test_a_copy_that_was_killed_is_made_again(source: Path, disk: Path) -> None:
    table = staged(source, disk, EVERY[:2])
    folder = shards_of(table).copies
    assert folder is not None
    (folder / "train-0003.zip.partial").write_bytes(b"half")
    copy = folder / copies(disk)[0]
    copy.write_bytes(copy.read_bytes()[:100])
    staged(source, disk)
    assert copies(disk) == zips(source)
    for name in zips(source):
        assert (folder / name).read_bytes() == (source / name).read_bytes()


def test_one_process_of_a_node_copies(source: Path, disk: Path) -> None:
    first, second = read_dataset(source), read_dataset(source)
    staging.stage(first, str(disk), EVERY)
    copier = shards_of(first).copier
    assert copier is not None
    os.kill(copier.pid, signal.SIGSTOP)
    staging.stage(second, str(disk), EVERY)
    assert shards_of(second).copier is None
    assert shards_of(second).copies == shards_of(first).copies
    os.kill(copier.pid, signal.SIGKILL)
    copier.wait()
    staging.stage(second, str(disk), EVERY)
    again = shards_of(second).copier
    assert again is not None, "a killed one does not keep its lock"
    assert again.wait(60) == 0
    assert copies(disk) == zips(source)


def test_too_little_room_means_reading_in_place_and_is_said(
    source: Path, disk: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "SPARE", 1 << 60)
    staging.copy_all(source, disk, zips(source), os.getppid())
    assert copies(disk) == []
    assert f"wanted; {source} is read in place" in capfd.readouterr().err


def test_a_disk_that_fills_up_is_said_and_nothing_half_stays(source: Path, disk: Path) -> None:
    limited = """
import resource, signal
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from sptskm.data.packs.staging import main
main()
"""
    command = [sys.executable, "-c", limited, str(source), str(disk), str(os.getpid())]
    done = subprocess.run(command, input="\n".join(zips(source)), capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "File too large" in done.stderr
    assert "what has no copy is read in place" in done.stderr
    assert copies(disk) == []


def test_a_zip_file_with_another_checksum_is_not_copied(source: Path, disk: Path) -> None:
    path = source / zips(source)[0]
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{path}: has another checksum than pack.json says and is not copied$"):
        staging.copy_all(source, disk, zips(source), os.getppid())
    assert copies(disk) == []


def test_copying_ends_with_the_run_that_wanted_it(source: Path, disk: Path) -> None:
    with pytest.raises(SystemExit):
        staging.copy_all(source, disk, zips(source), parent=1 << 30)
    assert copies(disk) == []


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, None),
        ({"TMPDIR": "tmp"}, None),
        ({"TMPDIR": "tmp", "SLURM_JOB_ID": "1"}, "tmp"),
        ({"TMPDIR": "tmp", "SLURM_JOB_ID": "1", "SLURM_TMPDIR": "slurm"}, "slurm"),
    ],
)
def test_a_job_has_its_own_disk(
    variables: dict[str, str], wanted: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMPDIR", "SLURM_JOB_ID", "SLURM_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value if value.isdigit() else str(tmp_path / value))
    assert staging.staging_folder("auto") == (tmp_path / wanted if wanted else None)
    assert staging.staging_folder("none") is None


def test_a_given_place_may_name_a_variable_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAST", "/fast")
    assert staging.staging_folder("$FAST/copies") == Path("/fast/copies")


def test_where_no_copy_can_be_made_the_source_is_read_and_that_is_said(
    source: Path, disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (disk / "file").write_text("")
    table = read_dataset(source)
    staging.stage(table, str(disk / "file"), EVERY)
    assert all_bytes(table) == all_bytes(read_dataset(source))
    assert f"{source} is read in place" in caplog.text


def test_files_are_not_staged(tmp_path: Path, disk: Path) -> None:
    staging.stage(read_dataset(write_files(tmp_path / "files")), str(disk), EVERY)
    assert list(disk.iterdir()) == []


def test_copies_of_an_earlier_run_are_used_again_when_their_checksums_are_right(
    source: Path, disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shards_of(staged(source, disk)).copies
    assert folder is not None
    made = {name: (folder / name).stat().st_ino for name in zips(source)}
    damaged = folder / zips(source)[1]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    capfd.readouterr()
    table = staged(source, disk)
    assert f"copies of {len(made)} files (0.00 GB), 1 of them new" in capfd.readouterr().err
    assert copies(disk) == zips(source)
    assert [name for name in made if (folder / name).stat().st_ino != made[name]] in ([damaged.name], [])
    assert damaged.read_bytes() == (source / damaged.name).read_bytes()
    assert all_bytes(table) == all_bytes(read_dataset(source))


def test_nobody_reads_a_copy_of_an_earlier_run_before_it_is_verified(
    source: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards_of(staged(source, disk)).copies
    assert folder is not None
    (folder / zips(source)[0]).write_bytes(b"x" * (source / zips(source)[0]).stat().st_size)
    monkeypatch.setattr(staging, "_start", lambda *_: None)  # it takes its time
    table = read_dataset(source)
    staging.stage(table, str(disk), EVERY)
    assert all_bytes(table) == all_bytes(read_dataset(source))


def own_folder(disk: Path) -> Path:
    return disk / f"sptskm-{os.getuid()}"


def test_the_folder_of_copies_is_closed_to_others(source: Path, disk: Path) -> None:
    before = os.umask(0)
    try:
        staged(source, disk)
    finally:
        os.umask(before)
    assert own_folder(disk).stat().st_mode & 0o777 == 0o700


def test_a_readable_folder_of_before_is_closed_and_used(source: Path, disk: Path) -> None:
    own_folder(disk).mkdir()
    own_folder(disk).chmod(0o755)
    staged(source, disk)
    assert own_folder(disk).stat().st_mode & 0o777 == 0o700


def linked(folder: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)


def writable(folder: Path, _: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def a_file(folder: Path, _: Path) -> None:
    folder.touch()


@pytest.mark.parametrize("trap", [linked, writable, a_file])
def test_a_folder_that_somebody_else_may_have_laid_is_not_used(
    trap: Callable[[Path, Path], None], source: Path, disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trap(own_folder(disk), tmp_path / "elsewhere")
    table = read_dataset(source)
    staging.stage(table, str(disk), EVERY)
    assert shards_of(table).copies is None
    assert len(caplog.records) == 1
    assert f"{own_folder(disk)}'; {source} is read in place" in caplog.text
    assert all_bytes(table) == all_bytes(read_dataset(source))
    assert copies(disk) + copies(tmp_path / "elsewhere") == []


def test_a_folder_of_another_user_is_not_used(
    source: Path, disk: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.getuid()
    staged(source, disk)
    own_folder(disk).rename(disk / f"sptskm-{uid + 1}")
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    table = read_dataset(source)
    staging.stage(table, str(disk), EVERY)
    assert "is no folder of this user" in caplog.text
    shards_of(table).copies = next(disk.glob("sptskm-*/*"))
    for path in source.glob("*.zip"):
        (shards_of(table).copies or disk).joinpath(path.name).write_bytes(bytes(path.stat().st_size))
    assert all_bytes(table) == all_bytes(read_dataset(source)), "a single file of another user neither"


def test_what_is_sent_to_all_processes_of_a_run_does_not_reach_its_copier(source, disk):
    """It ends with the run, and leaves no half copy."""
    table = read_dataset(source)
    staging.stage(table, str(disk), EVERY)
    copier = shards_of(table).copier
    assert copier is not None
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        copier.send_signal(number)
    assert copier.wait(60) == 0
    assert copies(disk) == zips(source)
