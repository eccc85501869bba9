"""Read text, JSON and YAML that was written outside this process.

Whatever is wrong with the content is one sentence with the path and the place. What the system says about a file
(absent, not permitted, a failing disk) stays an OSError that names the path: unreadable is not absent.
"""

import json
import math
import re
from collections.abc import Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from sptskm.common.errors import ConfigError, DataError

T = TypeVar("T")

_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
    b"\xef\xbb\xbf": "utf-8",
}
"""Byte-order marks, the longer ones first."""
_TEXT = "wanted text in UTF-8, or in UTF-16 with a byte-order mark"
_INT64 = range(-(2**63), 2**63)
_SUSPICIOUS = re.compile(r"NaN|Infinity|[0-9]{19}|[eE]\+?[0-9]{3}|\\u")
"""What a JSON text has in it when it holds a number that is not finite, or a character that is none."""
SHOWN = 60
"""Characters of a wrong value that an error repeats."""


def read_bytes(path: Path) -> bytes:
    """Return all bytes of a file. Raises OSError with the path, even if the system names none."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _with_path(error, path) from None


def _with_path(error: OSError, path: Path) -> OSError:
    return error if error.filename is not None else OSError(error.errno, error.strerror or str(error), str(path))


def read_text(path: Path) -> str:
    r"""Return the text of a file in UTF-8 (with or without byte-order mark) or UTF-16 (with one), lines ended by \n.

    Raises OSError, and DataError with line and byte for any other encoding.
    """
    return decode_text(read_bytes(path), str(path))


def decode_text(content: bytes, source: str) -> str:
    """Decode bytes as `read_text` does; a DataError begins with `source`."""
    mark, encoding = next((found for found in _MARKS.items() if content.startswith(found[0])), (b"", "utf-8"))
    if encoding == "utf-32":
        raise DataError(f"{source}: is UTF-32 text, {_TEXT}")
    content = content[len(mark) :]
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "replace").count("\n") + 1
        place = f"line {line} (byte {len(mark) + error.start})"
        raise DataError(f"{source}: {place} is not {encoding[:6].rstrip('-').upper()} text, {_TEXT}") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(f"{source}: line {line} holds a zero byte, {_TEXT}")
    return text


def read_json(path: Path, kind: type[T]) -> T:
    """Return the value of a JSON file, checked against `kind` (a dataclass, `dict[str, int]`, ...) without casts.

    Keys that `kind` does not have are dropped. Raises OSError. Raises DataError with the place of the fault: invalid
    JSON, a duplicate key, too deep nesting, a number that is too long or not finite, a missing or wrong value.
    """
    return parsed_json(read_text(path), str(path), kind)


def parsed_json(text: str, source: str, kind: type[T], finite: bool = True) -> T:
    """Return the value of a JSON text as `read_json` does; a DataError begins with `source`.

    With `finite` false, NaN and infinity are kept, and a number beyond 64 bits becomes infinite.
    """
    value = _parsed(text, source)
    if finite and _SUSPICIOUS.search(text):
        _check_values(value, source, "")
    if kind is object:
        return value
    try:
        return cast(TypeAdapter[T], _adapter(cast(Hashable, kind))).validate_json(text, strict=True)
    except ValidationError as error:
        raise DataError(f"{source}: {_told(error)}") from None


def _parsed(text: str, source: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_whole)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if "\n" in text.strip() else ""
        told = f"{place}column {error.colno} is not JSON ({error.msg})" if text.strip() else "is empty"
        raise DataError(f"{source}: {told}, wanted JSON") from None
    except RecursionError:
        raise DataError(f"{source}: is nested too deeply, wanted fewer lists and objects within each other") from None
    except KeyError as error:
        raise DataError(f"{source}: has the key {error.args[0]!r} twice in one object, wanted it once") from None


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyError(next(name[:SHOWN] for name in found if names.count(name) > 1))
    return found


def _whole(digits: str) -> int | float:
    """Read a whole number; one far beyond 64 bits becomes infinite, which is refused where it stands."""
    return int(digits) if len(digits) <= 20 else math.copysign(math.inf, -1 if digits[0] == "-" else 1)


def _check_values(value: Any, source: str, place: str) -> None:
    """Raise DataError for a number beyond 64 bits and for characters that no file name may have."""
    if isinstance(value, float | int) and not (math.isfinite(value) and (isinstance(value, float) or value in _INT64)):
        raise DataError(f"{source}: {place or 'the value'} is {value}, wanted a finite number of 64 bits")
    if isinstance(value, str):
        _check_characters(value, source, place or "the value")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_characters(name, source, f"a key of {place or 'the object'}")
            _check_values(inner, source, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_values(inner, source, f"{place}[{number}]")


def _check_characters(text: str, source: str, place: str) -> None:
    if other := next((sign for sign in text if sign == "\0" or "\ud800" <= sign <= "\udfff"), None):
        raise DataError(f"{source}: {place} holds the character {other!a}, wanted text")


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))


def _told(error: ValidationError) -> str:
    """Describe the first validation error and its place."""
    first = error.errors(include_url=False)[0]
    place = ""
    for part in first["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    place = place or "the value"
    if first["type"] == "missing":
        return f"lacks {place}"
    found, wanted = repr(first["input"]), first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    shown = found if len(found) <= SHOWN else f"{found[:SHOWN]}..."
    return f"{place} is {shown}, wanted {wanted}"


class _Loader(yaml.SafeLoader):
    """YAML loader for plain values; a duplicate key is an error, where PyYAML keeps only the last value."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.composer.ComposerError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
            seen.add((key.tag, str(key.value)))
        return node


def _number_or_time(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """Read a number; a time such as 16:00, a base-60 number in YAML 1.1, stays text."""
    if ":" in node.value:
        return node.value
    kinds = {"tag:yaml.org,2002:int": loader.construct_yaml_int, "tag:yaml.org,2002:float": loader.construct_yaml_float}
    return kinds[node.tag](node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number_or_time)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises FileNotFoundError, OSError, or ConfigError naming the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        content = parsed_yaml(read_text(path))
    except DataError as error:
        raise ConfigError(str(error)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({error})") from None
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{path}: wanted `key: value` lines, found a {type(content).__name__}")
    return content or {}


def parsed_yaml(text: str) -> Any:
    """Return the value of a YAML text. Raises YAMLError with a message of one line."""
    try:
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = [error.context, error.problem, f"line {mark.line + 1}" if mark else None]
        raise yaml.YAMLError(", ".join(words for words in told if words)) from None
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError) as error:
        # of a character that is none, a date that is none, or a value that is not what its tag says
        raise yaml.YAMLError(str(error).splitlines()[0]) from None
