"""Read tables that were written outside this process: CSV, TSV, JSONL and Parquet, and lines of words or values.

One reader for manifests, outfits, boxes and lists of names. The caller decides what the lines mean; every line comes
with its place, numbered as in an editor.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sptskm.common.errors import DataError
from sptskm.common.reading import SHOWN, parsed_json, read_text

Line = Mapping[str, Any]
Columns = Callable[[Sequence[str], str], None]
"""Told the columns and where they stand; raises DataError unless they are the right ones."""

FORMS = (".csv", ".tsv", ".jsonl", ".parquet")
"""Endings of tables, in small letters; those of a file may be in capitals."""


def form_of(path: Path) -> str:
    """Return the format in FORMS that a table's file ending stands for. Raises DataError for another ending."""
    if path.suffix.lower() not in FORMS:
        raise DataError(f"{path}: ends in {path.suffix or 'nothing'}, wanted {', '.join(FORMS)}")
    return path.suffix.lower()


def read_table(path: Path, columns: Columns) -> Iterator[tuple[str, Line]]:
    """Yield every line with its place, such as "line 3"; values are text, in JSONL and Parquet typed.

    A value that is not given is None or absent. Raises OSError, DataError with file and line for a malformed table, and
    whatever `columns` raises.
    """
    form = form_of(path)
    if form == ".jsonl":
        yield from _jsonl(path, columns)
    elif form == ".parquet":
        yield from _parquet(path, columns)
    else:
        yield from _delimited(path, "\t" if form == ".tsv" else ",", columns)


def read_rows(path: Path, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """Yield the values of each line that is not blank, with its place, from a table without a header.

    Raises OSError, and DataError with file and line.
    """
    # a line break within quotes stays within the value, so the number is that of the line where the values begin
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    begins, form = 1, "TSV" if delimiter == "\t" else "CSV"
    try:
        for values in reader:
            if values:
                yield f"line {begins}", values
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}: line {begins} is not {form} ({error})") from None


def read_words(path: Path, wanted: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the words of each line that is not blank, with its place; `wanted` names the words of a line.

    Raises OSError, and DataError for a line with another number of words.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        words = line.split()
        if words and len(words) != len(wanted.split()):
            raise DataError(f"{path}: line {number} has {len(words)} words, wanted {wanted}")
        if words:
            yield f"line {number}", words


def _delimited(path: Path, delimiter: str, columns: Columns) -> Iterator[tuple[str, Line]]:
    rows = read_rows(path, delimiter)
    place, names = next(rows, ("line 1", []))
    names = [name.strip() for name in names]
    columns(names, f"{path}: {place}")
    for place, values in rows:
        if len(values) > len(names):
            raise DataError(f"{path}: {place} has {len(values) - len(names)} more values than columns")
        yield place, dict(zip(names, values, strict=False))


def _jsonl(path: Path, columns: Columns) -> Iterator[tuple[str, Line]]:
    # not splitlines(): what else ends a line in Unicode may stand within a name
    for number, text in enumerate(read_text(path).split("\n"), 1):
        if text.strip():
            source = f"{path}: line {number}"
            line = parsed_json(text, source, object)
            if not isinstance(line, dict):
                raise DataError(f"{source} is {text[:SHOWN]}, wanted an object with a name for each value")
            columns([*line], source)
            yield f"line {number}", line


def _parquet(path: Path, columns: Columns) -> Iterator[tuple[str, Line]]:
    from pyarrow import ArrowException, parquet

    try:
        with path.open("rb") as file:
            table = parquet.ParquetFile(file).read()
        lines = table.to_pylist()
    except (ArrowException, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({_in_one_line(error)})") from None
    except OSError as error:
        if error.filename is not None or error.errno is not None:
            raise
        raise DataError(f"{path}: not a readable Parquet file ({_in_one_line(error)})") from None
    columns(table.column_names, str(path))
    yield from ((f"row {number}", line) for number, line in enumerate(lines, 1))


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
