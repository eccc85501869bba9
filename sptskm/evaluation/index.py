"""Approximate index of a gallery (inverted file, faiss).

The weighted sum of the streams' squared distances is written as one squared distance: the features of all streams are
concatenated, each multiplied by the square root of its factor.
Legend: Q queries, K nearest.
"""

import os
import zlib
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sptskm.common.atomic import partial_of
from sptskm.common.errors import ConfigError, DataError
from sptskm.evaluation.fusion import FusedDistance
from sptskm.evaluation.neighbours import ALONE, GALLERY_BLOCK, Compared, Ints, Nearest, best_of, candidates_of, exact

SPARE = 8  # candidates beyond those asked for, as float32 orders neighbours as near as its rounding anyhow
RECALL_SAMPLE = 64
WANTED_RECALL = 0.98
POINTS_PER_CELL = 64
_SUM_MARK = b"\nsptskm-crc32:"  # behind an index, before the checksum of all that is before


class Index:
    """An approximate index (inverted file, faiss).

    The gallery is divided into cells, and a query searches some of them. Tracklets that lack input of some stream are
    not in the index: they are few, and cannot be placed in one space with the others.
    """

    def __init__(self, index: Any, gallery: Compared, distance: FusedDistance) -> None:
        self._index, self._gallery, self._distance = index, gallery, distance
        self._inside, self._beside = np.flatnonzero(gallery.complete_N), np.flatnonzero(~gallery.complete_N)

    @classmethod
    def build(cls, gallery: Compared, distance: FusedDistance = ALONE) -> "Index":
        """Build an index with sqrt(N) cells; raise nprobe until recall@10 is at least 0.98 on a sample.

        Raises DataError where no tracklet has input of every stream.
        """
        faiss = _faiss()
        rows = np.flatnonzero(gallery.complete_N)
        if not len(rows):
            raise DataError(
                "no tracklet of the gallery has input of every stream, wanted some, or a search by one alone"
            )
        cells = max(1, round(len(rows) ** 0.5))
        length = _length(gallery)
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(length), length, cells)
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, POINTS_PER_CELL
        index.train(gallery.rows(np.sort(drawn(rows, cells * POINTS_PER_CELL))).joined(distance))
        for at in range(0, len(rows), GALLERY_BLOCK):
            index.add(gallery.rows(rows[at : at + GALLERY_BLOCK]).joined(distance))
        built = cls(index, gallery, distance)
        index.nprobe = 1
        while index.nprobe < cells and built.recall(10) < WANTED_RECALL:
            index.nprobe = min(2 * index.nprobe, cells)
        return built

    @classmethod
    def read(cls, path: Path, gallery: Compared, distance: FusedDistance = ALONE) -> "Index":
        """Read an index file.

        Raises DataError for a file that is no index, is damaged or belongs to another gallery.
        """
        faiss = _faiss()
        try:
            _check_sum(path)
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        except (OSError, RuntimeError) as error:
            raise DataError(f"index {path}: not readable ({str(error).splitlines()[0]}); delete it") from None
        found = index.ntotal, index.d
        wanted = int(gallery.complete_N.sum()), _length(gallery)
        if found != wanted or not hasattr(index, "nprobe"):
            raise DataError(f"index {path}: holds {found} rows and numbers, wanted {wanted}; delete it")
        return cls(index, gallery, distance)

    def write(self, path: Path) -> None:
        """Write the index with a copy of the gallery's vectors; the file appears complete or not at all.

        Raises DataError where it cannot be written.
        """
        try:
            with partial_of(path) as partial:
                _faiss().write_index(self._index, str(partial))
                with partial.open("r+b") as file:
                    mark = _SUM_MARK + zlib.crc32(mmap(file.fileno(), 0)).to_bytes(4, "big")
                    file.seek(0, os.SEEK_END)
                    file.write(mark)
        except (OSError, RuntimeError) as error:
            raise DataError(f"index {path}: cannot be written ({str(error).splitlines()[0]})") from None

    def nearest(self, query: Compared, count: int) -> Nearest:
        """Find the nearest rows like `exact`, but approximately: some of the nearest may be missing.

        A query that lacks input of some stream is searched exactly.
        """
        known, unknown = np.flatnonzero(query.complete_N), np.flatnonzero(~query.complete_N)
        indexed, gallery = query.rows(known), self._gallery
        _, inside_QK = self._index.search(indexed.joined(self._distance), min(count + SPARE, len(self._inside)))
        beside = candidates_of(indexed, gallery.rows(self._beside), count, self._distance)
        candidates = [
            np.concatenate([self._inside[own_K[own_K >= 0]], self._beside[other_K]])
            for own_K, other_K in zip(inside_QK, beside, strict=True)
        ]
        near = best_of(indexed, gallery, candidates, count, self._distance)
        others = exact(query.rows(unknown), gallery, count, self._distance)
        order = np.argsort(np.concatenate([known, unknown]))
        return Nearest(
            np.concatenate([near.rows_QK, others.rows_QK])[order],
            np.concatenate([near.distances_QK, others.distances_QK])[order],
        )

    def recall(self, count: int) -> float:
        """Measure the share of the `count` nearest rows that the index finds.

        The queries are random gallery rows; a query itself does not count as found.
        """
        count = min(count, len(self._gallery))
        chosen = drawn(self._inside, RECALL_SAMPLE)
        sample = self._gallery.rows(chosen)
        true_QK = exact(sample, self._gallery, count + 1, self._distance).rows_QK
        found_QK = self.nearest(sample, count + 1).rows_QK
        shares = [
            len((set(true) & set(found)) - {row, -1}) / max(1, len(set(true) - {row, -1}))
            for row, true, found in zip(chosen.tolist(), true_QK.tolist(), found_QK.tolist(), strict=True)
        ]
        return float(np.mean(shares)) if len(self._gallery) > 1 else 1.0


def _length(compared: Compared) -> int:
    return sum(features_ND.shape[1] for features_ND in compared.features.values())


def _check_sum(path: Path) -> None:
    """Raise DataError unless the content matches the checksum stored at its end (faiss has no checksum of its own)."""
    length = path.stat().st_size - len(_SUM_MARK) - 4
    with path.open("rb") as file:
        file.seek(max(0, length))
        mark = file.read()
        if length <= 0 or not mark.startswith(_SUM_MARK):
            raise DataError(f"index {path}: has no checksum, or not all of one; delete it")
        with mmap(file.fileno(), 0, access=ACCESS_READ) as content, memoryview(content) as view, view[:length] as held:
            if zlib.crc32(held) != int.from_bytes(mark[len(_SUM_MARK) :], "big"):
                raise DataError(f"index {path}: is damaged, its checksum is another; delete it")


def drawn(rows: Ints, count: int) -> Ints:
    """Draw some of these rows, always the same."""
    return np.random.default_rng(0).permutation(rows)[:count]


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError:
        raise ConfigError("--index needs faiss, which is not installed: pip install 'sptskm[index]'") from None
    return faiss
