"""Read TensorFlow's checkpoint format V2 (`<prefix>.index`, `<prefix>.data-00000-of-00001`) without TensorFlow.

The index is a LevelDB table: blocks of sorted (key, value) pairs whose keys share prefixes, a block with the places of
these blocks, and a footer. The key "" holds the header. Every other key is the name of a variable; its value is a
protocol buffer (tensor_bundle.proto) with the data file and offset of the little-endian values. Blocks and values
have checksums, which are verified.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.checksums import masked_checksum
from sptskm.common.errors import DataError

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # of a block: compression, checksum
_SNAPPY = 1
# the types of tensorflow's types.proto that numpy has, little-endian
_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    17: "uint16",
    19: "float16",
}
_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")


@dataclass(frozen=True)
class Variable:
    """Entry of a variable in the index: numpy's name of its type (or "type 7"), and the place of its values."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool


@dataclass(frozen=True)
class TFCheckpoint:
    """The variables of a checkpoint by name; values are read on request."""

    prefix: Path
    shards: int
    variables: Mapping[str, Variable]

    def read(self, name: str, verify: bool = True) -> NDArray[Any]:
        """Read the values of one variable in its own shape and type; `verify` compares their checksum.

        Raises FileNotFoundError for a missing data file; DataError for an unknown name, a type that numpy lacks,
        a variable stored in slices, a data file that ends too early, and damaged values.
        """
        variable = self.variables.get(name)
        if variable is None:
            raise DataError(f"checkpoint {self.prefix}: holds no variable {name}, wanted one of its index")
        self._check_readable(name, variable)
        path = Path(f"{self.prefix}.data-{variable.shard:05d}-of-{self.shards:05d}")
        if not path.is_file():
            raise FileNotFoundError(f"checkpoint {path}: no such file, but variable {name} lies in it")
        end, length = variable.offset + variable.size, path.stat().st_size
        if length < end:
            raise DataError(f"checkpoint {path}: cut short, has {length} bytes, but {name} ends at byte {end}")
        dtype = np.dtype(variable.dtype).newbyteorder("<")
        values = np.fromfile(path, dtype, variable.size // dtype.itemsize, offset=variable.offset)
        if verify:
            found = masked_checksum(values.tobytes())
            if found != variable.checksum:
                raise DataError(
                    f"checkpoint {path}: damaged, variable {name} has checksum {found:08x}, "
                    f"wanted {variable.checksum:08x}"
                )
        return values.reshape(variable.shape)

    def _check_readable(self, name: str, variable: Variable) -> None:
        where = f"checkpoint {self.prefix}: variable {name}"
        if variable.dtype not in _DTYPES.values():
            raise DataError(f"{where} is of {variable.dtype}, wanted one of {', '.join(_DTYPES.values())}")
        if variable.sliced:
            raise DataError(f"{where} is stored in slices (a partitioned variable), wanted it whole")
        wanted = int(np.prod(variable.shape, dtype=np.int64)) * np.dtype(variable.dtype).itemsize
        if variable.size != wanted:
            raise DataError(f"{where} has {variable.size} bytes, wanted {wanted} for {variable.dtype} {variable.shape}")


def find_prefix(path: str | Path) -> Path | None:
    """Return the prefix of the checkpoint at `path`, or None if it has no index file.

    `path` is the prefix itself, one of the checkpoint's files, the text file `checkpoint` or the folder with that file.
    Only the base name of the prefix in the text file is used, as such folders are often moved.
    Raises FileNotFoundError for a folder without the text file and for a checkpoint without its index file; DataError
    for a text file that names no checkpoint.
    """
    given = path = Path(path)
    if path.is_dir():
        path = path / "checkpoint"
        if not path.is_file():
            raise FileNotFoundError(f"checkpoint {path}: no such file; give the prefix of the index file instead")
    if path.name == "checkpoint" and path.is_file():
        path = path.with_name(_named_in(path))
    prefix = path.with_name(_SUFFIX.sub("", path.name))
    if _index(prefix).is_file():
        return prefix
    if prefix != given:
        raise FileNotFoundError(f"checkpoint {_index(prefix)}: no such file, wanted it for {given}")
    return None


def open_checkpoint(path: str | Path) -> TFCheckpoint:
    """Read the index of the checkpoint at `path` (see find_prefix), but none of its values.

    Raises FileNotFoundError if there is none; DataError for a file that is not an index, is truncated, damaged,
    compressed, or written on a big-endian machine.
    """
    prefix = find_prefix(path)
    if prefix is None:
        raise FileNotFoundError(f"checkpoint {path}: no index file, wanted <prefix>.index and <prefix>.data-*")
    try:
        entries = dict(_table(_index(prefix).read_bytes()))
        shards = _shards(entries)
        variables = {key.decode(): _variable(value) for key, value in entries.items() if key}
    except _Unusable as problem:
        raise DataError(f"checkpoint {_index(prefix)}: {problem}") from None
    except UnicodeDecodeError as problem:
        raise DataError(f"checkpoint {_index(prefix)}: damaged, a name is not UTF-8 ({problem})") from None
    return TFCheckpoint(prefix, shards, variables)


def _index(prefix: Path) -> Path:
    return Path(f"{prefix}.index")


def _named_in(path: Path) -> str:
    found = re.search(r'^model_checkpoint_path:\s*"(.+)"', path.read_text(errors="replace"), re.MULTILINE)
    if not found:
        raise DataError(f'checkpoint {path}: names no checkpoint, wanted a line model_checkpoint_path: "..."')
    return PureWindowsPath(found.group(1)).name  # accepts both kinds of slashes


class _Unusable(Exception):
    """Raised for a faulty index; the caller adds the path."""


class _Bytes:
    """A byte string that is read from front to back."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._content)

    def take(self, count: int) -> bytes:
        """Read the next `count` bytes."""
        taken = self._content[self._at : self._at + count]
        if len(taken) != count:
            raise _Unusable(f"damaged, {count} bytes wanted where {len(taken)} are left")
        self._at += count
        return taken

    def number(self, count: int) -> int:
        """Read the next `count` bytes as a little-endian number."""
        return int.from_bytes(self.take(count), "little")

    def varint(self) -> int:
        """Read a number of seven bits per byte, lowest first; the top bit marks that more bytes follow."""
        value = 0
        for shift in range(0, 64, 7):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise _Unusable("damaged, a number does not end")


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the (key, value) pairs of an index file."""
    footer = content[-FOOTER_BYTES:]
    magic = int.from_bytes(footer[-8:], "little")
    if len(footer) < FOOTER_BYTES or magic != MAGIC:
        raise _Unusable(
            f"not a TensorFlow checkpoint index, or cut short: {len(content)} bytes "
            f"that end with {magic:#x}, wanted {MAGIC:#x}"
        )
    places = _Bytes(footer)
    for _ in ("offset", "size"):  # of the properties block, which is empty
        places.varint()
    for _, place in _pairs(_block(content, places)):
        yield from _pairs(_block(content, _Bytes(place)))


def _block(content: bytes, place: _Bytes) -> bytes:
    """Return the block at `place` (offset, size) after verifying its checksum."""
    offset, size = place.varint(), place.varint()
    if offset + size + _TRAILER_BYTES > len(content) - FOOTER_BYTES:
        raise _Unusable(f"damaged, a block ends at byte {offset + size + _TRAILER_BYTES} of {len(content)}")
    block, trailer = content[offset : offset + size + 1], _Bytes(content[offset + size : offset + size + 5])
    compression, wanted = trailer.number(1), trailer.number(4)
    found = masked_checksum(block)
    if found != wanted:
        raise _Unusable(f"damaged, the block at byte {offset} has checksum {found:08x}, wanted {wanted:08x}")
    if compression:
        kind = "snappy" if compression == _SNAPPY else f"kind {compression}"
        raise _Unusable(f"compressed ({kind}), wanted it as TensorFlow's Saver writes it; save it again with that")
    return block[:-1]


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    length = len(block) - 4 - 4 * restarts  # entries, offsets of the complete keys, their number
    if length < 0:
        raise _Unusable(f"damaged, a block of {len(block)} bytes claims {restarts} restarts")
    entries, key = _Bytes(block[:length]), b""
    while entries:
        shared, unshared, size = entries.varint(), entries.varint(), entries.varint()
        if shared > len(key):
            raise _Unusable(f"damaged, a key shares {shared} bytes with one of {len(key)}")
        key = key[:shared] + entries.take(unshared)
        yield key, entries.take(size)


def _shards(entries: Mapping[bytes, bytes]) -> int:
    if b"" not in entries:
        raise _Unusable("has no header, wanted an index of TensorFlow's format V2")
    header = _message(entries[b""])
    if _one(header, 2):
        raise _Unusable("written on a big-endian machine, wanted little-endian values")
    return _one(header, 1)


def _variable(value: bytes) -> Variable:
    entry = _message(value)
    code = _one(entry, 1)
    dimensions = [dim for shape in entry.get(2, []) for dim in _message(_nested(shape)).get(2, [])]
    return Variable(
        dtype=_DTYPES.get(code, f"type {code}"),
        shape=tuple(_one(_message(_nested(dim)), 1) for dim in dimensions),
        shard=_one(entry, 3),
        offset=_one(entry, 4),
        size=_one(entry, 5),
        checksum=_one(entry, 6),
        sliced=7 in entry,
    )


def _message(content: bytes) -> dict[int, list[int | bytes]]:
    """Parse the fields of a protocol buffer by number."""
    message, fields = _Bytes(content), dict[int, list[int | bytes]]()
    while message:
        field, wire = divmod(message.varint(), 8)
        value: int | bytes
        if wire == 0:
            value = message.varint()
        elif wire == 2:
            value = message.take(message.varint())
        elif wire in (1, 5):
            value = message.number(8 if wire == 1 else 4)
        else:
            raise _Unusable(f"damaged, field {field} has wire type {wire}")
        fields.setdefault(field, []).append(value)
    return fields


def _one(message: Mapping[int, list[int | bytes]], field: int) -> int:
    """Return the number in a field, 0 if the field is absent."""
    value = message.get(field, [0])[-1]
    if not isinstance(value, int):
        raise _Unusable(f"damaged, field {field} is no number")
    return value


def _nested(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _Unusable("damaged, a shape is a number")
    return value
