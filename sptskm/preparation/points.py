"""Convert key points of walks that have no frames, such as a depth sensor's, and write a manifest of their skeletons.

The manifest that is given names a file of key points for each tracklet in its column `skeleton`: all frames of the
walk in any named layout (see `sptskm.preparation.formats.points_from`). The one that is written names the skeletons.
Legend: F frames, V = 14 joints, 4 = x right, y down, z away, confidence.
"""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sptskm.common.atomic import partial_of, write_error
from sptskm.common.console import progress
from sptskm.common.errors import ConfigError, DataError
from sptskm.common.paths import exists
from sptskm.data import usable
from sptskm.data.derived import write_method
from sptskm.data.manifest import Entry, read_entries, write_entries
from sptskm.data.splits import split_by_identity
from sptskm.preparation.formats import check_confidence, points_from
from sptskm.preparation.importing import ImportSource
from sptskm.preparation.layouts import to_joints
from sptskm.preparation.plausible import Posture, check_missing, check_postures, posture_of

MANIFEST = "manifest.csv"
FOLDER = "skeletons"


def prepare_points(
    given: Path, out: Path, source: ImportSource, test_share: float | None, seed: int
) -> tuple[Path, str]:
    """Convert all key points and write the manifest to the folder `out`; return its path and a line about the content.

    The lines keep their split, or people are split by `test_share` and `seed`. Skeletons lie in `skeletons`, numbered
    like the lines. Raises ConfigError and DataError naming the option, the line or the file at fault; the manifest is
    written last.
    """
    source.check("skeletons")
    entries = read_entries(given, split=test_share is None)
    if test_share is not None:
        entries = split_by_identity(entries, test_share, seed)
    if framed := next((entry for entry in entries if not entry.skeleton or entry.frames), None):
        raise DataError(
            f"{given}: tracklet {framed.tracklet} has {'frames' if framed.frames else 'no skeleton'}, wanted a file of "
            "key points in the column skeleton, and no frames; with frames it is `sptskm prepare skeletons --from`"
        )
    _make_folders(out)
    counts, without, done = usable.Skeletons(), [], []
    walks: list[Posture] = []
    seen: dict[bytes, str] = {}
    for number, entry in enumerate(progress(entries, "key points", total=len(entries)), 1):
        skeletons_FV4 = skeletons_of(given.parent / entry.skeleton, source)
        own = usable.counted(skeletons_FV4)
        counts += own
        if own.whole + own.partial:
            walks.append(posture_of(entry.tracklet, skeletons_FV4))
            _refuse_twice(given, seen, entry.tracklet, skeletons_FV4)
        else:
            without.append(entry.tracklet)
        path = f"{FOLDER}/{number:06d}.npy"
        with partial_of(out / path) as partial, partial.open("wb") as file:
            np.save(file, usable.fill_joints(skeletons_FV4).astype(np.float32))
        done.append(replace(entry, skeleton=path))
    _refuse_nothing(given, counts)
    remarks = check_postures(f"{given}", walks, source.named, source.flat)
    write_method(out / MANIFEST, "skeletons", source.method)
    write_entries(out / MANIFEST, done)
    return out / MANIFEST, "\n".join([_told(out / MANIFEST, done, counts, without), *remarks])


def _make_folders(out: Path) -> None:
    """Raise FileExistsError for a data set that is there already, ConfigError where none can be written."""
    if exists(out / MANIFEST):
        raise FileExistsError(f"{out / MANIFEST}: exists already; name another folder, or move it away")
    try:
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        why = write_error(out / FOLDER / MANIFEST)
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise ConfigError(f"{out}: {why}, wanted a folder for the data set")


def skeletons_of(path: Path, source: ImportSource) -> NDArray[np.float64]:
    """Read the skeletons (F, 14, 4) of a file of key points; a missing joint is NaN.

    Raises FileNotFoundError, and DataError for other content and for depths that are taken for confidences.
    """
    assert source.layout is not None
    points_FKC = points_from(path, source.layout, source.numbers)
    check_confidence(points_FKC, source.numbers, f"key points {path}")
    check_missing(points_FKC, source.numbers, f"key points {path}")
    return to_joints(points_FKC, source.layout, source.numbers)


def _refuse_nothing(given: Path, counts: usable.Skeletons) -> None:
    if not counts.whole + counts.partial:
        raise ConfigError(
            f"{given}: none of {counts.without} frames has a skeleton, wanted some: at least {usable.LEAST_JOINTS} "
            "joints that are numbers, not all 0 and not all at one place; is --layout right?"
        )


def _refuse_twice(given: Path, seen: dict[bytes, str], tracklet: str, skeletons_FV4: NDArray[np.float64]) -> None:
    """Raise DataError for key points that another tracklet has as well; `seen` is of the tracklets before."""
    first = seen.setdefault(blake2b(skeletons_FV4.tobytes(), digest_size=16).digest(), tracklet)
    if first != tracklet:
        raise DataError(
            f"{given}: the tracklets {first} and {tracklet} have the same key points, wanted each walk once"
        )


def _told(path: Path, entries: Sequence[Entry], counts: usable.Skeletons, without: Sequence[str]) -> str:
    frames = sum(counts)
    lost = f", {counts.partial} partial, {counts.without} without a skeleton" if counts.whole < frames else ""
    others = f" and {len(without) - 1} other tracklets have" if len(without) > 1 else " has"
    empty = f"; {without[0]}{others} no skeleton at all" if without else ""
    return f"{path}: {len(entries)} tracklets, {frames} frames{lost}{empty}; next: sptskm check {path}"
