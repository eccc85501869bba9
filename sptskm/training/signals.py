"""Handle requests to stop: signals only set a flag. Imports no torch, as it must be ready before torch is."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sptskm.common.endings import EXIT_STOPPED
from sptskm.common.processes import STOPPING


class StopFlag:
    """Flag that says whether this process was asked to stop; training checks it between steps."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True


def ignore_stopping() -> None:
    """Ignore further stop signals, so that a process that already stops ends with its own exit code."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def give_up() -> None:
    """End this process at once; its checkpoints are whole at any moment."""
    os._exit(EXIT_STOPPED)


@contextmanager
def stop_flag(patience: float = 20.0, overdue: Callable[[], None] = give_up) -> Iterator[StopFlag]:
    """Return a flag that stop signals set until the block ends.

    Python runs signal handlers between bytecodes, so a rank that waits in a collective for a dead peer runs none.
    Therefore a thread listens too. It calls `overdue` (in that thread) when the block has not ended `patience` seconds
    after the first request. Python handles signals in the main thread only: in any other thread nothing sets the flag.
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
        tells.shutdown(socket.SHUT_WR)  # a loader process kept alive by an error holds a copy of the socket
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
