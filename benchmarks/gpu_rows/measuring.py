"""All parts of the table, measured in this process."""

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


def measure(parts: list[str], small: bool, began: float, seconds: float, state: Path) -> None:
    """Measure the rows of these parts that `state` does not have yet, and print the table."""
    warnings.filterwarnings("ignore")
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
    table = Table(device, small, seconds, state, began=began)
    table.about = {**versions(), **code_state(), "cores": str(len(os.sched_getaffinity(0)))}
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        table.about |= {
            "cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version()),
            "GPUs": str(torch.cuda.device_count()), "GiB": f"{memory:.0f}",
        }  # fmt: skip
    table.go_on()
    with tempfile.TemporaryDirectory() as folder:
        for name in parts:
            try:
                PARTS[name](table, Path(folder))
            except Exception as error:  # while preparing rows, none of which is begun
                table.add(name, ["rows"], [table.told(error)])
    print(f"\n{table.text()}")
