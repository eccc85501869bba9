"""Read arrays of numbers from MATLAB files (.mat of version 4 to 7) that were written outside this process.

Every length in a file is compared with the bytes that are there before it is used: libraries that trust them end the
process. Sources: MathWorks, "MAT-File Format", chapters on level 5 and level 4 files.
"""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.common.reading import read_bytes

MOST_BYTES = 1 << 28
"""Bytes that a compressed variable may become."""

_HEAD = 128  # bytes before the first element
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_OTHERS = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function", 17: "opaque"}
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_OLD_TYPES = ("f8", "f4", "i4", "i2", "u2", "u1")  # of version 4, by their digit
_OLD_KINDS = ("double", "char", "sparse")


class _Variable(NamedTuple):
    name: str
    kind: str
    """MATLAB's class; empty for an array of numbers."""
    shape: tuple[int, ...]
    stored: str
    """numpy's type of the numbers in the file, with its byte order."""
    dtype: str
    content: bytes

    def array(self) -> NDArray[np.generic]:
        """Raise ValueError where there are more or fewer numbers than the shape says."""
        wanted = math.prod(self.shape)
        if wanted * np.dtype(self.stored).itemsize != len(self.content):
            raise ValueError(
                f"{self.name} promises {self.shape} numbers, {len(self.content):,} bytes of {self.stored[1:]} are there"
            )
        return np.frombuffer(self.content, self.stored).astype(self.dtype).reshape(self.shape, order="F")


def read_mat(path: Path, *names: str) -> NDArray[np.generic]:
    """Return the first of the variables `names` that a .mat file has. Raises OSError, and DataError as `parsed_mat`."""
    return parsed_mat(read_bytes(path), str(path), *names)


def parsed_mat(content: bytes, source: str, *names: str, most: int = MOST_BYTES) -> NDArray[np.generic]:
    """Return the first of the variables `names` in the bytes of a .mat file, as an array of numbers.

    Raises DataError, with `source` at its beginning, for a file of another format, a file without such a variable or
    with two of one name, cells, structures, text and other classes, an array that is not as large as the file says, and
    a compressed variable of more than `most` bytes.
    """
    try:
        found = list(_old_variables(content) if _is_old(content) else _variables(content, most))
    except ValueError as error:
        raise DataError(f"{source}: corrupt, not a readable .mat file ({error})") from None
    held = [variable.name for variable in found]
    name = next((name for name in names if name in held), None)
    if name is None:
        others = ", ".join(ascii(other)[1:-1] for other in held if other)[:200]
        raise DataError(f"{source}: holds {others or 'nothing'}, wanted the variable {' or '.join(names)}")
    if held.count(name) > 1:
        raise DataError(f"{source}: holds the variable {name} twice, wanted it once")
    variable = found[held.index(name)]
    if variable.kind:
        raise DataError(f"{source}: {name} is of MATLAB's class {variable.kind}, wanted an array of numbers")
    try:
        return variable.array()
    except ValueError as error:
        raise DataError(f"{source}: {error}") from None


def _is_old(content: bytes) -> bool:
    """Return whether a file is of version 4, which begins with a number; later versions begin with text."""
    return len(content) >= 4 and 0 in content[:4]


def _variables(content: bytes, most: int) -> Iterator[_Variable]:
    """Yield the variables of version 5 to 7; for classes without numbers only the name."""
    if content[:10] == b"MATLAB 7.3" or content[:8] == b"\x89HDF\r\n\x1a\n":
        raise ValueError("of version 7.3, which is HDF5, wanted one that MATLAB saved with -v7")
    orders = {b"\0\1IM": "<", b"\1\0MI": ">"}
    if len(content) < _HEAD or content[124:_HEAD] not in orders:
        raise ValueError("has no head of version 5")
    order, at = orders[content[124:_HEAD]], _HEAD
    while at < len(content):
        start = at
        kind, inside, at = _element(content, at, order)
        if kind == _COMPRESSED:
            kind, inside = _unpacked(inside, order, most)
        if kind != _MATRIX:
            raise ValueError(f"the element at byte {start} is of type {kind}, wanted an array")
        if inside:
            yield _variable(inside, order)


