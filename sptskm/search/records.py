"""What the trials of a search leave behind: one folder each, which is a run's, with its settings and scores beside.

Whoever runs the trials, this is what a search knows afterwards, and what it continues from.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sptskm.atomic import append_text, write_text
from sptskm.search.space import Settings

log = logging.getLogger(__name__)

End = Literal["", "paused", "finished", "ended early", "failed"]
DONE: tuple[End, ...] = ("finished", "ended early")

SETTINGS, SCORES, END = "trial.json", "scores.jsonl", "end.json"


@dataclass(frozen=True)
class Score:
    """What a trial reached on the held-out identities after an epoch."""

    epoch: int
    step: int
    mAP: float
    rank1: float
    loss: float
    seconds: float
    """Since the score before, or the start."""


@dataclass(frozen=True)
class Trial:
    """One point of a search, and how it went."""

    stream: str
    number: int
    settings: Settings
    workers: int
    """Ranks that it was trained on."""
    folder: str
    scores: Sequence[Score] = ()
    end: End = ""
    """Empty while it runs, or when it was interrupted; paused between two generations of a population."""
    reason: str = ""
    """Why it failed."""
    ended: float = 0.0
    """When, in seconds since 1970."""

    @property
    def name(self) -> str:
        """Stream and number."""
        return name_of(self.stream, self.number)

    @cached_property
    def best(self) -> Score | None:
        """The first of the highest scores: the one whose weights were kept."""
        return max(self.scores, key=lambda score: (score.mAP, -score.epoch), default=None)

    @property
    def epochs(self) -> int:
        """Epochs that were trained."""
        return self.scores[-1].epoch if self.scores else 0

    @property
    def rank_hours(self) -> float:
        """What it cost: hours of all its ranks."""
        return self.workers * sum(score.seconds for score in self.scores) / 3600


def name_of(stream: str, number: int) -> str:
    """What a trial is called."""
    return f"{stream}-{number:04d}"


def folder_of(home: Path, stream: str, number: int) -> Path:
    """Where a trial of a search lies below the folder of all."""
    return home / stream / f"{number:04d}"


class Recorder:
    """Writes the record of one trial; the process of rank 0, or whoever follows it, owns one."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.clock = time.monotonic()

    def begin(self, trial: Trial) -> None:
        """Note what is tried; a trial that is continued keeps its scores."""
        self.folder.mkdir(parents=True, exist_ok=True)
        values = {key: getattr(trial, key) for key in ("stream", "number", "settings", "workers")}
        write_text(self.folder / SETTINGS, json.dumps(values))
        (self.folder / END).unlink(missing_ok=True)
        self.clock = time.monotonic()

    def add(self, values: Mapping[str, float]) -> Score | None:
        """Keep what the trainer reports after an epoch, if it has validated."""
        if "validation/mAP" not in values:
            return None
        now = time.monotonic()
        score = Score(
            epoch=int(values["epoch"]),
            step=int(values["step"]),
            mAP=values["validation/mAP"],
            rank1=values["validation/rank-1"],
            loss=values.get("total", float("nan")),
            seconds=now - self.clock,
        )
        self.clock = now
        append_text(self.folder / SCORES, json.dumps(asdict(score)) + "\n")
        return score

    def inherit(self, mine: Trial, donor: Trial) -> None:
        """Go on from where another trial is, with the settings of `mine`: its scores, but what oneself has cost."""
        spent = sum(score.seconds for score in mine.scores)
        costs = [0.0] * (len(donor.scores) - 1) + [spent]
        scores = [replace(score, seconds=cost) for score, cost in zip(donor.scores, costs, strict=True)]
        write_text(self.folder / SCORES, "".join(json.dumps(asdict(score)) + "\n" for score in scores))
        self.begin(mine)

    def end(self, end: End, reason: str = "") -> None:
        """Note how it ended; a trial without an end is continued by the next search in its folder.

        On a full disk that is what becomes of it: no other trial has to end for it.
        """
        try:
            write_text(self.folder / END, json.dumps({"end": end, "reason": reason, "ended": time.time()}))
        except OSError as error:
            log.warning("%s: %s, so that it is not noted that this trial is %s", self.folder, error.strerror, end)


def read_trials(folder: str | Path) -> list[Trial]:
    """All trials that have begun below a folder, by stream and number; what a kill has cut off is left out."""
    trials = [trial for path in Path(folder).glob(f"*/*/{SETTINGS}") if (trial := read_trial(path.parent))]
    return sorted(trials, key=lambda trial: (trial.stream != "ssin", trial.number))


def ranked(trials: Sequence[Trial], stream: str) -> list[Trial]:
    """Trials of a stream that have a score, the best first; of equal ones the earlier."""
    own = [trial for trial in trials if trial.stream == stream and trial.best]
    return sorted(own, key=lambda trial: (-trial.best.mAP, trial.number))  # type: ignore[union-attr]


def read_trial(folder: str | Path) -> Trial | None:
    """The trial of one folder; None when there is none."""
    folder = Path(folder)
    known = _read(folder / SETTINGS)
    if known is None:
        return None
    trial = Trial(**known, folder=str(folder), scores=_scores(folder / SCORES))
    return replace(trial, **(_read(folder / END) or {}))


def _scores(path: Path) -> list[Score]:
    """Scores by epoch; epochs that were done again after a loss count once, with what both have cost."""
    if not path.exists():
        return []
    found: dict[int, Score] = {}
    for line in path.read_text().splitlines():
        try:
            score = Score(**json.loads(line))
        except (ValueError, TypeError):  # the last line of a killed process
            continue
        before = found.get(score.epoch)
        found[score.epoch] = replace(score, seconds=score.seconds + before.seconds) if before else score
    return [found[epoch] for epoch in sorted(found)]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
