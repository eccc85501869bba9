"""What a run tells about itself: one line an epoch, TensorBoard, metrics.csv, and services that follow experiments."""

import csv
import io
import logging
import resource
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sptskm.common.atomic import write_text
from sptskm.common.errors import DataError
from sptskm.common.tables import read_rows
from sptskm.config import Config
from sptskm.configfile import differing, flat, to_dict, to_yaml
from sptskm.report.tensorboard import Board
from sptskm.report.trackers import Tracker, trackers
from sptskm.training.meters import Meters
from sptskm.tuning import SEARCHES

log = logging.getLogger(__name__)

METRICS = "metrics.csv"
RESULT = "validation/best mAP"
LAYOUT = {
    "Training": {
        "losses": ["Multiline", ["loss/.*"]],
        "learning rate": ["Multiline", ["optim/learning rate"]],
        "gradient norm": ["Multiline", ["optim/gradient norm"]],
    },
    "Held-out identities": {"mAP and rank-1": ["Multiline", ["validation/mAP", "validation/rank-1", RESULT]]},
    "Speed": {
        "clips per second": ["Multiline", ["speed/clips per s"]],
        "share of time waiting for data": ["Multiline", ["speed/data wait share"]],
        "hours left": ["Multiline", ["progress/hours left"]],
        "memory in GiB": ["Multiline", ["progress/memory GiB"]],
    },
}
"""Charts of TensorBoard's page of custom scalars."""
COLUMNS = ("optim.lr", "sampling.identities", "stream", "train.epochs", "train.seed")
"""Settings that HParams shows of runs of any stream; the others that differ from the defaults can be chosen there."""


class Logbook:
    """The log of one run; ranks other than 0 write nothing.

    `first_step` is the first step that is logged from here on; what an interrupted run has logged from this step on is
    replaced. `epochs_done` is the number of epochs whose lines in metrics.csv are kept.
    """

    def __init__(
        self, config: Config, folder: Path, first_step: int, epochs_done: int, ranks: int, writes: bool
    ) -> None:
        self.config, self.folder, self.ranks, self.writes = config, folder, ranks, writes
        self.board = Board(folder, first_step, writes)
        settings = flat(to_dict(config))
        self.trackers: list[Tracker] = []
        if writes:
            self.metrics = _continued(folder / METRICS, epochs_done)
            self.trackers = trackers(config.train.wandb, config.train.mlflow, folder, settings)
            self.board.layout(LAYOUT)
            self.board.text("settings", f"```\n{to_yaml(config)}```", first_step)
            if config.data.test:  # a trial of a search has its row in HParams from the search
                self.board.hyperparameters(settings)
                if not any((parent / SEARCHES).is_dir() for parent in folder.parents[:2]):  # whose columns count
                    told = {name: settings[name] for name in (*COLUMNS, *differing(to_dict(config)))}
                    self.board.experiment(told, [RESULT], COLUMNS)
        self.began, self.first = time.monotonic(), first_step
        self.told = self.began

    def clips(self, picture: NDArray[np.uint8]) -> None:
        """Show training clips."""
        self.board.picture("training clips", picture, 0)

    def point(self, values: Mapping[str, float], step: int) -> None:
        """Write the values of a step to TensorBoard and the services."""
        self.board.scalars(values, step)
        for tracker in self.trackers:
            tracker.log(values, step)

    def epoch(self, epoch: int, step: int, meters: Meters, found: Mapping[str, float]) -> dict[str, float]:
        """Log an epoch (0-based) and return its values; `step` is the next step, `found` the scores of a validation.

        Scores are logged at the last step that is done: points of the next step are replaced when the run continues
        from here.
        """
        left = self._seconds_left(epoch, step, meters.steps)
        speed, waiting = meters.epoch.speed()
        rate, memory = meters.rate, memory_gigabytes()
        progress = {"progress/epoch": epoch + 1.0, "progress/hours left": left / 3600, "progress/memory GiB": memory}
        self.point({**found, **progress}, step - 1)
        values = {"epoch": epoch + 1.0, "step": float(step), **meters.epoch.means(), **found}
        line = f"epoch {epoch + 1}/{self.config.train.epochs}  {meters.summary()}  lr {rate:.2g}  {memory:.1f} GiB"
        if found:
            line += f"  held-out mAP {found['validation/mAP']:.1%} rank-1 {found['validation/rank-1']:.1%}"
        log.info("%s %s  %s left", self.config.stream, line, duration(left))
        if self.writes:
            costs = {"learning rate": rate, "clips per s": speed, "data wait share": waiting, "memory GiB": memory}
            now = time.monotonic()
            self.metrics.add({**values, **costs, "seconds": now - self.told, "ranks": self.ranks})
            self.told = now
        return values

    def close(self, finished: bool) -> None:
        """Write everything to disk; `finished` says whether the run has reached its end."""
        with ExitStack() as closing:
            closing.callback(self.board.close)
            for tracker in self.trackers:
                closing.callback(tracker.close, finished)

    def _seconds_left(self, epoch: int, step: int, steps: int) -> float:
        """Estimate the time to the end of training by the rate since this process began, validations included."""
        spent, done = time.monotonic() - self.began, max(1, step - self.first)
        return spent / done * steps * (self.config.train.epochs - epoch - 1)


class MetricsFile:
    """A table (CSV) with one line for each epoch; a continued run goes on below the epochs that it keeps.

    Raises DataError for a file that is no table.
    """

    def __init__(self, path: Path, keep: int | None) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            (_, names), *lines = read_rows(path) or [("", [])]
            rows = [dict(zip(names, cells, strict=False)) for _, cells in lines]
            self.rows = [row for row in rows if keep is None or _is_of(row, keep)]

    def add(self, row: Mapping[str, float]) -> None:
        """Add the values of an epoch, and write the whole table."""
        self.rows.append({name: f"{value:.6g}" for name, value in row.items()})
        names: Sequence[str] = list(dict.fromkeys(name for line in self.rows for name in line))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def _continued(path: Path, epochs_done: int) -> MetricsFile:
    """Open the table of a run; a file that is no table is set aside, as it must not end the run."""
    try:
        return MetricsFile(path, epochs_done)
    except DataError as error:
        kept = path.with_name(f"{path.name}.broken")
        log.warning("%s; it is kept as %s, and a new one is begun", error, kept.name)
        path.rename(kept)
        return MetricsFile(path, epochs_done)


def _is_of(row: Mapping[str, str], epochs: int) -> bool:
    """Return whether a line is of one of the first epochs."""
    try:
        return 1 <= float(row["epoch"]) <= epochs
    except (KeyError, ValueError):
        return False


def training_cost(run: Path) -> tuple[float, int] | None:
    """Read the seconds of the epochs of a run, validations included, and its number of ranks in the last one.

    What an interruption has discarded and time spent in a queue do not count. None where the run has not kept them.
    """
    try:
        rows = MetricsFile(run / METRICS, None).rows
        return sum(float(row["seconds"]) for row in rows), int(rows[-1]["ranks"])
    except (DataError, LookupError, ValueError):
        return None


def memory_gigabytes() -> float:
    """Return the peak memory (2^30 bytes) of the tensors on the GPU, or of this process where there is no GPU."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def duration(seconds: float) -> str:
    """Return a time as hours, minutes and seconds: "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