def _element(content: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """Return the type and bytes of the element at a position, and the position of the next one."""
    if len(content) < at + 8:
        raise ValueError(f"ends at byte {len(content)}, within the tag of an element")
    kind, size = np.frombuffer(content, f"{order}u4", 2, at).tolist()
    first = at + 8
    if kind >> 16:  # a short one lies within its tag
        kind, size, first = kind & 0xFFFF, kind >> 16, at + 4
        after = at + 8
        if size > 4:
            raise ValueError(f"the element at byte {at} is short and of {size} bytes, wanted 4 at most")
    else:
        after = first + size + (0 if kind == _COMPRESSED else -size % 8)
    if first + size > len(content):
        raise ValueError(f"the element at byte {at} has {size:,} bytes, of which {len(content) - first:,} are there")
    return kind, content[first : first + size], after


def _unpacked(packed: bytes, order: str, most: int) -> tuple[int, bytes]:
    """Return the type and bytes of a compressed element, after verifying its checksum."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, most)
    except zlib.error as error:
        raise ValueError(f"a compressed element is damaged: {error}") from None
    if stream.unconsumed_tail:
        raise ValueError(f"a compressed element is of more than {most:,} bytes")
    if not stream.eof:
        raise ValueError("a compressed element is cut off")
    kind, inside, _ = _element(content, 0, order)
    return kind, inside


def _variable(content: bytes, order: str) -> _Variable:
    kind, flags, at = _element(content, 0, order)
    if kind != 6 or len(flags) != 8:
        raise ValueError(f"an array begins with {len(flags)} bytes of type {kind}, wanted 8 bytes of flags")
    flag = int(np.frombuffer(flags, f"{order}u4")[0])
    number = flag & 0xFF
    if number in (16, 17):  # these have no dimensions
        return _Variable("", _OTHERS[number], (), "", "", b"")
    kind, dimensions, at = _element(content, at, order)
    if kind not in (5, 6) or len(dimensions) % 4 or len(dimensions) < 8:
        raise ValueError(f"the dimensions of an array are {len(dimensions)} bytes of type {kind}, wanted whole numbers")
    shape = tuple(np.frombuffer(dimensions, f"{order}i4").tolist())
    kind, letters, at = _element(content, at, order)
    name = letters.decode("latin-1")
    if number not in _CLASSES or flag & (_COMPLEX | _LOGICAL):
        other = "complex" if flag & _COMPLEX else "logical" if flag & _LOGICAL else _OTHERS.get(number)
        return _Variable(name, other or f"number {number}", shape, "", "", b"")
    kind, numbers, _ = _element(content, at, order)
    if kind not in _TYPES or min(shape) < 0:
        raise ValueError(f"{name!a} is of numbers of type {kind} and {shape}, wanted an array")
    return _Variable(name, "", shape, order + _TYPES[kind], _CLASSES[number], numbers)


def _old_variables(content: bytes) -> Iterator[_Variable]:
    """Yield the variables of version 4: each is a header of five numbers, a name and values."""
    at = 0
    while at < len(content):
        if len(content) < at + 20:
            raise ValueError(f"ends at byte {len(content)}, within the head of a variable")
        order = "<" if int.from_bytes(content[at : at + 4], "little") < 5000 else ">"
        code, rows, columns, is_complex, letters = np.frombuffer(content, f"{order}i4", 5, at).tolist()
        machine, rest = divmod(code, 1000)
        numbers, kind = divmod(rest % 100, 10)
        if machine != (order == ">") or rest >= 100 or numbers >= len(_OLD_TYPES) or kind >= len(_OLD_KINDS):
            raise ValueError(f"the variable at byte {at} is of type {code}, which is none of version 4")
        if min(rows, columns) < 0 or not 0 < letters <= len(content):
            raise ValueError(f"the variable at byte {at} is {rows}x{columns} and has a name of {letters} letters")
        name = content[at + 20 : at + 20 + letters].rstrip(b"\0").decode("latin-1")
        first, stored = at + 20 + letters, order + _OLD_TYPES[numbers]
        size = rows * columns * np.dtype(stored).itemsize
        at = first + size * (2 if is_complex else 1)
        if at > len(content):
            raise ValueError(f"{name!a} promises {(rows, columns)} numbers, which are more than there are")
        other = "complex" if is_complex else "" if kind == 0 else _OLD_KINDS[kind]
        yield _Variable(name, other, (rows, columns), stored, _OLD_TYPES[numbers], content[first : first + size])
