"""The tracklets of a gallery of features that are nearest to others, exactly or by an approximate index.

Two streams are one space: squared distances in it are the weighted sum of those of both streams, each in units of its
standard deviation over the gallery, which ranks a query's gallery as the z-score fusion does.
Legend: Q queries, G gallery rows, N tracklets, D numbers, K nearest.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.atomic import partial_of
from sptskm.config import ConfigError
from sptskm.data import DataError, Tracklets
from sptskm.evaluation import Features, align, squared_distances
from sptskm.report.console import table
from sptskm.report.features import Labelled
from sptskm.report.ranked import Outcome, Ranked, Result, ranked_grid
from sptskm.report.strips import Image

GALLERY_BLOCK = 65_536
QUERY_BLOCK = 64
SPARE = 8  # candidates beyond those asked for, as float32 orders neighbours as near as its rounding anyhow
SAMPLE = 512  # rows that tell how far distances spread
RECALL_SAMPLE = 64
WANTED_RECALL = 0.98
POINTS_PER_CELL = 64

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest gallery rows (Q, K) of each query, nearest first, and their squared distances; -1 where none is."""

    rows_QK: Ints
    distances_QK: NDArray[np.float64]


class Space:
    """Where tracklets of one or two streams are compared, fixed by a gallery.

    In a joined space a row without a skeleton stands where it is as far from every query, in SMIN, as the gallery is
    on average.
    """

    def __init__(self, ssin: Features, smin: Features | None = None, weight: float = 0.5) -> None:
        self._joined = smin is not None
        if smin is None:
            return
        if not 0 <= weight <= 1:
            raise ConfigError(f"the weight of SMIN is {weight}, wanted 0 to 1")
        known_ND = smin.features_ND[smin.valid_N]
        self._scales = [
            np.float32(np.sqrt(part / _spread(stream))) for part, stream in ((1 - weight, ssin), (weight, smin))
        ]
        self._mean_D = known_ND.mean(0, dtype=np.float64).astype(np.float32)
        self._radius = np.sqrt(np.square(known_ND - self._mean_D).sum(1).mean(dtype=np.float64))

    def vectors(self, first: Features, smin: Features | None = None, query: bool = False) -> Floats32:
        """Rows (N, D) of that space. Raises ValueError where the two do not belong together, as `align`."""
        if (smin is not None) != self._joined:
            raise ConfigError("the gallery and the queries are of one stream and of two, wanted the same of both")
        if smin is None:
            return first.features_ND
        other = align(first, smin)
        smin_ND = np.where(other.valid_N[:, None], other.features_ND, self._mean_D)
        apart_N1 = np.where(other.valid_N[:, None] | query, 0, self._radius)
        parts = (first.features_ND * self._scales[0], smin_ND * self._scales[1], apart_N1 * self._scales[1])
        return np.concatenate(parts, axis=1, dtype=np.float32)


def _spread(features: Features) -> float:
    """Standard deviation of squared distances over pairs of a sample. Raises DataError for a constant stream."""
    valid_ND = features.features_ND[features.valid_N]
    chosen = np.random.default_rng(0).permutation(len(valid_ND))[:SAMPLE]
    distances = squared_distances(valid_ND[chosen], valid_ND[chosen])[np.triu_indices(len(chosen), 1)]
    if not distances.size or not distances.std() > 0:
        raise DataError(f"{features.stream} features of the gallery are all equally far apart, wanted some that differ")
    return float(distances.std())


def exact(query_QD: Floats32, gallery_GD: Floats32, count: int) -> Nearest:
    """The nearest rows by squared Euclidean distance, over blocks: no (Q, G) matrix is held."""
    found = [_nearest_of(query_QD[at : at + QUERY_BLOCK], gallery_GD, count) for at in _steps(query_QD, QUERY_BLOCK)]
    candidates_QK = np.concatenate(found) if found else np.empty((0, 0), np.int64)
    return _refined(query_QD, gallery_GD, candidates_QK, count)


