"""Retrieval of the nearest tracklets in a gallery of features, exact or by an approximate index.

Two streams are compared by the fused distance that a final job has kept. For the index, the weighted sum of squared
distances is written as one squared distance: the features of both streams are concatenated, each multiplied by the
square root of its factor.
Legend: Q queries, G gallery rows, N tracklets, D and E feature lengths of the two streams, K nearest.
"""

import os
import time
import zlib
from dataclasses import dataclass, replace
from glob import escape
from hashlib import blake2b
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from sptskm.atomic import partial_of, write_error
from sptskm.config import ConfigError
from sptskm.data import DataError
from sptskm.data.derived import warn_of_methods
from sptskm.evaluation import Features, FusedDistance, StreamDistances, align, squared_distances
from sptskm.evaluation.feature_files import Labelled, read_features
from sptskm.evaluation.neighbours import ALONE, GALLERY_BLOCK, Compared, Ints, Nearest, best_of, candidates_of, exact
from sptskm.report.found import Found
from sptskm.report.fused import Fused

SPARE = 8  # candidates beyond those asked for, as float32 orders neighbours as near as its rounding anyhow
RECALL_SAMPLE = 64
WANTED_RECALL = 0.98
POINTS_PER_CELL = 64
_SUM_MARK = b"\nsptskm-crc32:"  # behind an index, before the checksum of all that is before
FITTED_ON = 512  # tracklets of the gallery whose distances tell how far the two streams spread


