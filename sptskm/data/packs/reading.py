"""Read a pack: a data set in a few hundred files, with frames and masks in zip files and skeletons in one array.

    pack.json              the summary, with size and checksum of every file; written last
    train.npz test.npz     the tables, with the zip file and position of every frame and mask
    train-0000.zip ...     frames and masks byte by byte, not compressed again: frame, mask, frame, mask of a tracklet
    train-skeletons.npy    (M, 14, 4) float32 as they were, NaN where a frame has none

The frames and masks of a clip are read by one `pread` at a recorded position: one round trip on a network file system,
no lock, no memory map, no file position shared by processes. benchmarks/containers.py compares this with other
containers.
Legend: N tracklets, M frames, F frames of a tracklet.
"""

import errno
import os
import stat
import struct
import subprocess
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.common.reading import read_json
from sptskm.data.derived import PACKED, read_packed
from sptskm.data.files import ATTEMPTS, SKELETON_SHAPE, retried
from sptskm.data.packs.contents import (
    MASK_ENDING,
    PARTS,
    PLACES,
    SKELETON_BYTES,
    SUMMARY,
    SUMS,
    TABLE,
    Summary,
    checksum,
    read_part,
    read_summary,
    sealed,
)
from sptskm.data.tracklets import IntArray, Modality, Tracklets

GAP = 1 << 16  # largest gap in bytes between members that are read in one request
_HEAD = struct.Struct("<4s5H3I2H")  # header of a member in a zip file; its name follows, then its content


@dataclass(frozen=True)
class Member:
    """A file that was read out of a pack."""

    place: str
    """Path of the zip file, a colon, and the name in it."""
    content: bytes = field(repr=False)
    head: bytes = field(repr=False, default=b"")
    """Header of the member in the zip file: its name, size and checksum."""

    @property
    def name(self) -> str:
        """Return the name of the file without its folder."""
        return self.place.rpartition("/")[2]

    def is_file(self) -> bool:
        """Return whether the pack has the file."""
        return len(self.content) > 0

    def read_bytes(self) -> bytes:
        """Return the content. Raises FileNotFoundError if the pack has none, DataError if the checksum is wrong."""
        if not self.content:
            raise FileNotFoundError(errno.ENOENT, "not in the pack", self.place)
        *_, wanted, packed, size, name, extra = _HEAD.unpack_from(self.head)
        found = zlib.crc32(self.content)
        named = self.place.encode().endswith(b":" + self.head[_HEAD.size :])
        if not (self.head.startswith(b"PK\3\4") and named and extra == 0 and name + _HEAD.size == len(self.head)):
            raise DataError(f"{self.place}: is damaged: no such file begins there; `sptskm pack --verify` tells more")
        if not (packed == size == len(self.content) and found == wanted):
            raise DataError(
                f"{self.place}: is damaged: has the checksum {found:08x}, wanted {wanted:08x}; "
                "`sptskm pack --verify` tells more"
            )
        return self.content

    def __str__(self) -> str:
        return self.place


class Shards:
    """The files of a pack, opened once per process; a copy on a local disk is used as soon as it is there."""

    def __init__(self, folder: Path, files: Mapping[str, tuple[int, str]]) -> None:
        self.folder, self.files = folder, files
        self.copies: Path | None = None
        self.copier: subprocess.Popen[str] | None = None
        self._open: dict[str, tuple[int, bool]] = {}
        self._last = ("", 0, b"")
        self._verified: set[str] = set()

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Read `size` bytes at `offset` of a file; the bytes read last are cached. Raises DataError."""
        last, start, content = self._last
        if last != name or not start <= offset <= offset + size <= start + len(content):
            if offset < 0 or offset + size > self.files[name][0]:
                raise DataError(f"{self.folder / name}: has no bytes {offset} to {offset + size} as its tables say")
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

    def verify(self, name: str) -> None:
        """Verify the checksum of a whole file, once per process. Raises DataError."""
        if name not in self._verified:
            found, wanted = checksum(self.folder / name), self.files[name][1]
            if found != wanted:
                raise DataError(f"{self.folder / name}: is damaged: has the checksum {found}, wanted {wanted}")
            self._verified.add(name)

    def _descriptor(self, name: str) -> int:
        opened, is_copy = self._open.get(name, (-1, False))
        copy = None if is_copy or self.copies is None else _own_copy(self.copies / name, self.files[name][0])
        if copy is not None:
            if opened >= 0:
                os.close(opened)
            opened, self._open[name] = copy, (copy, True)
        if opened < 0:
            opened = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
            self._open[name] = opened, False
            found, wanted = os.fstat(opened).st_size, self.files[name][0]
            if found != wanted:
                raise DataError(f"{self.folder / name}: has {found} bytes, wanted {wanted} as {SUMMARY} says")
        return opened

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "copier": None, "_open": {}, "_last": ("", 0, b"")}  # open files belong to one process

    def __del__(self) -> None:
        for opened, _ in self._open.values():
            os.close(opened)


def _own_copy(path: Path, size: int) -> int | None:
    """Open a copy that belongs to this user and has the right size; return its descriptor, or None if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None  # without a copy the file is read in place
    state = os.fstat(descriptor)
    if stat.S_ISREG(state.st_mode) and state.st_uid == os.getuid() and state.st_size == size:
        return descriptor
    os.close(descriptor)
    return None


