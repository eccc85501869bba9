"""How a command or a job ends: its exit code, and what it says. No torch: launchers read this."""

import errno
import traceback
from pathlib import Path

from sptskm.config import ConfigError
from sptskm.data.errors import DataError

EXIT_BAD_INPUT = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: asked to stop, start again to continue
EXIT_UNREACHABLE = 76  # another rank has vanished, or the ranks did not meet; start again to continue
EXIT_INTERRUPTED = 130  # as shells say of Ctrl-C
LONGEST, TAIL = 600, 150  # characters of a message that are shown, and those of its end if it is longer


class Stopped(Exception):
    """All ranks have agreed to leave work that keeps nothing half done; starting again repeats it."""


class Unreachable(RuntimeError):
    """The ranks of a run do not find each other, or one has vanished without a word: killed, or with its node.

    Nothing is wrong with the run itself: starting again may help.
    """


def is_ours(error: Exception) -> bool:
    """Whether sptskm raised it to tell the user something; from anywhere else it is a bug and wants its traceback."""
    if isinstance(error, ConfigError | DataError):
        return True  # perhaps passed on by a loader process
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return full or error.filename is not None or type(error) in (FileNotFoundError, FileExistsError)
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return Path(frame.f_code.co_filename).is_relative_to(Path(__file__).parent)


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
