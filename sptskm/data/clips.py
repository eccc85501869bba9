"""Cut clips as tensors, for training (one random clip per draw) and for extraction (all clips of a tracklet).

Items hold the row number of their tracklet; labels and cameras stay in the table. Clips of frames are cut here, clips
of skeletons in `skeleton_clips`.
Legend: n rows of the table, c clips, T frames, H rows, W columns.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from sptskm.common.errors import DataError
from sptskm.config import SsinClips
from sptskm.data import augment, windows
from sptskm.data.derived import Made, Method
from sptskm.data.files import read_frame, read_mask
from sptskm.data.sampler import Draw, Schedule
from sptskm.data.tracklets import IntArray, Readable, Tracklets

Inputs = tuple[Tensor, ...]
Images = tuple[NDArray[np.uint8], NDArray[np.uint8]]
RING = 4  # batches: a loader process may be two ahead, the one before is in use, and one is spare
PIECE = 16  # clips embedded in one forward pass on a CPU; fixed, so that no setting can change a result


class TrainItem(NamedTuple):
    """The inputs of the model for a batch of clips, and the rows (B,) of their tracklets."""

    inputs: Inputs
    row: Tensor


class Memory(NamedTuple):
    """Memory for B clips in a single block, which is passed between processes as one."""

    frames: Tensor
    """(B, T, H, W, 3) uint8."""
    masks: Tensor
    """(B, T, H, W) uint8."""
    views: Tensor
    """(B, V) int32, see `augment.View`."""
    rows: Tensor
    """(B,) int64."""


class Piece(NamedTuple):
    """Up to PIECE clips of one tracklet: numbers first..last-1 of its list of clips."""

    row: int
    first: int
    last: int


class PieceItem(NamedTuple):
    """The inputs of the model for all clips of a piece, stacked."""

    inputs: Inputs
    piece: Piece


class Source(ABC):
    """Source of a stream's clips; it is either a FileSource or a MemorySource, which differ in training."""

    @abstractmethod
    def all_clips(self, row: int) -> IntArray:
        """Return the frame numbers (c, T) of a tracklet's test clips; none for a tracklet that cannot be used."""

    @abstractmethod
    def read(self, row: int, clips_cT: IntArray) -> Inputs:
        """Read these clips of a tracklet, stacked."""

    def has_any(self, rows_n: IntArray) -> NDArray[np.bool_]:
        """Return flags (n,) for the tracklets with any input, which alone are trained on; by default for all."""
        return np.ones(len(rows_n), bool)

    @property
    def found(self) -> Mapping[Made, Method]:
        """Return what was found in the masks or skeletons that must agree where features are compared."""
        return {}


class FileSource(Source):
    """Source that reads files whenever a clip is cut, in loader processes; a node may keep copies of packs for it."""

    @abstractmethod
    def training(self, seed: int) -> Dataset[TrainItem]:
        """Return the random clips for training: a data set that takes the list of `Draw` of a batch as an index."""


class MemorySource(Source):
    """Source with everything in memory, where cutting a clip is faster than its transfer from another process."""

    @abstractmethod
    def batches(self, schedule: Schedule, step: int) -> Generator[TrainItem, None, None]:
        """Yield this rank's batches of random clips from global step `step` to the end of the last epoch."""


