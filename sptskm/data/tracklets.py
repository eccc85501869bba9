"""Define the table of tracklets, one row each; all streams read it, so that a row number means the same everywhere.

Legend: N tracklets, M frames of all tracklets together.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.common.paths import exists
from sptskm.config import Modality as Modality
from sptskm.data.derived import Derived

ENDINGS: dict[Modality, str] = {"frames": ".jpg", "masks": ".png", "skeletons": ".mat"}
JUNK_PID = -1
DISTRACTOR_PID = 0

IntArray = NDArray[np.int64]


class Readable(Protocol):
    """A file that can be read: a Path, or a member of a pack."""

    @property
    def name(self) -> str:
        """Return the name of the file without its folder."""

    def is_file(self) -> bool:
        """Return whether the file exists."""

    def read_bytes(self) -> bytes:
        """Read the whole file. Raises OSError if that fails."""


class Files(Protocol):
    """The storage of the files of tracklets."""

    def files(self, row: int, frames: Sequence[int], stems: Sequence[str], modality: Modality) -> Sequence[Readable]:
        """Return the files of some frames (0-based, with their names) of a tracklet; they need not exist."""

    def whole(self, row: int) -> NDArray[np.float32] | None:
        """Return a tracklet's skeletons (F, 14, 4) if they are stored together; None if each frame has a file."""

    def folder(self, row: int, modality: Modality) -> Path:
        """Return the path at which the files of a tracklet are expected."""


@dataclass(frozen=True, eq=False)
class Tracklets:
    """All tracklets of a data set as flat arrays, which loader processes share without copying.

    Training rows come first. `train` and `test` are row numbers of this table, `query` are row numbers
    into `test`: the queries are rows `test[query]`.
    """

    keys_N: NDArray[np.str_]
    """Unique name of every row; in MARS the name of its first frame."""
    stems_M: NDArray[np.bytes_]
    """Frame names without ending, in UTF-8; tracklet n owns stems_M[starts_N[n]:stops_N[n]]."""
    starts_N: IntArray
    stops_N: IntArray
    pids_N: IntArray
    """-1 junk, 0 distractor."""
    camids_N: IntArray
    clothes_N: IntArray
    """Outfit labels, -1 where unknown."""
    num_train: int
    query: IntArray
    place: Files
    """The storage of frames, masks and skeletons."""
    pid_names: Mapping[int, str] = field(default_factory=dict)
    """Names of identities, for those that are not called by their number."""
    camera_names: Mapping[int, str] = field(default_factory=dict)
    clothes_names: Mapping[int, str] = field(default_factory=dict)
    """Names of outfits, for those that are not called by their number."""
    fps_N: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Frames per second, 0 where unknown; empty if no rate is known."""
    derived: Derived = field(default_factory=Derived)
    """The record of how masks and skeletons were made."""

    def __len__(self) -> int:
        return len(self.pids_N)

    @property
    def pids(self) -> IntArray:
        """Return the identity of every row (N,)."""
        return self.pids_N

    @property
    def camids(self) -> IntArray:
        """Return the camera of every row (N,), as recorded."""
        return self.camids_N

    @property
    def lengths(self) -> IntArray:
        """Return the number of frames of every row (N,)."""
        return self.stops_N - self.starts_N

    @property
    def train(self) -> IntArray:
        """Return the row numbers of the training tracklets."""
        return np.arange(self.num_train)

    @property
    def test(self) -> IntArray:
        """Return the row numbers of the test tracklets: gallery, queries, distractors and junk."""
        return np.arange(self.num_train, len(self))

    @property
    def has_clothes(self) -> bool:
        """Return whether any outfit is known."""
        return bool((self.clothes_N >= 0).any())

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of everything that defines the rows; equal data give equal hashes."""
        return self._digest(len(self))

    @cached_property
    def training_fingerprint(self) -> str:
        """Return the fingerprint of the training part alone; it does not depend on whether the test part was read."""
        return self._digest(self.num_train)

    def _digest(self, rows: int) -> str:
        frames = int(self.stops_N[:rows].max()) if rows else 0
        query = self.query if rows > self.num_train else self.query[:0]
        digest = hashlib.sha256(b"\n".join(self.stems_M[:frames].tolist()))  # independent of the width of the array
        for array in (self.starts_N[:rows], self.stops_N[:rows], self.pids_N[:rows], self.camids_N[:rows], query):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update(str(self.num_train).encode())
        if self.fps_N[:rows].any():  # without rates the fingerprint stays that of older versions
            digest.update(self.fps_N[:rows].tobytes())
        if (self.keys_N[:rows] != decode_names(self.stems_M[self.starts_N[:rows]])).any():
            digest.update("\n".join(self.keys_N[:rows].tolist()).encode())
        return digest.hexdigest()[:16]

    def stems(self, row: int) -> list[str]:
        """Return the frame names of a tracklet, in order."""
        return decode_names(self.stems_M[self.starts_N[row] : self.stops_N[row]]).tolist()

    def files(self, row: int, frames: Sequence[int], modality: Modality) -> Sequence[Readable]:
        """Return the files of some frames (0-based) of a tracklet; they need not exist."""
        stems = decode_names(self.stems_M[self.starts_N[row] + np.asarray(frames, np.int64)]).tolist()
        return self.place.files(row, frames, stems, modality)

    def path(self, row: int, frame: int, modality: Modality) -> Path:
        """Return the path of one frame's file (0-based), for writing. Raises DataError for a file in a pack."""
        (file,) = self.files(row, [frame], modality)
        if not isinstance(file, Path):
            raise DataError(f"{file}: lies in a pack, which is only read; `sptskm unpack` it first")
        return file

    def folder(self, row: int, modality: Modality) -> Path:
        """Return the path at which the files of a tracklet are expected."""
        return self.place.folder(row, modality)

    def has(self, modality: Modality) -> bool:
        """Return whether any tracklet has a folder (or file) of this modality."""
        folders = dict.fromkeys(self.folder(row, modality) for row in range(len(self)))
        return any(exists(folder) for folder in folders)

    def pid_name(self, row: int) -> str:
        """Return the name of a row's identity."""
        pid = int(self.pids_N[row])
        return self.pid_names.get(pid, str(pid))

    def camera_name(self, row: int) -> str:
        """Return the name of a row's camera."""
        camid = int(self.camids_N[row])
        return self.camera_names.get(camid, str(camid))

    def fps(self, row: int) -> float:
        """Return the frames per second of a row, 0 if unknown."""
        return float(self.fps_N[row]) if len(self.fps_N) else 0.0

    def clothes_name(self, row: int) -> str:
        """Return the name of a row's outfit, empty if unknown."""
        clothes = int(self.clothes_N[row])
        return "" if clothes < 0 else self.clothes_names.get(clothes, f"outfit {clothes}")


