"""Clips as tensors, for training (one random clip a draw) and for extraction (all clips of a tracklet).

Items carry the row number of their tracklet; labels and cameras stay in the table. What is cut from frames is here,
what is cut from skeletons in `skeleton_clips`.
Legend: c clips, T frames, H rows, W columns.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from sptskm.config import SsinClips
from sptskm.data import augment, windows
from sptskm.data.errors import DataError
from sptskm.data.files import read_frame, read_mask
from sptskm.data.sampler import Draw
from sptskm.data.tracklets import IntArray, Readable, Tracklets

Inputs = tuple[Tensor, ...]
Images = tuple[NDArray[np.uint8], NDArray[np.uint8]]
RING = 4  # batches: PyTorch lets a loader process be two ahead, the one before is in use, and one is to spare
PIECE = 16  # clips embedded in one forward pass on a CPU; fixed, so that no setting can change a result


class TrainItem(NamedTuple):
    """The inputs of the model for a batch of clips, and the rows (B,) of their tracklets."""

    inputs: Inputs
    row: Tensor


class Pixels(NamedTuple):
    """Frames and masks of clips."""

    frames: Tensor
    masks: Tensor


class Piece(NamedTuple):
    """Up to PIECE clips of one tracklet: numbers first..last-1 of its list of clips."""

    row: int
    first: int
    last: int


class PieceItem(NamedTuple):
    """The inputs of the model for all clips of a piece, stacked."""

    inputs: Inputs
    piece: Piece


class Clips(Protocol):
    """The test clips of either stream."""

    def all_clips(self, row: int) -> IntArray:
        """Frame numbers (c, T) of a tracklet's test clips."""

    def read(self, row: int, clips_cT: IntArray) -> Inputs:
        """These clips of a tracklet, stacked."""


@dataclass(frozen=True, eq=False)
class FrameSource:
    """SSIN's clips."""

    table: Tracklets
    clips: SsinClips
    on_device: bool = False
    """Whether training clips are augmented on the device they go to, which is left to `augment.show_together`."""

    def memory(self, *count: int) -> Pixels:
        """Room for so many clips: frames (..., T, H, W, 3) and masks (..., T, H, W) uint8."""
        shape = (*count, self.clips.frames, self.clips.height, self.clips.width)
        return Pixels(torch.empty((*shape, 3), dtype=torch.uint8), torch.empty(shape, dtype=torch.uint8))

    def draw(self, row: int, rng: np.random.Generator, out: Pixels) -> augment.View:
        """A random training clip, written to `out`, and what of it is left to be shown by the device."""
        window = windows.random_window(int(self.table.lengths[row]), self.clips.frames, rng, self.clips.last_window)
        images = read_images(self.table, row, window)
        view, size = augment.draw_view(self.clips.height, self.clips.width, rng), out.masks.shape[1:]
        later = self.on_device and all(mask.shape == size for _, mask in images)
        _write(images, augment.PLAIN if later else view, out)
        return view if later else augment.PLAIN

    def all_clips(self, row: int) -> IntArray:
        """Frame numbers (c, T) of a tracklet's test clips."""
        return windows.dense_clips(int(self.table.lengths[row]), self.clips.frames)

    def read(self, row: int, clips_cT: IntArray) -> Inputs:
        """Test clips: frames (c, T, H, W, 3) and masks (c, T, H, W) uint8."""
        out = self.memory(len(clips_cT))
        images = read_images(self.table, row, clips_cT.ravel())
        _write(images, augment.PLAIN, Pixels(*(x.flatten(0, 1) for x in out)))
        return tuple(out)


def read_images(table: Tracklets, row: int, frames: IntArray) -> list[Images]:
    """Frame (H, W, 3) and mask (H, W) of each of these frames; each file is read once. DataError for unusable ones."""
    distinct = sorted(set(frames.tolist()))
    files = zip(table.files(row, distinct, "frames"), table.files(row, distinct, "masks"), strict=True)
    images = {frame: _read(*pair) for frame, pair in zip(distinct, files, strict=True)}
    return [images[frame] for frame in frames.tolist()]


def _read(file: Readable, mask_file: Readable) -> Images:
    image, mask = read_frame(file), read_mask(mask_file)
    if mask.shape != image.shape[:2]:
        raise DataError(
            f"mask {mask_file}: is {mask.shape[0]}x{mask.shape[1]}, "
            f"wanted {image.shape[0]}x{image.shape[1]} like {file.name}"
        )
    return image, mask


def _write(images: list[Images], view: augment.View, out: Pixels) -> None:
    for pair, frame, mask in zip(images, out.frames.numpy(), out.masks.numpy(), strict=True):
        augment.show(pair[0], view, frame)
        augment.show(pair[1], view, mask)


@dataclass(frozen=True, eq=False)
class TrainClips(Dataset[TrainItem]):
    """Batches of random, augmented clips, one per Draw; the same clip for the same draw on any rank or worker.

    A loader process writes its batches to the same RING places again and again: fresh memory costs as much as what is
    written there, also where it is shared. A batch is what it was until the next one is asked for.
    """

    source: FrameSource
    seed: int
    _ring: deque[Pixels] = field(default_factory=deque, init=False)

    def __getitem__(self, draws: list[Draw]) -> TrainItem:
        out = self._memory(len(draws))
        views = [
            self.source.draw(draw.row, draw.generator(self.seed), Pixels(*clip))
            for draw, clip in zip(draws, zip(*out, strict=True), strict=True)
        ]
        inputs = (*out, torch.tensor(views, dtype=torch.int32)) if self.source.on_device else tuple(out)
        return TrainItem(inputs, torch.tensor([draw.row for draw in draws]))

    def _memory(self, count: int) -> Pixels:
        if get_worker_info() is None:
            return self.source.memory(count)
        if not self._ring or len(self._ring[0].frames) != count:
            self._ring.clear()
            for _ in range(RING):
                frames, masks = self.source.memory(count)
                self._ring.append(Pixels(frames.share_memory_(), masks.share_memory_()))
        self._ring.rotate()
        return self._ring[0]


@dataclass(frozen=True, eq=False)
class AllClips(Dataset[PieceItem]):
    """All clips of tracklets, in pieces."""

    source: Clips
    limit: int
    """Clips per tracklet (0 = all)."""

    def pieces(self, row: int) -> list[Piece]:
        """How a tracklet's clips are split; depends on the tracklet alone."""
        count = len(self._clips(row))
        return [Piece(row, first, min(first + PIECE, count)) for first in range(0, count, PIECE)]

    def __getitem__(self, piece: Piece) -> PieceItem:
        return PieceItem(self.source.read(piece.row, self._clips(piece.row)[piece.first : piece.last]), piece)

    def _clips(self, row: int) -> IntArray:
        return windows.chosen_clips(self.source.all_clips(row), self.limit, row)
