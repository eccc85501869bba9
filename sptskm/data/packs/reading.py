"""A data set in a few hundred files: frames and masks in zip files, skeletons in one array.

    pack.json              what it is, with size and checksum of every file; written last
    train.npz test.npz     the tables, and where in which zip file every frame and mask lies
    train-0000.zip ...     frames and masks byte by byte, not compressed again: frame, mask, frame, mask of a tracklet
    train-skeletons.npy    (M, 14, 4) float32 as they were, NaN where a frame has none

The frames and masks of a clip are one `pread` at a recorded place: one round trip on a network file system, no lock, no
memory map, no position that processes could share. benchmarks/containers.py compares this with other containers.
Legend: N tracklets, M frames, F frames of a tracklet.
"""

import errno
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sptskm.data.derived import read_packed
from sptskm.data.errors import DataError
from sptskm.data.files import ATTEMPTS, SKELETON_SHAPE, retried
from sptskm.data.tracklets import IntArray, Modality, Tracklets

Part = Literal["train", "test"]

SUMMARY = "pack.json"
VERSION = 1
PARTS: tuple[Part, ...] = ("train", "test")
LISTED = ("keys_N", "stems_M", "starts_N", "stops_N", "pids_N", "camids_N", "clothes_N", "query")
"""What the table of a part holds of its tracklets; row and frame numbers count within the part."""
PLACES = ("shard_N", "endings_N", "frames_M2", "masks_M2")
"""And where their files lie, see PackFiles."""
MASK_ENDING = ".mask.png"
SKELETON_BYTES = 14 * 4 * 4
GAP = 1 << 16  # bytes between members that are rather read along than asked for separately


@dataclass(frozen=True)
class Member:
    """A file that was read out of a pack."""

    place: str
    content: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Without the folder."""
        return self.place.rpartition("/")[2]

    def is_file(self) -> bool:
        """Whether the pack has it."""
        return len(self.content) > 0

    def read_bytes(self) -> bytes:
        """All of it; FileNotFoundError where the pack has none."""
        if not self.content:
            raise FileNotFoundError(errno.ENOENT, "not in the pack", self.place)
        return self.content

    def __str__(self) -> str:
        return self.place


class Shards:
    """The files of a pack, opened once a process; a copy on a local disk is used as soon as it is there."""

    def __init__(self, folder: Path, sizes: Mapping[str, int], copies: Path | None = None) -> None:
        self.folder, self.sizes, self.copies = folder, sizes, copies
        self.copier: subprocess.Popen[str] | None = None
        self._open: dict[str, tuple[int, bool]] = {}
        self._last = ("", 0, b"")

    def read(self, name: str, offset: int, size: int) -> bytes:
        """So many bytes of a file; those that were read last are kept. Raises DataError."""
        last, start, content = self._last
        if last != name or not start <= offset <= offset + size <= start + len(content):
            start, content = offset, self._read(name, offset, size)
            if len(content) < size:
                raise DataError(f"{self.folder / name}: cannot be read at byte {offset}")
            self._last = (name, offset, content)
        return content[offset - start : offset - start + size]

    def _read(self, name: str, offset: int, size: int) -> bytes:
        try:
            return retried(lambda: os.pread(self._descriptor(name), size, offset))
        except OSError as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
            raise DataError(f"{self.folder / name}: {reason} (after {ATTEMPTS} attempts)") from error

    def _descriptor(self, name: str) -> int:
        opened, is_copy = self._open.get(name, (-1, False))
        if not is_copy and self.copies is not None:
            try:
                copy = os.open(self.copies / name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                pass
            else:
                if opened >= 0:
                    os.close(opened)
                opened, self._open[name] = copy, (copy, True)
        if opened < 0:
            opened = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
            self._open[name] = opened, False
            found, wanted = os.fstat(opened).st_size, self.sizes[name]
            if found != wanted:
                raise DataError(f"{self.folder / name}: has {found} bytes, wanted {wanted} as {SUMMARY} says")
        return opened

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "copier": None, "_open": {}, "_last": ("", 0, b"")}  # these belong to one process

    def __del__(self) -> None:
        for opened, _ in self._open.values():
            os.close(opened)


@dataclass(frozen=True, eq=False)
class PackFiles:
    """Where the files of a pack's tracklets lie."""

    shards: Shards
    modalities: frozenset[str]
    """What the pack holds."""
    keys_N: NDArray[np.str_]
    starts_N: IntArray
    stops_N: IntArray
    shard_N: NDArray[np.str_]
    """Zip file of each tracklet."""
    endings_N: NDArray[np.str_]
    """Of its frames."""
    frames_M2: IntArray
    """Offset and bytes of every frame in the zip file of its tracklet."""
    masks_M2: IntArray
    num_train: int
    heads: tuple[int, int]
    """Bytes before the first number in the arrays of skeletons of train and test."""

    def files(self, row: int, frames: Sequence[int], stems: Sequence[str], modality: Modality) -> Sequence[Member]:
        """Some frames or masks of a tracklet, read at once where they lie together. Raises DataError."""
        if modality == "skeletons":
            raise DataError(f"{self.folder(row, modality)}: holds skeletons of all frames, wanted files of single ones")
        if modality not in self.modalities:
            contents = [b""] * len(frames)
        else:
            contents = self._read(row, self.starts_N[row] + np.asarray(frames, np.int64), modality)
        ending = str(self.endings_N[row]) if modality == "frames" else MASK_ENDING
        key, where = str(self.keys_N[row]), f"{self.shards.folder / str(self.shard_N[row])}:"
        return [Member(where + member(key, stem, ending), c) for stem, c in zip(stems, contents, strict=True)]

    def _read(self, row: int, at_F: IntArray, modality: Modality) -> list[bytes]:
        """The files of frames `at_F`; whoever wants frames is going to want their masks, and gets them from memory."""
        shard, places_F2 = str(self.shard_N[row]), (self.frames_M2 if modality == "frames" else self.masks_M2)[at_F]
        both_B2 = np.concatenate([self.frames_M2[at_F], self.masks_M2[at_F]]) if len(self.masks_M2) else places_F2
        first, last = int(both_B2[:, 0].min()), int(both_B2.sum(axis=1).max())
        if last - first <= both_B2[:, 1].sum() + GAP:
            self.shards.read(shard, first, last - first)
        return [self.shards.read(shard, *place) for place in places_F2.tolist()]

    def whole(self, row: int) -> NDArray[np.float32]:
        """The skeletons of a tracklet."""
        length = int(self.stops_N[row] - self.starts_N[row])
        if "skeletons" not in self.modalities:
            return np.full((length, *SKELETON_SHAPE), np.nan, np.float32)
        is_test = row >= self.num_train
        first = int(self.starts_N[row]) - (int(self.starts_N[self.num_train]) if is_test else 0)
        place = self.heads[is_test] + first * SKELETON_BYTES
        content = self.shards.read(self.folder(row, "skeletons").name, place, length * SKELETON_BYTES)
        return np.frombuffer(content, np.float32).reshape(length, *SKELETON_SHAPE).copy()

    def folder(self, row: int, modality: Modality) -> Path:
        """The zip file or array that holds a tracklet; one that does not exist where the pack has none."""
        part = "train" if row < self.num_train else "test"
        name = str(self.shard_N[row]) if modality in self.modalities else f"{part}-{modality}"
        return self.shards.folder / (f"{part}-skeletons.npy" if modality == "skeletons" else name)