def _steps(rows: NDArray[Any], block: int) -> Iterator[int]:
    yield from range(0, len(rows), block)


def _nearest_of(query_QD: Floats32, gallery_GD: Floats32, count: int) -> Ints:
    """Candidates (Q, K) in no order, some more than asked for."""
    rows_QK = np.empty((len(query_QD), 0), np.int64)
    near_QK = np.empty((len(query_QD), 0), np.float32)
    for at in _steps(gallery_GD, GALLERY_BLOCK):
        block_GD = gallery_GD[at : at + GALLERY_BLOCK]
        distance_QG = np.einsum("gd,gd->g", block_GD, block_GD) - 2 * (query_QD @ block_GD.T)
        own_QK = _smallest(distance_QG, count + SPARE)
        rows_QK = np.concatenate([rows_QK, own_QK + at], axis=1)
        near_QK = np.concatenate([near_QK, np.take_along_axis(distance_QG, own_QK, 1)], axis=1)
        kept_QK = _smallest(near_QK, count + SPARE)
        rows_QK, near_QK = np.take_along_axis(rows_QK, kept_QK, 1), np.take_along_axis(near_QK, kept_QK, 1)
    return rows_QK


def _smallest(values_QG: NDArray[Any], count: int) -> Ints:
    if values_QG.shape[1] <= count:
        return np.broadcast_to(np.arange(values_QG.shape[1]), values_QG.shape)
    return np.argpartition(values_QG, count - 1, axis=1)[:, :count]


def _refined(query_QD: Floats32, gallery_GD: Floats32, candidates_QK: Ints, count: int) -> Nearest:
    """The best of the candidates by distances in float64; equally far ones in row order."""
    candidates_QK = np.sort(candidates_QK, axis=1)
    distances_QK = np.empty(candidates_QK.shape)
    for q, rows_K in enumerate(candidates_QK):
        apart_KD = gallery_GD[rows_K].astype(np.float64) - query_QD[q]
        distances_QK[q] = np.where(rows_K < 0, np.inf, np.einsum("kd,kd->k", apart_KD, apart_KD))
    order_QK = np.argsort(distances_QK, axis=1, kind="stable")[:, :count]
    return Nearest(np.take_along_axis(candidates_QK, order_QK, 1), np.take_along_axis(distances_QK, order_QK, 1))


class Index:
    """An approximate index: cells of the gallery, of which a query looks into some (inverted file, faiss)."""

    def __init__(self, index: Any, gallery_GD: Floats32) -> None:
        self._index, self._gallery_GD = index, gallery_GD

    @classmethod
    def build(cls, gallery_GD: Floats32) -> "Index":
        """As many cells as the root of the rows; so many are looked into that a sample finds 98 % of its nearest."""
        faiss = _faiss()
        cells = max(1, round(len(gallery_GD) ** 0.5))
        length = gallery_GD.shape[1]
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(length), length, cells)
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, POINTS_PER_CELL
        index.train(gallery_GD)
        index.add(gallery_GD)
        built = cls(index, gallery_GD)
        index.nprobe = 1
        while index.nprobe < cells and built.recall(10) < WANTED_RECALL:
            index.nprobe = min(2 * index.nprobe, cells)
        return built

    @classmethod
    def read(cls, path: Path, gallery_GD: Floats32) -> "Index":
        """Raises DataError for a file that is no index or is one of another gallery."""
        faiss = _faiss()
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise DataError(f"index {path}: not readable ({str(error).splitlines()[0]}); delete it") from None
        found, wanted = (index.ntotal, index.d), gallery_GD.shape
        if found != wanted or not hasattr(index, "nprobe"):
            raise DataError(f"index {path}: holds {found} rows and numbers, wanted {wanted}; delete it")
        return cls(index, gallery_GD)

    def write(self, path: Path) -> None:
        """The file is there as a whole or not at all; the gallery's vectors are in it once more."""
        with partial_of(path) as partial:
            _faiss().write_index(self._index, str(partial))

    def nearest(self, query_QD: Floats32, count: int) -> Nearest:
        """Like `exact`, but some of the nearest may be missing."""
        count_found = min(count + SPARE, len(self._gallery_GD))
        _, candidates_QK = self._index.search(np.ascontiguousarray(query_QD), count_found)
        return _refined(query_QD, self._gallery_GD, candidates_QK, count)

    def recall(self, count: int) -> float:
        """Share of the `count` nearest that it finds, by gallery rows drawn at random, their own place not counted."""
        chosen = np.random.default_rng(0).permutation(len(self._gallery_GD))[:RECALL_SAMPLE]
        sample_QD = self._gallery_GD[chosen]
        true_QK = exact(sample_QD, self._gallery_GD, count + 1).rows_QK
        found_QK = self.nearest(sample_QD, count + 1).rows_QK
        shares = [
            len((set(true) & set(found)) - {row}) / max(1, len(set(true) - {row}))
            for row, true, found in zip(chosen.tolist(), true_QK.tolist(), found_QK.tolist(), strict=True)
        ]
        return float(np.mean(shares)) if len(self._gallery_GD) > 1 else 1.0


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError:
        raise ConfigError("--index needs faiss, which is not installed: pip install 'sptskm[search]'") from None
    return faiss


