"""Read and write manifests of users' own data: tables with a line for each tracklet, as CSV, TSV, JSONL or Parquet.

    tracklet,pid,camera,split,frames,masks,skeleton,clothes,time,fps
    anna-1,anna,door,train,walks/anna-1,walks/anna-1_mask,walks/anna-1.npy,red coat,

`frames` is a folder, a pattern such as `0001/0001C1T0001F*.jpg`, or (JSONL, Parquet) a list of files of one folder.
The name of an existing folder always means that folder, even if it looks like a pattern (`door[1]`). Otherwise, if the
last part has `*`, `?` or `[`, or the ending of an image, it is a pattern for file names in the folder before it.
`masks` is a folder with PNGs named like the frames; `skeleton` is a folder with .mat files named like the frames, or
one .npy file (frames, 14, 4). If left out, they are `<folder>_mask` and `<folder>_joint3d`. `frames` may be left out
if there is a `skeleton`; such data are for SMIN alone. Paths are relative to the manifest's folder.
Identities, cameras and outfits may have any names (see names.py), but an identity is no negative number: boxes without
a person have the split `junk`. No identity is in both training and test. `split` is train, query, gallery, distractor
or junk. `sptskm import` writes manifests of public data sets and of folders, and splits data that have no `split`.
"""

import fnmatch
import glob
import logging
import os
import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from datetime import date
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sptskm.common.errors import DataError
from sptskm.common.tables import FORMS
from sptskm.data.forms import IMAGES, read_lines, write_lines
from sptskm.data.names import LONGEST, alike, check_known, check_label, check_listed, check_names, natural
from sptskm.data.skeleton_arrays import home_of_skeletons, moment_names, read_array
from sptskm.data.tracklets import DISTRACTOR_PID, ENDINGS, JUNK_PID, Modality, Tracklets, encode_names

log = logging.getLogger(__name__)

SPLITS = ("train", "query", "gallery", "distractor", "junk")
NAMELESS = {"distractor": DISTRACTOR_PID, "junk": JUNK_PID}
UNSAID = "-"  # name of an unknown camera
READERS = 16  # threads that list folders: a network file system serves many at once


@dataclass(frozen=True)
class Entry:
    """A line of a manifest; empty means not given."""

    tracklet: str
    pid: str
    camera: str
    split: str
    frames: str | tuple[str, ...]
    masks: str = ""
    skeleton: str = ""
    clothes: str = ""
    time: str = ""
    """Time of recording; it is kept, but nothing uses it yet."""
    fps: str = ""
    """Frames per second of the video; used to resample the skeletons for SMIN to one rate."""


FIELDS = tuple(field.name for field in fields(Entry))
PATHS = ("frames", "masks", "skeleton")
"""Fields with paths, used as they are on disk; the other fields are labels, see names.py."""
FASTEST = 1000
"""Largest number of frames per second that a line may have."""
REQUIRED = ("tracklet", "camera", "split", "frames")  # and pid, except for distractors and junk
NO_SPLIT = (
    "wanted train, query, ... in each line; `sptskm import manifest FILE OUT --test-share 0.5` splits by identity, "
    "and so does --test-share of `sptskm prepare points`"
)


def read_entries(path: Path, split: bool = True) -> list[Entry]:
    """Read and check the lines of a manifest; without `split` they need no split.

    Raises FileNotFoundError, and DataError naming the line at fault.
    """
    named = _read(path, [name for name in REQUIRED if split or name != "split"])
    _check_entries(path, named, split)
    return [entry for _, entry in named]


