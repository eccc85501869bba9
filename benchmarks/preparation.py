"""Seconds per frame of making masks and skeletons, and the quality of masks without weights.

    python benchmarks/preparation.py --data data/walkers

The networks have their published size and random weights, which cost the same. On a CPU one thread computes, as in
`sptskm prepare`, which has a process for each core.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sptskm.data import Tracklets, read_dataset
from sptskm.data.files import read_frame, read_mask
from sptskm.models import JPPNet, PoseHG3D
from sptskm.preparation.grabcut import body_prior, person_mask
from sptskm.preparation.parsing import FAST, PUBLISHED, parse_frames, place
from sptskm.preparation.pose import estimate_skeletons
from sptskm.report.console import table as text_table

MARS_FRAMES = 1_191_003
SIZE = (256, 128)
Bytes = NDArray[np.uint8]


def seconds(work: Callable[[Bytes], object], frames_NHW3: Bytes, device: torch.device) -> float:
    """Per frame, after one frame that does not count."""
    work(frames_NHW3[:1])
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work(frames_NHW3)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(frames_NHW3)


def drawn_frames(table: Tracklets, count: int, seed: int) -> list[tuple[int, int]]:
    """Row and frame of some frames of training identities."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(table.train, count)
    return [(int(row), int(rng.integers(table.lengths[row]))) for row in rows]


def overlap(mask_HW: Bytes, true_HW: Bytes) -> float:
    """Intersection over union."""
    both, either = (mask_HW > 0) & (true_HW > 0), (mask_HW > 0) | (true_HW > 0)
    return float(both.sum() / max(either.sum(), 1))


def grabcut_quality(table: Tracklets, count: int, seed: int) -> str:
    """Mean overlap of GrabCut's masks, and of the prior alone, with the true ones."""
    cut, prior = [], []
    for row, frame in drawn_frames(table, count, seed):
        image = read_frame(table.path(row, frame, "frames"))[..., ::-1]
        true = read_mask(table.path(row, frame, "masks"))
        cut.append(overlap(person_mask(np.ascontiguousarray(image)), true))
        prior.append(overlap(body_prior(*image.shape[:2]), true))
    found = f"GrabCut {np.mean(cut):.3f} (median {np.median(cut):.3f}), the prior alone {np.mean(prior):.3f}"
    return f"mean IoU with the true masks of {count} frames: {found}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="generated walkers")
    parser.add_argument("--frames", type=int, default=8, help="measured together (default: 8)")
    parser.add_argument("--published", action="store_true", help="also masks as published: half a minute a frame")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    device, table = torch.device(options.device), read_dataset(options.data)
    torch.set_num_threads(1)
    images = [
        read_frame(table.path(*at, "frames"))[..., ::-1] for at in drawn_frames(table, options.frames, options.seed)
    ]
    frames = np.stack([cv2.resize(image, SIZE[::-1]) for image in images])
    parsing = place(JPPNet(), device, torch.float16 if device.type == "cuda" else torch.float32).eval()
    pose = PoseHG3D().to(device).eval()
    work: dict[str, Callable[[Bytes], object]] = {
        "masks, one scale": lambda some: parse_frames(some, parsing, FAST),
        "skeletons": lambda some: estimate_skeletons(some, pose),
        "skeletons, mirrored as well": lambda some: estimate_skeletons(some, pose, flip=True),
        "masks by GrabCut": lambda some: [person_mask(frame) for frame in some],
    }
    if options.published:
        work = {"masks as published": lambda some: parse_frames(some, parsing, PUBLISHED), **work}
    rows = []
    for name, does in work.items():
        each = seconds(does, frames, device)
        rows.append([name, f"{each:.3f}", f"{each * MARS_FRAMES / 3600:.0f}"])
    print(text_table([f"{SIZE[0]} x {SIZE[1]} frames on {device}", "s/frame", "hours for MARS"], rows))
    print(grabcut_quality(table, 200, options.seed))


if __name__ == "__main__":
    main()
