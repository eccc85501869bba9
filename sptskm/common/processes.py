"""Helper processes, such as data loaders and pools, that end with the process that uses them.

A scheduler signals every process of a job, but only the process that was started decides what follows: its helpers
never receive a stop request, not even while they start. They end when it kills them (by SIGKILL: they hold nothing that
could be lost), and when it has ended for any reason (Linux).
"""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import ForkContext, ForkProcess, SpawnContext, SpawnProcess
from multiprocessing.popen_fork import Popen as ForkPopen
from multiprocessing.popen_spawn_posix import Popen as SpawnPopen
from typing import Any

# SLURM preempts with TERM, its time limit and submitit send USR1 or USR2, a person types Ctrl-C
STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
GRACE_SECONDS = 1.0  # for all helpers of one context to end by themselves once they are told to
PR_SET_PDEATHSIG = 1


@contextmanager
def unasked() -> Iterator[None]:
    """Block stopping signals for processes started in this block; this process receives them at its end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to this process when its parent, whose pid is given, ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it has ended before that
        os.kill(os.getpid(), number)


class _Unasked:
    def _launch(self, process: Any) -> None:
        with unasked():
            super()._launch(process)  # type: ignore[misc]

    def terminate(self) -> None:
        self.kill()  # type: ignore[attr-defined]


class _ForkedPopen(_Unasked, ForkPopen):
    pass


class _SpawnedPopen(_Unasked, SpawnPopen):
    pass


class _Forked(ForkProcess):
    """Forked process that ends with its parent; joining it never takes long."""

    deadline: "_Deadline"

    @staticmethod
    def _Popen(process: Any) -> Any:
        return _ForkedPopen(process)

    def run(self) -> None:
        end_with(self._parent_pid)  # type: ignore[attr-defined]
        super().run()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the shared deadline at most: a helper may hang in a file system, and each is joined in turn."""
        left = self.deadline.left()
        super().join(left if timeout is None else min(timeout, left))


class _Deadline:
    """Time by which all helpers of a context must have ended, counted from the first request."""

    def __init__(self) -> None:
        self.when: float | None = None

    def left(self) -> float:
        if self.when is None:
            self.when = time.monotonic() + GRACE_SECONDS
        return max(0.1, self.when - time.monotonic())


class Loaders(ForkContext):
    """Multiprocessing context for the processes of one PyTorch data loader."""

    def __init__(self) -> None:
        super().__init__()
        self.deadline = _Deadline()

    def Process(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        """Return a process that is not yet started."""
        process = _Forked(*arguments, **options)
        process.deadline = self.deadline
        return process


class _Spawned(SpawnProcess):
    @staticmethod
    def _Popen(process: Any) -> Any:
        return _SpawnedPopen(process)

    def run(self) -> None:
        end_with(self._parent_pid)  # type: ignore[attr-defined]
        super().run()


class Pool(SpawnContext):
    """Multiprocessing context for pools: it spawns, as forking a process with torch's threads can hang."""

    Process = _Spawned

    def __init__(self) -> None:
        super().__init__()
        with unasked():  # a helper as well; it lets TERM and INT through when it starts, but does not act on them
            resource_tracker.ensure_running()
