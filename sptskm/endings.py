"""How a command or a job ends: its exit code, and what it says. No torch: launchers read this."""

import errno
import os
import select
import sys
from collections.abc import Callable

from sptskm.config import ConfigError
from sptskm.data.errors import DataError

EXIT_BAD_INPUT = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: asked to stop, start again to continue
EXIT_UNREACHABLE = 76  # another rank has vanished, or the ranks did not meet; start again to continue
EXIT_INTERRUPTED = 130  # as shells say of Ctrl-C
LONGEST, TAIL = 600, 150  # characters of a message that are shown, and those of its end if it is longer
EXIT_PIPE = 141  # as shells say of SIGPIPE


class Stopped(Exception):
    """All ranks have agreed to leave work that keeps nothing half done; starting again repeats it."""


class Unreachable(RuntimeError):
    """The ranks of a run do not find each other, or one has vanished without a word: killed, or with its node.

    Nothing is wrong with the run itself: starting again may help.
    """


def is_ours(error: BaseException) -> bool:
    """Whether an error tells the user what to change; any other is a bug and wants its traceback.

    What decides is its type: DataError, ConfigError, and errors of the system that name a file or a full disk.
    """
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return full or error.filename is not None or type(error) in (FileNotFoundError, FileExistsError)
    return isinstance(error, ConfigError | DataError)  # perhaps passed on by a loader process


def until_nobody_reads(command: Callable[[], int]) -> int:
    """Run a command to its exit code; one whose output nobody reads any more (`... | head -1`) ends quietly."""
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
    """Whether stdout is a pipe that has nobody at its other end."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def sentence(error: Exception) -> str:
    """Return the message of an error as one line of bounded length.

    One from a loader process comes wrapped in that process's traceback; a value that a file holds, or a library's own
    words, may go on for pages.
    """
    text = str(error)
    if text.startswith("Caught "):
        text = text.strip().splitlines()[-1].partition(": ")[2]
    text = " ".join(line.strip() for line in text.splitlines())
    text = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)  # a terminal obeys others
    return text if len(text) <= LONGEST else f"{text[: LONGEST - TAIL - 5]} ... {text[-TAIL:]}"