class Index:
    """An approximate index (inverted file, faiss).

    The gallery is divided into cells, and a query searches some of them. Tracklets without a skeleton are not in the
    index: they are few, and cannot be placed in one space with the others.
    """

    def __init__(self, index: Any, gallery: Compared, distance: FusedDistance) -> None:
        self._index, self._gallery, self._distance = index, gallery, distance
        self._inside, self._beside = np.flatnonzero(gallery.valid_N), np.flatnonzero(~gallery.valid_N)

    @classmethod
    def build(cls, gallery: Compared, distance: FusedDistance = ALONE) -> "Index":
        """Build an index with sqrt(N) cells; raise nprobe until recall@10 is at least 0.98 on a sample.

        Raises DataError where no tracklet has a skeleton.
        """
        faiss = _faiss()
        rows = np.flatnonzero(gallery.valid_N)
        if not len(rows):
            raise DataError("no tracklet of the gallery has a skeleton, wanted some, or a search by SSIN alone")
        cells = max(1, round(len(rows) ** 0.5))
        length = gallery.ssin_ND.shape[1] + gallery.smin_NE.shape[1]
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(length), length, cells)
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, POINTS_PER_CELL
        index.train(gallery.rows(np.sort(_drawn(rows, cells * POINTS_PER_CELL))).joined(distance))
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
        wanted = int(gallery.valid_N.sum()), gallery.ssin_ND.shape[1] + gallery.smin_NE.shape[1]
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

        A query without a skeleton is searched exactly.
        """
        known, unknown = np.flatnonzero(query.valid_N), np.flatnonzero(~query.valid_N)
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
        chosen = _drawn(self._inside, RECALL_SAMPLE)
        sample = self._gallery.rows(chosen)
        true_QK = exact(sample, self._gallery, count + 1, self._distance).rows_QK
        found_QK = self.nearest(sample, count + 1).rows_QK
        shares = [
            len((set(true) & set(found)) - {row, -1}) / max(1, len(set(true) - {row, -1}))
            for row, true, found in zip(chosen.tolist(), true_QK.tolist(), found_QK.tolist(), strict=True)
        ]
        return float(np.mean(shares)) if len(self._gallery) > 1 else 1.0


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


def _drawn(rows: Ints, count: int) -> Ints:
    return np.random.default_rng(0).permutation(rows)[:count]


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError:
        raise ConfigError("--index needs faiss, which is not installed: pip install 'sptskm[index]'") from None
    return faiss


@dataclass(frozen=True, eq=False)
class Pair:
    """Features of SSIN (or of a single stream of either kind) and of SMIN."""

    first: Labelled
    smin: Labelled | None = None

    @property
    def available_streams(self) -> list[Labelled]:
        """Return the features of the available streams."""
        return [side for side in (self.first, self.smin) if side is not None]

    def check(self, fused: Fused | None) -> None:
        """Raise ConfigError or DataError where these features do not fit the fusion or a stream is missing."""
        streams = [side.features.stream for side in self.available_streams]
        if (len(streams) == 2) != (fused is not None):
            raise ConfigError(f"found {len(streams)} of the two streams, wanted both with --fusion and one without it")
        if len(streams) == 2 and streams != ["ssin", "smin"]:
            raise DataError(f"the features to be fused are of {' and '.join(streams)}, wanted ssin and smin")
        for stream, side in zip(streams, self.available_streams, strict=True):
            if fused is not None:
                fused.check(stream, side.network, "a file of features")
                warn_of_methods("the fusion", fused.methods, "the features", side.methods)

    def compared(self, fused: Fused | None) -> Compared:
        """Prepare the features for comparison.

        Raises DataError where the two streams do not belong together, as `align`.
        """
        first = self.first.features
        if self.smin is None or fused is None:
            return Compared.alone(first.features_ND)
        smin = align(first, self.smin.features).compared(fused.normalisation)
        return Compared(first.compared(fused.normalisation).features_ND, smin.known_ND, smin.valid_N)


def read_pair(first: Path, smin: Path | None = None) -> Pair:
    """Read the features of one or two streams; raise errors as `read_features`."""
    return Pair(read_features(first), None if smin is None else read_features(smin))


def fit_fused(gallery: Pair, weight: float) -> Fused:
    """Fit a fusion for a weight of SMIN given by the user, with z-scores of the gallery's own distances and no labels.

    Raises ConfigError for a weight outside 0 to 1 or one stream alone, and DataError where too few of the gallery's
    tracklets have both inputs.
    """
    if not 0 <= weight <= 1:
        raise ConfigError(f"--weight is {weight}, wanted 0 (SSIN alone) to 1 (SMIN alone)")
    if gallery.smin is None:
        raise ConfigError("--weight was given with one stream, wanted the features of SMIN by --gallery-smin as well")
    first, second = gallery.first.features, align(gallery.first.features, gallery.smin.features)
    both = _drawn(np.flatnonzero(first.valid_N & second.valid_N), FITTED_ON)
    if len(both) < 4:
        raise DataError(f"{len(both)} tracklets of the gallery have both inputs, wanted at least 4 to fit --weight on")
    halves = both[::2], both[1::2]  # no tracklet is compared with itself
    ssin_QG, smin_QG = (squared_distances(*(side.features_ND[half] for half in halves)) for side in (first, second))
    known_Q, known_G = (np.ones(len(half), np.bool_) for half in halves)
    try:
        streams = StreamDistances(ssin_QG, smin_QG, known_Q, known_G)
        distance = FusedDistance.fitted(streams, weight, "zscore")
    except ValueError as error:
        raise DataError(f"--weight cannot be fitted on the gallery: {error}") from None
    return Fused(weight, "zscore", distance, {side.features.stream: side.network for side in gallery.available_streams})


def search(  # what is searched, for what, and how
    gallery: Pair,
    query: str | Pair,
    count: int = 10,
    fused: Fused | None = None,
    index: Path | None = None,
    *,
    other_cameras: bool = False,
) -> Found:
    """Find the gallery tracklets nearest to one gallery tracklet, given by key, or to the tracklets of other features.

    Tracklets without input are neither searched nor found, and a query tracklet never finds itself. Two streams are
    compared as `fused` says, tracklets without a skeleton by SSIN alone. With `index` an approximate index is read from
    this path, or built and written there. With `other_cameras` tracklets from the query's own camera are not found.
    Raises ConfigError and DataError.
    """
    if count < 1:
        raise ConfigError(f"--top is {count}, wanted at least 1")
    if other_cameras and index is not None:
        raise ConfigError("--other-cameras with --index, wanted one of them: an index does not know cameras")
    gallery.check(fused)
    if not gallery.first.features.valid_N.any():
        raise DataError("no tracklet of the gallery has any input, wanted some")
    queries = _one(gallery, query) if isinstance(query, str) else query
    _check(gallery, queries)
    if other_cameras:
        _check_cameras(gallery.first, queries.first)
    distance = ALONE if fused is None else fused.distance
    rows_G, rows_Q = (np.flatnonzero(side.first.features.valid_N) for side in (gallery, queries))
    searched, asked = gallery.compared(fused).rows(rows_G), queries.compared(fused).rows(rows_Q)
    opened = None if index is None else _open(index, searched, distance)
    begin = time.perf_counter()
    wanted = min(count + isinstance(query, str), len(searched))
    if other_cameras:
        camids_Q, camids_G = (s.first.labels.camids[r] for s, r in ((queries, rows_Q), (gallery, rows_G)))
        nearest = _elsewhere((asked, camids_Q), (searched, camids_G), wanted, distance)
    else:
        nearest = exact(asked, searched, wanted, distance) if opened is None else opened.nearest(asked, wanted)
    spent = (time.perf_counter() - begin) / max(1, len(asked))
    remark = f"gallery of {len(searched)} tracklets, {1000 * spent:.1f} ms a query, {_how(opened, count)}"
    if without := int((~asked.valid_N).sum()):
        remark += f"; {without} without a skeleton compared with all by SSIN alone"
    if without := len(queries.first.features) - len(asked):
        remark += f"; {without} of the queries left out, as they have no input"
    found = Nearest(np.where(nearest.rows_QK < 0, -1, rows_G[nearest.rows_QK]), nearest.distances_QK)
    found = _without_itself(found, gallery, query, count)
    return Found(gallery.first, _rows(queries.first, rows_Q).features, found.rows_QK, found.distances_QK, remark)


def _elsewhere(
    queries: tuple[Compared, NDArray[Any]], searched: tuple[Compared, NDArray[Any]], count: int, distance: FusedDistance
) -> Nearest:
    """Find the nearest rows like `exact`, among gallery rows of other cameras.

    Queries and gallery come with the camera of every row.
    """
    (query, camids_Q), (gallery, camids_G) = queries, searched
    found = Nearest(np.full((len(query), count), -1), np.full((len(query), count), np.inf))
    for camid in np.unique(camids_Q):
        asked, rows = np.flatnonzero(camids_Q == camid), np.flatnonzero(camids_G != camid)
        if len(rows):
            near = exact(query.rows(asked), gallery.rows(rows), count, distance)
            found.rows_QK[asked] = np.where(near.rows_QK < 0, -1, rows[near.rows_QK])
            found.distances_QK[asked] = near.distances_QK
    return found


def _check_cameras(gallery: Labelled, query: Labelled) -> None:
    """Raise DataError where query and gallery come from different data sets, or the gallery has only one camera."""
    if gallery.features.fingerprint != query.features.fingerprint:
        raise DataError("query and gallery are of two data sets, whose cameras are not the same; leave --other-cameras")
    if len(np.unique(gallery.labels.camids)) < 2:
        raise DataError("the gallery has one camera, wanted several, or a search without --other-cameras")


def _how(index: Index | None, count: int) -> str:
    if index is None:
        return "exact"
    return f"approximate: recall@{count} {index.recall(count):.3f} against exact search on {RECALL_SAMPLE} tracklets"


def _without_itself(found: Nearest, gallery: Pair, query: str | Pair, count: int) -> Nearest:
    if not isinstance(query, str):
        return found
    (own,) = np.flatnonzero(gallery.first.features.keys_N == query)
    kept_K = np.flatnonzero(found.rows_QK[0] != own)[:count]
    return Nearest(found.rows_QK[:, kept_K], found.distances_QK[:, kept_K])


def _one(gallery: Pair, key: str) -> Pair:
    return Pair(_row(gallery.first, key), None if gallery.smin is None else _row(gallery.smin, key))


def _row(labelled: Labelled, key: str) -> Labelled:
    features = labelled.features
    rows = np.flatnonzero(features.keys_N == key)
    if not len(rows):
        raise DataError(f"the gallery has no tracklet {key}, wanted one of it such as {features.keys_N[0]}")
    return _rows(labelled, rows)


def _rows(labelled: Labelled, rows: Ints) -> Labelled:
    features = labelled.features
    parts = features.features_ND[rows], features.keys_N[rows], features.valid_N[rows]
    chosen = Features(*parts, features.fingerprint, features.stream)
    return replace(labelled, features=chosen, labels=labelled.labels.part(rows))


def _check(gallery: Pair, queries: Pair) -> None:
    if (gallery.smin is None) != (queries.smin is None):
        given, missing = ("gallery", "query") if queries.smin is None else ("query", "gallery")
        raise ConfigError(f"--{given}-smin was given, wanted the features of SMIN by --{missing}-smin as well")
    for sides in zip(gallery.available_streams, queries.available_streams, strict=True):
        found, asked = (_made(side) for side in sides)
        if found != asked:
            raise DataError(f"the gallery's features are {found}, those of the query {asked}, wanted the same network")
        warn_of_methods("the gallery", sides[0].methods, "the query", sides[1].methods)
    query = queries.first.features
    if not query.valid_N.any():
        whose = f"tracklet {query.keys_N[0]} has no" if len(query) == 1 else "no query has any"
        raise DataError(f"{query.stream} features: {whose} input to compare")


def _made(one: Labelled) -> str:
    return f"{one.features.features_ND.shape[1]} numbers of {one.features.stream} by network {one.network}"


def index_beside(gallery: Path, smin: Path | None = None, fused: Fused | None = None) -> Path:
    """Return the path of the index of these features; remove an index of features that they have replaced."""
    name = gallery.stem
    if smin is not None:
        # another fusion is another index
        name += f"-{smin.stem}-{blake2b(repr(fused).encode(), digest_size=4).hexdigest()}"
    content = [_checksums(file) for file in (gallery, smin) if file is not None]
    digest = blake2b(repr(content).encode(), digest_size=8).hexdigest()
    path = gallery.with_name(f"{name}-{digest}.index")
    for other in gallery.parent.glob(f"{escape(name)}-{'[0-9a-f]' * len(digest)}.index"):
        if other != path:
            other.unlink()
    return path


def _checksums(features: Path) -> list[tuple[str, int, int]]:
    """Return name, size and checksum of every array, read from the zip directory alone.

    Every changed number changes a checksum, and no array needs to be read.
    """
    with ZipFile(features) as file:
        return [(array.filename, array.file_size, array.CRC) for array in file.infolist()]


def _open(path: Path, gallery: Compared, distance: FusedDistance) -> Index:
    if path.is_file():
        return Index.read(path, gallery, distance)
    if why := write_error(path):
        raise DataError(f"index {path}: {why}, wanted a folder for it, or a search without --index")
    built = Index.build(gallery, distance)
    built.write(path)
    return built
