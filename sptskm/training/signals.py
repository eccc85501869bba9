"""Requests to stop: signals set a flag, nothing else happens in a handler. No torch: it must be there before that."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sptskm.common.processes import STOPPING
from sptskm.endings import EXIT_STOPPED


class StopFlag:
    """Whether this process was asked to stop; looked at between steps."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True


def ignore_stopping() -> None:
    """Let a process that leaves as asked do so with its own exit code, however often it is asked again."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def give_up() -> None:
    """End this process at once; its checkpoints are whole at any moment."""
    os._exit(EXIT_STOPPED)


@contextmanager
def stop_flag(patience: float = 20.0, overdue: Callable[[], None] = give_up) -> Iterator[StopFlag]:
    """A flag that the stopping signals set, until the block ends.

    A rank that waits in a collective for a dead peer runs no handler of Python: these run between bytecodes. So a
    thread listens too, and calls `overdue` (there, not in the main thread) when the block has not ended `patience`
    seconds after the first request. In another thread than the main one, where Python has no signals, nothing sets it.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    hears, tells = socket.socketpair()
    tells.setblocking(False)
    listener = threading.Thread(target=_listen, args=(hears, flag, patience, overdue), daemon=True, name="stop-flag")
    before = {number: signal.signal(number, flag) for number in STOPPING}
    wakeup = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
    listener.start()
    try:
        yield flag
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        tells.shutdown(socket.SHUT_WR)  # a loader process that an error keeps alive holds a copy of it
        tells.close()
        listener.join()
        hears.close()


def _listen(hears: socket.socket, flag: StopFlag, patience: float, overdue: Callable[[], None]) -> None:
    """Wait for the number of a stopping signal, then for the end of the block."""
    while (numbers := hears.recv(64)) and not set(numbers) & set(STOPPING):
        pass
    if not numbers:
        return
    flag.requested = True
    deadline = time.monotonic() + patience
    try:
        while True:
            hears.settimeout(max(0.001, deadline - time.monotonic()))
            if not hears.recv(64):
                return
    except TimeoutError:
        overdue()
