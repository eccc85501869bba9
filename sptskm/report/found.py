"""What a search has found, as a table and as a picture.

Legend: Q queries, K nearest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.data import DataError, Tracklets
from sptskm.evaluation import Features
from sptskm.report.console import table
from sptskm.report.features import Labelled
from sptskm.report.ranked import Outcome, Ranked, Result, ranked_grid
from sptskm.report.strips import Image


@dataclass(frozen=True, eq=False)
class Found:
    """What a search has found: the nearest rows (Q, K) of the gallery and their distances; -1 where none is."""

    gallery: Labelled
    queries: Features
    rows_QK: NDArray[np.int64]
    distances_QK: NDArray[np.float64]
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
        pairs = zip(self.rows_QK[q].tolist(), self.distances_QK[q].tolist(), strict=True)
        yield from ((row, distance) for row, distance in pairs if row >= 0)

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
