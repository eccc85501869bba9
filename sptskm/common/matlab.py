"""Read MATLAB files (.mat up to version 7) that were written outside this process."""

import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.common.reading import read_bytes

_NUMBERS = frozenset({"double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"})
_EXPANSION = 1100  # a deflated byte cannot become more bytes than that
_HEAD, _TAG = 128, 8  # bytes of version 5 to 7 before the first element, and before the content of each
_MATRIX, _COMPRESSED = 14, 15  # kinds of elements
_NUMERIC = range(6, 16)  # classes of arrays


def read_mat(path: Path, *names: str) -> NDArray[Any]:
    """Return the first of the variables `names` that a .mat file has, an array of numbers.

    Raises OSError, and DataError for another file, for one without such a variable or with two of a name, for cells,
    structures, text and other classes, and for an array that is larger than what the file holds.
    """
    import scipy.io

    content = read_bytes(path)
    try:
        listed = scipy.io.whosmat(io.BytesIO(content))
    except Exception as error:  # a damaged file makes scipy raise almost anything
        raise DataError(f"{path}: not a readable .mat file ({_in_one_line(error)})") from error
    held = [name for name, _, _ in listed]
    wanted = " or ".join(names)
    name = next((name for name in names if name in held), None)
    if name is None:
        raise DataError(f"{path}: holds {', '.join(held)[:200] or 'nothing'}, wanted the variable {wanted}")
    if held.count(name) > 1:
        raise DataError(f"{path}: holds the variable {name} twice, wanted it once")
    shape, kind = next((shape, kind) for found, shape, kind in listed if found == name)
    if kind not in _NUMBERS:
        raise DataError(f"{path}: {name} is of MATLAB's class {kind}, wanted an array of numbers")
    if math.prod(shape) > len(content) * _EXPANSION:
        raise DataError(
            f"{path}: {name} promises {shape} numbers, more than the {len(content):,} bytes of the file hold"
        )
    try:
        found = scipy.io.loadmat(io.BytesIO(content), variable_names=[name], verify_compressed_data_integrity=True)
    except Exception as error:
        raise DataError(f"{path}: not a readable .mat file ({_in_one_line(error)})") from error
    return np.asarray(found[name])


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def check_small(content: bytes, most: int, name: str) -> None:
    """Raise ValueError for a .mat file whose variable `name` could take more than `most` bytes of memory.

    What the file says of the length of its parts is compared with what is there, also within compressed ones.
    """
    import scipy.io

    order: Literal["little", "big"] = "little" if content[126:128] == b"IM" else "big"
    if content[124:128] not in (b"\0\1IM", b"\1\0MI"):
        if len(content) > most:  # version 4, which has no compression
            raise ValueError(f"has {len(content):,} bytes, wanted at most {most:,}")
        return
    elements = list(_elements(content, order, most))
    if sum(map(len, elements)) > most:
        raise ValueError(f"takes more than {most:,} bytes of memory")
    for element in elements:
        _check_lengths(element, order)
    if len(elements) > 1 or elements[0][8] not in _NUMERIC:
        found = next((found for found in scipy.io.whosmat(io.BytesIO(content)) if found[0] == name), None)
        if found is not None and (found[2] in ("cell", "struct", "object") or math.prod(found[1]) > most):
            raise ValueError(f"{name} is of class {found[2]} {found[1]}, wanted an array of numbers")


def _elements(content: bytes, order: Literal["little", "big"], most: int) -> Iterator[bytes]:
    """Yield the content of each variable, compressed ones as far as `most`. Raises ValueError for other elements."""
    at = _HEAD
    while at < len(content):
        kind, length = _tag(content, at, order)
        element = content[at + _TAG : at + _TAG + length]
        if kind == _COMPRESSED:
            element = zlib.decompressobj().decompress(element, most + 1)
            kind, length = _tag(element, 0, order)
            element = element[_TAG:]
        if kind != _MATRIX or len(element) < length or len(element) <= 2 * _TAG:
            raise ValueError(f"its element at byte {at} is of kind {kind} and {length:,} bytes, wanted an array")
        yield element
        at += _TAG + _tag(content, at, order)[1]


def _check_lengths(element: bytes, order: Literal["little", "big"]) -> None:
    """The parts of an array end where it ends."""
    at = 0
    while at < len(element):
        kind, length = _tag(element, at, order)
        at += _TAG if kind >> 16 else _TAG + -(-length // 8) * 8  # a short part lies in its own tag
    if at > -(-len(element) // 8) * 8:
        raise ValueError("a part of an array is longer than the array")


def _tag(content: bytes, at: int, order: Literal["little", "big"]) -> tuple[int, int]:
    return int.from_bytes(content[at : at + 4], order), int.from_bytes(content[at + 4 : at + 8], order)
