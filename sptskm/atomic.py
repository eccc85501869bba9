"""Files and folders that a kill at any moment leaves as they were, or whole; an error in writing names the path.

What is being written has a temporary name that follows from its own, and is locked while a process writes it. So the
same command, started again after a kill, takes the place of what it had left, and two processes do not disturb each
other.
"""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ENDING = ".sptskm.partial"


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all. Raises OSError with the path."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all. Raises OSError with the path."""
    with partial_of(path) as partial:
        partial.write_bytes(content)


def append_text(path: Path, text: str) -> None:
    """Add to the end of a text file. Raises OSError with the path."""
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name `path` in an OSError that names no file, as those of a full disk do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and (error.errno or type(error) is OSError):
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
        raise


@contextmanager
def partial_of(path: Path) -> Iterator[Path]:
    """Give an empty file beside `path`, which takes its place at the end; nothing stays behind after an error.

    Waits while another process writes the same file. Raises OSError with the path.
    """
    partial = path.with_name(f".{path.name}{ENDING}")
    with naming(path):
        lock = _locked(partial)
        try:
            yield partial
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        finally:
            os.close(lock)


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`, which takes its place at the end and vanishes after an error.

    What a killed process left of it is removed first. Raises OSError with the path, BlockingIOError while another
    process makes the same folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}{ENDING}")
    scratch.mkdir(exist_ok=True)
    if scratch.is_symlink() or scratch.stat().st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "belongs to somebody else, wanted to write there", str(scratch))
    with naming(path):
        lock = _locked(scratch / "lock", wait=False)
        try:
            for left in scratch.iterdir():
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
            # a name of its own: workers that outlive a killed process for a moment write to the other
            content = scratch / f"{os.getpid()}-{time.time_ns()}"
            content.mkdir()
            yield content
            content.replace(path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            os.close(lock)


def _locked(path: Path, wait: bool = True) -> int:
    """Open an empty file that no other process has locked; it is locked until its descriptor is closed."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            raise BlockingIOError(errno.EWOULDBLOCK, "another process is writing it", str(path)) from None
        except OSError:
            pass  # a file system without locks: whoever comes second disturbs the first
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):  # else another process has just renamed it
                os.ftruncate(descriptor, 0)
                return descriptor
        os.close(descriptor)


def hindrance(path: Path) -> str:
    """Why `partial_of` could not put a file there, in the system's words; empty where it can."""
    try:
        if path.is_dir():
            return os.strerror(errno.EISDIR)
        partial = path.with_name(f".{path.name}{ENDING}")
        os.close(_locked(partial))
        partial.unlink()
    except OSError as error:
        return str(error.strerror)
    return ""
