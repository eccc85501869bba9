"""Text, JSON and YAML of outside: read as they are, or refused in one sentence with path and place."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sptskm.common.errors import ConfigError, DataError
from sptskm.common.reading import read_json, read_text, read_yaml


@dataclass(frozen=True)
class Note:
    """What the tests read."""

    name: str
    count: int
    share: float
    files: dict[str, tuple[int, str]] = field(default_factory=dict)


GOOD = {"name": "Jürgen", "count": 3, "share": 0.5, "files": {"a.zip": [7, "ff"]}}


def of(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "note.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_in_the_encodings_of_editors_and_shells_is_the_same_text(tmp_path: Path, encoding: str, end: str) -> None:
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    path = of(tmp_path, mark + f"Jürgen{end}图片{end}".encode(encoding))
    assert read_text(path) == "Jürgen\n图片\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("Jürgen\nJürgen".encode("latin-1"), r"line 1 \(byte 1\) is not UTF-8 text"),
        (b"\xef\xbb\xbfab\nc\xff", r"line 2 \(byte 7\) is not UTF-8 text"),
        (b"\xff\xfea\0\n\0b", r"line 2 \(byte 6\) is not UTF-16 text"),
        ("ab\ncd".encode("utf-16-le"), "line 1 holds a zero byte"),
        ("ab".encode("utf-32"), "is UTF-32 text"),
        (b"\xff\xfe\x00\xd8", "is not UTF-16 text"),
    ],
)
def test_any_other_encoding_is_one_sentence_with_line_and_byte(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        read_text(of(tmp_path, content))
    assert str(caught.value).startswith(str(tmp_path))
    assert "wanted text in UTF-8" in str(caught.value)


def test_json_becomes_what_is_wanted(tmp_path: Path) -> None:
    assert read_json(of(tmp_path, json.dumps(GOOD)), Note) == Note("Jürgen", 3, 0.5, {"a.zip": (7, "ff")})
    assert read_json(of(tmp_path, json.dumps(GOOD | {"of a later version": 1})), Note).count == 3
    assert read_json(of(tmp_path, "\ufeff[1, 2]"), list[int]) == [1, 2]
    assert read_json(of(tmp_path, '{"a": [1.5, "\\u00e9"]}'), object) == {"a": [1.5, "é"]}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty, wanted JSON"),
        ('{"name": "a",\n "count"}', "line 2, column 9 is not JSON"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"name": "a", "name": "b", "count": 1, "share": 1}', "has the key 'name' twice"),
        ('{"name": "a", "count": 1, "share": NaN}', "share is nan, wanted a finite number of 64 bits"),
        ('{"name": "a", "count": 1, "share": 1, "files": {"b": [1, Infinity]}}', r"files.b\[1\] is inf, wanted"),
        ('{"name": "a", "count": 1, "share": 1e999}', "share is inf"),
        (f'{{"name": "a", "count": {"9" * 5000}, "share": 1}}', "count is inf, wanted a finite number of 64 bits"),
        (f'{{"name": "a", "count": {2**63}, "share": 1}}', "count is 9223372036854775808, wanted"),
        ('{"name": "a", "count": "3", "share": 1}', "count is '3', wanted a valid integer"),
        ('{"name": "a", "count": true, "share": 1}', "count is True, wanted a valid integer"),
        ('{"name": "a", "count": 3.5, "share": 1}', "count is 3.5, wanted a valid integer"),
        ('{"name": "a", "count": 3.0, "share": 1}', "count is 3.0, wanted a valid integer"),
        ('{"name": null, "count": 3, "share": 1}', "name is None, wanted a valid string"),
        ('{"name": "a", "share": 1}', "lacks count"),
        ('{"name": "a", "count": 1, "share": 1, "files": {"b": [1]}}', r"lacks files.b\[1\]"),
        ('{"name": "a", "count": 1, "share": 1, "files": [1]}', r"files is \[1\], wanted"),
        ('{"name": "a\\u0000", "count": 1, "share": 1}', r"name holds the character '\\x00'"),
        ('{"name": "a\\ud800", "count": 1, "share": 1}', r"name holds the character '\\ud800'"),
        ("[]", r"the value is \[\], wanted"),
        ("null", "the value is None, wanted"),
    ],
)
def test_json_that_is_something_else_is_one_sentence_with_its_place(tmp_path: Path, text: str, sentence: str) -> None:
    path = of(tmp_path, text)
    with pytest.raises(DataError, match=sentence) as caught:
        read_json(path, Note)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_what_the_system_says_is_no_fault_of_the_content(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"note\.json"):
        read_json(tmp_path / "note.json", Note)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        read_text(tmp_path)


def test_yaml_is_read_like_text_and_refused_as_a_setting(tmp_path: Path) -> None:
    path = of(tmp_path, "a: 1\nb: ü\n".encode("utf-16"))
    assert read_yaml(path) == {"a": 1, "b": "ü"}
    for content in (b"a: \xff", b"a: 1\na: 2", b"- 1", b"a: [", b"a: " + b"[" * 3000, b"a: 2026-13-45", b"\x00"):
        with pytest.raises(ConfigError, match=f"^{path}: "):
            read_yaml(of(tmp_path, content))
