"""Copies of a pack's zip files on a disk of the node, made while training already runs.

One process a node copies, in the order of need; whoever reads looks for the copy first (`reading.Shards`). A copy has
its name only when it is whole and its checksum right, so that a kill at any moment leaves nothing that is in the way.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sptskm.data.errors import DataError
from sptskm.data.packs.contents import SUMMARY, read_summary
from sptskm.data.packs.reading import PackFiles
from sptskm.data.tracklets import IntArray, Tracklets

log = logging.getLogger(__name__)

AUTO, NONE = "auto", "none"
BLOCK = 4 << 20
SPARE = 1 << 30  # bytes that are left free for others


def place_of(stage: str) -> Path | None:
    """Where copies go: `none` nowhere, a path there, `auto` to the job's own disk, if it has one.

    That is $SLURM_TMPDIR, or in a job of SLURM $TMPDIR. Variables in a path are those of the node.
    """
    if stage == NONE:
        return None
    if stage != AUTO:
        return Path(os.path.expandvars(stage))
    named = os.environ.get("SLURM_TMPDIR") or ("SLURM_JOB_ID" in os.environ and os.environ.get("TMPDIR"))
    return Path(named) if named else None


def stage(table: Tracklets, where: str, rows: IntArray) -> None:
    """Let the zip files of `rows`, in this order, be copied to this node, and reading use the copies as they appear.

    Does nothing for a data set that is no pack. Returns at once; the copying process ends with this one. Where another
    process of the node copies already, its copies are used; where no copy can be made, that is said and all is well.
    """
    place = place_of(where)
    if place is None or not isinstance(table.place, PackFiles):
        return
    shards = table.place.shards
    identity = hashlib.sha256((shards.folder / SUMMARY).read_bytes()).hexdigest()[:16]
    copies = place / f"sptskm-{os.getuid()}" / identity
    try:
        copies.mkdir(parents=True, exist_ok=True)
        with _lock(copies) as lock:
            if lock is not None:
                names = list(dict.fromkeys(table.place.shard_N[rows].tolist()))
                shards.copier = _start(shards.folder, copies, names, lock)
    except OSError as error:
        log.warning("no copies: %s; %s is read in place", error, shards.folder)
        return
    shards.copies = copies


def _start(source: Path, target: Path, names: list[str], lock: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "sptskm.data.packs.staging", str(source), str(target), str(os.getpid())]
    # the lock goes with the open file, and so to the process that copies
    copier = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[lock], text=True)
    assert copier.stdin is not None
    copier.stdin.write("\n".join(names))
    copier.stdin.close()
    return copier


@contextmanager
def _lock(folder: Path) -> Iterator[int | None]:
    """A descriptor that nobody else has locked, or None."""
    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    except BlockingIOError:
        yield None
    finally:
        os.close(descriptor)


def copy_all(source: Path, target: Path, names: list[str], parent: int) -> None:
    """Copy what is missing of these files while process `parent` lives; says so when there is too little room.

    Whoever calls holds the lock. Raises OSError.
    """
    for killed in target.glob("*.partial"):
        killed.unlink()
    sizes = {name: (source / name).stat().st_size for name in names}
    missing = [name for name in names if not _is_whole(target / name, sizes[name])]
    wanted, free = sum(sizes[name] for name in missing), shutil.disk_usage(target).free
    if wanted + SPARE > free:
        _say(f"{target}: {free / 1e9:.1f} GB are free, {(wanted + SPARE) / 1e9:.1f} wanted; {source} is read in place")
        return
    wanted_files = read_summary(source).files
    for name in missing:
        partial = target / f"{name}.partial"
        try:
            found = _copy(source / name, partial, parent)
            if found != wanted_files[name][1]:
                raise DataError(f"{source / name}: has another checksum than {SUMMARY} says and is not copied")
            partial.replace(target / name)
        finally:
            partial.unlink(missing_ok=True)
    _say(f"{target}: copies of {len(names)} files ({sum(sizes.values()) / 1e9:.2f} GB), {len(missing)} of them new")


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _copy(source: Path, target: Path, parent: int) -> str:
    """The checksum of what was copied."""
    digest = hashlib.sha256()
    with source.open("rb", 0) as reading, target.open("wb") as writing:
        while block := reading.read(BLOCK):
            if os.getppid() != parent:
                raise SystemExit("the run that wanted copies has ended")
            digest.update(block)
            writing.write(block)
    return digest.hexdigest()


def _say(text: str) -> None:
    sys.stderr.write(f"sptskm: {text}\n")  # this is a process of its own, its words belong to those of the job


def main() -> None:
    """Copy from the first to the second argument what standard input names, while the third, a process, lives."""
    os.nice(10)  # training comes first
    source, target, parent = sys.argv[1:]
    try:
        copy_all(Path(source), Path(target), sys.stdin.read().split("\n"), int(parent))
    except (OSError, DataError) as error:
        _say(f"{error}; what has no copy is read in place")


if __name__ == "__main__":
    main()
