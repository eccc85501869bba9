"""Measure the cost of verifying checkpoints: CPU time of writing and reading SSIN's, with and without checksums.

python benchmarks/checkpoints.py        half a minute, 2.4 GB in the temporary folder

On two busy cores: SSIN with Adam's state is 2.4 GB; its checksums are compared at 5 GB/s. Reading takes 1.3 s of
processor time instead of 0.9 (with a look for values that are not finite), writing 2.9 s instead of 1.6.
"""

import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from sptskm.config import STREAMS
from sptskm.report.console import table
from sptskm.training import checkpoints
from sptskm.training.optimisers import make_optimizer
from sptskm.training.streams import stream_of

REPEATS = 3


def main() -> None:
    """Print one table."""
    torch.set_num_threads(1)
    config = STREAMS["ssin"].defaults
    network = stream_of(config).model(625, pretrained=False)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer(config, network)
    optimizer.step()
    state = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        rows = [
            ["write, as PyTorch does", seconds(lambda: plain_write(path, state))],
            ["write and verify", seconds(lambda: checkpoints.write(path, state))],
            ["read, as PyTorch does", seconds(lambda: torch.load(path, map_location="cpu", weights_only=True))],
            ["verify and read", seconds(lambda: checkpoints.read(path))],
            ["checksums alone", seconds(lambda: checksums(path))],
        ]
        megabytes = path.stat().st_size / 1e6
    header = ["SSIN with Adam's state", "MB", "s", "MB/s"]
    print(table(header, [[what, f"{megabytes:.0f}", f"{took:.2f}", f"{megabytes / took:.0f}"] for what, took in rows]))


def plain_write(path: Path, state: object) -> None:
    """Write a state without verifying the file."""
    with path.open("wb") as file:
        torch.save(state, file)
        os.fsync(file.fileno())


def checksums(path: Path) -> None:
    """Compare all checksums of a file."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of this process, the lowest of a few repeats."""
    found = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


if __name__ == "__main__":
    main()
