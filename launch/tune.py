"""Search for settings, train and evaluate in Ray: `sptskm tune`, typed in a checkout."""

import sys

from sptskm.common.endings import until_nobody_reads
from sptskm.launching.tune import command_line, main

__all__ = ["command_line", "main"]

if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
