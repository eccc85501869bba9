"""Measure in one run whether a GPU computes the right numbers and is well used; prints a table, writes gpu.json.

    python benchmarks/gpu.py [--small] [--out FOLDER] [--minutes 7] [--only correct,step]

It needs a checkout with its packages, and no network or data. Every row stands by itself: one that fails holds its
error, one that needs a GPU where there is none says so, and those that the time no longer suffices for say that. A row
that crashes the process or takes too long is noted by the process that watches over the other one, which goes on with
the next row. `--small` runs all of it with tiny networks, as the tests do on a CPU. docs/gpu.md explains the rows.
"""

import argparse
import sys
import time
from pathlib import Path

from gpu_rows.watching import watch

PARTS = ("device", "correct", "run", "resnet-50", "step", "use", "compiled")


def main() -> int:
    """Measure all rows, or those of the parts named; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny networks and few repetitions")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of gpu.json (default: this one)")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which no further row begins")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)  # given to the process that measures
    options = parser.parse_args()
    state, parts = options.out / "gpu.json", options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only has {', '.join(sorted(unknown))}, wanted some of {', '.join(PARTS)}")
    if options.began is None:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--out is {options.out}: {error.strerror}, wanted a folder for gpu.json")
        return watch([sys.executable, *sys.argv, "--began", str(time.monotonic())], state)
    from gpu_rows.measuring import measure

    measure(parts, options.small, options.began, 60 * options.minutes, state)
    return 0


if __name__ == "__main__":
    sys.exit(main())
