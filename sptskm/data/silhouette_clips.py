"""Cut the gait stream's clips: sets of silhouettes of one tracklet, from memory.

The host chooses silhouettes and views; the device that holds the silhouettes gathers and moves them. No operation mixes
clips, so that a clip has the same bits in every batch.
Legend: G clips of the global batch, B of them of one rank, c clips, T silhouettes of a clip, H rows, W columns.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sptskm.config import GaitClips
from sptskm.data import windows
from sptskm.data.clips import Inputs, MemorySource, TrainItem
from sptskm.data.sampler import Batch, Schedule
from sptskm.data.silhouettes import SilhouetteStore
from sptskm.data.tracklets import IntArray


@dataclass(frozen=True, eq=False)
class SilhouetteSource(MemorySource):
    """Source of the gait stream's clips for training and test."""

    store: SilhouetteStore
    clips: GaitClips

    def has_any(self, rows_n: IntArray) -> NDArray[np.bool_]:
        """Return flags (n,) for the tracklets with at least one silhouette."""
        return self.store.has_any(rows_n)

    def batches(self, schedule: Schedule, step: int) -> Generator[TrainItem, None, None]:
        """Yield this rank's batches from global step `step` to the end of the last epoch."""
        return (self.draw(batch, batch.generator(schedule.seed)) for batch in schedule.batches(step))

    def draw(self, batch: Batch, rng: np.random.Generator) -> TrainItem:
        """Draw one augmented clip for each row of this rank: silhouettes (B, T, H, W) uint8 of 0 and 1.

        A clip is a random set of a tracklet's silhouettes, in their order; a tracklet with fewer than T gives some of
        them more than once, which a maximum over the set does not see. Random numbers are drawn for all G clips, so
        that the clips of a rank do not depend on the number of ranks. Raises ValueError for a tracklet without any.
        """
        starts_G, counts_G = self.store.spans(batch.rows_G)
        T = self.clips.frames
        sets_GT = starts_G[:, None] + np.stack([random_set(count, T, rng) for count in counts_G.tolist()])
        views_G3 = draw_views(len(starts_G), self.clips.shift, rng)
        slots_B = batch.slots_B
        return TrainItem(
            (seen(self.store.take(sets_GT[slots_B]), views_G3[slots_B], self.clips.shift),),
            torch.from_numpy(batch.rows_G[slots_B]),
        )

    def all_clips(self, row: int) -> IntArray:
        """Return the numbers (c, T) of the silhouettes of a tracklet's test clips; (0, T) if it has none."""
        (count,) = self.store.spans(np.array([row]))[1].tolist()
        T = self.clips.test_frames
        return windows.covering_clips(count, T) % count if count else np.zeros((0, T), np.int64)

    def read(self, row: int, clips_cT: IntArray) -> Inputs:
        """Read test clips: silhouettes (c, T, H, W) uint8 of 0 and 1."""
        return (self.store.take(self.store.spans(np.array([row]))[0] + clips_cT),)


def random_set(count: int, T: int, rng: np.random.Generator) -> IntArray:
    """Draw T of `count` numbers in ascending order, each at most once if there are enough."""
    return np.sort(rng.choice(count, T, replace=count < T)).astype(np.int64)


def draw_views(count: int, shift: int, rng: np.random.Generator) -> IntArray:
    """Draw the views of clips (count, 3): mirrored (1 or 0) or not, rows down and columns right, -shift to shift."""
    moves_G2 = rng.integers(-shift, shift + 1, (count, 2))
    return np.concatenate([rng.integers(2, size=(count, 1)), moves_G2], axis=1)


def seen(silhouettes_BTHW: Tensor, views_B3: IntArray, shift: int) -> Tensor:
    """Mirror and move clips by their views; what comes in from outside is empty."""
    B, _, H, W = silhouettes_BTHW.shape
    padded = F.pad(silhouettes_BTHW, (shift,) * 4)
    mirrored_B1, down_B1, right_B1 = (column[:, None] for column in views_B3.T)
    rows_BH = np.arange(H) + shift - down_B1
    columns_BW = np.arange(W) - right_B1
    columns_BW = np.where(mirrored_B1 == 1, W - 1 - columns_BW, columns_BW) + shift
    own_B, rows, columns = (
        torch.from_numpy(np.ascontiguousarray(index)).to(padded.device, non_blocking=True)
        for index in (np.arange(B)[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :])
    )
    return padded.movedim(1, 3)[own_B, rows, columns].movedim(3, 1).contiguous()