@dataclass(frozen=True, eq=False)
class PackFiles:
    """The storage of the files of a pack's tracklets."""

    shards: Shards
    modalities: frozenset[str]
    """The modalities that the pack holds."""
    keys_N: NDArray[np.str_]
    starts_N: IntArray
    stops_N: IntArray
    shard_N: NDArray[np.str_]
    """Zip file of each tracklet."""
    endings_N: NDArray[np.str_]
    """Ending of each tracklet's frame names."""
    frames_M2: IntArray
    """Offset and size in bytes of every frame in the zip file of its tracklet."""
    masks_M2: IntArray
    num_train: int
    heads: tuple[int, int]
    """Size in bytes of the header in the files of skeletons, for train and test."""
    skeleton_sums_N: IntArray | None = None
    """CRC-32 of each tracklet's skeletons; None for older packs without them."""

    def files(self, row: int, frames: Sequence[int], stems: Sequence[str], modality: Modality) -> Sequence[Member]:
        """Read some frames or masks of a tracklet, in one request if they lie close together. Raises DataError."""
        if modality == "skeletons":
            raise DataError(f"{self.folder(row, modality)}: holds skeletons of all frames, wanted files of single ones")
        ending = self._ending(row, modality)
        key, where = str(self.keys_N[row]), f"{self.shards.folder / str(self.shard_N[row])}:"
        places = [where + member(key, stem, ending) for stem in stems]
        if modality not in self.modalities:
            return [Member(place, b"") for place in places]
        heads_F = np.array([_HEAD.size + len(member(key, stem, "").encode()) for stem in stems])
        contents = self._read(row, self.starts_N[row] + np.asarray(frames, np.int64), modality, heads_F)
        cuts = (heads_F + len(ending)).tolist()
        return [Member(place, c[cut:], c[:cut]) for place, c, cut in zip(places, contents, cuts, strict=True)]

    def _ending(self, row: int, modality: Modality) -> str:
        return str(self.endings_N[row]) if modality == "frames" else MASK_ENDING

    def _read(self, row: int, at_F: IntArray, modality: Modality, heads_F: IntArray) -> list[bytes]:
        """Read the files of the frames `at_F` with their headers; `heads_F` are header sizes without the name's ending.

        Masks are read together with the frames, because readers of frames ask for the masks next and then get them from
        memory.
        """
        shard = str(self.shard_N[row])
        kinds: tuple[Modality, ...] = ("frames", "masks") if len(self.masks_M2) else (modality,)
        spans: dict[Modality, IntArray] = {}  # first byte and number of bytes (F, 2)
        for kind in kinds:
            places_F2 = (self.frames_M2 if kind == "frames" else self.masks_M2)[at_F]
            more_F = heads_F + len(self._ending(row, kind))
            spans[kind] = np.stack([places_F2[:, 0] - more_F, places_F2[:, 1] + more_F], axis=1)
        both_B2 = np.concatenate([*spans.values()])
        first, last = int(both_B2[:, 0].min()), int(both_B2.sum(axis=1).max())
        if last - first <= both_B2[:, 1].sum() + GAP:
            self.shards.read(shard, first, last - first)
        return [self.shards.read(shard, *span) for span in spans[modality].tolist()]

    def whole(self, row: int) -> NDArray[np.float32]:
        """Read the skeletons (F, 14, 4) of a tracklet, NaN if the pack has none. Raises DataError for damaged ones."""
        length = int(self.stops_N[row] - self.starts_N[row])
        if "skeletons" not in self.modalities:
            return np.full((length, *SKELETON_SHAPE), np.nan, np.float32)
        is_test, path = row >= self.num_train, self.folder(row, "skeletons")
        first = int(self.starts_N[row]) - (int(self.starts_N[self.num_train]) if is_test else 0)
        place = self.heads[is_test] + first * SKELETON_BYTES
        if self.skeleton_sums_N is None:
            self.shards.verify(path.name)
        content = self.shards.read(path.name, place, length * SKELETON_BYTES)
        if self.skeleton_sums_N is not None and zlib.crc32(content) != int(self.skeleton_sums_N[row]):
            raise DataError(
                f"skeletons {path}: is damaged: tracklet {self.keys_N[row]} has the checksum "
                f"{zlib.crc32(content):08x}, wanted {int(self.skeleton_sums_N[row]):08x}"
            )
        return np.frombuffer(content, np.float32).reshape(length, *SKELETON_SHAPE).copy()

    def folder(self, row: int, modality: Modality) -> Path:
        """Return the zip file or array that holds a tracklet; a path that does not exist if the pack has none."""
        part = "train" if row < self.num_train else "test"
        name = str(self.shard_N[row]) if modality in self.modalities else f"{part}-{modality}"
        return self.shards.folder / (f"{part}-skeletons.npy" if modality == "skeletons" else name)


