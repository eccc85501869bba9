"""Terminal output of long work: a progress bar, or log lines where there is no terminal."""

import io
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0

_T = TypeVar("_T")


def progress(items: Iterable[_T], what: str, *, total: int | None = None, shown: bool = True) -> Iterator[_T]:
    """Yield the items and show a progress bar on a terminal, or else a log line every 30 seconds.

    Shows nothing unless `shown`.
    """
    if not shown:
        yield from items
    elif sys.stderr.isatty():
        yield from tqdm(items, what, total=total, leave=False, dynamic_ncols=True)
    else:
        yield from _with_lines(items, what, total)


def _with_lines(items: Iterable[_T], what: str, total: int | None) -> Iterator[_T]:
    total = total or (len(items) if isinstance(items, Sized) else None)
    spoken = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - spoken > SECONDS_BETWEEN_LINES:
            spoken = time.monotonic()
            log.info("%s: %d%s", what, done, f" of {total}" if total else "")
        yield item


class Messages(io.TextIOWrapper):
    """Text added to a file, for messages that may be lost: what a full disk does not take ends nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("ab", buffering=0), encoding="utf-8", write_through=True)

    def write(self, text: str) -> int:
        """Write what the disk takes, and return the length of all."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is left, if the disk takes it."""
        with suppress(OSError):
            super().flush()


def set_up_logging(rank: int = 0) -> None:
    """Set one line format for every process; ranks other than 0 log warnings and errors only."""
    logging.getLogger("sptskm").setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname).1s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format rows as aligned text: the first column to the left, all others to the right."""
    lines = [[str(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rendered = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([rendered[0], "-" * len(rendered[0]), *rendered[1:]])
