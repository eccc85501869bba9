"""Cut SMIN's clips: a whole batch at once from skeletons in memory, with random moves as published.

The host chooses the frames; the device that holds the skeletons gathers and moves them. No operation mixes clips, so
that a clip has the same bits in every batch. A cut batch is changed in place: on a CPU new memory costs as much as the
arithmetic.
Legend: G clips of the global batch, B of them of one rank, c clips, T frames, V joints.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sptskm.config import SminClips
from sptskm.data import windows
from sptskm.data.clips import Inputs, MemorySource, TrainItem
from sptskm.data.derived import SIZES, Made, Method
from sptskm.data.mirror import mirrored
from sptskm.data.sampler import Batch, Schedule
from sptskm.data.skeleton_store import SkeletonStore
from sptskm.data.tracklets import IntArray

ANGLES_DEG = (-10.0, -5.0, 0.0, 5.0, 10.0)
SCALES = (0.9, 1.0, 1.1)
SHIFTS = (-0.2, -0.1, 0.0, 0.1, 0.2)


@dataclass(frozen=True, eq=False)
class SkeletonSource(MemorySource):
    """Source of SMIN's clips for training and test."""

    store: SkeletonStore
    clips: SminClips

    @property
    def found(self) -> Mapping[Made, Method]:
        """Return whether sizes are kept, where that was left to the data."""
        if self.clips.scale != "auto":
            return {}
        return {"skeletons": {SIZES: "in metres" if self.store.metric else "brought to one"}}

    def has_any(self, rows_n: IntArray) -> NDArray[np.bool_]:
        """Return flags (n,) for the tracklets with at least one valid frame."""
        return self.store.has_any(rows_n)

    def batches(self, schedule: Schedule, step: int) -> Generator[TrainItem, None, None]:
        """Yield this rank's batches from global step `step` to the end of the last epoch."""
        return (self.draw(batch, batch.generator(schedule.seed)) for batch in schedule.batches(step))

    def draw(self, batch: Batch, rng: np.random.Generator) -> TrainItem:
        """Draw one augmented clip for each row of this rank: skeletons (B, 4, T, 14) and valid frames (B, T) bool.

        Random numbers are drawn for all G clips, so that the clips of a rank do not depend on the number of ranks.
        Skeletons have the device and type of the store; frames that are not valid are exactly zero. Raises ValueError
        for a tracklet without any valid frame.
        """
        starts_G = self._starts(batch.rows_G, rng)
        rows_B, frames_BT = batch.rows_G[batch.slots_B], starts_G[batch.slots_B, None] + np.arange(self.clips.frames)
        skeletons, valid = self._cut(rows_B, frames_BT)
        if self.clips.random_move:
            draws_G72 = draw_moves(len(starts_G), rng)
            if self.store.metric:
                draws_G72[:, 3] = 1.0
            move_(skeletons, torch.from_numpy(draws_G72[batch.slots_B]).to(skeletons, non_blocking=True))
        if self.clips.mirrored:
            exchanged_B = rng.random(len(starts_G))[batch.slots_B] < 0.5  # drawn last: other draws stay as they are
            places = torch.from_numpy(np.flatnonzero(exchanged_B)).to(skeletons.device, non_blocking=True)
            skeletons[places] = mirrored(skeletons[places])
        return TrainItem(_blank_(skeletons, valid), torch.from_numpy(rows_B))

    def all_clips(self, row: int) -> IntArray:
        """Return the frame numbers (c, T) of a tracklet's test clips; clips without a valid skeleton are left out."""
        _, lengths = self.store.spans(np.array([row]))
        clips_cT = windows.covering_clips(int(lengths[0]), self.clips.test_frames)
        return clips_cT[self._places(np.full(len(clips_cT), row), clips_cT)[1].any(axis=1)]

    def read(self, row: int, clips_cT: IntArray) -> Inputs:
        """Read test clips: skeletons (c, 4, T, 14) and valid frames (c, T) bool."""
        return _blank_(*self._cut(np.full(len(clips_cT), row), clips_cT))

    def _starts(self, rows_G: IntArray, rng: np.random.Generator) -> IntArray:
        """Draw the first frames of windows that hold a valid frame; tracklets shorter than a window start at 0."""
        T, store = self.clips.frames, self.store
        begins_G, lengths_G = store.spans(rows_G)
        highest_G = np.maximum(lengths_G - T, 0)
        starts_G = rng.integers(highest_G + 1)
        first_G, stop_G = store.among_valid(begins_G + starts_G, np.minimum(lengths_G, T))
        middles_G = store.valid_frames[rng.integers(*store.among_valid(begins_G, lengths_G))] - begins_G
        return np.where(first_G < stop_G, starts_G, np.clip(middles_G - T // 2, 0, highest_G))

    def _cut(self, rows_c: IntArray, frames_cT: IntArray) -> tuple[Tensor, NDArray[np.bool_]]:
        """Cut skeletons (c, 4, T, 14) and valid frames (c, T); the content of invalid frames is undefined."""
        values_MV4 = self.store.values_MV4
        places_cT, valid_cT = self._places(rows_c, frames_cT)
        index = torch.from_numpy(places_cT.ravel()).to(values_MV4.device, non_blocking=True)
        gathered_cTV4 = values_MV4.index_select(0, index).unflatten(0, frames_cT.shape)
        return gathered_cTV4.permute(0, 3, 1, 2).contiguous(), valid_cT

    def _places(self, rows_c: IntArray, frames_cT: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
        """Return the place of each frame in the store and whether it is valid (c, T).

        A frame behind the end of its tracklet is not valid, and its place has no meaning.
        """
        begins_c, lengths_c = self.store.spans(rows_c)
        inside_cT = frames_cT < lengths_c[:, None]
        places_cT = begins_c[:, None] + np.where(inside_cT, frames_cT, 0)
        return places_cT, self.store.valid_M[places_cT] & inside_cT


def _blank_(skeletons_c4TV: Tensor, valid_cT: NDArray[np.bool_]) -> Inputs:
    """Set frames that are not valid to exactly zero, in place; the flags stay on the host and can be read at once."""
    valid = torch.from_numpy(valid_cT)
    if not valid_cT.all():
        skeletons_c4TV *= valid.to(skeletons_c4TV.device, non_blocking=True)[:, None, :, None]
    return skeletons_c4TV, valid


def draw_moves(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the moves of clips for `move_` (count, 7, 2).

    The values are the published ones with equal probability, drawn separately for the first and the last frame.
    """
    choices = (ANGLES_DEG,) * 3 + (SCALES,) + (SHIFTS,) * 3
    return np.stack([rng.choice(values, (count, 2)) for values in choices], axis=1)


def move_(skeletons_B4TV: Tensor, draws_B72: Tensor) -> Tensor:
    """Move the skeletons of each clip in place: xyz := Rx Ry Rz (s xyz) + t per frame (SMIN's random_move).

    `draws_B72` are the angles about x, y, z in degrees, the scale, and the shift along x, y, z, each for the first and
    the last frame. The values change linearly between the two. Confidence is unchanged.
    """
    first_B71, last_B71 = draws_B72.split(1, dim=2)
    way_T = torch.linspace(0, 1, skeletons_B4TV.shape[2], dtype=draws_B72.dtype, device=draws_B72.device)
    values_B7T = first_B71 + way_T * (last_B71 - first_B71)
    turn_B33T1 = (_rotations(torch.deg2rad(values_B7T[:, :3])) * values_B7T[:, None, 3:4])[..., None]
    x, y, z = (skeletons_B4TV[:, None, axis] for axis in range(3))
    turned_B3TV = turn_B33T1[:, :, 0] * x
    turned_B3TV += turn_B33T1[:, :, 1] * y
    turned_B3TV += turn_B33T1[:, :, 2] * z
    torch.add(turned_B3TV, values_B7T[:, 4:, :, None], out=skeletons_B4TV[:, :3])
    return skeletons_B4TV


def _rotations(angles_B3T: Tensor) -> Tensor:
    """Compute the rotations Rx Ry Rz (B, 3, 3, T) of every frame from angles in radians."""
    (cx, cy, cz), (sx, sy, sz) = angles_B3T.cos().unbind(1), angles_B3T.sin().unbind(1)
    rows = (
        (cy * cz, -cy * sz, sy),
        (cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy),
        (sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy),
    )
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
