"""Rows of one table: each is measured by itself, and one that fails or needs a GPU says so in its place."""

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from sptskm.common.console import table as text_table

NO_GPU = "no GPU"
NO_TIME = "no time left"
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
    out: Path
    """Where the rows are written as JSON after every one of them, so that a stop loses none."""
    about: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def on_gpu(self) -> bool:
        """Return whether the device is a GPU."""
        return self.device.type == "cuda"

    def measure(self, group: str, whats: str | list[str], measure: Callable[[], object], gpu: bool = False) -> None:
        """Add a row for each name in `whats`: what `measure` returns for it, or why it returns nothing.

        `measure` returns a Value, or one for each name; a text in the place of a Value is a reason. With `gpu` the rows
        need one.
        """
        names = [whats] if isinstance(whats, str) else whats
        began = time.monotonic()
        reason = NO_GPU if gpu and not self.on_gpu else NO_TIME if began - self.began > self.seconds else ""
        found: list[object] = [reason] * len(names)
        if not reason:
            try:
                got = measure()
                found = got if isinstance(got, list) else [got]
                if len(found) != len(names):
                    raise RuntimeError(f"{len(found)} values for {len(names)} rows")
            except Exception as error:  # one row must not cost the others
                print(traceback.format_exc(), flush=True)
                lines = str(error).strip().splitlines() or [""]
                found = [f"{type(error).__name__}: {lines[0][:160]}"] * len(names)
        if self.on_gpu:
            torch.cuda.empty_cache()
        for what, value in zip(names, found, strict=True):
            row = Row(group, what, None, reason=value) if isinstance(value, str) else Row(group, what, *value)  # type: ignore[misc]
            self.rows.append(row)
            print(f"{time.monotonic() - self.began:6.1f} s  {group:12} {what:58} {row.text}", flush=True)
        self.out.write_text(json.dumps({"about": self.about, "rows": [asdict(row) for row in self.rows]}, indent=1))

    def number(self, what: str) -> float | None:
        """Return the number of an earlier row; None if it has none."""
        return next((row.value for row in self.rows if row.what == what), None)

    def text(self) -> str:
        """Return all rows as one table."""
        head = ", ".join(f"{name} {value}" for name, value in self.about.items())
        return f"{head}\n\n{text_table(['', 'found'], [[f'{r.group}: {r.what}', r.text] for r in self.rows])}"


def wait(device: torch.device) -> None:
    """Wait for everything the device was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(
    device: torch.device, work: Callable[[], object], seconds: float = 2.0, warm: int = 2, most: int = 50
) -> float:
    """Return the median seconds of `work`: `warm` calls that do not count, then as many as fit in `seconds`."""
    for _ in range(warm):
        work()
    wait(device)
    found: list[float] = []
    while len(found) < most and (not found or sum(found) < seconds):
        began = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - began)
    return sorted(found)[len(found) // 2]