def encode_names(names: Iterable[str], source: str) -> NDArray[np.bytes_]:
    """Encode frame names in UTF-8, as `stems_M` holds them.

    Raises DataError, starting with `source`, for a name that cannot be encoded (from a file system with another
    encoding).
    """
    names = list(names)
    try:
        return np.array([name.encode() for name in names], np.bytes_)
    except UnicodeEncodeError as error:
        raise DataError(f"{source}: the name {error.object!a} is not UTF-8, wanted another name") from None


def decode_names(stems_M: NDArray[np.bytes_]) -> NDArray[np.str_]:
    """Decode frame names from UTF-8 to texts."""
    return np.char.decode(stems_M, "utf-8") if len(stems_M) else stems_M.astype(np.str_)


class Sources(NamedTuple):
    """The files that the rows of a table come from, to be named in messages."""

    train: str
    test: str
    query: str


def check_table(table: Tracklets, sources: Sources) -> None:
    """Raise DataError, starting with one of `sources`, if a table breaks a rule of data sets.

    The rules: every tracklet has a unique name and shares no frame with another one. Identities are -1 (junk), 0
    (distractor) or more, in training 1 or more, and no identity is in both training and test. Cameras are 0 or more.
    Queries are persons.
    """
    pids_N, train, test = table.pids_N, table.train, table.test
    _check_low(pids_N[test], JUNK_PID, f"{sources.test}: the identity of row", f"{JUNK_PID} or more")
    _check_low(pids_N[train], 1, f"{sources.train}: the identity of row", "1 or more: nobody else can be trained on")
    for rows, source in ((train, sources.train), (test, sources.test)):
        _check_low(table.camids_N[rows], 0, f"{source}: the camera of row", "0 or more")
    names, counts = np.unique(table.keys_N, return_counts=True)
    if (counts > 1).any():
        name = names[counts.argmax()]
        source = sources.train if name in table.keys_N[train] else sources.test
        raise DataError(f"{source}: {counts.max()} tracklets are called {name}, wanted other names")
    order_N = np.argsort(table.starts_N, kind="stable")
    overlaps = np.flatnonzero(table.starts_N[order_N][1:] < table.stops_N[order_N][:-1])
    if len(overlaps):
        pair = order_N[overlaps[0] : overlaps[0] + 2]
        first, second = table.keys_N[pair].tolist()
        source = sources.train if pair[0] < table.num_train else sources.test
        raise DataError(f"{source}: the tracklets {first} and {second} share frames, wanted each frame in one")
    both = np.intersect1d(pids_N[train], pids_N[test])
    if len(both):
        row = int(np.flatnonzero(pids_N == both[0])[0])
        raise DataError(
            f"{sources.test}: the identity {table.pid_name(row)} is in training and in test ({len(both)} such), wanted "
            "each in one of them"
        )
    nobody = table.query[pids_N[test[table.query]] <= DISTRACTOR_PID]
    if len(nobody):
        what = "junk" if pids_N[test[nobody[0]]] == JUNK_PID else "a distractor"
        raise DataError(f"{sources.query}: the query of test row {nobody[0] + 1} is {what}, wanted a person")


def _check_low(values: IntArray, low: int, what: str, wanted: str) -> None:
    below = np.flatnonzero(values < low)
    if len(below):
        raise DataError(f"{what} {below[0] + 1} is {values[below[0]]}, wanted {wanted}")


def check_ranges(starts_N: IntArray, stops_N: IntArray, num_frames: int, source: str) -> None:
    """Check that every tracklet covers at least one frame and only the `num_frames` frames that exist.

    Raises DataError, starting with `source`, for the first that does not.
    """
    bad = np.flatnonzero((starts_N < 0) | (stops_N > num_frames) | (stops_N <= starts_N))
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{source}: row {row + 1} covers lines {starts_N[row] + 1} to {stops_N[row]}, "
            f"wanted a range within the {num_frames} lines of its name list"
        )
