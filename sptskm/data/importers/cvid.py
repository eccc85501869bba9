"""Import CVID-reID, the data set of SpTSkM. It is not public: this is the layout that the published code reads.

    info/train_050.csv info/test_040.csv   identities, in the column pid
    img/<pid, 4 digits>/<record>/*.png     frames; a record is one occasion and may hold several tracklets
    mask/<pid>/<record>/*.png              masks of the same names

In a frame's name the four characters after the first T are the number of its tracklet. Skeletons are expected as
joint3d/<pid>/<record>/*.mat. There are no cameras: as in the published code, the record is used as the camera.
"""

import glob
import logging
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from sptskm.common.errors import DataError
from sptskm.common.tables import read_table
from sptskm.data.importers.reading import subfolders
from sptskm.data.manifest import Entry, images
from sptskm.data.names import label

log = logging.getLogger(__name__)

GALLERY_RECORDS = 4  # first records, by name, of each test identity; as published for SSIN
MIN_FRAMES = 8


def cvid(root: Path) -> list[Entry]:
    """Return the tracklets of all records; the first four records of a test identity are gallery, the others queries.

    Tracklets of fewer than 8 frames are left out, as published, and counted in the log. Raises FileNotFoundError, and
    DataError naming the file or folder at fault.
    """
    entries: list[Entry] = []
    short = 0
    for part, name in (("train", "train_050.csv"), ("test", "test_040.csv")):
        for pid in _identities(root / "info" / name):
            home = root / "img" / pid
            records = subfolders(home)
            if part == "test" and len(records) <= GALLERY_RECORDS:
                raise DataError(
                    f"{home}: holds {len(records)} records, wanted {GALLERY_RECORDS} for the gallery and more"
                )
            for number, record in enumerate(records):
                split = "train" if part == "train" else "gallery" if number < GALLERY_RECORDS else "query"
                for beginning, length in _tracklets(home / record):
                    short += length < MIN_FRAMES
                    if length >= MIN_FRAMES:
                        entries.append(_entry(pid, record, beginning, split))
    if short:
        log.info("%d tracklets of fewer than %d frames left out", short, MIN_FRAMES)
    return entries


def _identities(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted a table with the column pid")
    pids = {label(line.get("pid") or "", f"{path}: {place}") for place, line in read_table(path, _check_columns)}
    if others := sorted(pid for pid in pids if not pid.isdecimal()):
        raise DataError(f"{path}: has the pid {others[0]!r}, wanted numbers")
    return [f"{pid:04d}" for pid in sorted(map(int, pids))]


def _check_columns(found: Sequence[str], place: str) -> None:
    if "pid" not in found:
        raise DataError(f"{place.partition(': ')[0]}: columns are {list(found)}, wanted pid among them")


def _tracklets(folder: Path) -> list[tuple[str, int]]:
    """Return, for each tracklet in a folder, the prefix of its frame names and its number of frames."""
    names = images(folder)
    if other := next((name for name in names if len(name.partition("T")[2]) < 4), None):
        raise DataError(f"{folder / other}: names no tracklet, wanted its number in the four letters behind a T")
    return [(start, len(list(own))) for start, own in groupby(names, lambda name: name[: name.index("T") + 5])]


def _entry(pid: str, record: str, beginning: str, split: str) -> Entry:
    return Entry(
        tracklet=f"{pid}/{record}/{beginning}",
        pid=pid,
        camera=record,
        split=split,
        frames=f"img/{pid}/{record}/{glob.escape(beginning)}*",
        masks=f"mask/{pid}/{record}",
        skeleton=f"joint3d/{pid}/{record}",
    )
