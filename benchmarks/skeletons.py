"""Compare SMIN's training batches: ours, cut from memory a batch at a time, and a feeder that makes single clips.

    python benchmarks/skeletons.py [--device cuda] [--seconds 3]

The feeder is written from the published description: a data set whose items are made one at a time in numpy (a random
window of 28 of the first 30 frames; rotation, scale and shift applied frame by frame), collated by a DataLoader, here
with 0 and with 2 processes. Both get random skeletons in tracklets as many and as long as those of MARS's training
part, the same batch of 256, the same shuffled order. They take turns; the table gives the median over the turns.

Legend: N tracklets, T frames, V joints.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from sptskm.config import Sampling, SminClips
from sptskm.data.sampler import Schedule
from sptskm.data.skeleton_clips import ANGLES_DEG, SCALES, SHIFTS, SkeletonSource
from sptskm.data.skeleton_store import SkeletonStore

TRACKLETS, MEAN_LENGTH, FIRST_FRAMES, BATCH = 8298, 61, 30, 256
CLIPS = SminClips()
TURNS = 3


class Feeder(Dataset[tuple[NDArray[np.float32], int]]):
    """Skeletons (N, 4, 30, 14) in memory; an item is one clip (4, 28, 14)."""

    def __init__(self, data_N4TV: NDArray[np.float64]) -> None:
        self.data_N4TV = data_N4TV

    def __len__(self) -> int:
        return len(self.data_N4TV)

    def __getitem__(self, row: int) -> tuple[NDArray[np.float32], int]:
        skeletons_4TV = self.data_N4TV[row]
        start = np.random.randint(skeletons_4TV.shape[1] - CLIPS.frames + 1)  # noqa: NPY002 - as feeders do
        return moved(skeletons_4TV[:, start : start + CLIPS.frames]).astype(np.float32), row


def moved(skeletons_4TV: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the published random movement, frame by frame."""
    T = skeletons_4TV.shape[1]
    choices = (ANGLES_DEG,) * 3 + (SCALES,) + (SHIFTS,) * 3
    values_7T = [np.linspace(*np.random.choice(values, 2), T) for values in choices]  # noqa: NPY002
    moved_4TV = skeletons_4TV.copy()
    for frame in range(T):
        *angles, scale, dx, dy, dz = (values[frame] for values in values_7T)
        (cx, sx), (cy, sy), (cz, sz) = ((np.cos(a), np.sin(a)) for a in np.deg2rad(angles))
        Rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        Ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        Rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        turned = Rx @ Ry @ Rz @ (scale * skeletons_4TV[:3, frame])
        moved_4TV[:3, frame] = turned + np.array([[dx], [dy], [dz]])
    return moved_4TV


def made_up() -> tuple[NDArray[np.float64], SkeletonStore]:
    """Generate random skeletons, as the feeder's array and as our store."""
    rng = np.random.default_rng(0)
    lengths = rng.geometric(1 / MEAN_LENGTH, TRACKLETS)
    starts = np.cumsum(lengths) - lengths
    values_MV4 = rng.standard_normal((lengths.sum(), 14, 4), dtype=np.float32)
    data_N4TV = np.zeros((TRACKLETS, 4, FIRST_FRAMES, 14))
    for row, (start, length) in enumerate(zip(starts, np.minimum(lengths, FIRST_FRAMES), strict=True)):
        data_N4TV[row, :, :length] = values_MV4[start : start + length].transpose(2, 0, 1)
    return data_N4TV, SkeletonStore(starts, lengths, torch.from_numpy(values_MV4), np.ones(lengths.sum(), bool))


def clips_per_second(batches: Iterator[object], seconds: float, device: torch.device) -> float:
    """Measure for about `seconds`, without the first two batches (processes start, memory is touched)."""
    for _ in islice(batches, 2):
        pass
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        next(batches)
        if device.type == "cuda":
            torch.cuda.synchronize()
        done += BATCH
    return done / passed


def fed(feeder: Feeder, workers: int, device: torch.device) -> Iterator[object]:
    """Yield the feeder's batches on the device, epoch after epoch."""
    loader = DataLoader(
        feeder, BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    while True:
        for skeletons, rows in loader:
            yield skeletons.to(device), rows.to(device)


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data_N4TV, store = made_up()
    feeder, source = Feeder(data_N4TV), SkeletonSource(store.to(options.device, torch.float32), CLIPS)
    rows = np.arange(TRACKLETS)
    schedule = Schedule(Sampling("shuffled", BATCH, 1), rows, rows, epochs=10**6, seed=0)
    ways = {
        "feeder, no process of its own": lambda: fed(feeder, 0, options.device),
        "feeder, 2 processes": lambda: fed(feeder, 2, options.device),
        "ours": lambda: source.batches(schedule, 0),
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(TURNS):
        for way, start in ways.items():
            found[way].append(clips_per_second(start(), options.seconds, options.device))
    ours = statistics.median(found["ours"])
    print(f"batches of {BATCH} clips of {CLIPS.frames} frames, moved at random, on {options.device}, one thread")
    print(f"{'':32}{'clips/s':>12}{'lowest':>12}{'highest':>12}{'ours is':>10}")
    for way, rates in found.items():
        middle = statistics.median(rates)
        print(f"{way:32}{middle:12,.0f}{min(rates):12,.0f}{max(rates):12,.0f}{ours / middle:8.1f} x")


if __name__ == "__main__":
    main()
