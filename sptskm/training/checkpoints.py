"""Write and read the checkpoint files of a run: whole files, verified by the checksums inside.

A checkpoint is a zip archive whose entries have CRC-32 sums, which PyTorch's own reader does not check. An error of
the system (a failing disk, a stale handle, no permission, no memory) says nothing about the file: it is never taken
for a missing or damaged file.
"""

import errno
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch

from sptskm.common.errors import DataError

State = dict[str, Any]
BLOCK = 1 << 20  # bytes


class Broken(DataError):
    """A file that could be read but is not what was written: truncated, changed on the disk, or something else."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: is broken ({why})")
        self.path, self.why = path, why


class Unreadable(DataError):
    """A file that exists but whose content the system does not deliver."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path}: cannot be read ({why}), and nothing was changed; start again when it can, or move it elsewhere"
        )


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state to a temporary file, sync, verify and rename it; a kill at any moment keeps the previous file.

    Raises OSError naming the file, and DataError for values that are not finite; the previous file stays in both cases.
    """
    if name := _not_finite(state):
        raise DataError(f"{path}: is not written, as {name} is not finite; what was there before stays")
    unfinished = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        _verify_written(unfinished)
        unfinished.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # PyTorch raises RuntimeError after an error of the system
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__
        if isinstance(cause, OSError):
            said = f"{cause.strerror or cause} (what was saved before stays)"
            raise OSError(cause.errno, said, str(unfinished)) from None
        raise


def read(path: Path) -> State:
    """Read a state to the CPU without executing any code. Raises Broken, Unreadable or FileNotFoundError."""
    raw: _File | None = None
    try:
        with _File(path) as raw, io.BufferedReader(raw, BLOCK) as file:
            verify(file)
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
        name = _not_finite(state)
    except FileNotFoundError:
        raise
    except Exception as error:  # reading a truncated archive may raise anything
        if why := _of_the_system(raw.failure if raw else None, error):
            raise Unreadable(path, why) from None
        raise Broken(path, _said(error)) from None
    if name:
        raise Broken(path, f"{name} is not finite")
    return state  # type: ignore[no-any-return]


def verify(file: IO[bytes]) -> None:
    """Compare all checksums of an archive, and its size. Raises BadZipFile or any other error of zipfile."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as content:
                while content.read(BLOCK):
                    pass
        begin = min((entry.header_offset for entry in archive.infolist()), default=0)
        end = archive.start_dir + sum(map(_listed, archive.infolist()))
    size = file.seek(0, os.SEEK_END)
    # after the list of entries: 22 bytes, and 76 more with 64-bit sizes
    if begin or size - end not in (22, 98):
        raise zipfile.BadZipFile(f"{size} bytes, wanted {end + 22}")


def _listed(entry: zipfile.ZipInfo) -> int:
    """Return the number of bytes that an entry takes in the archive's central directory."""
    return 46 + len(entry.orig_filename.encode()) + len(entry.extra) + len(entry.comment)


def _verify_written(path: Path) -> None:
    """Read a new file back and raise OSError if its content differs."""
    try:
        with path.open("rb", BLOCK) as file:
            verify(file)
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"read back otherwise than written: {error}", str(path)) from None


class _File(io.FileIO):
    """A file that remembers whether the system failed to read it, even if its reader hides the error."""

    failure: OSError | None = None
    _asked = io.FileIO.readinto

    def readinto(self, buffer: Any, /) -> int | None:  # type: ignore[override]
        try:
            return self._asked(buffer)
        except OSError as error:
            self.failure = error
            raise

    def readall(self) -> bytes:
        return b"".join(iter(partial(self.read, BLOCK), b""))  # through readinto

    def read(self, size: int | None = -1, /) -> bytes:  # type: ignore[override]
        block = bytearray(BLOCK if size is None or size < 0 else size)
        return bytes(block[: self.readinto(block) or 0])

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a wrong offset in a broken file
                self.failure = error
            raise


def _of_the_system(failure: OSError | None, error: Exception) -> str:
    """Return why the system did not deliver a file's content; empty if it did and the content is wrong."""
    if failure is not None:
        return failure.strerror or str(failure)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        return "not enough memory"
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return error.strerror or str(error)
    return ""


def _said(error: Exception) -> str:
    if type(error).__name__ == "UnpicklingError":  # PyTorch's message advises to trust the file
        return "holds something else than tensors and plain values"
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _not_finite(state: Any) -> str:
    """Return the name of a tensor with a value that is not finite; empty if there is none."""
    return next((name for name, tensor in _tensors("", state) if not _finite(tensor)), "")


def _finite(tensor: torch.Tensor) -> bool:
    """Return whether all values are finite. The sum shows it at a tenth of the cost, unless the sum overflows."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _tensors(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield name, value
    elif isinstance(value, Mapping | list | tuple):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in parts:
            yield from _tensors(f"{name}.{key}".lstrip("."), part)


def _sync_folder(path: Path) -> None:
    """Sync a folder so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
