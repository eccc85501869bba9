"""Clips as tensors, for training (one random clip a draw) and for extraction (all clips of a tracklet).

Items carry the row number of their tracklet; labels and cameras stay in the table.
Legend: c clips, T frames, H rows, W columns, V joints.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from sptskm.config import SminClips, SsinClips
from sptskm.data import augment, windows
from sptskm.data.errors import DataError
from sptskm.data.files import read_frame, read_mask
from sptskm.data.sampler import Draw
from sptskm.data.skeleton_store import SkeletonStore
from sptskm.data.tracklets import IntArray, Tracklets

Inputs = tuple[Tensor, ...]
PIECE = 16  # clips embedded in one forward pass on a CPU; fixed, so that no setting can change a result


class TrainItem(NamedTuple):
    """The inputs of the model for one clip, and its tracklet's row; collated, a batch of them."""

    inputs: Inputs
    row: Tensor


class Piece(NamedTuple):
    """Up to PIECE clips of one tracklet: numbers first..last-1 of its list of clips."""

    row: int
    first: int
    last: int


class PieceItem(NamedTuple):
    """The inputs of the model for all clips of a piece, stacked."""

    inputs: Inputs
    piece: Piece


class FrameReader:
    """Frames and masks of a tracklet, side by side as (H, W, 4) uint8 arrays."""

    def __init__(self, table: Tracklets) -> None:
        self.table = table

    def __call__(self, row: int, frames: IntArray) -> list[NDArray[np.uint8]]:
        cache = {frame: self._read(row, frame) for frame in set(frames.tolist())}
        return [cache[frame] for frame in frames.tolist()]

    def _read(self, row: int, frame: int) -> NDArray[np.uint8]:
        path = self.table.path(row, frame, "frames")
        image = read_frame(path)
        mask_path = self.table.path(row, frame, "masks")
        mask = read_mask(mask_path)
        if mask.shape != image.shape[:2]:
            raise DataError(
                f"mask {mask_path}: is {mask.shape[0]}x{mask.shape[1]}, "
                f"wanted {image.shape[0]}x{image.shape[1]} like {path.name}"
            )
        return np.dstack([image, mask])


def as_tensors(clip: list[NDArray[np.uint8]]) -> Inputs:
    """T arrays (H, W, 4) to frames (T, 3, H, W) and masks (T, H, W), still uint8."""
    stacked = torch.from_numpy(np.stack(clip)).movedim(3, 1)
    return stacked[:, :3].contiguous(), stacked[:, 3].contiguous()


@dataclass(frozen=True, eq=False)
class FrameSource:
    """SSIN's clips."""

    table: Tracklets
    clips: SsinClips

    def draw(self, row: int, rng: np.random.Generator) -> Inputs:
        """One augmented training clip: frames (T, 3, H, W) and masks (T, H, W) uint8."""
        length = int(self.table.lengths[row])
        frames = windows.random_window(length, self.clips.frames, rng, self.clips.last_window)
        images = FrameReader(self.table)(row, frames)
        return as_tensors(augment.augment_frames(images, self.clips.height, self.clips.width, rng))

    def all_clips(self, row: int) -> IntArray:
        """Frame numbers (c, T) of a tracklet's test clips."""
        return windows.dense_clips(int(self.table.lengths[row]), self.clips.frames)

    def read(self, row: int, clips_cT: IntArray) -> Inputs:
        """Test clips: frames (c, T, 3, H, W) and masks (c, T, H, W) uint8."""
        images = FrameReader(self.table)(row, clips_cT.ravel())
        resized = [augment.resize(image, self.clips.height, self.clips.width) for image in images]
        return tuple(x.unflatten(0, clips_cT.shape) for x in as_tensors(resized))


@dataclass(frozen=True, eq=False)
class SkeletonSource:
    """SMIN's clips."""

    store: SkeletonStore
    clips: SminClips

    def draw(self, row: int, rng: np.random.Generator) -> Inputs:
        """One augmented training clip: skeletons (4, T, 14) float32 and valid frames (T,) bool."""
        values_FV4, valid_F = self.store.frames(row)
        frames = self._window_with_skeleton(valid_F, rng)
        skeletons_TV4 = values_FV4[frames].astype(np.float64)
        if self.clips.random_move:
            skeletons_TV4 = augment.random_move(skeletons_TV4, rng)
        return _padded(skeletons_TV4, valid_F[frames], self.clips.frames)

    def all_clips(self, row: int) -> IntArray:
        """Frame numbers (c, T) of a tracklet's test clips; none without a single valid skeleton."""
        _, valid_F = self.store.frames(row)
        clips_cT = windows.covering_clips(len(valid_F), self.clips.test_frames)
        padded = np.append(valid_F, False)
        return clips_cT[padded[np.minimum(clips_cT, len(valid_F))].any(axis=1)]

    def read(self, row: int, clips_cT: IntArray) -> Inputs:
        """Test clips: skeletons (c, 4, T, 14) float32 and valid frames (c, T) bool."""
        values_FV4, valid_F = self.store.frames(row)
        inside = clips_cT < len(valid_F)
        frames = np.where(inside, clips_cT, 0)
        items = zip(values_FV4[frames], valid_F[frames] & inside, strict=True)
        skeletons, valid = zip(*(_padded(*item, clips_cT.shape[1]) for item in items), strict=True)
        return torch.stack(skeletons), torch.stack(valid)

    def _window_with_skeleton(self, valid_F: NDArray[np.bool_], rng: np.random.Generator) -> IntArray:
        """A random window that holds a valid frame; the end of one longer than the tracklet is padding."""
        T, F = self.clips.frames, len(valid_F)
        if F <= T:
            return np.arange(F)
        window = windows.random_window(F, T, rng)
        if valid_F[window].any():
            return window
        centre = int(rng.choice(np.flatnonzero(valid_F)))
        return np.clip(centre - T // 2, 0, F - T) + np.arange(T)


def _padded(skeletons_TV4: NDArray[np.floating], valid_T: NDArray[np.bool_], T: int) -> Inputs:
    """(4, T, 14) and (T,), padded at the end; frames that are not valid are exactly zero."""
    values = np.zeros((4, T, skeletons_TV4.shape[1]), np.float32)
    valid = np.zeros(T, bool)
    valid[: len(valid_T)] = valid_T
    values[:, : len(valid_T)] = (skeletons_TV4 * valid_T[:, None, None]).transpose(2, 0, 1)
    return torch.from_numpy(values), torch.from_numpy(valid)


Source = FrameSource | SkeletonSource


@dataclass(frozen=True, eq=False)
class TrainClips(Dataset[TrainItem]):
    """One random, augmented clip per Draw; the same clip for the same draw on any rank or worker."""

    source: Source
    seed: int

    def __getitem__(self, draw: Draw) -> TrainItem:
        return TrainItem(self.source.draw(draw.row, draw.generator(self.seed)), torch.tensor(draw.row))


@dataclass(frozen=True, eq=False)
class AllClips(Dataset[PieceItem]):
    """All clips of tracklets, in pieces."""

    source: Source
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
