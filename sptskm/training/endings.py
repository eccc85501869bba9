"""How a job ends when it neither finishes nor fails by its own fault. No torch: launchers read this."""

EXIT_STOPPED = 75  # EX_TEMPFAIL: asked to stop, start again to continue
EXIT_UNREACHABLE = 76  # another rank has vanished, or the ranks did not meet; start again to continue


class Stopped(Exception):
    """All ranks have agreed to leave work that keeps nothing half done; starting again repeats it."""


class Unreachable(RuntimeError):
    """The ranks of a run do not find each other, or one has vanished without a word: killed, or with its node.

    Nothing is wrong with the run itself: starting again may help.
    """
