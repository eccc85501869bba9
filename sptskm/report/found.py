"""Results of a retrieval, as a table and as a picture.

Legend: N tracklets, Q queries, K nearest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.common.atomic import write_bytes, write_error
from sptskm.common.console import table
from sptskm.common.errors import DataError
from sptskm.data import Tracklets
from sptskm.data.tracklets import JUNK_PID, Modality, Readable
from sptskm.evaluation import Features
from sptskm.evaluation.feature_files import Labelled
from sptskm.report.ranked import Outcome, Ranked, Result, ranked_grid
from sptskm.report.style import Image, pixels

NO_PICTURE = "cannot be written as a picture, wanted a .png in a folder that exists"


@dataclass(frozen=True, eq=False)
class Found:
    """Results of a retrieval: the nearest gallery rows (Q, K) and their distances; row -1 fills missing places."""

    gallery: Labelled
    queries: Features
    rows_QK: NDArray[np.int64]
    distances_QK: NDArray[np.float64]
    remark: str

    def text(self, names: Tracklets | None = None) -> str:
        """Return the results as a table, one line each; with a data set, identities and cameras by name."""
        places = {} if names is None else _places(names)
        lines = []
        for q, key in enumerate(self.queries.keys_N.tolist()):
            for rank, (row, distance) in enumerate(self._results(q), 1):
                found = str(self.gallery.features.keys_N[row])
                lines.append([key, rank, found, *self._who(row, found, names, places), f"{distance:.4f}"])
        return f"{table(['query', 'rank', 'tracklet', 'camera', 'identity', 'distance'], lines)}\n{self.remark}"

    def _results(self, q: int) -> Iterator[tuple[int, float]]:
        pairs = zip(self.rows_QK[q].tolist(), self.distances_QK[q].tolist(), strict=True)
        yield from ((row, distance) for row, distance in pairs if row >= 0)

    def _who(self, row: int, key: str, names: Tracklets | None, places: dict[str, int]) -> list[str]:
        labels = self.gallery.labels
        if names is not None and key in places:
            return [names.camera_name(places[key]), _person(names, places[key])]
        camera, pid = str(labels.camids[row]) if labels.camids[row] >= 0 else "-", str(labels.pids[row])
        return [camera, pid if labels.pids[row] > 0 else "-"]

    def picture(self, names: Tracklets, query_names: Tracklets | None = None) -> Image:
        """Draw the queries with their nearest tracklets.

        `query_names` is the queries' data set if it is not `names`. Raises DataError for a tracklet that its data set
        does not have.
        """
        found = [list(self._results(q)) for q in range(len(self.queries))]
        gallery_N = self.gallery.features.keys_N[[row for results in found for row, _ in results]]
        query_names = names if query_names is None else query_names
        origins = [(query_names, row) for row in rows_in(query_names, self.queries.keys_N, "queries")]
        origins += [(names, row) for row in rows_in(names, gallery_N, "gallery")]
        shown, place, ranked = _together(origins), len(found), []
        for q, results in enumerate(found):
            near = [
                Result(row, _outcome(shown, q, row), rank, {"distance": distance})
                for rank, (row, (_, distance)) in enumerate(zip(count(place), results, strict=False), 1)
            ]
            ranked.append(Ranked(q, [], near))
            place += len(near)
        return pixels(lambda: ranked_grid(shown, ranked, "Nearest tracklets"))


def rows_in(names: Tracklets, keys_N: NDArray[np.str_], whose: str) -> list[int]:
    """Return the rows of tracklets in a data set.

    Raises DataError for a tracklet that it does not have.
    """
    places = _places(names)
    if missing := [key for key in keys_N.tolist() if key not in places]:
        raise DataError(
            f"the data set has no tracklet {missing[0]} of the {whose}, wanted theirs (--data, --query-data)"
        )
    return [places[key] for key in keys_N.tolist()]


def _places(names: Tracklets) -> dict[str, int]:
    return {key: row for row, key in enumerate(names.keys_N.tolist())}


@dataclass(frozen=True, eq=False)
class _Origins:
    """Access to the files of tracklets from several data sets, each tracklet by its row in its own data set."""

    origins: Sequence[tuple[Tracklets, int]]

    def files(self, row: int, frames: Sequence[int], stems: Sequence[str], modality: Modality) -> Sequence[Readable]:
        table, own = self.origins[row]
        return table.place.files(own, frames, stems, modality)

    def whole(self, row: int) -> NDArray[np.float32] | None:
        table, own = self.origins[row]
        return table.place.whole(own)

    def folder(self, row: int, modality: Modality) -> Path:
        table, own = self.origins[row]
        return table.place.folder(own, modality)


def _person(table: Tracklets, row: int) -> str:
    """Name the person of a row; "-" for nobody known, also where every track of a video is a person of its own."""
    known = table.pids_N[row] > 0 and table.pid_name(row) != str(table.keys_N[row])
    return table.pid_name(row) if known else "-"


def _together(origins: Sequence[tuple[Tracklets, int]]) -> Tracklets:
    """Combine tracklets of several data sets in one table; equal names mean the same identity, camera or outfit."""
    stems = [table.stems_M[table.starts_N[row] : table.stops_N[row]] for table, row in origins]
    stops_N = np.cumsum([len(own) for own in stems])
    people = [_person(table, row) for table, row in origins]
    cameras = [table.camera_name(row) for table, row in origins]
    pids = {name: number for number, name in enumerate(dict.fromkeys(people), 1)} | {"-": JUNK_PID}
    camids = {name: number for number, name in enumerate(dict.fromkeys(cameras), 1)}
    clothes = [table.clothes_name(row) for table, row in origins]
    outfits = {name: number for number, name in enumerate(dict.fromkeys(clothes))}
    return Tracklets(
        keys_N=np.array([table.keys_N[row] for table, row in origins]),
        stems_M=np.concatenate(stems),
        starts_N=np.append(0, stops_N[:-1]),
        stops_N=stops_N,
        pids_N=np.array([pids[name] for name in people]),
        camids_N=np.array([camids[name] for name in cameras]),
        clothes_N=np.array([-1 if not name else outfits[name] for name in clothes]),
        num_train=0,
        query=np.empty(0, np.int64),
        place=_Origins(origins),
        pid_names={number: name for name, number in pids.items()},
        camera_names={number: name for name, number in camids.items()},
        clothes_names={number: name for name, number in outfits.items()},
    )


def _outcome(names: Tracklets, query: int, found: int) -> Outcome:
    pids = int(names.pids_N[query]), int(names.pids_N[found])
    if min(pids) <= 0:
        return "unknown"
    return "right" if pids[0] == pids[1] else "wrong"


def check_picture(path: Path, gallery: tuple[Tracklets, Labelled], queries: tuple[Tracklets, Labelled]) -> None:
    """Raise DataError where the picture cannot be written, or a data set lacks a tracklet with input."""
    if not path.parent.is_dir() or not cv2.haveImageWriter(str(path)):
        raise DataError(f"{path}: {NO_PICTURE}")
    if why := write_error(path):
        raise DataError(f"{path}: {NO_PICTURE} and can be written to ({why})")
    for (names, labelled), whose in ((gallery, "gallery"), (queries, "queries")):
        rows_in(names, labelled.keys, whose)


def write_picture(path: Path, image: Image) -> None:
    """Write a picture as a file in the format of its ending.

    Raises DataError for an ending that is not a picture's, OSError where the file cannot be written.
    """
    try:
        _, content = cv2.imencode(path.suffix, image[..., ::-1])
    except cv2.error:
        raise DataError(f"{path}: {NO_PICTURE}") from None
    write_bytes(path, content.tobytes())
