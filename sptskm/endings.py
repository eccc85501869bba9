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
    """The message of an error; one from a loader process comes wrapped in that process's traceback."""
    text = str(error)
    if not text.startswith("Caught "):
        return text
    return text.strip().splitlines()[-1].partition(": ")[2]
