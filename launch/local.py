"""Train on this machine and evaluate: `sptskm local`, typed in a checkout."""

import sys

from sptskm.common.endings import until_nobody_reads
from sptskm.launching.local import command_line, main

__all__ = ["command_line", "main"]

if __name__ == "__main__":
    sys.exit(until_nobody_reads(main))
