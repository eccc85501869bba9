"""Mutate files: damage, other encodings, other numbers and types, entries missing, doubled or invented.

A mutation maps the bytes of a healthy file and a random generator to other bytes. `Meaning` says what a reader may do
with these: after damage, anything but return wrong content that it could have noticed; after a change of form, return
the same content; an impossible value must be refused.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Meaning = Literal["damage", "form", "value", "wrong"]
"""Kind of change: random bytes, another notation of the same content, another possible value, an impossible value."""
Change = Callable[[bytes, np.random.Generator], bytes]


@dataclass(frozen=True)
class Mutation:
    """A way to change the bytes of a file."""

    name: str
    change: Change
    meaning: Meaning = "damage"


def pick(rng: np.random.Generator, items: Any) -> Any:
    """Pick an item at random."""
    return items[int(rng.integers(len(items)))]


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip one to eight bits."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def flip_one(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip a single bit."""
    changed = bytearray(content)
    changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncate(content: bytes, rng: np.random.Generator) -> bytes:
    """Remove the end, perhaps everything."""
    return content[: int(rng.integers(len(content)))]


def _run(content: bytes, rng: np.random.Generator, fill: Callable[[int], bytes]) -> bytes:
    length = int(rng.integers(1, max(2, min(4096, len(content) // 2))))
    start = int(rng.integers(max(1, len(content) - length)))
    return content[:start] + fill(length) + content[start + length :]


def zeros(content: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite a range with zero bytes, as after a disk failure."""
    return _run(content, rng, bytes)


def noise(content: bytes, rng: np.random.Generator) -> bytes:
    """Overwrite a range with random bytes."""
    return _run(content, rng, rng.bytes)


def hole(content: bytes, rng: np.random.Generator) -> bytes:
    """Remove a range."""
    return _run(content, rng, lambda _: b"")


def repeat(content: bytes, rng: np.random.Generator) -> bytes:
    """Repeat a range."""
    start, stop = sorted(rng.integers(len(content), size=2).tolist())
    return content[:stop] + content[start:]


def append(content: bytes, rng: np.random.Generator) -> bytes:
    """Append bytes after the end."""
    return content + pick(rng, [b"\0" * 512, rng.bytes(64), content, b"\n\n", b"\x1a"])


def stranger(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return a completely different file."""
    return pick(
        rng,
        [
            b"",
            b"\0",
            b"\n",
            b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
            b"PK\x05\x06" + bytes(18),
            b"\x1f\x8b\x08\0" + bytes(20),
            b"\x89HDF\r\n\x1a\n" + bytes(100),
            b"\x80\x02}q\0.",
            b"%PDF-1.4\n",
            b"GIF89a\x01\0\x01\0\0\0\0;",
            b"\x93NUMPY\x01\0v\0",
            bytes(4096),
            rng.bytes(4096),
            b"null",
            b"[]",
            b"{}",
        ],
    )


BYTES = [
    Mutation(change.__name__, change)
    for change in (flip, flip_one, truncate, zeros, noise, hole, repeat, append, stranger)
]


NUMBERS = ["NaN", "nan", "inf", "-Infinity", "1.5", "-3", "-0", "1e999", "1e3", str(2**63), str(2**64), str(10**12)]
NUMBERS += ["9" * 5000, "0x10", "1_000", "٣", "1,5", "", " ", "null", "true", "1" + "0" * 400, "1e-400", "--1", "½"]


def _number(content: bytes, rng: np.random.Generator) -> bytes:
    found = list(re.finditer(rb"\d+(\.\d+)?", content))
    if not found:
        return content
    chosen = pick(rng, found)
    return content[: chosen.start()] + pick(rng, NUMBERS).encode() + content[chosen.end() :]


def _encoding(content: bytes, rng: np.random.Generator) -> bytes:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content
    return pick(
        rng, [lambda: text.encode("utf-8-sig"), lambda: text.encode("utf-16"), lambda: text.encode("utf-16-be")]
    )()


def _line_ends(content: bytes, rng: np.random.Generator) -> bytes:
    plain = content.replace(b"\r\n", b"\n")
    return pick(rng, [plain.replace(b"\n", b"\r\n"), plain.rstrip(b"\n"), plain])


def _character(content: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(content) + 1))
    odd = ["é".encode("latin-1"), b"\0", b"\x1b[2J", "\u202e".encode(), b"\xff\xfe", "\u2028".encode(), b"\x85", b"\r"]
    odd += [
        b'"',
        b"'",
        b",",
        b"\t",
        b"\n",
        b"{",
        b"[",
        b"%",
        b"*",
        b"&a",
        b"!!python/object:os.system",
        b"\xed\xa0\x80",
    ]
    return content[:at] + pick(rng, odd) + content[at:]


def _lines(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True)
    at, to = int(rng.integers(len(lines))), int(rng.integers(len(lines)))
    how = int(rng.integers(4))
    if how == 0:
        del lines[at]
    elif how == 1:
        lines.insert(to, lines[at])
    elif how == 2:
        lines[at], lines[to] = lines[to], lines[at]
    else:
        lines[at] = lines[at].rstrip() * int(pick(rng, [2, 1000])) + b"\n"
    return b"".join(lines)


def cells(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.split(b"\n")
    at = int(rng.integers(len(lines)))
    cells = lines[at].split(b",")
    where = int(rng.integers(len(cells)))
    how = int(rng.integers(4))
    if how == 0:
        del cells[where]
    elif how == 1:
        cells.insert(where, pick(rng, [b"", b"1", b"x"]))
    elif how == 2:
        cells.reverse()
    else:
        cells[where] = pick(rng, [b"x" * 200_000, b"../../x", b"/etc", b"~", b"*", b"[a]", b"=1+1", b" ", b'"'])
    lines[at] = b",".join(cells)
    return b"\n".join(lines)


TEXT = [
    Mutation("number", _number, "value"),
    Mutation("encoding", _encoding, "form"),
    Mutation("line ends", _line_ends, "form"),
    Mutation("character", _character, "value"),
    Mutation("lines", _lines, "value"),
]
CSV = [*TEXT, Mutation("cells", cells, "value")]


ODD: list[Any] = [None, True, False, [], {}, "", "x", 0, -1, 1.5, float("nan"), float("inf"), 2**63, 10**400, 10**12]
ODD += [[[]], {"": None}, ["x"], "../../x", "/etc/passwd", "\0", "x" * 100_000, "\ud800", -(2**63)]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


def _changed_json(value: Any, rng: np.random.Generator) -> Any:
    place = pick(rng, places(value))
    if not place:
        return pick(rng, ODD)
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    how = int(rng.integers(5))
    if how == 0:
        del holder[place[-1]]
    elif how == 1 and isinstance(holder, dict):
        holder[pick(rng, ["x", "", "__class__", "a.b"])] = pick(rng, ODD)
    elif how == 1:
        holder.insert(0, pick(rng, ODD))
    else:
        holder[place[-1]] = pick(rng, ODD)
    return value


def _json(content: bytes, rng: np.random.Generator) -> bytes:
    try:
        return json.dumps(_changed_json(json.loads(content), rng)).encode("utf-8", "surrogatepass")
    except ValueError:
        return content


def _json_line(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.split(b"\n")
    at = int(rng.integers(len(lines)))
    lines[at] = _json(lines[at], rng)
    return b"\n".join(lines)


def _nested(content: bytes, rng: np.random.Generator) -> bytes:
    depth = int(pick(rng, [200, 100_000]))
    deep = pick(rng, [b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth])
    found = list(re.finditer(rb":\s*(\d+|\"[^\"]*\")", content))
    if not found:
        return deep
    chosen = pick(rng, found)
    return content[: chosen.start(1)] + deep + content[chosen.end(1) :]


def _twice(content: bytes, rng: np.random.Generator) -> bytes:
    """Insert a duplicate of a key."""
    found = list(re.finditer(rb"(\"[^\"]+\")\s*:", content))
    if not found:
        return content
    chosen = pick(rng, found)
    return content[: chosen.start()] + chosen.group(1) + b": 1, " + content[chosen.start() :]


JSON = [
    *TEXT,
    Mutation("json value", _json, "value"),
    Mutation("nesting", _nested, "value"),
    Mutation("key twice", _twice, "value"),
]
JSONL = [*JSON, Mutation("json line", _json_line, "value")]


def _yaml_value(content: bytes, rng: np.random.Generator) -> bytes:
    found = list(re.finditer(rb":[ ]*([^\n{\[]+)(?=\n|$)", content))
    if not found:
        return content
    chosen = pick(rng, found)
    odd = [
        b"",
        b"~",
        b"yes",
        b"[1",
        b"{a: 1}",
        b"!!int x",
        b"!!python/name:os.system",
        b"2026-02-31",
        b"*a",
        b"&a [*a]",
    ]
    odd += [
        b"1e999",
        b".nan",
        b"-.inf",
        b"0o17",
        b"0b1",
        b"1:30",
        b"9" * 5000,
        b"'",
        b"!!binary x",
        b"!!set {a, b}",
        b"- 1",
    ]
    return content[: chosen.start(1)] + pick(rng, odd) + content[chosen.end(1) :]


YAML = [
    *TEXT,
    Mutation("yaml value", _yaml_value, "value"),
    Mutation("nesting", _nested, "value"),
    Mutation("bomb", lambda _c, _r: _yaml_bomb(), "value"),
]


def _yaml_bomb() -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    return "\n".join(lines).encode()
