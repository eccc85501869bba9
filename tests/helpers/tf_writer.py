"""Writes TensorFlow's checkpoint format V2: random weights in the kind of file that the published ones come in."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sptskm.common.checksums import masked_checksum
from sptskm.models.tf_checkpoint import FOOTER_BYTES, MAGIC

# numbers of the types in tensorflow's types.proto
CODES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "float16": 19}
RESTART_EVERY = 16


def write_checkpoint(
    prefix: Path, variables: Mapping[str, NDArray], shards: int = 1, block_bytes: int = 4096, text: str | None = None
) -> Path:
    """Index, data files and the text file `checkpoint` (which names `text` or the prefix); returns the prefix."""
    pairs = {b"": header(shards)}
    files = [data_file(prefix, shard, shards).open("wb") for shard in range(shards)]
    for number, name in enumerate(sorted(variables)):
        shard = number % shards
        values = np.asarray(variables[name], order="C")
        pairs[name.encode()] = entry(values, shard, files[shard].tell())
        files[shard].write(values.tobytes())
    for file in files:
        file.close()
    write_index(prefix, pairs, block_bytes)
    (prefix.parent / "checkpoint").write_text(f'model_checkpoint_path: "{text or prefix.name}"\n')
    return prefix


def data_file(prefix: Path, shard: int = 0, shards: int = 1) -> Path:
    return Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}")


def index_file(prefix: Path) -> Path:
    return Path(f"{prefix}.index")


def header(shards: int, endianness: int = 0) -> bytes:
    return number(1, shards) + number(2, endianness) + message(3, number(1, 1))


def entry(values: NDArray, shard: int = 0, offset: int = 0, code: int | None = None) -> bytes:
    """What the index says of a variable; `code` instead of the type's own number."""
    shape = b"".join(message(2, number(1, size)) for size in values.shape)
    checksum = masked_checksum(values.tobytes()).to_bytes(4, "little")
    return b"".join(
        [
            number(1, code or CODES[values.dtype.name]),
            message(2, shape),
            number(3, shard),
            number(4, offset),
            number(5, values.nbytes),
            varint(6 << 3 | 5) + checksum,
        ]
    )


def write_index(prefix: Path, pairs: Mapping[bytes, bytes], block_bytes: int = 4096, compression: int = 0) -> None:
    """A table of the pairs in blocks of about `block_bytes`, all marked as compressed in some way."""
    content = bytearray()

    def append(block: bytes) -> bytes:
        place = varint(len(content)) + varint(len(block))
        stored = block + bytes([compression])
        content.extend(stored + masked_checksum(stored).to_bytes(4, "little"))
        return place

    places = {max(group): append(block(group)) for group in _groups(pairs, block_bytes)}
    handles = append(block({})) + append(block(places))
    content.extend(handles.ljust(FOOTER_BYTES - 8, b"\0") + MAGIC.to_bytes(8, "little"))
    index_file(prefix).write_bytes(content)


def block(pairs: Mapping[bytes, bytes]) -> bytes:
    """Sorted pairs whose keys leave out what they share with the key before, except every 16th."""
    content, restarts, before = bytearray(), [0], b""
    for place, key in enumerate(sorted(pairs)):
        if place and place % RESTART_EVERY == 0:
            restarts.append(len(content))
            before = b""
        shared = max(length for length in range(len(key) + 1) if before.startswith(key[:length]))
        content += varint(shared) + varint(len(key) - shared) + varint(len(pairs[key])) + key[shared:] + pairs[key]
        before = key
    return bytes(content) + b"".join(r.to_bytes(4, "little") for r in [*restarts, len(restarts)])


def _groups(pairs: Mapping[bytes, bytes], block_bytes: int) -> Iterator[dict[bytes, bytes]]:
    group: dict[bytes, bytes] = {}
    for key in sorted(pairs):
        group[key] = pairs[key]
        if sum(len(k) + len(v) for k, v in group.items()) >= block_bytes:
            yield group
            group = {}
    if group:
        yield group


def number(field: int, value: int) -> bytes:
    """A number in a protocol buffer; zero is left out."""
    return varint(field << 3) + varint(value) if value else b""


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*content, value])
