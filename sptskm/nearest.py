"""Retrieval of the nearest tracklets in a gallery of features, exact or by an approximate index.

Several streams are compared by the fused distance that a final job has kept.
Legend: Q queries, G gallery rows, N tracklets, K nearest.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from glob import escape
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from sptskm.common.atomic import write_error
from sptskm.common.errors import DataError
from sptskm.config import ConfigError
from sptskm.data.derived import warn_of_methods
from sptskm.evaluation import (
    Distances,
    FusedDistance,
    Fusion,
    StreamDistances,
    aligned,
    pair_weights,
    squared_distances,
)
from sptskm.evaluation.feature_files import Labelled, read_features
from sptskm.evaluation.index import RECALL_SAMPLE, Index, drawn
from sptskm.evaluation.neighbours import Compared, Ints, Nearest, exact
from sptskm.report.found import Found

FITTED_ON = 512  # tracklets of the gallery whose distances tell how far each stream spreads


class FeatureSet(dict[str, Labelled]):
    """Features of the same tracklets by one or more streams, by stream; the first tells the tracklets' order.

    Raises ConfigError where two are of one stream.
    """

    def __init__(self, sides: Sequence[Labelled]) -> None:
        super().__init__((side.features.stream, side) for side in sides)
        if len(self) < len(sides):
            found = " and ".join(side.features.stream for side in sides)
            raise ConfigError(f"the features are of {found}, wanted one of each stream")
        self.first = sides[0]

    def check(self, fused: Fusion | None) -> None:
        """Raise ConfigError or DataError where these features do not fit the fusion or a stream is missing."""
        if fused is None and len(self) > 1:
            raise ConfigError(f"found features of {' and '.join(self)}, wanted a --fusion as well, or one stream alone")
        if fused is None:
            return
        for stream, side in self.items():
            fused.check(stream, side.network, "a file of features")
            warn_of_methods("the fusion", fused.methods, "the features", side.methods)
        if missing := [stream for stream in fused.distance.streams if stream not in self]:
            raise ConfigError(f"--fusion is of {' and '.join(fused.networks)}, wanted features of {missing[0]} as well")

    def compared(self, fused: Fusion | None) -> Compared:
        """Prepare the features for comparison.

        Raises DataError where the streams do not belong together, as `align`.
        """
        sides = aligned([side.features for side in self.values()], "" if fused is None else fused.normalisation)
        return Compared(
            {name: own.known_ND for name, own in sides.items()}, {name: own.valid_N for name, own in sides.items()}
        )


def read_set(paths: Sequence[Path]) -> FeatureSet:
    """Read the features of one or more streams; raise errors as `read_features`."""
    return FeatureSet([read_features(path) for path in paths])


def fit_fused(gallery: FeatureSet, weight: float) -> Fusion:
    """Fit a fusion of two streams for a share of the second given by the user.

    It uses z-scores of the gallery's own distances and no labels. Raises ConfigError for a weight outside 0 to 1 and
    any other number of streams, and DataError where too few of the gallery's tracklets have both inputs.
    """
    if not 0 <= weight <= 1:
        raise ConfigError(f"--weight is {weight}, wanted 0 (SSIN alone) to 1 (SMIN alone)")
    if len(gallery) != 2:
        raise ConfigError(f"--weight was given with {len(gallery)} stream(s), wanted features of two as --gallery")
    sides = aligned([side.features for side in gallery.values()])
    both = drawn(np.flatnonzero(np.logical_and.reduce([own.valid_N for own in sides.values()])), FITTED_ON)
    if len(both) < 4:
        raise DataError(f"{len(both)} tracklets of the gallery have both inputs, wanted at least 4 to fit --weight on")
    halves = both[::2], both[1::2]  # no tracklet is compared with itself
    known = [np.ones(len(half), np.bool_) for half in halves]
    weights = pair_weights([*sides], weight)
    try:
        distances = {
            name: Distances(squared_distances(*(own.features_ND[half] for half in halves)), *known)
            for name, own in sides.items()
        }
        distance = FusedDistance.fitted(StreamDistances(distances), weights, "zscore")
    except ValueError as error:
        raise DataError(f"--weight cannot be fitted on the gallery: {error}") from None
    return Fusion(weights, "zscore", distance, {name: side.network for name, side in gallery.items()})


def search(  # what is searched, for what, and how
    gallery: FeatureSet,
    query: str | FeatureSet,
    count: int = 10,
    fused: Fusion | None = None,
    index: Path | None = None,
    *,
    other_cameras: bool = False,
) -> Found:
    """Find the gallery tracklets nearest to one gallery tracklet, given by key, or to the tracklets of other features.

    Tracklets without input are neither searched nor found, and a query tracklet never finds itself. Several streams are
    compared as `fused` says, and two tracklets by the streams of which both have input. With `index` an approximate
    index is read from this path, or built and written there. With `other_cameras` tracklets from the query's own camera
    are not found. Raises ConfigError and DataError.
    """
    if count < 1:
        raise ConfigError(f"--top is {count}, wanted at least 1")
    if other_cameras and index is not None:
        raise ConfigError("--other-cameras with --index, wanted one of them: an index does not know cameras")
    gallery.check(fused)
    distance = FusedDistance.alone(gallery.first.features.stream) if fused is None else fused.distance
    known = gallery.compared(fused)
    rows_G = np.flatnonzero(distance.usable(known.valid))
    if not len(rows_G):
        raise DataError("no tracklet of the gallery has any input, wanted some")
    queries = _one(gallery, query) if isinstance(query, str) else query
    _check(gallery, queries)
    if other_cameras:
        _check_cameras(gallery.first, queries.first)
    asked = queries.compared(fused)
    rows_Q = np.flatnonzero(distance.usable(asked.valid))
    if not len(rows_Q):
        keys_N = queries.first.features.keys_N
        whose = f"tracklet {keys_N[0]} has no" if len(asked) == 1 else "no query has any"
        raise DataError(f"{' and '.join(queries)} features: {whose} input to compare")
    searched, asked = known.rows(rows_G), asked.rows(rows_Q)
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
    for stream, valid_Q in asked.valid.items():
        if without := int((~valid_Q).sum()):
            remark += f"; {without} without input of {stream} compared by what else there is"
    if without := len(queries.first.features) - len(asked):
        remark += f"; {without} of the queries left out, as they have no input"
    found = Nearest(np.where(nearest.rows_QK < 0, -1, rows_G[nearest.rows_QK]), nearest.distances_QK)
    found = _without_itself(found, gallery, query, count)
    return Found(gallery.first, queries.first.features.part(rows_Q), found.rows_QK, found.distances_QK, remark)


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


def _without_itself(found: Nearest, gallery: FeatureSet, query: str | FeatureSet, count: int) -> Nearest:
    if not isinstance(query, str):
        return found
    (own,) = np.flatnonzero(gallery.first.features.keys_N == query)
    kept_K = np.flatnonzero(found.rows_QK[0] != own)[:count]
    return Nearest(found.rows_QK[:, kept_K], found.distances_QK[:, kept_K])


def _one(gallery: FeatureSet, key: str) -> FeatureSet:
    return FeatureSet([_row(side, key) for side in gallery.values()])


def _row(labelled: Labelled, key: str) -> Labelled:
    features = labelled.features
    rows = np.flatnonzero(features.keys_N == key)
    if not len(rows):
        raise DataError(f"the gallery has no tracklet {key}, wanted one of it such as {features.keys_N[0]}")
    return _rows(labelled, rows)


def _rows(labelled: Labelled, rows: Ints) -> Labelled:
    return replace(labelled, features=labelled.features.part(rows), labels=labelled.labels.part(rows))


def _check(gallery: FeatureSet, queries: FeatureSet) -> None:
    if set(gallery) != set(queries):
        found = [" and ".join(side) for side in (gallery, queries)]
        raise ConfigError(
            f"the gallery's features are of {found[0]}, those of the query of {found[1]}, wanted the same"
        )
    for stream, side in gallery.items():
        held, asked = _made(side), _made(queries[stream])
        if held != asked:
            raise DataError(f"the gallery's features are {held}, those of the query {asked}, wanted the same network")
        warn_of_methods("the gallery", side.methods, "the query", queries[stream].methods)


def _made(one: Labelled) -> str:
    return f"{one.features.features_ND.shape[1]} numbers of {one.features.stream} by network {one.network}"


def index_beside(files: Sequence[Path], fused: Fusion | None = None) -> Path:
    """Return the path of the index of these features; remove an index of features that they have replaced."""
    gallery, name = files[0], "-".join(file.stem for file in files)
    if fused is not None:
        # another fusion is another index
        name += f"-{blake2b(_named(fused).encode(), digest_size=4).hexdigest()}"
    content = [_checksums(file) for file in files]
    digest = blake2b(repr(content).encode(), digest_size=8).hexdigest()
    path = gallery.with_name(f"{name}-{digest}.index")
    for other in gallery.parent.glob(f"{escape(name)}-{'[0-9a-f]' * len(digest)}.index"):
        if other != path:
            other.unlink()
    return path


def _named(fused: Fusion) -> str:
    """Return a text that tells fusions apart, as in earlier versions, whose indexes are kept."""
    terms = {tuple(term.factors): term for term in fused.distance.terms}
    ssin, told = terms.get(("ssin",)), f"weights={fused.weights!r}"
    distance = f"{fused.distance!r}"
    if fused.distance.streams == ("ssin", "smin") and ssin is not None:
        values = {**fused.distance.complete.factors, "alone": ssin.factors["ssin"], "offset": ssin.offset}
        distance = f"FusedDistance({', '.join(f'{name}={value!r}' for name, value in values.items())})"
        told = f"weight={fused.weight!r}"
    return (
        f"Fused({told}, normalisation={fused.normalisation!r}, distance={distance}, "
        f"networks={fused.networks!r}, methods={fused.methods!r})"
    )


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