@dataclass(frozen=True, eq=False)
class Found:
    """What a search has found: rows of the gallery for every query."""

    gallery: Labelled
    queries: Features
    nearest: Nearest
    remark: str

    def text(self, names: Tracklets | None = None) -> str:
        """A line for each result; with a table, identities and cameras by name."""
        places = _places(names)
        lines = []
        for q, key in enumerate(self.queries.keys_N.tolist()):
            for rank, (row, distance) in enumerate(self._results(q), 1):
                found = str(self.gallery.features.keys_N[row])
                lines.append([key, rank, found, *self._who(row, found, names, places), f"{distance:.4f}"])
        return f"{table(['query', 'rank', 'tracklet', 'camera', 'identity', 'distance'], lines)}\n{self.remark}"

    def _results(self, q: int) -> Iterator[tuple[int, float]]:
        rows_K, distances_K = self.nearest.rows_QK[q].tolist(), self.nearest.distances_QK[q].tolist()
        yield from ((row, distance) for row, distance in zip(rows_K, distances_K, strict=True) if row >= 0)

    def _who(self, row: int, key: str, names: Tracklets | None, places: dict[str, int]) -> list[str]:
        labels = self.gallery.labels
        if names is not None and key in places:
            camera, pid = names.camera_name(places[key]), names.pid_name(places[key])
        else:
            camera, pid = str(labels.camids[row]), str(labels.pids[row])
        return [camera, pid if labels.pids[row] > 0 else "-"]

    def picture(self, names: Tracklets) -> Image:
        """Queries with their nearest tracklets. Raises DataError for a tracklet that the data set does not have."""
        places = _places(names)
        shown = [*self.queries.keys_N.tolist(), *(k for q in range(len(self.queries)) for k in self._keys(q))]
        if missing := [key for key in shown if key not in places]:
            raise DataError(f"the data set has no tracklet {missing[0]}, wanted that of the gallery and the queries")
        ranked = []
        for q, key in enumerate(self.queries.keys_N.tolist()):
            own = places[key]
            results = [
                Result(places[found], _outcome(names, own, places[found]), rank, {"distance": distance})
                for rank, (found, (_, distance)) in enumerate(zip(self._keys(q), self._results(q), strict=True), 1)
            ]
            ranked.append(Ranked(own, [], results))
        return ranked_grid(names, ranked, "Nearest tracklets")

    def _keys(self, q: int) -> list[str]:
        return [str(self.gallery.features.keys_N[row]) for row, _ in self._results(q)]


def _places(names: Tracklets | None) -> dict[str, int]:
    return {} if names is None else {key: row for row, key in enumerate(names.keys_N.tolist())}


def _outcome(names: Tracklets, query: int, found: int) -> Outcome:
    pids = int(names.pids_N[query]), int(names.pids_N[found])
    if min(pids) <= 0:
        return "junk"
    return "right" if pids[0] == pids[1] else "wrong"


