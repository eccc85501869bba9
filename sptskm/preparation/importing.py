"""Import existing masks and skeletons to the place where training reads them.

A file belongs to a frame by its name: the name of the frame without ending, perhaps with a suffix of the tool. It is
in the given folder or in a subfolder named like the frame's own. Key points may also be in one file per tracklet,
named like its first frame, or in one of COCO's lists of results for all.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.console import progress
from sptskm.common.errors import DataError
from sptskm.config import ConfigError
from sptskm.data import Tracklets, usable
from sptskm.data.derived import Made
from sptskm.data.files import SKELETON_SHAPE, read_frame
from sptskm.data.tracklets import decode_names
from sptskm.preparation.formats import (
    MaskKind,
    NoConfidence,
    check_confidence,
    mask_from,
    points_from,
    results_from,
    write_mask,
    write_skeleton,
)
from sptskm.preparation.layouts import AXES, IN_SPACE, Channels, OwnLayout, PointLayout, shape_of, to_joints
from sptskm.preparation.plausible import check_missing, check_postures, posture_of
from sptskm.preparation.work import Ledger, ShardResult, write_note

log = logging.getLogger(__name__)

MASK_NAMES = (".png", "_vis.png", ".bmp", ".jpg", "_mask.png")
POINT_NAMES = (".mat", ".npy", ".json", "_keypoints.json")
PROBES = 32  # walks that are looked at before any skeleton is written, and frames of each


@dataclass(frozen=True)
class ImportSource:
    """Place and format of the files to import."""

    place: Path
    """A folder, or COCO's list of results."""
    kind: MaskKind | None = None
    invert: bool = False
    layout: PointLayout | None = None
    channels: Channels | None = None
    """None means xyc; layouts in space require a value."""

    def check(self, made: Made) -> None:
        """Raise ConfigError when the kind of mask or the layout is not given, or nothing is at the place.

        Raises ValueError for an unknown layout or channels.
        """
        if not self.place.exists():
            raise ConfigError(f"--from is {self.place}, where there is no file or folder")
        if made == "masks" and self.kind is None:
            raise ConfigError("--kind is missing: what the masks are is not guessed")
        if made == "skeletons" and self.layout is None:
            raise ConfigError("--layout is missing: the order of the key points is not guessed")
        if self.layout is not None:
            shape_of(self.layout, self.numbers)
            if self.channels is None and self.layout in IN_SPACE:
                raise ConfigError(
                    f"--channels is missing: key points of {self.layout} usually have a depth, wanted xyz or xyzc, "
                    "or xyc where they are places in pictures with a confidence"
                )

    @property
    def named(self) -> str:
        """Return the name of the layout."""
        return self.layout.name if isinstance(self.layout, OwnLayout) else str(self.layout)

    @property
    def method(self) -> dict[str, str]:
        """Return what is recorded about the origin of the results."""
        made = {"method": "imported", "as": self.kind or f"{self.named} {self.numbers}"}
        if isinstance(self.layout, OwnLayout) and self.layout.axes != AXES:
            made["axes"] = " ".join(self.layout.axes)
        return made

    @property
    def numbers(self) -> Channels:
        """Return the channels of a key point."""
        return self.channels or "xyc"

    @property
    def flat(self) -> bool:
        """Return whether key points have no depth."""
        return "z" not in self.numbers


def import_files(root: Path, table: Tracklets, made: Made, source: ImportSource) -> ShardResult:
    """Import all masks or skeletons that are still missing; the outcome names the unusable ones.

    A frame without any file is named as well; training accepts frames without a skeleton. Raises ConfigError, and
    errors as `plausible` has them, before anything is written.
    """
    source.check(made)
    settings = source.method
    take = _masks(table, source) if made == "masks" else _skeletons(table, source)
    ledger, outcome = Ledger(root, table, (made,), settings), ShardResult()
    write: Callable[[Path, NDArray[Any]], None] = write_mask if made == "masks" else write_skeleton
    for row in progress(range(len(table)), f"import {made}", total=len(table)):
        outcome.stale += ledger.remove_stale(row)
        results = [table.path(row, frame, made) for frame in range(table.lengths[row])]
        missing = [frame for frame, path in enumerate(results) if not path.exists()]
        outcome.kept += len(results) - len(missing)
        for frame, found in take(row, missing, outcome):
            ledger.begin(row, made)
            results[frame].parent.mkdir(parents=True, exist_ok=True)
            write(results[frame], found)
            outcome.made += 1
    write_note(root, made, "imported", outcome, settings)
    return outcome


Take = Callable[[int, list[int], ShardResult], Iterable[tuple[int, NDArray[Any]]]]
"""Maps a tracklet and its frames without a result to the results found."""


def _masks(table: Tracklets, source: ImportSource) -> Take:
    assert source.kind is not None
    kind = source.kind

    def take(row: int, missing: list[int], outcome: ShardResult) -> Iterable[tuple[int, NDArray[Any]]]:
        for frame in missing:
            result = table.path(row, frame, "masks")
            try:
                file = _find(source.place, result, MASK_NAMES)
                if file is None:
                    raise DataError(f"{source.place}: has no {result.stem} with {' or '.join(MASK_NAMES)}")
                size = read_frame(table.path(row, frame, "frames")).shape[:2]
                yield frame, mask_from(file, kind, (size[0], size[1]), invert=source.invert)
            except DataError as error:
                outcome.failed[str(result)] = str(error)

    return take


