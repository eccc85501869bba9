"""Test a data set with MARS's tables and few frames: pack, verify, stage, train, and count opened files.

    python benchmarks/mars_packed.py [--info DIR] [--frames N]

Every tracklet of MARS (or of tables made up to its size) has N frames, whose pictures, masks and skeletons are those of
a few generated walkers. One epoch of a narrow SSIN runs from files, from the pack, and from copies of it on "another
disk" (a folder); strace counts the files below the data that all processes of a run opened while it trained.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mars_scale import made_up, tables_in, write_tables

from sptskm.data import read_dataset, read_mars
from sptskm.data.tracklets import Modality
from sptskm.synthetic import TINY, write_dataset

KINDS: tuple[Modality, ...] = ("frames", "masks", "skeletons")
WORKERS = 2
TRAINED = [
    "configs/mars/ssin.yaml", "train.epochs=1", "model.width=4", "model.embedding_dim=16", "model.depths=[1,1,1,1]",
    "clips.height=64", "clips.width=32", "data.held_out=0", f"data.workers={WORKERS}", "train.save_minutes=1000",
]  # fmt: skip


def main() -> None:
    """Print a line for each step and a table of opened files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--info", type=Path, help="the three .mat files of MARS-evaluation (default: made up)")
    parser.add_argument("--frames", type=int, default=2, help="of every tracklet")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files, packed, disk = folder / "files", folder / "pack", folder / "disk"
        with step("write the files"):
            write_files(files, options.info, options.frames, folder / "walkers")
        table = read_mars(files)
        print(f"{len(table):,} tracklets, {3 * table.lengths.sum():,} files")
        with step("sptskm pack"):
            sptskm("pack", files, packed)
        print(f"{len(list(packed.iterdir()))} files, {size(packed) / size(files):.2f} x the bytes of the files")
        with step("sptskm pack --verify"):
            sptskm("pack", packed, "--verify")
        for what, root in (("files", files), ("pack", packed)):
            with step(f"read the table from {what}"):
                read_dataset(root)
        disk.mkdir()
        for what, root, stage in (("files", files, "none"), ("pack", packed, "none"), ("copies", packed, disk)):
            opened, clips = trained(folder, root, str(stage))
            print(f"an epoch of {clips:,} clips from {what}, {WORKERS} loader processes; opened: {opened}", flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print how long the block took."""
    began = time.perf_counter()
    yield
    print(f"{what:40s} {time.perf_counter() - began:7.2f} s", flush=True)


def write_files(root: Path, info: Path | None, frames: int, walkers: Path) -> None:
    """Write the tables, cut to `frames` frames per tracklet, and hard links to the files of a few walkers."""
    write_dataset(walkers, TINY, seed=0)
    (root / "info").mkdir(parents=True)
    for split, table in (tables_in(info) if info else made_up()).items():
        if split != "query":
            stops = np.arange(1, len(table) + 1) * frames
            table[:, :2] = np.stack([stops - frames + 1, stops], axis=1)
        write_tables(root / "info", split, table)
    pool = read_mars(walkers)
    usable = np.flatnonzero(pool.lengths >= frames)
    table = read_mars(root)
    for row in range(len(table)):
        source = int(usable[row % len(usable)])
        for kind in KINDS:
            for frame in range(frames):
                path = table.path(row, frame, kind)
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(pool.path(source, frame, kind), path)


def sptskm(*arguments: object) -> None:
    """Run a command, quietly."""
    command = [sys.executable, "-m", "sptskm.cli", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def trained(folder: Path, root: Path, stage: str) -> tuple[dict[str, int], int]:
    """Train one epoch under strace; return the counts of opened files by folder and kind, and of clips drawn."""
    run, traces = folder / "run", folder / "traces"
    for old in (run, traces):
        shutil.rmtree(old, ignore_errors=True)
    traces.mkdir()
    # a file a process (-ff): in a common one, calls that another process interrupts lose their results
    command = ["strace", "-ff", "-qq", "-e", "trace=openat,open", "-o", str(traces / "of")]
    command += [sys.executable, "-m", "sptskm.cli"]
    command += ["train", *TRAINED, f"data.root={root}", f"data.stage={stage}", f"run={run}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    text = "".join(path.read_text() for path in traces.iterdir())
    opened: dict[str, int] = {}
    for place, name in re.findall(rf'"{folder}/(files|pack|disk)/([^"]*)".* = \d', text):
        kind = f"{place}/{Path(name).suffix}"
        opened[kind] = opened.get(kind, 0) + 1
    steps = int(next(run.glob("checkpoint-*.pt")).stem.partition("-")[2])
    return opened, 32 * steps


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*.*"))


if __name__ == "__main__":
    main()
