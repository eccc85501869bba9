"""Measure in one run whether a GPU computes the right numbers and is well used; prints a table, writes gpu.json.

    python benchmarks/gpu.py [--small] [--out FOLDER] [--minutes 7.5] [--only correct,step]

It needs a checkout with its packages, and no network or data. Every row stands by itself: one that fails holds its
error, one that needs a GPU where there is none says so, and those that the time no longer suffices for say that.
`--small` runs all of it with tiny networks, as the tests do on a CPU. docs/gpu.md explains the rows.
"""

import argparse
import os
import tempfile
import warnings
from pathlib import Path

import torch
from gpu_rows import correct, runs, speed
from gpu_rows.table import Table

from sptskm.provenance import code_state, versions
from sptskm.training.memory import keep_freed_memory

PARTS = {
    "device": lambda table, _: speed.peaks(table),
    "correct": lambda table, _: correct.rows(table),
    "run": runs.rows,
    "resnet-50": lambda table, _: speed.bare(table),
    "step": lambda table, _: speed.steps(table),
    "use": lambda table, _: speed.use(table),
    "compiled": lambda table, _: speed.compiling(table),
}


def main() -> None:
    """Measure all rows, or those of the parts named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny networks and few repetitions")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of gpu.json (default: this one)")
    parser.add_argument("--minutes", type=float, default=7.5, help="after which no further row begins")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
    options.out.mkdir(parents=True, exist_ok=True)
    table = Table(device, options.small, 60 * options.minutes, options.out / "gpu.json")
    table.about = {**versions(), **code_state(), "cores": str(len(os.sched_getaffinity(0)))}
    if device.type == "cuda":
        table.about |= {"cuda": str(torch.version.cuda), "GPUs": str(torch.cuda.device_count())}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only.split(","):
            PARTS[name](table, Path(folder))
    print(f"\n{table.text()}")


if __name__ == "__main__":
    main()
