"""Read `pack.json` and the two tables of a pack, and validate them before any file that they name is read.

Legend: N tracklets, M frames.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sptskm.common.arrays import ArraySpec, read_npz
from sptskm.common.atomic import naming
from sptskm.common.errors import DataError
from sptskm.common.paths import control_in
from sptskm.common.reading import parsed_json, read_text
from sptskm.data.tracklets import IntArray, Modality, check_ranges

PackPart = Literal["train", "test"]

SUMMARY = "pack.json"
VERSION = 1
PARTS: tuple[PackPart, ...] = ("train", "test")
TABLE = {
    "keys_N": ArraySpec("U", ("N",)),
    "stems_M": ArraySpec("S", ("M",)),
    "starts_N": ArraySpec("iu", ("N",)),
    "stops_N": ArraySpec("iu", ("N",)),
    "pids_N": ArraySpec("iu", ("N",)),
    "camids_N": ArraySpec("iu", ("N",)),
    "clothes_N": ArraySpec("iu", ("N",)),
    "query": ArraySpec("iu", ("Q",)),
}
"""The arrays of a part's table that describe its tracklets; row and frame numbers count within the part."""
PLACES = {
    "shard_N": ArraySpec("U", ("N",)),
    "endings_N": ArraySpec("U", ("N",)),
    "frames_M2": ArraySpec("iu", ("M", 2)),
    "masks_M2": ArraySpec("iu", ("frames with masks", 2)),
}
"""The arrays of a part's table that locate the files of its tracklets, see PackFiles."""
SUMS = "skeleton_sums_N"
"""CRC-32 of each tracklet's skeletons; older packs have none."""
MASK_ENDING = ".mask.png"
SKELETON_BYTES = 14 * 4 * 4
BLOCK = 1 << 20


@dataclass(frozen=True)
class Summary:
    """The content of `pack.json`."""

    version: int
    of: dict[str, Any]
    """The data set that the pack was made from, and how."""
    fingerprint: str
    training_fingerprint: str
    modalities: list[Modality]
    layout: Literal["mars", "manifest"]
    tracklets: int
    frames: int
    pid_names: dict[int, str]
    camera_names: dict[int, str]
    heads: dict[PackPart, int]
    """Size in bytes of the header in the files of skeletons."""
    files: dict[str, tuple[int, str]]
    """Size in bytes and SHA-256 of every other file."""
    clothes_names: dict[int, str] = field(default_factory=dict)
    """Names of outfits; older packs have neither these nor methods."""
    fps: list[float] = field(default_factory=list)
    """Frames per second of each tracklet, 0 where unknown; empty if no rate is known."""
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The methods that made the masks and skeletons, see derived.py."""


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `pack.json` with its own checksum added."""
    text = json.dumps({name: value for name, value in content.items() if name != "checksum"}, sort_keys=True)
    return {**content, "checksum": hashlib.sha256(text.encode()).hexdigest()}


def checksum(path: Path) -> str:
    """Compute the SHA-256 of a file; return an empty text if there is no file."""
    digest = hashlib.sha256()
    try:
        with naming(path), path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return digest.hexdigest()


def read_summary(folder: Path) -> Summary:
    """Read the summary of a pack. Raises FileNotFoundError or DataError for an incomplete pack or another version."""
    path = folder / SUMMARY
    try:
        text = read_text(path)
        content = parsed_json(text, str(path), dict[str, Any])
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, wanted a folder that `sptskm pack` has completed") from None
    except DataError as error:
        raise DataError(f"{path}: not readable ({str(error).removeprefix(f'{path}: ')})") from None
    if (version := content.get("version")) != VERSION:
        raise DataError(f"{path}: is of version {version}, wanted {VERSION}")
    summary = parsed_json(text, str(path), Summary)
    for name, (size, _) in summary.files.items():
        if not is_plain(name) or size < 0:
            raise DataError(f"{path}: names the file {name!r} of {size} bytes, wanted names of files beside it")
    return summary


def is_plain(name: str) -> bool:
    """Return whether a text is the plain name of a file, without a path to another folder."""
    return bool(name) and name not in (".", "..") and not set(name) & {"/", "\\"} and not control_in(name)


def read_part(folder: Path, part: PackPart, summary: Summary) -> dict[str, NDArray[Any]]:
    """Read the table of one part. Raises DataError or FileNotFoundError naming the file."""
    path = folder / f"{part}.npz"
    try:
        _check_stored(path)
        found = read_npz(path, TABLE | PLACES, {SUMS: ArraySpec("u", ("N",))})
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, though {SUMMARY} beside it says so") from None
    except DataError as error:
        told = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: not readable ({told}); `sptskm pack --verify` tells more") from None
    for name, array in found.items():
        found[name] = array.astype(np.int64, copy=False) if array.dtype.kind in "iu" else array
    _check_part(path, part, found, summary)
    return found


def _check_stored(path: Path) -> None:
    """Raise DataError if a table is compressed: uncompressed, it takes no more memory than its file has bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            stored = all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise DataError(str(error)) from None
    if not stored:
        raise DataError("is compressed, wanted arrays as they are")


def _check_part(path: Path, part: PackPart, found: Mapping[str, NDArray[Any]], summary: Summary) -> None:
    """Check that the rows, frames and files named by a table exist. Raises DataError."""
    frames, rows, masks = len(found["stems_M"]), len(found["keys_N"]), len(found["masks_M2"])
    check_ranges(found["starts_N"], found["stops_N"], frames, str(path))
    query = found["query"]
    if len(query) and not 0 <= query.min() <= query.max() < rows:
        raise DataError(f"{path}: its queries are rows {query.min()} to {query.max()}, wanted some of {rows}")
    if masks != (frames if "masks" in summary.modalities else 0):
        raise DataError(f"{path}: has places of {masks} masks for {frames} frames")
    sizes = {name: summary.files.get(name, (-1, ""))[0] for name in set(found["shard_N"].tolist())}
    if missing := [name for name, size in sizes.items() if size < 0]:
        raise DataError(f"{path}: names the zip file {missing[0]!r}, which {SUMMARY} does not know")
    _check_members(path, found, np.array([sizes[name] for name in found["shard_N"].tolist()]))
    skeletons = summary.files.get(f"{part}-skeletons.npy", (0, ""))[0] - summary.heads.get(part, 0)
    if "skeletons" in summary.modalities and skeletons != frames * SKELETON_BYTES:
        raise DataError(f"{path}: has {frames} frames, but {SUMMARY} says {skeletons:,} bytes of skeletons")


def _check_members(path: Path, found: Mapping[str, NDArray[Any]], sizes_N: IntArray) -> None:
    """Raise DataError if a tracklet has more bytes than its zip file.

    Overlapping members could otherwise ask for any amount of memory.
    """
    bytes_M = np.zeros(len(found["stems_M"]))
    for name in ("frames_M2", "masks_M2"):
        places_M2 = found[name]
        if len(places_M2):
            if places_M2.min() < 0:
                raise DataError(f"{path}: {name} holds {places_M2.min()}, wanted places in a zip file")
            bytes_M += places_M2[:, 1]
    ends_M = np.concatenate([[0.0], np.cumsum(bytes_M)])
    if (ends_M[found["stops_N"]] - ends_M[found["starts_N"]] > sizes_N).any():
        raise DataError(f"{path}: names more bytes than its zip files have")