def _skeletons(table: Tracklets, source: ImportSource) -> Take:
    points = _KeyPoints(source)
    if points.listed is not None:
        _tell_others(points.place, points.listed, set(decode_names(table.stems_M).tolist()))
    _check_walks(table, points, source)

    def take(row: int, missing: list[int], outcome: ShardResult) -> Iterable[tuple[int, NDArray[Any]]]:
        results = [table.path(row, frame, "skeletons") for frame in range(table.lengths[row])]
        found_FV4, found = np.full((len(results), *SKELETON_SHAPE), np.nan), []
        for frame in missing:
            try:
                found_FV4[frame] = points.skeleton(results, frame)
                found.append(frame)
            except DataError as error:
                if isinstance(error, NoConfidence) and not outcome.made:
                    raise  # the option for all files is wrong, not this file
                outcome.failed[str(results[frame])] = str(error)
        outcome.skeletons += usable.counted(found_FV4[found])
        completed_FV4 = usable.fill_joints(found_FV4)
        yield from ((frame, completed_FV4[frame]) for frame in found)

    return take


def _check_walks(table: Tracklets, points: "_KeyPoints", source: ImportSource) -> None:
    """Raise ConfigError or DataError where most walks to import cannot be people with these axes; log what is told.

    Looks at some frames of some walks. What cannot be read is named later, by the import.
    """
    walks = []
    for row in np.linspace(0, len(table) - 1, min(PROBES, len(table))).astype(int).tolist():
        results = [table.path(row, frame, "skeletons") for frame in range(table.lengths[row])]
        found = []
        for frame in np.linspace(0, len(results) - 1, min(PROBES, len(results))).astype(int).tolist():
            with suppress(DataError):
                if not results[frame].exists():
                    found.append(points.of_frame(results, frame))
        if not found:
            continue
        points_FKC, name = np.concatenate(found), str(table.keys_N[row])
        if not source.flat:  # pixels may be equal by chance
            check_missing(points_FKC, source.numbers, f"key points of {name}")
        skeletons_FV4 = points.joints(points_FKC)
        counts = usable.counted(skeletons_FV4)
        if counts.whole + counts.partial:
            walks.append(posture_of(name, skeletons_FV4))
    if walks:
        for remark in check_postures(f"{source.place}", walks, source.named, source.flat):
            log.info("%s: %s", source.place, remark)


def _tell_others(place: Path, listed: Iterable[str], stems: set[str]) -> None:
    """Log how many images of a list of results are no frame of the data set."""
    names = list(listed)
    if others := [name for name in names if name not in stems]:
        log.warning("%s: %d of %d images are no frame of the data set (%s)", place, len(others), len(names), others[0])


class _KeyPoints:
    """Reader of the key points of frames, from any of the supported files."""

    def __init__(self, source: ImportSource) -> None:
        assert source.layout is not None
        self.place, self.layout, self.channels = source.place, source.layout, source.numbers
        self.listed = results_from(self.place, self.layout, self.channels) if self.place.is_file() else None
        self.last: tuple[Path, NDArray[Any] | None] = Path(), None

    def skeleton(self, results: list[Path], frame: int) -> NDArray[Any]:
        """Return the skeleton (14, 4) of a frame of a tracklet. Raises DataError if there are no key points."""
        return self.joints(self.of_frame(results, frame))[0]

    def joints(self, points_FKC: NDArray[Any]) -> NDArray[Any]:
        """Return the skeletons (F, 14, 4) of key points; a missing joint is NaN."""
        return to_joints(points_FKC, self.layout, self.channels)

    def of_frame(self, results: list[Path], frame: int) -> NDArray[Any]:
        """Return the key points (1, K, C) of a frame of a tracklet. Raises DataError if there are none."""
        points = self._of_tracklet(results, frame) if self.listed is None else self._listed(results[frame].stem)
        check_confidence(points, self.channels, f"key points of {results[frame].stem}")
        return points

    def _listed(self, stem: str) -> NDArray[Any]:
        assert self.listed is not None
        if stem not in self.listed:
            raise DataError(f"{self.place}: has no key points of {stem}")
        return self.listed[stem][None]

    def _of_tracklet(self, results: list[Path], frame: int) -> NDArray[Any]:
        whole = self._read(results[0])
        if whole is not None and len(whole) == len(results) > 1:
            return whole[frame : frame + 1]
        if whole is not None and len(whole) > 1:
            name = results[0].stem
            raise DataError(f"key points of {name}: {len(whole)} frames, wanted 1, or {len(results)} for the tracklet")
        points, stem = whole if frame == 0 else self._read(results[frame]), results[frame].stem
        if points is None:
            raise DataError(f"{self.place}: has no key points of {stem}")
        if len(points) != 1:
            raise DataError(f"key points of {stem}: {len(points)} frames, wanted 1, or {len(results)} for the tracklet")
        return points

    def _read(self, result: Path) -> NDArray[Any] | None:
        """Read (F, K, C); the first frame's file may cover the whole tracklet, and is then read only once."""
        if self.last[0] != result:
            file = _find(self.place, result, POINT_NAMES)
            found = None if file is None else points_from(file, self.layout, self.channels)
            if found is None or len(found) == 1:
                return found
            self.last = result, found
        return self.last[1]


def _find(place: Path, result: Path, endings: Iterable[str]) -> Path | None:
    """Find the file of a frame, in a folder named like its own or directly in `place`."""
    for folder in (place / result.parent.name, place):
        for ending in endings:
            if (file := folder / (result.stem + ending)).is_file():
                return file
    return None
