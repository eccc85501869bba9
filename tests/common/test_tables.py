"""Tables of outside, in all forms: the same lines, or one sentence with file and line."""

from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from sptskm.common.errors import DataError
from sptskm.common.tables import read_rows, read_table, read_words


def lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(place, dict(line)) for place, line in read_table(path, lambda *_: None)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.tsv", "a.TSV", "a.jsonl", "a.JSONL"])
def test_every_form_and_encoding_gives_the_same_lines(tmp_path: Path, name: str, encoding: str) -> None:
    text = 'x, y \r\n1,"é, ""b"""\r\n\r\n3,\r\n'
    if name.lower().endswith("tsv"):
        text = 'x\t y \r\n1\t"é, ""b"""\r\n\r\n3\t\r\n'
    if name.lower().endswith("jsonl"):
        text = '\n{"x": "1", "y": "é, \\"b\\""}\n\n{"x": "3", "y": ""}\n'
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert lines(tmp_path / name) == [("line 2", {"x": "1", "y": 'é, "b"'}), ("line 4", {"x": "3", "y": ""})]


def test_parquet_gives_its_values_as_they_are(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.Table.from_pylist([{"x": 1, "y": ["a"]}]), tmp_path / "a.PARQUET")
    assert lines(tmp_path / "a.PARQUET") == [("row 1", {"x": 1, "y": ["a"]})]


def test_columns_are_told_with_their_place(tmp_path: Path) -> None:
    (path := tmp_path / "a.csv").write_text("\n\nx, y\n1,2\n")
    told = []
    list(read_table(path, lambda names, place: told.append((list(names), place))))
    assert told == [(["x", "y"], f"{path}: line 3")]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"x,y\n1,2,3\n", "line 2 has 1 more values than columns"),
        ("a.csv", b'x,y\n1,"2"3\n', "line 2 is not CSV"),
        ("a.csv", b'x,y\n1,2\n\n"1,2\n3', "line 4 is not CSV"),
        ("a.csv", b"x\n\xe9", r"line 2 \(byte 2\) is not UTF-8 text"),
        ("a.csv", b"x\n" + b"1" * 200_000, "line 2 is not CSV"),
        ("a.tsv", b'x\ty\n1\t"2"3\n', "line 2 is not TSV"),
        ("a.jsonl", b'{"x": 1}\n{"x": 1', "line 2: column 8 is not JSON"),
        ("a.jsonl", b'{"x": 1}\n[1]', r"line 2 is \[1\], wanted an object"),
        ("a.jsonl", b'{"x": NaN}', "line 1: x is nan"),
        ("a.jsonl", b'{"x": 1, "x": 2}', "line 1: has the key 'x' twice"),
        ("a.jsonl", b"[" * 100_000, "line 1: is nested too deeply"),
        ("a.jsonl", b'{"x": ' + b"9" * 5000 + b"}", "line 1: x is inf"),
        ("a.parquet", b"PAR1 and no more", "not a readable Parquet file"),
        ("a.parquet", b"", "not a readable Parquet file"),
        ("a.xlsx", b"", "ends in .xlsx, wanted .csv, .tsv, .jsonl, .parquet"),
    ],
)
def test_what_is_no_table_is_one_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        lines(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_rows_and_words_count_blank_lines(tmp_path: Path) -> None:
    (path := tmp_path / "a.txt").write_bytes('\n\n1,"2\n3"\n\n4\n'.encode("utf-16"))
    assert list(read_rows(path)) == [("line 3", ["1", "2\n3"]), ("line 6", ["4"])]
    path.write_bytes(b"\xef\xbb\xbf\r\na 1\r\n")
    assert list(read_words(path, "folder pid")) == [("line 2", ["a", "1"])]
    with pytest.raises(DataError, match="line 2 has 2 words, wanted folder pid clothes"):
        list(read_words(path, "folder pid clothes"))


def test_an_absent_table_is_absent(tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        with pytest.raises(FileNotFoundError):
            lines(tmp_path / name)