def member(key: str, stem: str, ending: str) -> str:
    """Return the name of a frame or mask in its zip file."""
    return f"{key}/{stem}{ending}"


def read_pack(folder: Path, test: bool = True) -> Tracklets:
    """Read the table of a pack; without `test` no file of the test part is opened and only training rows are returned.

    Raises DataError or FileNotFoundError naming the file at fault.
    """
    summary = read_summary(folder)
    parts = [read_part(folder, part, summary) for part in (PARTS if test else PARTS[:1])]
    if test:
        for name in ("starts_N", "stops_N"):
            parts[1][name] = parts[1][name] + len(parts[0]["stems_M"])  # test frames follow the training frames
    joined = {name: np.concatenate([part[name] for part in parts]) for name in (*TABLE, *PLACES)}
    sums = [part[SUMS] for part in parts if SUMS in part]
    num_train = len(parts[0]["keys_N"])
    place = PackFiles(
        shards=Shards(folder, summary.files),
        modalities=frozenset(summary.modalities),
        num_train=num_train,
        heads=(summary.heads.get("train", 0), summary.heads.get("test", 0)),
        skeleton_sums_N=np.concatenate(sums) if len(sums) == len(parts) else None,
        **{name: joined[name] for name in ("keys_N", "starts_N", "stops_N", *PLACES)},
    )
    if PACKED in summary.files:
        place.shards.verify(PACKED)
    table = Tracklets(
        **{name: joined[name] for name in TABLE},  # type: ignore[arg-type]  # mypy takes it for all fields
        num_train=num_train,
        place=place,
        pid_names=summary.pid_names,
        camera_names=summary.camera_names,
        clothes_names=summary.clothes_names,
        fps_N=np.array(summary.fps[: len(joined["keys_N"])], np.float64),
        derived=read_packed(folder, summary.methods),
    )
    _check_summary(folder, summary, table, test)
    return table


def _check_summary(folder: Path, summary: Summary, table: Tracklets, test: bool) -> None:
    """Check that the tables belong to the summary and that the summary is unchanged. Raises DataError."""
    found, wanted = table.training_fingerprint, summary.training_fingerprint
    if test and found == wanted:
        found, wanted = table.fingerprint, summary.fingerprint
    if found != wanted:
        raise DataError(f"{folder}: its table has the fingerprint {found}, wanted {wanted} as {SUMMARY} says")
    content = read_json(folder / SUMMARY, dict[str, Any])
    if content != sealed(content) and "checksum" in content:  # older packs have none
        raise DataError(f"{folder / SUMMARY}: is damaged: has not the checksum that it says")
