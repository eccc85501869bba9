"""Rows of one table: each is measured by itself, and one that fails or needs a GPU says so in its place."""

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import cast

import torch

from gpu_rows.watching import AGAIN
from sptskm.common.atomic import write_text
from sptskm.common.console import table as text_table

NO_GPU = "no GPU"
NO_TIME = "no time left"
OVER_SECONDS = 20.0  # that a row may go beyond the time of the table
SLOW_SECONDS = 1800.0  # of a row on a CPU
Value = tuple[float, str]
"""A number and its unit."""


@dataclass(frozen=True)
class Row:
    """A line of the table: a number with its unit, or the reason why there is none."""

    group: str
    what: str
    value: float | None
    unit: str = ""
    reason: str = ""

    @property
    def text(self) -> str:
        """Return the number with its unit, or the reason."""
        return self.reason if self.value is None else f"{self.value:.4g} {self.unit}".strip()


@dataclass
class Table:
    """The rows so far, the device they are measured on, and the time there is for them."""

    device: torch.device
    small: bool
    """Networks, data and repetitions for a test on a CPU."""
    seconds: float
    """After which no further row begins."""
    out: Path
    """Where the rows are written as JSON after every one of them, so that a stop loses none."""
    about: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def on_gpu(self) -> bool:
        """Return whether the device is a GPU."""
        return self.device.type == "cuda"

    def go_on(self) -> None:
        """Take the rows that an earlier process has measured, which are not measured again."""
        if self.out.exists():
            self.rows = [Row(**row) for row in json.loads(self.out.read_text())["rows"]]

    def measure(
        self,
        group: str,
        whats: str | list[str],
        measure: Callable[[], object],
        gpu: bool = False,
        limit: float = 60.0,
    ) -> None:
        """Add a row for each name in `whats`: what `measure` returns for it, or why it returns nothing.

        `measure` returns a Value, or one for each name; a text in the place of a Value is a reason. With `gpu` the rows
        need one. On a GPU the process that watches over this one ends it when they take more than `limit` seconds.
        """
        names = [whats] if isinstance(whats, str) else whats
        if {(group, what) for what in names} <= {(row.group, row.what) for row in self.rows}:
            return
        now = time.monotonic()
        reason = NO_GPU if gpu and not self.on_gpu else NO_TIME if now - self.began > self.seconds else ""
        found: list[object] = [reason] * len(names)
        if not reason:
            until = min(now + limit, self.began + self.seconds + OVER_SECONDS) if self.on_gpu else now + SLOW_SECONDS
            self.write({"group": group, "whats": names, "began": now, "until": until})
            found = self.tried(names, measure)
        self.add(group, names, found)
        if not reason:
            self.tidy()

    def add(self, group: str, names: list[str], found: list[object]) -> None:
        """Add, print and keep rows."""
        for what, value in zip(names, found, strict=True):
            row = row_of(group, what, value)
            self.rows.append(row)
            print(f"{time.monotonic() - self.began:6.1f} s  {group:12} {what:58} {row.text}", flush=True)
        self.write()

    def tried(self, names: list[str], measure: Callable[[], object]) -> list[object]:
        """Return what `measure` returns, one for each name, or its error for all of them."""
        try:
            got = measure()
            found = got if isinstance(got, list) else [got]
            if len(found) != len(names):
                raise RuntimeError(f"{len(found)} values for {len(names)} rows")
        except Exception as error:  # one row must not cost the others
            return [self.told(error)] * len(names)
        return found

    @staticmethod
    def told(error: Exception) -> str:
        """Print an error, and return it in a line."""
        print(traceback.format_exc(), flush=True)
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0][:160]}"

    def write(self, now: dict[str, object] | None = None) -> None:
        """Write all rows, and which ones are being measured until when."""
        found = {"about": self.about, "rows": [asdict(row) for row in self.rows]} | ({"now": now} if now else {})
        write_text(self.out, json.dumps(found, indent=1))

    def tidy(self) -> None:
        """Free what the last row has left. A device that no longer answers needs a new process, from the next row."""
        gc.collect()  # networks whose blocks are computed again hold themselves
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()
        if not self.on_gpu:
            return
        try:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
        except RuntimeError as error:
            print(f"the device no longer answers: {error}", flush=True)
            os._exit(AGAIN)

    def number(self, what: str) -> float | None:
        """Return the number of an earlier row; None if it has none."""
        return next((row.value for row in self.rows if row.what == what), None)

    def text(self) -> str:
        """Return all rows as one table."""
        head = ", ".join(f"{name} {value}" for name, value in self.about.items())
        return f"{head}\n\n{text_table(['', 'found'], [[f'{r.group}: {r.what}', r.text] for r in self.rows])}"


def row_of(group: str, what: str, value: object) -> Row:
    """Return the row of a Value or of a reason; a number that is not finite is a reason."""
    if isinstance(value, str):
        return Row(group, what, None, reason=value)
    number, unit = cast(Value, value)
    return Row(group, what, float(number), unit) if isfinite(number) else Row(group, what, None, reason=f"{number}")


def wait(device: torch.device) -> None:
    """Wait for everything the device was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return the clock; on a CPU, where this program has one thread, of processor time: others disturb it less."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def timed(
    device: torch.device, work: Callable[[], object], seconds: float = 2.0, warm: int = 2, most: int = 50
) -> float:
    """Return the median seconds of `work`: `warm` calls that do not count, then as many as fit in `seconds`."""
    clock = clock_of(device)
    for _ in range(warm):
        work()
    wait(device)
    found: list[float] = []
    while len(found) < most and (not found or sum(found) < seconds):
        began = clock()
        work()
        wait(device)
        found.append(clock() - began)
    return sorted(found)[len(found) // 2]
