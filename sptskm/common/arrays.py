"""Read NumPy's .npz and .npy files that were written outside this process, checked before memory is taken.

Whatever is wrong with the content is one sentence with the path and the array; what the system says about a file stays
an OSError that names the path.
"""

import errno
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError

KINDS = {
    "b": "booleans",
    "i": "whole numbers",
    "u": "whole numbers",
    "f": "floats",
    "U": "texts",
    "S": "bytes",
}
_EXPANSION = 1100  # a deflated byte cannot become more bytes than that


@dataclass(frozen=True)
class ArraySpec:
    """Expected type and shape of an array: kinds of its dtype, and the length of each axis.

    A length is a number, or a name: axes with the same name are equally long in all arrays of a file.
    """

    kinds: str
    """Of numpy: b, i, u, f, U, S."""
    axes: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        names = " or ".join(dict.fromkeys(KINDS[kind] for kind in self.kinds))
        return f"{names} ({', '.join(map(str, self.axes))})" if self.axes else f"one value of {names}"


def read_npz(
    path: Path, wanted: Mapping[str, ArraySpec], optional: Mapping[str, ArraySpec] | None = None
) -> dict[str, NDArray[Any]]:
    """Return the arrays of an uncompressed or compressed .npz file.

    Raises OSError. Raises DataError for a file of another format, an array that is missing, unknown, duplicated or of
    another type or shape, axes of one name with different lengths, a wrong checksum, and a header that promises more
    than the file holds.
    """
    known = {**wanted, **(optional or {})}
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = _members(archive, path, wanted, known)
                found = {name: _member(archive, member, path, name) for name, member in members.items()}
        except Exception as error:  # a damaged archive makes zipfile and numpy raise almost anything
            raise _refusal(error, path, ".npz") from error
    _check(path, found, known)
    return found


def read_npy(path: Path, wanted: ArraySpec | None = None) -> NDArray[Any]:
    """Return the array of a .npy file. Raises as `read_npz`."""
    with path.open("rb") as file:
        try:
            found = _array(file, os.fstat(file.fileno()).st_size, f"{path}:")
        except Exception as error:
            raise _refusal(error, path, ".npy") from error
    if wanted is not None:
        _check(path, {"the array": found}, {"the array": wanted})
    return found


def _refusal(error: Exception, path: Path, form: str) -> Exception:
    """Return the error for content that cannot be read.

    An OSError that does not concern the content keeps its number and gets the path.
    """
    if isinstance(error, DataError):
        return error
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return OSError(error.errno, error.strerror, str(path))
    told = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(f"{path}: not a readable {form} file ({told})")


def _members(
    archive: zipfile.ZipFile, path: Path, wanted: Mapping[str, ArraySpec], known: Mapping[str, ArraySpec]
) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in members:
            raise DataError(f"{path}: holds the array {name} twice, wanted it once")
        if name not in known:
            raise DataError(f"{path}: holds the array {ascii(name)[:60]}, wanted {', '.join(known)}")
        members[name] = info
    if missing := [name for name in wanted if name not in members]:
        raise DataError(f"{path}: lacks the array {missing[0]}, wanted {', '.join(wanted)}")
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, name: str) -> NDArray[Any]:
    if info.file_size > info.compress_size * _EXPANSION:
        raise DataError(f"{path}: {name} promises {info.file_size:,} bytes in {info.compress_size:,}, wanted an array")
    with archive.open(info) as file:
        return _array(file, info.file_size, f"{path}: {name}")


def _array(file: IO[bytes], size: int, place: str) -> NDArray[Any]:
    """Read an array of `size` bytes to its end, so that the archive verifies its checksum."""
    start = file.tell()
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise DataError(f"{place} is of version {version[0]}.{version[1]} of .npy, wanted 1.0 to 3.0")
    # the header of 3.0 is that of 2.0 in UTF-8, which only names of fields need
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = header(file)
    if dtype.hasobject or dtype.kind not in KINDS:
        raise DataError(f"{place} holds {dtype}, wanted numbers or texts")
    held, promised = size - (file.tell() - start), math.prod(shape) * dtype.itemsize
    if promised != held or min(shape, default=0) < 0:
        raise DataError(f"{place} has {held:,} bytes behind its header, wanted {promised:,} for {dtype} {shape}")
    content = memoryview(bytearray(promised))
    filled = 0
    while count := file.readinto(content[filled:]):  # type: ignore[attr-defined]
        filled += count
    if filled < promised:
        raise DataError(f"{place} ends after {filled:,} bytes, wanted {promised:,}")
    found = np.ndarray(shape, dtype, content, order="F" if by_columns else "C")
    return found.astype(dtype.newbyteorder("="), copy=False)


def _check(path: Path, found: Mapping[str, NDArray[Any]], known: Mapping[str, ArraySpec]) -> None:
    lengths: dict[str, tuple[int, str]] = {}
    for name, array in found.items():
        rule = known[name]
        fixed = [length for length in rule.axes if isinstance(length, int)]
        fits = array.ndim == len(rule.axes) and array.dtype.kind in rule.kinds
        if not fits or [n for n, axis in zip(array.shape, rule.axes, strict=True) if isinstance(axis, int)] != fixed:
            raise DataError(f"{path}: {name} is {array.dtype} {array.shape}, wanted {rule}")
        for length, axis in zip(array.shape, rule.axes, strict=True):
            if isinstance(axis, str):
                other, first = lengths.setdefault(axis, (length, name))
                if other != length:
                    raise DataError(f"{path}: {name} has {length} rows ({axis}), wanted {other} as {first} has")
        if array.dtype.kind == "U" and not _is_text(array):
            raise DataError(f"{path}: {name} holds characters that are none, wanted text")


def _is_text(array: NDArray[Any]) -> bool:
    """Return whether all texts of an array hold legal characters only; zeros are padding."""
    if not array.size or not array.dtype.itemsize:
        return True
    codes_NL = np.frombuffer(array.tobytes(), np.uint32).reshape(array.size, -1)
    inside = (codes_NL[:, :-1] == 0) & (codes_NL[:, 1:] != 0)
    return not (inside.any() or (codes_NL > 0x10FFFF).any() or ((codes_NL >= 0xD800) & (codes_NL < 0xE000)).any())