def member(key: str, stem: str, ending: str) -> str:
    """The name of a frame or mask in its zip file."""
    return f"{key}/{stem}{ending}"


def read_summary(folder: Path) -> dict[str, Any]:
    """What a pack says of itself. DataError when this is another version's or no complete pack."""
    path = folder / SUMMARY
    try:
        summary = json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, wanted a folder that `sptskm pack` has completed") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not readable ({error})") from None
    if summary.get("version") != VERSION:
        raise DataError(f"{path}: is of version {summary.get('version')}, wanted {VERSION}")
    return summary


def read_pack(folder: Path, test: bool = True) -> Tracklets:
    """The table of a pack. Without `test` no file of the test part is opened, and the table ends with training rows.

    Raises DataError or FileNotFoundError naming the file at fault.
    """
    summary = read_summary(folder)
    parts = [_read_part(folder, part) for part in (PARTS if test else PARTS[:1])]
    if test:
        for name in ("starts_N", "stops_N"):
            parts[1][name] = parts[1][name] + len(parts[0]["stems_M"])  # they follow those of the training part
    joined = {name: np.concatenate([part[name] for part in parts]) for name in (*LISTED, *PLACES)}
    num_train = len(parts[0]["keys_N"])
    place = PackFiles(
        shards=Shards(folder, {name: size for name, (size, _) in summary["files"].items()}),
        modalities=frozenset(summary["modalities"]),
        num_train=num_train,
        heads=(summary["heads"]["train"], summary["heads"]["test"]),
        **{name: joined[name] for name in ("keys_N", "starts_N", "stops_N", *PLACES)},
    )
    table = Tracklets(
        **{name: joined[name] for name in LISTED},  # type: ignore[arg-type]  # mypy takes it for all fields
        num_train=num_train,
        place=place,
        pid_names={int(number): name for number, name in summary["pid_names"].items()},
        camera_names={int(number): name for number, name in summary["camera_names"].items()},
        # packs of before do not have them
        clothes_names={int(number): name for number, name in summary.get("clothes_names", {}).items()},
        derived=read_packed(folder, summary.get("methods", {})),
    )
    found, wanted = table.training_fingerprint, summary["training_fingerprint"]
    if found != wanted:
        raise DataError(f"{folder}: its table has the fingerprint {found}, wanted {wanted} as {SUMMARY} says")
    return table


def _read_part(folder: Path, part: Part) -> dict[str, NDArray[Any]]:
    path = folder / f"{part}.npz"
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in (*LISTED, *PLACES)}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, though {SUMMARY} beside it says so") from None
    except Exception as error:  # whatever a damaged archive makes numpy raise
        raise DataError(f"{path}: not readable ({error}); `sptskm pack --verify` tells more") from None
