"""Align silhouettes, and keep those of many tracklets in memory, one bit a pixel.

At 64 x 44 pixels a silhouette takes 352 bytes: 180 MB for the 509,914 training frames of MARS, 240 MB for those of its
test part. They are read from the masks once, before the first step.
Legend: N rows of the table, n selected rows, M silhouettes of all tracklets, P bytes of one, H rows, W columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from sptskm.common.errors import DataError
from sptskm.config import GaitClips
from sptskm.data.files import read_mask
from sptskm.data.tracklets import IntArray, Tracklets

HALF = 128  # of a mask's 255: a pixel of a scaled mask shows the person from here on


def align_silhouette(mask_HW: NDArray[np.uint8], height: int, width: int, least_rows: int) -> NDArray[np.bool_] | None:
    """Scale a mask (any, any) to a silhouette (height, width) of a person as tall as it, in its middle.

    The rows from the first to the last one that shows the person become `height`; the centre of the mask's mass comes
    to the middle column, and what does not fit in the width is cut off. None if there are fewer than `least_rows` rows
    of the person, or none.
    """
    rows = np.flatnonzero(mask_HW.any(axis=1))
    if not len(rows) or (tall := int(rows[-1] - rows[0]) + 1) < least_rows:
        return None
    columns = np.flatnonzero(mask_HW.any(axis=0))
    person = mask_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    wide = max(1, round(person.shape[1] * height / tall))
    method = cv2.INTER_AREA if tall > height else cv2.INTER_LINEAR
    scaled = np.asarray(cv2.resize(person, (wide, height), interpolation=method) >= HALF)
    mass_W = scaled.sum(axis=0)
    if not mass_W.any():
        return None
    left = round(float(mass_W @ (np.arange(wide) + 0.5) / mass_W.sum() - width / 2))
    first, last = max(left, 0), min(left + width, wide)
    silhouette = np.zeros((height, width), bool)
    silhouette[:, first - left : last - left] = scaled[:, first:last]
    return silhouette


@dataclass(frozen=True, eq=False)
class SilhouetteStore:
    """Silhouettes by row of the table; frames whose mask shows too little of a person are left out.

    Only the bits are on a device; the silhouettes to take are chosen on the host.
    """

    starts_N: IntArray
    """First silhouette of each tracklet among all M; -1 if it was not loaded."""
    counts_N: IntArray
    """Silhouettes of each tracklet."""
    bits_MP: Tensor
    """uint8; the first pixel is the highest bit."""
    height: int
    width: int

    def to(self, device: torch.device) -> "SilhouetteStore":
        """Return a store with the bits on another device."""
        return replace(self, bits_MP=self.bits_MP.to(device))

    def spans(self, rows_n: IntArray) -> tuple[IntArray, IntArray]:
        """Return the first silhouette of these tracklets among all M, and their numbers of silhouettes.

        Raises KeyError for a tracklet that was not loaded.
        """
        starts_n = self.starts_N[rows_n]
        if (starts_n < 0).any():
            raise KeyError(f"row {rows_n[starts_n < 0][0]}: its silhouettes were not loaded")
        return starts_n, self.counts_N[rows_n]

    def has_any(self, rows_n: IntArray) -> NDArray[np.bool_]:
        """Return flags (n,) for the rows that have at least one silhouette."""
        return np.asarray(self.spans(rows_n)[1] > 0)

    def take(self, places: IntArray) -> Tensor:
        """Return silhouettes (*places.shape, H, W), uint8 of 0 and 1, by their places among all M."""
        index = torch.from_numpy(places.ravel()).to(self.bits_MP.device, non_blocking=True)
        bits = self.bits_MP.index_select(0, index)
        shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=bits.device)
        pixels = ((bits[:, :, None] >> shifts) & 1).flatten(1)[:, : self.height * self.width]
        return pixels.reshape(*places.shape, self.height, self.width)


@dataclass(frozen=True, eq=False)
class MaskReader(Dataset[Tensor]):
    """Reads and aligns all masks of a tracklet; the index is its row."""

    table: Tracklets
    clips: GaitClips

    def __getitem__(self, row: int) -> Tensor:
        """Return the bits (k, P) of the k silhouettes of a tracklet. Raises DataError for an unusable file."""
        size = self.clips.height, self.clips.width
        files = self.table.files(row, range(int(self.table.lengths[row])), "masks")
        found = [align_silhouette(read_mask(file), *size, self.clips.least_rows) for file in files]
        kept = [silhouette.ravel() for silhouette in found if silhouette is not None]
        return torch.from_numpy(np.packbits(np.array(kept, bool).reshape(len(kept), size[0] * size[1]), axis=1))


def store_of(reader: MaskReader, rows: IntArray, read: Iterable[Tensor]) -> SilhouetteStore:
    """Keep what `reader` has read of `rows`, in that order. Raises DataError if no tracklet has any silhouette."""
    table, clips = reader.table, reader.clips
    found = list(tqdm(read, "silhouettes", len(rows), disable=None))
    counts = np.array([len(bits) for bits in found], np.int64)
    if not counts.any():
        folder = table.folder(int(rows[0]), "masks") if len(rows) else "no tracklets"
        raise DataError(
            f"{folder}: no mask of {len(rows)} tracklets shows a person in at least {clips.least_rows} rows, "
            "wanted some, or a smaller clips.least_rows"
        )
    starts_N, counts_N = np.full(len(table), -1), np.zeros(len(table), np.int64)
    starts_N[rows], counts_N[rows] = np.cumsum(counts) - counts, counts
    return SilhouetteStore(starts_N, counts_N, torch.cat(found), clips.height, clips.width)
