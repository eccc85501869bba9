"""Lines of a table as CSV, JSONL or Parquet, by the ending of the file. What the lines mean is for manifest.py."""

import csv
import glob
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sptskm.atomic import partial_of, write_text
from sptskm.data.errors import DataError

Line = Mapping[str, Any]
Columns = Callable[[Sequence[str], str], None]
"""Told the columns and where they stand; raises DataError unless they are the right ones."""

FORMS = (".csv", ".jsonl", ".parquet")
IMAGES = (".jpg", ".jpeg", ".png", ".bmp")
TOO_MANY = "more values than columns"


def read_lines(path: Path, columns: Columns) -> Iterator[tuple[str, Line]]:
    """Every line with its place in the file. DataError names the file and the line that is no such table."""
    _check_ending(path)
    try:
        yield from {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[path.suffix](path, columns)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error})") from None
    except csv.Error as error:
        raise DataError(f"{path}: is not CSV ({error})") from None


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """All lines (of the same columns) or no file. DataError for lists in CSV."""
    _check_ending(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[path.suffix](path, lines)


def _check_ending(path: Path) -> None:
    if path.suffix not in FORMS:
        raise DataError(f"{path}: ends in {path.suffix or 'nothing'}, wanted {', '.join(FORMS)}")


def _csv(path: Path, columns: Columns) -> Iterator[tuple[str, Line]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restkey=TOO_MANY, strict=True)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        columns(reader.fieldnames, f"{path}: line 1")
        for line in reader:
            if TOO_MANY in line:
                raise DataError(f"{path}: line {reader.line_num} has {len(line[TOO_MANY])} {TOO_MANY}")
            yield f"line {reader.line_num}", line


def _jsonl(path: Path, columns: Columns) -> Iterator[tuple[str, Line]]:
    # not splitlines(): what else ends a line in Unicode may stand within a name
    for number, text in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if text.strip():
            try:
                line = json.loads(text)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}: line {number} is not JSON ({error})") from None
            if not isinstance(line, dict):
                raise DataError(f"{path}: line {number} is {text[:40]}, wanted an object with a name for each value")
            columns([*line], f"{path}: line {number}")
            yield f"line {number}", line


def _parquet(path: Path, columns: Columns) -> Iterator[tuple[str, Line]]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.ParquetFile(path).read()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None
    columns(table.column_names, str(path))
    for number, line in enumerate(table.to_pylist(), 1):
        yield (
            f"row {number}",
            {name: _of_list(value) if isinstance(value, list) else value for name, value in line.items()},
        )


def _write_csv(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    for number, line in enumerate(lines, 1):
        if listed := next((name for name, value in line.items() if not isinstance(value, str)), None):
            raise DataError(f"{path}: line {number} has a list of {listed}, which CSV cannot hold; wanted .jsonl")
    with partial_of(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


def _write_jsonl(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    given = ({name: value for name, value in line.items() if value} for line in lines)
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in given))


def _write_parquet(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """A column that has a list of images anywhere is one of lists."""
    import pyarrow
    from pyarrow import parquet

    lists = {name for line in lines for name, value in line.items() if not isinstance(value, str)}
    rows = [{name: _as_list(value) if name in lists else value for name, value in line.items()} for line in lines]
    with partial_of(path) as partial:
        parquet.write_table(pyarrow.Table.from_pylist(rows), partial)


def _as_list(value: str | Sequence[str]) -> Sequence[str]:
    """What `_of_list` can tell from a list of one image."""
    if isinstance(value, str):
        return [value]
    return [glob.escape(value[0])] if len(value) == 1 else value


def _of_list(value: list[Any]) -> Any:
    """The only item, unless that is the name of an image."""
    if len(value) != 1 or not isinstance(value[0], str):
        return value
    return value if value[0].lower().endswith(IMAGES) and not glob.has_magic(value[0]) else value[0]
