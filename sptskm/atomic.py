"""Small files that a kill at any moment leaves as they were, or whole."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """A text file under a temporary name, then renamed; several processes may do it at once."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """The same for bytes."""
    with partial_of(path) as partial:
        partial.write_bytes(content)


@contextmanager
def partial_of(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which takes its place at the end; nothing stays behind after an error."""
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def hindrance(path: Path) -> str:
    """Why `partial_of` could not put a file there, in the system's words; empty where it can."""
    try:
        if path.is_dir():
            return os.strerror(errno.EISDIR)
        partial = _partial(path)
        partial.touch()
        partial.unlink()
    except OSError as error:
        return str(error.strerror)
    return ""


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.partial")
