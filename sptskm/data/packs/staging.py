"""Copy a pack's zip files to a disk of the node while training already runs.

One process per node copies, in the order of need; readers look for the copy first (`reading.Shards`). A copy gets its
name only when it is complete and its checksum right, so that a kill at any moment leaves nothing harmful behind.
Copies of an earlier run are set aside until their checksums have been verified again. Copies lie in a folder that only
this user may enter; a folder that belongs to another user, or in which others may write, is not used.
"""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from sptskm.common.atomic import naming
from sptskm.common.errors import DataError
from sptskm.common.paths import is_file
from sptskm.common.processes import unasked
from sptskm.data.packs.contents import SUMMARY, read_summary
from sptskm.data.packs.reading import PackFiles
from sptskm.data.tracklets import IntArray, Tracklets

log = logging.getLogger(__name__)

AUTO, NONE = "auto", "none"
BLOCK = 4 << 20
SPARE = 1 << 30  # bytes to leave free for other programs
UNVERIFIED = ".unverified"  # ending of a copy that an earlier run made


def staging_folder(stage: str) -> Path | None:
    """Return the folder for copies: None for `none`, the job's own disk for `auto` (None if it has none), or a path.

    The job's own disk is $SLURM_TMPDIR, or $TMPDIR in a SLURM job. Variables in a path are expanded on the node.
    """
    if stage == NONE:
        return None
    if stage != AUTO:
        return Path(os.path.expandvars(stage))
    named = os.environ.get("SLURM_TMPDIR") or ("SLURM_JOB_ID" in os.environ and os.environ.get("TMPDIR"))
    return Path(named) if named else None


def stage(table: Tracklets, where: str, rows: IntArray) -> None:
    """Start to copy the zip files of `rows`, in this order, to this node, and read the copies as they appear.

    Does nothing for a data set that is not a pack. Returns at once; the copying process ends with this one. If another
    process of the node already copies, its copies are used. If no copy can be made, a warning is logged and the pack is
    read in place.
    """
    place = staging_folder(where)
    if place is None or not isinstance(table.place, PackFiles):
        return
    shards = table.place.shards
    identity = hashlib.sha256((shards.folder / SUMMARY).read_bytes()).hexdigest()[:16]
    try:
        copies = _own_folder(place) / identity
        copies.mkdir(exist_ok=True)
        with _lock(copies) as lock:
            if lock is not None:
                _set_aside(copies)
                names = list(dict.fromkeys(table.place.shard_N[rows].tolist()))
                shards.copier = _start(shards.folder, copies, names, lock)
    except OSError as error:
        log.warning("no copies: %s; %s is read in place", error, shards.folder)
        return
    shards.copies = copies


def _own_folder(place: Path) -> Path:
    """Return the user's own folder in a place shared by all. Raises OSError if others own it or can write to it."""
    place.mkdir(parents=True, exist_ok=True)
    folder = place / f"sptskm-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = folder.lstat()  # a link is not followed
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "is no folder of this user", str(folder))
    if state.st_mode & 0o022:
        raise PermissionError(errno.EPERM, f"is open to others (mode {state.st_mode & 0o777:o})", str(folder))
    folder.chmod(0o700)
    return folder


def _set_aside(copies: Path) -> None:
    """Rename copies of an earlier run, so that nobody reads them before they have been verified."""
    for path in copies.glob("*.zip"):
        path.replace(path.with_name(path.name + UNVERIFIED))


def _start(source: Path, target: Path, names: list[str], lock: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "sptskm.data.packs.staging", str(source), str(target), str(os.getpid())]
    # the lock belongs to the open file, so the copying process inherits it
    with unasked():
        copier = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[lock], text=True)
    assert copier.stdin is not None
    copier.stdin.write("\n".join(names))
    copier.stdin.close()
    return copier


@contextmanager
def _lock(folder: Path) -> Iterator[int | None]:
    """Lock the folder for this process; yield the descriptor of the lock, or None if another process holds it."""
    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    except BlockingIOError:
        yield None
    finally:
        os.close(descriptor)


def copy_all(source: Path, target: Path, names: list[str], parent: int) -> None:
    """Copy the missing ones of these files while process `parent` lives; print a line if the disk has too little room.

    Copies of an earlier run are used again if their checksums are right. The caller holds the lock. Raises OSError and
    DataError, and SystemExit when `parent` has ended.
    """
    for killed in target.glob("*.partial"):
        killed.unlink()
    _set_aside(target)
    wanted = read_summary(source).files
    kept = {name for name in names if _is_whole(target / (name + UNVERIFIED), wanted[name][0])}
    size, free = sum(wanted[name][0] for name in names if name not in kept), shutil.disk_usage(target).free
    has_room, copied = size + SPARE <= free, 0
    if not has_room:
        _say(f"{target}: {free / 1e9:.1f} GB are free, {(size + SPARE) / 1e9:.1f} wanted; {source} is read in place")
    for name in names:
        if name not in kept:
            (target / (name + UNVERIFIED)).unlink(missing_ok=True)
        if not (name in kept and _verified(target / name, wanted[name][1], parent)) and has_room:
            _copy(source / name, target / name, wanted[name][1], parent)
            copied += 1
    if has_room:
        size = sum(wanted[name][0] for name in names)
        _say(f"{target}: copies of {len(names)} files ({size / 1e9:.2f} GB), {copied} of them new")


def _is_whole(path: Path, size: int) -> bool:
    return is_file(path) and not path.is_symlink() and path.stat().st_size == size


def _verified(path: Path, wanted: str, parent: int) -> bool:
    """Give a copy of an earlier run its name back if it has the wanted checksum, else remove it."""
    aside = path.with_name(path.name + UNVERIFIED)
    if _checksum(aside, None, parent) != wanted:
        aside.unlink()
        return False
    aside.replace(path)
    return True


def _copy(source: Path, target: Path, wanted: str, parent: int) -> None:
    """Copy a file. Raises DataError if the source has another checksum, and OSError with the path."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        if _checksum(source, partial, parent) != wanted:
            raise DataError(f"{source}: has another checksum than {SUMMARY} says and is not copied")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _checksum(source: Path, target: Path | None, parent: int) -> str:
    """Compute the SHA-256 of a file, and copy it to `target`, if given, on the way."""
    digest = hashlib.sha256()
    with ExitStack() as stack:
        with naming(source):
            reading = stack.enter_context(source.open("rb", 0))
        writing = None if target is None else stack.enter_context(target.open("wb", 0))
        while True:
            with naming(source):
                block = reading.read(BLOCK)
            if not block:
                return digest.hexdigest()
            if os.getppid() != parent:
                raise SystemExit("the run that wanted copies has ended")
            digest.update(block)
            if writing is not None and target is not None:
                with naming(target):
                    _write_all(writing, block)


def _write_all(file: IO[bytes], block: bytes) -> None:
    """Write a whole block to an unbuffered file, which may take fewer bytes per call."""
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def _say(text: str) -> None:
    sys.stderr.write(f"sptskm: {text}\n")  # a separate process; its messages go to the job's output


def main() -> None:
    """Copy the files named on standard input from the first to the second argument while process `argv[3]` lives."""
    os.nice(10)  # training comes first
    source, target, parent = sys.argv[1:]
    try:
        copy_all(Path(source), Path(target), sys.stdin.read().split("\n"), int(parent))
    except (OSError, DataError) as error:
        _say(f"{error}; what has no copy is read in place")


if __name__ == "__main__":
    main()