def write_picture(path: Path, image: Image) -> None:
    """Raises DataError where it cannot be written."""
    try:
        written = cv2.imwrite(str(path), image[..., ::-1])
    except cv2.error:
        written = False
    if not written:
        raise DataError(f"{path}: cannot be written as a picture, wanted a .png in a folder that exists")


@dataclass(frozen=True, eq=False)
class Pair:
    """Features of SSIN (or of any one stream alone) and of SMIN."""

    first: Labelled
    smin: Labelled | None = None


def search(gallery: Pair, query: str | Pair, count: int = 10, weight: float = 0.5, index: Path | None = None) -> Found:
    """The nearest tracklets of the gallery to a tracklet of it, by key, or to those of other features.

    Tracklets without input are never found, and the tracklet itself is not. With `index` an approximate index is read
    there, or built and written. Raises ConfigError and DataError.
    """
    if count < 1:
        raise ConfigError(f"--top is {count}, wanted at least 1")
    first, smin = gallery.first.features, None if gallery.smin is None else gallery.smin.features
    queries = _one(gallery, query) if isinstance(query, str) else query
    _check(first, queries.first.features)
    space = Space(first, smin, weight)
    rows_G = np.flatnonzero(first.valid_N)
    gallery_GD = np.ascontiguousarray(space.vectors(first, smin)[rows_G])
    query_smin = None if queries.smin is None else queries.smin.features
    query_QD = space.vectors(queries.first.features, query_smin, query=True)
    opened = None if index is None else _open(index, gallery_GD)
    begin = time.perf_counter()
    wanted = min(count + isinstance(query, str), len(gallery_GD))
    nearest = exact(query_QD, gallery_GD, wanted) if opened is None else opened.nearest(query_QD, wanted)
    spent = (time.perf_counter() - begin) / max(1, len(query_QD))
    if opened is None:
        how = "exact"
    else:
        how = (
            f"approximate: recall@{count} {opened.recall(count):.3f} against exact search on {RECALL_SAMPLE} tracklets"
        )
    remark = f"gallery of {len(rows_G)} tracklets, {1000 * spent:.1f} ms a query, {how}"
    rows_QK = np.where(nearest.rows_QK < 0, -1, rows_G[nearest.rows_QK])
    found = Nearest(rows_QK, nearest.distances_QK)
    return Found(gallery.first, queries.first.features, _without_itself(found, gallery, query, count), remark)


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
    row = rows[:1]
    parts = features.features_ND[row], features.keys_N[row], features.valid_N[row]
    return Labelled(Features(*parts, features.fingerprint, features.stream), labelled.labels)


def _check(gallery: Features, query: Features) -> None:
    if not gallery.valid_N.any():
        raise DataError(f"{gallery.stream} features: no tracklet of the gallery has any input, wanted some")
    if not query.valid_N.all():
        raise DataError(f"{query.stream} features: tracklet {query.keys_N[~query.valid_N][0]} has no input to compare")
    sides = [(features.stream, features.features_ND.shape[1]) for features in (gallery, query)]
    if sides[0] != sides[1]:
        told = " and ".join(f"{length} numbers of {stream}" for stream, length in sides)
        raise DataError(f"gallery and query features are {told}, wanted both of one network")


def index_beside(gallery: Path, smin: Path | None = None, weight: float = 0.5) -> Path:
    """Where the index of these features lies; one that is older than they are is removed."""
    name = gallery.stem if smin is None else f"{gallery.stem}-{smin.stem}-{weight:g}"
    path = gallery.with_name(f"{name}.index")
    changed = max(file.stat().st_mtime_ns for file in (gallery, smin) if file is not None)
    if path.is_file() and path.stat().st_mtime_ns < changed:
        path.unlink()
    return path


def _open(path: Path, gallery_GD: Floats32) -> Index:
    if path.is_file():
        return Index.read(path, gallery_GD)
    built = Index.build(gallery_GD)
    built.write(path)
    return built
