"""Write the lines of a table as CSV, TSV, JSONL or Parquet, and read them back; manifest.py gives them a meaning."""

import csv
import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sptskm.common.atomic import partial_of, write_text
from sptskm.common.errors import DataError
from sptskm.common.tables import Columns, Line, form_of, read_table

IMAGES = (".jpg", ".jpeg", ".png", ".bmp")


def read_lines(path: Path, columns: Columns) -> Iterator[tuple[str, Line]]:
    """Yield every line with its place in the file, such as its line number. Raises as `read_table`."""
    for place, line in read_table(path, columns):
        lists = {name: _of_list(value) for name, value in line.items() if isinstance(value, list)}
        yield place, {**line, **lists} if form_of(path) == ".parquet" else line


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write all lines (with the same columns) or no file. Raises DataError for lists in CSV and TSV."""
    form = form_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if form in (".csv", ".tsv"):
        _write_csv(path, lines, "," if form == ".csv" else "\t")
    else:
        {".jsonl": _write_jsonl, ".parquet": _write_parquet}[form](path, lines)


def _write_csv(path: Path, lines: Sequence[dict[str, Any]], delimiter: str) -> None:
    for number, line in enumerate(lines, 1):
        if listed := next((name for name, value in line.items() if not isinstance(value, str)), None):
            form = form_of(path)[1:].upper()
            raise DataError(f"{path}: line {number} has a list of {listed}, which {form} cannot hold; wanted .jsonl")
    with partial_of(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(lines)


def _write_jsonl(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    given = ({name: value for name, value in line.items() if value} for line in lines)
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in given))


def _write_parquet(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write Parquet; a column in which any line has a list of images becomes a column of lists."""
    import pyarrow
    from pyarrow import parquet

    lists = {name for line in lines for name, value in line.items() if not isinstance(value, str)}
    rows = [{name: _as_list(value) if name in lists else value for name, value in line.items()} for line in lines]
    with partial_of(path) as partial:
        parquet.write_table(pyarrow.Table.from_pylist(rows), partial)


def _as_list(value: str | Sequence[str]) -> Sequence[str]:
    """Turn a value into a list that `_of_list` can turn back: a text must differ from a list of one image."""
    if isinstance(value, str):
        return [value]
    return [glob.escape(value[0])] if len(value) == 1 else value


def _of_list(value: list[Any]) -> Any:
    """Return the single text of a list of one, unless it is the name of an image; else return the list."""
    if len(value) != 1 or not isinstance(value[0], str):
        return value
    return value if value[0].lower().endswith(IMAGES) and not glob.has_magic(value[0]) else value[0]