def _read(path: Path, wanted: Sequence[str]) -> list[tuple[str, Entry]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted a manifest ({', '.join(FORMS)})")
    lines = read_lines(path, partial(_check_columns, wanted=wanted))
    return [(place, _entry(line, f"{path}: {place}")) for place, line in lines]


def write_entries(path: Path, entries: Iterable[Entry]) -> None:
    """Write a manifest in the form given by the ending of `path`; the file is written completely or not at all.

    Raises DataError for entries that `read_entries` would refuse.
    """
    entries = list(entries)
    _check_entries(path, [(f"tracklet {entry.tracklet}", entry) for entry in entries])
    write_lines(path, [dict(vars(entry)) for entry in entries])


def _check_columns(found: Sequence[str], place: str, wanted: Sequence[str]) -> None:
    if unknown := [name for name in found if name not in FIELDS]:
        raise DataError(f"{place} has the column {unknown[0]!r}, wanted some of {', '.join(FIELDS)}")
    if len(set(found)) < len(found):
        raise DataError(f"{place} has the columns {', '.join(found)}, wanted each once")
    wanted = [name for name in wanted if name != "frames" or "skeleton" not in found]
    if missing := [name for name in wanted if name not in found]:
        raise DataError(
            f"{place} lacks the column {missing[0]}, "
            + (NO_SPLIT if missing == ["split"] else f"wanted {', '.join(wanted)} at least")
        )


def _check_entries(path: Path, named: Iterable[tuple[str, Entry]], split: bool = True) -> None:
    """Check entries without looking at their files; `named` gives the place of each for messages. Raises DataError."""
    seen: dict[str, str] = {}
    persons: dict[str, tuple[str, str]] = {}
    for place, entry in named:
        _check_entry(entry, f"{path}: {place}", split)
        if entry.tracklet in seen:
            raise DataError(f"{path}: {place} repeats tracklet {entry.tracklet} of {seen[entry.tracklet]}")
        seen[entry.tracklet] = place
        if entry.split and entry.split not in NAMELESS:
            part, first = persons.setdefault(entry.pid, (entry.split, place))
            if part != entry.split and "train" in (part, entry.split):
                raise DataError(
                    f"{path}: {place} has {entry.pid} in {entry.split}, and {first} in {part}, wanted each identity in "
                    "training or in test; `sptskm import manifest FILE OUT --test-share 0.5` splits by identity"
                )
    if not seen:
        raise DataError(f"{path}: is empty, wanted a line for each tracklet")


def _check_entry(entry: Entry, place: str, split: bool) -> None:
    for name in REQUIRED:
        if name == "frames" and entry.skeleton:
            continue  # SMIN needs only the skeleton
        if not getattr(entry, name) and (name != "split" or split):
            raise DataError(f"{place} has no {name}" + (f", {NO_SPLIT}" if name == "split" else ""))
    if entry.split and entry.split not in SPLITS:
        raise DataError(f"{place} has split {entry.split}, wanted {', '.join(SPLITS)}")
    if not entry.pid and entry.split not in NAMELESS:
        raise DataError(f"{place} has no pid, wanted one unless split is {' or '.join(NAMELESS)}")
    _check_labels(entry, place)
    if entry.tracklet.startswith("/"):
        raise DataError(f"{place} has the tracklet {entry.tracklet}, wanted a name that does not begin with /")
    listed = entry.frames if isinstance(entry.frames, tuple) else ()
    check_listed(listed, place)
    paths = (entry.tracklet, *(listed or (str(entry.frames),)), entry.masks, entry.skeleton)
    check_names(paths, place)
    for text in paths:
        if ".." in text and ".." in text.split("/"):
            raise DataError(f"{place} has the path {text}, wanted one without ..")


def _check_labels(entry: Entry, place: str) -> None:
    if entry.split not in NAMELESS and re.fullmatch(r"-[0-9]+(\.[0-9]*)?", entry.pid):
        raise DataError(f"{place} has the pid {entry.pid}, wanted a name, or split junk for what is nobody")
    for name in ("pid", "camera", "clothes", "time"):
        check_label(getattr(entry, name), f"{place}: {name}", LONGEST)
        if name != "time" and (name != "pid" or entry.split not in NAMELESS):
            check_known(getattr(entry, name), f"{place}: {name}")
    if entry.fps and not _is_rate(entry.fps):
        raise DataError(f"{place} has fps {entry.fps}, wanted frames per second, more than 0 and at most {FASTEST}")


def _is_rate(text: str) -> bool:
    try:
        return 0 < float(text) <= FASTEST
    except ValueError:
        return False


def _entry(line: Mapping[str, Any], place: str) -> Entry:
    values = dict.fromkeys((*REQUIRED, "pid"), "")
    return Entry(**(values | {name: _value(name, value, place) for name, value in line.items()}))


def _value(name: str, value: object, place: str) -> Any:
    """Convert a value to text; a list of images stays a list, None and NaN become empty. Raises DataError."""
    if value is None or value != value:
        return ""
    if name == "frames" and isinstance(value, list):
        if others := [item for item in value if not isinstance(item, str)]:
            raise DataError(f"{place}: frames lists {others[0]!r}, wanted names of files")
        return tuple(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of integers with gaps is read as floats
    if isinstance(value, str | int | float | date) and not isinstance(value, bool):
        text = str(value).strip()
        return text if name in PATHS else unicodedata.normalize("NFC", text)
    raise DataError(f"{place}: {name} is {value!r}, wanted text or a number")


def read_manifest(path: Path, test: bool = True) -> Tracklets:
    """Read the table of a manifest; folders of frames are listed, nothing else is opened.

    Without `test` only training lines are used, and the table has no other rows. Raises DataError or FileNotFoundError
    naming the file and the line or tracklet at fault.
    """
    return as_table(path, read_entries(path), test)


def read_unlabelled(path: Path, even_with_splits: bool = True) -> Tracklets:
    """Read the table of a manifest whose lines need only tracklet and frames. Raises as `read_manifest`.

    A line without a pid is junk; a line without a split is gallery; all lines without a camera share one camera. Unless
    `even_with_splits`, this holds only where no line has a split.
    """
    named = _read(path, ("tracklet", "frames"))
    if even_with_splits or not any(entry.split for _, entry in named):
        named = [(place, _completed(entry)) for place, entry in named]
    _check_entries(path, named)
    return as_table(path, [entry for _, entry in named])


def _completed(entry: Entry) -> Entry:
    split = entry.split or "gallery"
    nameless = not entry.pid and split not in NAMELESS
    return replace(entry, camera=entry.camera or UNSAID, split="junk" if nameless else split)


def as_table(path: Path, entries: Sequence[Entry], test: bool = True) -> Tracklets:
    """Build the table of these entries as if read from a manifest at `path`, which is not opened.

    Raises as `read_manifest`.
    """
    train = [entry for entry in entries if entry.split == "train"]
    tested = [entry for entry in entries if entry.split != "train"] if test else []
    if not train and not tested:
        raise DataError(f"{path}: has no line of split train, wanted some to train on")
    ordered = train + tested
    names, place = _listed(path, ordered)
    stops_N = np.cumsum([len(own) for own in names])
    pid_numbers = {pid: number for number, pid in enumerate(_in_order(ordered, "pid", len(train)), 1)}
    camera_numbers = {camera: number for number, camera in enumerate(_in_order(ordered, "camera", len(train)), 1)}
    outfits = {clothes: number for number, clothes in enumerate(_in_order(ordered, "clothes", len(train)))}
    for what, labels in (("identities", pid_numbers), ("cameras", camera_numbers), ("outfits", outfits)):
        for pair in alike(labels)[:1]:
            log.warning("%s: the %s %s and %s are taken for two, though only capitals differ", path, what, *pair)
    return Tracklets(
        keys_N=np.array([entry.tracklet for entry in ordered]),
        stems_M=encode_names((name for own in names for name in own), str(path)),
        starts_N=np.concatenate([[0], stops_N[:-1]]).astype(np.int64),
        stops_N=stops_N.astype(np.int64),
        pids_N=np.array([NAMELESS.get(entry.split, pid_numbers.get(entry.pid, 0)) for entry in ordered], np.int64),
        camids_N=np.array([camera_numbers[entry.camera] for entry in ordered], np.int64),
        clothes_N=np.array([outfits.get(entry.clothes, -1) for entry in ordered], np.int64),
        num_train=len(train),
        query=np.flatnonzero([entry.split == "query" for entry in tested]).astype(np.int64),
        place=place,
        pid_names={number: pid for pid, number in pid_numbers.items()},
        camera_names={number: camera for camera, number in camera_numbers.items()},
        clothes_names={number: clothes for clothes, number in outfits.items()},
        fps_N=np.array([float(entry.fps or 0) for entry in ordered]),
    )


def _in_order(entries: Sequence[Entry], name: str, num_train: int) -> list[str]:
    """Return the distinct values in natural order, training first, so that numbers do not depend on reading test."""
    parts = entries[:num_train], entries[num_train:]
    named = ({getattr(e, name) for e in part if name != "pid" or e.split not in NAMELESS} for part in parts)
    return list(dict.fromkeys(value for values in named for value in sorted(values - {""}, key=natural)))


@dataclass(frozen=True, eq=False)
class ManifestFolders:
    """The storage of a manifest's tracklets, by row."""

    folders: Mapping[Modality, Sequence[Path]]
    """Folder of each tracklet by modality; for skeletons it may be a .npy file."""
    endings: Sequence[str]
    """Ending of each tracklet's frame names."""
    lengths: Sequence[int]
    """Number of frames of each tracklet."""

    def files(self, row: int, frames: Sequence[int], stems: Sequence[str], modality: Modality) -> Sequence[Path]:  # noqa: ARG002
        """Return one path per frame, named like the frame. Raises DataError if the skeletons lie in a .npy file."""
        folder = self.folder(row, modality)
        if folder.suffix == ".npy":
            raise DataError(f"{folder}: holds the skeletons of a whole tracklet, wanted a folder to write to")
        ending = self.endings[row] if modality == "frames" else ENDINGS[modality]
        return [folder / (stem + ending) for stem in stems]

    def whole(self, row: int) -> NDArray[np.float32] | None:
        """Read the tracklet's .npy file unchanged, NaN throughout if it is missing; None if each frame has a file."""
        path = self.folder(row, "skeletons")
        if path.suffix != ".npy":
            return None
        return read_array(path, self.lengths[row])

    def folder(self, row: int, modality: Modality) -> Path:
        """Return the path given in the manifest's line, or the default beside the frames."""
        return self.folders[modality][row]


def _listed(path: Path, entries: Sequence[Entry]) -> tuple[list[list[str]], ManifestFolders]:
    """List the frame names without ending of every tracklet, and the folders of its files. Raises DataError."""
    alone = {place for place, entry in enumerate(entries) if not entry.frames}
    entries = [entry if entry.frames else replace(entry, frames=home_of_skeletons(entry.skeleton)) for entry in entries]
    looks = dict.fromkeys(e.frames for e in entries if isinstance(e.frames, str) and looks_like_pattern(e.frames))
    with ThreadPoolExecutor(READERS) as pool:
        exist = pool.map(lambda frames: (path.parent / frames).is_dir(), looks)
        patterns = {frames for frames, is_folder in zip(looks, exist, strict=True) if not is_folder}
    homes = [_folder(entry.frames, entry.frames in patterns) for entry in entries]
    shown = dict.fromkeys(home for entry, home in zip(entries, homes, strict=True) if isinstance(entry.frames, str))
    with ThreadPoolExecutor(READERS) as pool:
        lists = pool.map(lambda folder: images(path.parent / folder), shown)
        found = dict(zip(shown, tqdm(lists, "frames", len(shown), disable=None), strict=True))
    stems, endings = [], []
    for number, (entry, home) in enumerate(zip(entries, homes, strict=True)):
        if number in alone:
            stems.append(sorted(moment_names(path.parent / entry.skeleton), key=natural))
            endings.append(ENDINGS["frames"])
            continue
        pattern = PurePosixPath(str(entry.frames)).name if entry.frames in patterns else ""
        own = _frames(path, entry, found.get(home, []), pattern)
        names = [os.path.splitext(name) for name in own]  # noqa: PTH122 - fast
        kinds = Counter(ending for _, ending in names)
        if len(kinds) != 1:
            held = " and ".join(f"{count} {ending}" for ending, count in kinds.items()) or "no images"
            what = entry.frames if isinstance(entry.frames, str) else "its list"
            what = f"{what} (a pattern, as there is no such folder)" if pattern else what
            raise DataError(f"{path}: tracklet {entry.tracklet} has {held} in {what}, wanted images of one kind")
        stems.append([stem for stem, _ in names])
        endings.append(names[0][1])
    _check_shared(path, entries, homes, stems)
    folders: dict[Modality, list[Path]] = {
        "frames": [path.parent / home for home in homes],
        "masks": [path.parent / (e.masks or f"{home}_mask") for e, home in zip(entries, homes, strict=True)],
        "skeletons": [path.parent / (e.skeleton or f"{home}_joint3d") for e, home in zip(entries, homes, strict=True)],
    }
    assert set(folders) == set(get_args(Modality))
    return stems, ManifestFolders(folders, endings, [len(own) for own in stems])


def _check_shared(path: Path, entries: Sequence[Entry], homes: Sequence[str], stems: Sequence[Sequence[str]]) -> None:
    """Raise DataError for a frame that belongs to two tracklets."""
    folders = [(path.parent / home).absolute() for home in homes]  # written in one way or another
    crowded = {folder for folder, count in Counter(folders).items() if count > 1}
    owners: dict[tuple[Path, str], str] = {}
    for entry, home, folder, own in zip(entries, homes, folders, stems, strict=True):
        for stem in own if folder in crowded else ():
            if (first := owners.setdefault((folder, stem), entry.tracklet)) != entry.tracklet:
                raise DataError(
                    f"{path}: the tracklets {first} and {entry.tracklet} share the frame {stem} in {home}, wanted each "
                    "frame in one"
                )


def _folder(frames: str | tuple[str, ...], is_pattern: bool) -> str:
    """Return the folder of a tracklet's frames, relative to the manifest."""
    named = PurePosixPath(frames if isinstance(frames, str) else frames[0])
    return str(named.parent if isinstance(frames, tuple) or is_pattern else named)


def looks_like_pattern(frames: str) -> bool:
    """Return whether a text is a pattern for file names, unless a folder of that name exists."""
    last = PurePosixPath(frames).name
    return glob.has_magic(last) or last.lower().endswith(IMAGES)


def images(folder: Path) -> list[str]:
    """Return the names of the images in a folder, sorted as texts; empty if there is no such folder."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - no Path for each of a million files
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if name.lower().endswith(IMAGES) and not name.startswith("."))


def matching(names: Sequence[str], pattern: str) -> list[str]:
    """Return the names that match a pattern; `names` are sorted as texts.

    Only names with the prefix of the pattern are compared, because a folder may hold thousands of tracklets.
    """
    start = re.split(r"[*?[]", pattern)[0]
    first, last = bisect_left(names, start), bisect_left(names, start + "\U0010ffff")
    return fnmatch.filter(names[first:last], pattern)


def _frames(path: Path, entry: Entry, inside: Sequence[str], pattern: str) -> Sequence[str]:
    """Return the names of a tracklet's frames, in order; `inside` are the images in its folder. Raises DataError."""
    if isinstance(entry.frames, str):
        return sorted(matching(inside, pattern) if pattern else inside, key=natural)
    parts = [frame.rpartition("/") for frame in entry.frames]
    if other := next((part for part in parts if part[0] != parts[0][0]), None):
        raise DataError(
            f"{path}: tracklet {entry.tracklet} lists {''.join(other)}, which is not in {parts[0][0] or '.'}, "
            "wanted frames of one folder"
        )
    return [name for _, _, name in parts]
