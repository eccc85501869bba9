"""How a command or a job ends: its exit code and its message. No torch: launchers import this."""

import errno
import os
import select
import sys
from collections.abc import Callable

from sptskm.common.errors import ConfigError, DataError
from sptskm.common.settings import SettingsError

EXIT_BAD_INPUT = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: asked to stop, start again to continue
EXIT_UNREACHABLE = 76  # another rank has vanished, or the ranks did not meet; start again to continue
EXIT_INTERRUPTED = 130  # as shells say of Ctrl-C
LONGEST, TAIL = 600, 150  # characters of a message that are shown, and those of its end if it is longer
EXIT_PIPE = 141  # as shells say of SIGPIPE


class Stopped(Exception):
    """Raised on all ranks after they have agreed to stop; starting again repeats the unfinished work."""


class Unreachable(RuntimeError):
    """Lost contact with other ranks of a run: they did not meet, or one was killed or lost its node.

    The run itself is not at fault, so starting again may help.
    """


def is_ours(error: BaseException) -> bool:
    """Return whether an error tells the user what to change; any other is a bug and needs its traceback.

    The type decides: DataError, ConfigError, and errors of the system that name a file or a full disk.
    """
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return full or error.filename is not None or type(error) in (FileNotFoundError, FileExistsError)
    return isinstance(error, ConfigError | DataError)  # perhaps passed on by a loader process


def until_nobody_reads(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; end quietly if nobody reads its output any more (`... | head -1`)."""
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_left():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes when it ends
        return EXIT_PIPE


def _reader_left() -> bool:
    """Return whether stdout is a pipe whose reader has gone."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def sentence(error: Exception) -> str:
    """Return the message of an error as one line of at most LONGEST characters for each setting that it is about.

    An error from a loader process is wrapped in that process's traceback, and a value from a file or a library's
    message may be pages long.
    """
    if isinstance(error, SettingsError):
        return "; ".join(_shortened(problem) for problem in error.args)
    return _shortened(str(error))


def _shortened(text: str) -> str:
    if text.startswith("Caught "):
        text = text.strip().splitlines()[-1].partition(": ")[2]
    text = one_line(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - TAIL - 5]} ... {text[-TAIL:]}"


def one_line(text: str) -> str:
    """Return a text without line breaks, and with its control characters, which a terminal obeys, written out."""
    text = " ".join(line.strip() for line in text.splitlines())
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
