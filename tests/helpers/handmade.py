"""Data sets in the MARS layout that are small enough to know every line of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import scipy.io

JUNK = "00-1"


@dataclass(frozen=True)
class Walk:
    """One tracklet."""

    pid: int
    camid: int
    frames: int
    number: int = 1

    def stems(self) -> list[str]:
        label = JUNK if self.pid < 0 else f"{self.pid:04d}"
        return [f"{label}C{self.camid}T{self.number:04d}F{frame:03d}" for frame in range(1, self.frames + 1)]


TRAIN = (Walk(3, 1, 2), Walk(3, 2, 3), Walk(5, 1, 4), Walk(5, 4, 1))
TEST = (Walk(-1, 1, 2), Walk(0, 2, 3), Walk(2, 1, 1), Walk(2, 3, 2))
QUERY = (3,)


def write_tables(
    root: Path, train: Sequence[Walk] = TRAIN, test: Sequence[Walk] = TEST, query: Sequence[int] = QUERY
) -> Path:
    """`info/` alone; `query` are rows of the test table from 1, as in the file."""
    info = root / "info"
    info.mkdir(parents=True, exist_ok=True)
    for name, walks in (("train", train), ("test", test)):
        stems = [stem for walk in walks for stem in walk.stems()]
        (info / f"{name}_name.txt").write_bytes("".join(f"{stem}.jpg\r\n" for stem in stems).encode())
        ends = np.cumsum([walk.frames for walk in walks])
        rows = [(e - w.frames + 1, e, w.pid, w.camid) for w, e in zip(walks, ends, strict=True)]
        scipy.io.savemat(info / f"tracks_{name}_info.mat", {f"track_{name}_info": np.array(rows, np.int32)})
    scipy.io.savemat(info / "query_IDX.mat", {"query_IDX": np.array([query], np.uint16)})
    return root


def write_files(root: Path, size: tuple[int, int] = (16, 8)) -> Path:
    """Tables, and a frame, a mask and a skeleton for every line of them."""
    write_tables(root)
    for split, walks in (("train", TRAIN), ("test", TEST)):
        for index, stem in enumerate(stem for walk in walks for stem in walk.stems()):
            write_frame_of(root, split, stem, index, size)
    return root


def write_frame_of(root: Path, split: str, stem: str, index: int, size: tuple[int, int]) -> None:
    """The three files of one frame; all show its index."""
    frame = np.full((*size, 3), 10 * index, np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2] = 255
    skeleton = np.random.default_rng(index).normal(size=(14, 4))
    for suffix, ending, content in (("", ".jpg", frame), ("_mask", ".png", mask), ("_joint3d", ".mat", skeleton)):
        path = root / f"bbox_{split}{suffix}" / stem[:4] / (stem + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        if ending == ".mat":
            scipy.io.savemat(path, {"new_joint": content})
        else:
            path.write_bytes(cv2.imencode(ending, content)[1].tobytes())