@dataclass(frozen=True, eq=False)
class FrameSource(FileSource):
    """Source of SSIN's clips for training and test."""

    table: Tracklets
    clips: SsinClips
    on_device: bool = False
    """Whether training clips are augmented on the device, later, by `augment.show_together`."""

    def training(self, seed: int) -> "TrainClips":
        """Return the random clips for training."""
        return TrainClips(self, seed)

    def memory(self, count: int, shared: bool = False) -> Memory:
        """Allocate memory for `count` clips, shared between processes or private to this one."""
        shape = count, self.clips.frames, self.clips.height, self.clips.width
        pixels = math.prod(shape)
        sizes = [8 * count, 4 * len(augment.PLAIN) * count, 3 * pixels, pixels]
        whole = torch.empty(sum(sizes), dtype=torch.uint8)
        rows, views, frames, masks = (whole.share_memory_() if shared else whole).split(sizes)
        seen = views.view(torch.int32).view(count, len(augment.PLAIN))
        return Memory(frames.view(*shape, 3), masks.view(shape), seen, rows.view(torch.int64))

    def draw(self, row: int, rng: np.random.Generator, frames_THW3: Tensor, masks_THW: Tensor) -> augment.View:
        """Draw a random training clip into these tensors; return what `prepare` still has to do, on the device."""
        window = windows.random_window(int(self.table.lengths[row]), self.clips.frames, rng, self.clips.last_window)
        view = augment.draw_erased(augment.draw_view(self.clips.height, self.clips.width, rng), self.clips, rng)
        images = read_images(self.table, row, window)
        later = self.on_device and all(mask.shape == masks_THW.shape[1:] for _, mask in images)
        _write(images, augment.PLAIN if later else view, frames_THW3, masks_THW)
        return view if later else view.shown()

    def all_clips(self, row: int) -> IntArray:
        """Return the frame numbers (c, T) of a tracklet's test clips."""
        return windows.dense_clips(int(self.table.lengths[row]), self.clips.frames)

    def read(self, row: int, clips_cT: IntArray) -> Inputs:
        """Read test clips: frames (c, T, H, W, 3) and masks (c, T, H, W) uint8."""
        images = read_images(self.table, row, clips_cT.ravel())
        frames, masks, *_ = self.memory(len(clips_cT))
        _write(images, augment.PLAIN, frames.flatten(0, 1), masks.flatten(0, 1))
        return frames, masks


def read_images(table: Tracklets, row: int, frames: IntArray) -> list[Images]:
    """Read the frame (H, W, 3) and mask (H, W) of each frame number; each file is read once.

    Raises DataError for an unusable file, and if a mask and its frame differ in size.
    """
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


def _write(images: list[Images], view: augment.View, frames_FHW3: Tensor, masks_FHW: Tensor) -> None:
    for (image, mask), frame_HW3, mask_HW in zip(images, frames_FHW3.numpy(), masks_FHW.numpy(), strict=True):
        augment.show(image, view, frame_HW3)
        augment.show(mask, view, mask_HW)


@dataclass(frozen=True, eq=False)
class TrainClips(Dataset[TrainItem]):
    """Batches of random, augmented clips, one per Draw; the same clip for the same draw on any rank or worker.

    A loader process reuses RING blocks of memory for its batches: new memory, shared memory above all, costs as much as
    writing to it. So a batch is only valid until the next one is requested.
    """

    source: FrameSource
    seed: int
    _ring: deque[Memory] = field(default_factory=deque, init=False)

    def __getitem__(self, draws: list[Draw]) -> TrainItem:
        frames, masks, views, rows = self._memory(len(draws))
        for draw, *places, view, row in zip(draws, frames, masks, views, rows, strict=True):
            view[:] = torch.tensor(self.source.draw(draw.row, draw.generator(self.seed), *places))
            row.fill_(draw.row)
        viewed = self.source.on_device or self.source.clips.erase
        return TrainItem((frames, masks, views) if viewed else (frames, masks), rows)

    def _memory(self, count: int) -> Memory:
        if get_worker_info() is None:
            return self.source.memory(count)
        if not self._ring or len(self._ring[0].rows) != count:
            self._ring.clear()
            self._ring.extend(self.source.memory(count, shared=True) for _ in range(RING))
        self._ring.rotate()
        return self._ring[0]


@dataclass(frozen=True, eq=False)
class AllClips(Dataset[PieceItem]):
    """All test clips of tracklets, in pieces."""

    source: Source
    limit: int
    """Largest number of clips per tracklet (0 = all)."""

    def pieces(self, row: int) -> list[Piece]:
        """Split a tracklet's clips into pieces, which depend on the tracklet alone."""
        count = len(self._clips(row))
        return [Piece(row, first, min(first + PIECE, count)) for first in range(0, count, PIECE)]

    def __getitem__(self, piece: Piece) -> PieceItem:
        return PieceItem(self.source.read(piece.row, self._clips(piece.row)[piece.first : piece.last]), piece)

    def _clips(self, row: int) -> IntArray:
        return windows.chosen_clips(self.source.all_clips(row), self.limit, row)
