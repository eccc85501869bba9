"""Write files and folders atomically: after a kill at any moment they are unchanged or complete.

An error in writing names the path. What is being written has a temporary name that follows from the final one, and is
locked while a process writes it. So the same command, started again after a kill, replaces the leftovers, and two
processes do not disturb each other.
"""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sptskm.common.errors import ConfigError

ENDING = ".sptskm.partial"


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 atomically. Raises OSError with the path."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically. Raises OSError with the path."""
    with partial_of(path) as partial:
        partial.write_bytes(content)


def append_text(path: Path, text: str) -> None:
    """Append to a text file in UTF-8. Raises OSError with the path."""
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an OSError that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and (error.errno or type(error) is OSError):
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
        raise


@contextmanager
def partial_of(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file that replaces `path` at the end of the block, or is deleted after an error.

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
    """Yield an empty temporary folder that is renamed to `path` at the end, or is deleted after an error.

    Leftovers of a killed process are removed first. Raises OSError with the path, BlockingIOError while another process
    makes the same folder.
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
    """Open and lock an empty file; the lock lasts until the descriptor is closed.

    Raises BlockingIOError if another process holds the lock and `wait` is false.
    """
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


def write_error(path: Path) -> str:
    """Return the system's message why `partial_of` cannot write this file; empty if it can."""
    try:
        if path.is_dir():
            return os.strerror(errno.EISDIR)
        partial = path.with_name(f".{path.name}{ENDING}")
        os.close(_locked(partial))
        partial.unlink()
    except OSError as error:
        return str(error.strerror)
    return ""


def check_output(path: Path, ending: str) -> None:
    """Raise FileNotFoundError or ConfigError where a command could not write this file, wanted with this ending."""
    if path.suffix != ending:
        raise ConfigError(f"{path}: wanted a file that ends in {ending}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder, wanted one for {path.name}")
    if why := write_error(path):
        raise ConfigError(f"{path}: {why}, wanted a file that can be written")
