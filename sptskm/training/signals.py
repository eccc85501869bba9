"""Signals that ask a run to stop: they set a flag, nothing else happens in a handler."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SLURM preempts with TERM, its time limit and submitit send USR1 or USR2, a person types Ctrl-C
STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


class StopFlag:
    """Set by a signal; looked at between steps."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """A flag that the stopping signals set, until the block ends."""
    flag = StopFlag()
    before = {number: signal.signal(number, flag) for number in STOPPING}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_in_worker(_worker: int) -> None:
    """Loader processes must not act on the run's signals: the run ends them itself (TERM), others are ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
