"""Trials of a hyper-parameter search, as its table, its page and the choice of the best read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from sptskm.tuning.space import Settings

SEARCHES: Final = "search"
"""Folder of the searches, beside the runs and the folder of those that are trained once more."""

End = Literal["", "finished", "ended early", "failed"]


@dataclass(frozen=True)
class Score:
    """Result of a trial on the held-out identities after an epoch."""

    epoch: int
    mAP: float
    rank1: float
    best: float
    """Highest mAP so far, which is the mAP of the kept weights."""


@dataclass(frozen=True)
class Trial:
    """One trial of a search, with its scores and its end."""

    stream: str
    number: int
    settings: Settings
    workers: int
    """Number of ranks."""
    folder: str
    """Folder of its training run."""
    scores: Sequence[Score] = ()
    end: End = ""
    """How it ended; empty while it runs or after an interruption."""
    reason: str = ""
    """Reason of a failure."""
    seconds: float = 0.0
    """Seconds of training, with validation."""
    ended: float = 0.0
    """Time of its last score, in seconds since 1970."""

    @property
    def name(self) -> str:
        """Return the stream and number."""
        return name_of(self.stream, self.number)

    @cached_property
    def best(self) -> Score | None:
        """Return the score of the weights that were kept, or None without a score."""
        if not self.scores:
            return None
        # with PBT a trial that takes over another one's weights begins anew: higher scores before do not count
        reached = [score for score in self.scores if score.mAP == self.scores[-1].best]
        return reached[0] if reached else max(self.scores, key=lambda score: score.mAP)

    @property
    def epochs(self) -> int:
        """Return the number of epochs trained."""
        return self.scores[-1].epoch if self.scores else 0

    @property
    def rank_hours(self) -> float:
        """Return the cost in hours, summed over all ranks."""
        return self.workers * self.seconds / 3600


def name_of(stream: str, number: int) -> str:
    """Return the name of a trial."""
    return f"{stream}-{number:04d}"


def rank_trials(trials: Sequence[Trial], stream: str) -> list[Trial]:
    """Sort the trials of a stream that have a score, the best first; equal ones by number."""
    own = [trial for trial in trials if trial.stream == stream and trial.best]
    return sorted(own, key=lambda trial: (-trial.best.mAP, trial.number))  # type: ignore[union-attr]
