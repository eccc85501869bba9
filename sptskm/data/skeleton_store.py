"""Keep all skeletons of some tracklets in memory, on any device; all 1.2 M frames of MARS take 267 MB.

Legend: N rows of the table, n selected rows, F frames of one tracklet, M frames of all, V joints.
"""

import logging
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sptskm.common.errors import DataError
from sptskm.data.files import SKELETON_SHAPE, training_skeletons
from sptskm.data.skeleton_scale import Scale, check_size, unit_of
from sptskm.data.tracklets import IntArray, Tracklets

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SkeletonStore:
    """Skeletons by row of the table; frames without a skeleton are zeros and not valid.

    Only the values are on a device; the frames to take are chosen on the host.
    """

    starts_N: IntArray
    """First frame of each tracklet among all M frames; -1 if it was not loaded."""
    lengths_N: IntArray
    values_MV4: Tensor
    valid_M: NDArray[np.bool_]
    metric: bool = False
    """Whether sizes are in metres."""

    def to(self, device: torch.device, dtype: torch.dtype) -> "SkeletonStore":
        """Return a store with the values on another device and of another type."""
        return replace(self, values_MV4=self.values_MV4.to(device, dtype))

    def frames(self, row: int) -> tuple[Tensor, NDArray[np.bool_]]:
        """Return the skeletons (F, 14, 4) and valid frames (F,) of a tracklet."""
        (start,), (length,) = self.spans(np.array([row]))
        return self.values_MV4[start : start + length], self.valid_M[start : start + length]

    def has_any(self, rows_n: IntArray) -> NDArray[np.bool_]:
        """Return flags (n,) for the rows that have at least one valid frame."""
        first_n, stop_n = self.among_valid(*self.spans(rows_n))
        return first_n < stop_n

    def spans(self, rows_n: IntArray) -> tuple[IntArray, IntArray]:
        """Return the first frames of these tracklets among all M frames, and their lengths.

        Raises KeyError for a tracklet that was not loaded.
        """
        starts_n = self.starts_N[rows_n]
        if (starts_n < 0).any():
            raise KeyError(f"row {rows_n[starts_n < 0][0]}: its skeletons were not loaded")
        return starts_n, self.lengths_N[rows_n]

    @cached_property
    def valid_frames(self) -> IntArray:
        """Return the places of the valid frames among all M frames, in order."""
        return np.flatnonzero(self.valid_M)

    def among_valid(self, starts_n: IntArray, lengths_n: IntArray) -> tuple[IntArray, IntArray]:
        """Return the start and stop in `valid_frames` of each of these ranges of frames."""
        first_n, stop_n = (np.searchsorted(self.valid_frames, at_n) for at_n in (starts_n, starts_n + lengths_n))
        return first_n, stop_n


def resampled_length(frames: int, rate: float, wanted: float) -> int:
    """Return the number of frames after resampling from `rate` to `wanted` frames per second; unchanged if one is 0."""
    if not frames or not rate or not wanted or rate == wanted:
        return frames
    return int((frames - 1) * wanted / rate + 1e-9) + 1


def resampled(skeletons_FV4: NDArray[np.float32], rate: float, wanted: float) -> NDArray[np.float32]:
    """Resample skeletons (F, 14, 4) from `rate` to `wanted` frames per second, linearly between neighbours.

    Next to a frame without a skeleton the nearer neighbour is taken. A rate of 0 is unknown: nothing is changed.
    """
    count = resampled_length(len(skeletons_FV4), rate, wanted)
    if not rate or not wanted or rate == wanted or not count:
        return skeletons_FV4
    at_f = np.minimum(np.arange(count) * rate / wanted, len(skeletons_FV4) - 1)
    before_f = np.floor(at_f).astype(np.int64)
    after_f = np.minimum(before_f + 1, len(skeletons_FV4) - 1)
    share_f11 = (at_f - before_f).astype(np.float32)[:, None, None]
    before, after = skeletons_FV4[before_f], skeletons_FV4[after_f]
    between = (1 - share_f11) * before + share_f11 * after
    return np.where(np.isfinite(between), between, np.where(share_f11 <= 0.5, before, after))


def load_skeletons(  # the settings of SMIN's clips
    table: Tracklets,
    rows: IntArray,
    normalised: bool = True,
    first_frames: int = 0,
    fps: float = 0.0,
    scale: Scale = "tracklet",
) -> SkeletonStore:
    """Read all skeletons of `rows`, or the `first_frames` of each unless 0; see `training_skeletons`.

    `scale` says whether sizes are kept, see `skeleton_scale.unit_of`. Tracklets whose rate is known are resampled to
    `fps` frames per second, unless it is 0. Raises DataError for a corrupt file, and if no tracklet has any skeleton.
    """
    recorded = table.lengths[rows] if first_frames == 0 else np.minimum(table.lengths[rows], first_frames)
    rates = [table.fps(int(row)) if fps else 0.0 for row in rows]
    if unknown := rates.count(0.0) if any(rates) else 0:
        log.warning(
            "skeletons: %d of %d tracklets have no fps and stay as they are, the others are brought to %g fps",
            unknown,
            len(rates),
            fps,
        )
    wanted = np.array([resampled_length(int(n), rate, fps) for n, rate in zip(recorded, rates, strict=True)], np.int64)
    starts = np.concatenate([[0], np.cumsum(wanted)]).astype(np.int64)
    values = np.zeros((starts[-1], *SKELETON_SHAPE), np.float32)
    unit = unit_of(scale, table)
    for n, row in enumerate(tqdm(rows, "skeletons", disable=None)):
        skeletons_FV4 = training_skeletons(table, int(row), int(recorded[n]), normalised, unit)
        if scale == "auto" and unit is not None:
            check_size(skeletons_FV4, unit, f"tracklet {table.keys_N[row]} in {table.folder(int(row), 'skeletons')}")
        values[starts[n] : starts[n + 1]] = resampled(skeletons_FV4, rates[n], fps)
    valid: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=(1, 2)))
    if not valid.any():
        folder = table.folder(int(rows[0]), "skeletons") if len(rows) else "no tracklets"
        raise DataError(f"{folder}: no skeleton found for any of {len(rows)} tracklets")
    values[~valid] = 0
    starts_N, lengths_N = np.full(len(table), -1), np.zeros(len(table), np.int64)
    starts_N[rows], lengths_N[rows] = starts[:-1], wanted
    return SkeletonStore(starts_N, lengths_N, torch.from_numpy(values), valid, unit is not None)
