"""Write and verify a pack; `sptskm.data.packs.reading` describes the format.

Every zip file is written by one process under a temporary name and recorded when it is complete. A kill at any moment
loses at most the zip files in progress, and the same command continues. Packs of the same data have the same bytes.
Legend: N tracklets of a shard or part, M their frames.
"""

import hashlib
import io
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sptskm.common.arrays import ArraySpec, read_npz
from sptskm.common.atomic import partial_of, write_text
from sptskm.common.errors import DataError
from sptskm.common.paths import exists, is_file
from sptskm.common.reading import read_json
from sptskm.config import ConfigError
from sptskm.data.derived import MADE, PACKED
from sptskm.data.files import SKELETON_SHAPE, read_retrying, read_skeletons
from sptskm.data.packs.contents import (
    MASK_ENDING,
    PARTS,
    PLACES,
    SUMMARY,
    SUMS,
    VERSION,
    PackPart,
    Summary,
    checksum,
    read_part,
    read_summary,
    sealed,
)
from sptskm.data.packs.reading import member
from sptskm.data.parallel import cores, in_parallel
from sptskm.data.tracklets import IntArray, Modality, Readable, Tracklets

WORK = "unfinished"  # folder in a pack with a note for each finished zip file, until all are there


READERS = 16  # threads that ask for sizes: a network file system answers many at once

NOTE = {
    "endings_N": ArraySpec("U", ("N",)),
    "frames_M2": ArraySpec("i", ("M", 2)),
    "masks_M2": ArraySpec("i", ("frames with masks", 2)),
    "skeletons_MV4": ArraySpec("f", ("M", *SKELETON_SHAPE)),
    "sha256": ArraySpec("U"),
}
"""The arrays in the note of a finished zip file."""


@dataclass(frozen=True)
class Shard:
    """The tracklets first..last-1 of the table, and the zip file that holds them."""

    name: str
    first: int
    last: int


def plan_shards(table: Tracklets, frames: int) -> list[Shard]:
    """Cut each part into shards of consecutive tracklets with at most `frames` frames, or one longer tracklet."""
    shards: list[Shard] = []
    for part, rows in zip(PARTS, (table.train, table.test), strict=True):
        number, count = 0, 0
        first = int(rows[0]) if len(rows) else 0
        for row in rows.tolist():
            if count and count + table.lengths[row] > frames:
                shards.append(Shard(f"{part}-{number:04d}.zip", first, row))
                first, number, count = row, number + 1, 0
            count += int(table.lengths[row])
        if len(rows):
            shards.append(Shard(f"{part}-{number:04d}.zip", first, int(rows[-1]) + 1))
    return shards


def pack(table: Tracklets, out: Path, frames: int = 20_000, workers: int | None = None) -> str:
    """Write the pack of a data set to `out`, or the missing rest of it; return a one-line summary.

    A zip file holds at most `frames` frames (a tracklet is never cut). `workers` processes share the zip files (all
    cores when None).

    Missing skeletons are NaN in the pack. Raises DataError for a missing frame, for a missing mask unless the data set
    has no masks at all, and if `out` holds something else; ConfigError if `frames` is less than 1.
    """
    if frames < 1:
        raise ConfigError(f"frames is {frames}, wanted at least 1 in a zip file")
    shards = plan_shards(table, frames)
    if not table.has("frames"):
        raise DataError(
            f"{out}: the data set has no frames, wanted some: skeletons alone are a file a tracklet already"
        )
    holds: list[Modality] = [kind for kind in get_args(Modality) if table.has(kind)]
    _claim(out, {"fingerprint": table.fingerprint, "holds": holds, "frames": frames})
    if is_file(out / SUMMARY):
        _check_unchanged(table, out, holds)
        _clean(out)
        return _summary_line(out)
    missing = [shard for shard in shards if not _is_done(out, shard)]
    lengths = {shard: int(table.lengths[shard.first : shard.last].sum()) for shard in shards}
    with tqdm(total=sum(lengths.values()), desc="pack", unit=" frames", unit_scale=True, disable=None) as bar:
        bar.update(sum(lengths.values()) - sum(lengths[shard] for shard in missing))
        for shard in in_parallel(_Writer(table, out, "masks" in holds), missing, workers):
            bar.update(lengths[shard])
    _complete(table, out, shards, holds)
    return _summary_line(out)


def _summary_line(out: Path) -> str:
    files = list(out.iterdir())
    summary, size = read_summary(out), sum(file.stat().st_size for file in files)
    return (
        f"{out}: {summary.tracklets:,} tracklets, {summary.frames:,} frames "
        f"({', '.join(summary.modalities)}) in {len(files)} files, {size / 1e9:.2f} GB"
    )


def _claim(out: Path, wanted: Mapping[str, Any]) -> None:
    """Create the folder, or check that it holds an unfinished or complete pack of the same data. Raises DataError."""
    note = out / WORK / "pack.json"
    if is_file(out / SUMMARY):
        found = read_summary(out).of
    elif is_file(note):
        found = read_json(note, dict[str, Any])
    elif exists(out) and any(path.name != WORK for path in out.iterdir()):
        raise DataError(f"{out}: is not empty and no pack, wanted a new folder")
    else:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps(wanted))
        return
    if found != wanted:
        pairs = [(key, found.get(key), value) for key, value in wanted.items()]
        told = "; ".join(f"{key} {before} -> {value}" for key, before, value in pairs if before != value)
        raise DataError(f"{out}: holds another pack ({told}), wanted a new folder")


def _check_unchanged(table: Tracklets, out: Path, holds: Sequence[Modality]) -> None:
    """Raise DataError where a frame or mask is there with another size than in a complete pack of this table.

    Sizes alone are looked at: reading everything takes as long as packing.
    """
    summary = read_summary(out)
    parts = [read_part(out, part, summary) for part in PARTS]
    places: dict[Modality, str] = {"frames": "frames_M2", "masks": "masks_M2"}
    for kind, name in ((kind, name) for kind, name in places.items() if kind in holds):
        sizes_M = np.concatenate([part[name][:, 1] for part in parts])
        ends_N = np.cumsum(table.lengths)
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(partial(_sizes, table, kind), range(len(table)))
            for row, sizes in enumerate(found):
                packed = sizes_M[ends_N[row] - len(sizes) : ends_N[row]].tolist()
                for file, now, before in zip(table.files(row, range(len(sizes)), kind), sizes, packed, strict=True):
                    if now not in (None, before):
                        raise DataError(
                            f"{out}: was packed when {file} had {before:,} bytes, now it has {now:,}, wanted a new "
                            "folder for changed files"
                        )


def _sizes(table: Tracklets, kind: Modality, row: int) -> list[int | None]:
    """Return the bytes of a tracklet's files; None of one that is not there or lies in a pack."""
    files = table.files(row, range(int(table.lengths[row])), kind)
    return [file.stat().st_size if isinstance(file, Path) and is_file(file) else None for file in files]


def _is_done(out: Path, shard: Shard) -> bool:
    return is_file(out / WORK / f"{shard.name}.npz")


@dataclass(frozen=True, eq=False)
class _Writer:
    """Writes zip files; can be sent to worker processes."""

    table: Tracklets
    out: Path
    with_masks: bool

    def __call__(self, shard: Shard) -> Shard:
        """Write the zip file of a shard, then a note with the positions of its members."""
        frames: list[tuple[int, int]] = []
        masks: list[tuple[int, int]] = []
        endings: list[str] = []
        skeletons: list[NDArray[np.float32]] = []
        with partial_of(self.out / shard.name) as unfinished, unfinished.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for row in range(shard.first, shard.last):
                    endings.append(self._add(archive, row, frames, masks))
                    skeletons.append(read_skeletons(self.table, row, range(self.table.lengths[row])))
            file.flush()
            os.fsync(file.fileno())
            found = checksum(unfinished)
        note = {
            "endings_N": np.array(endings),
            "frames_M2": np.array(frames, np.int64),
            "masks_M2": np.array(masks, np.int64).reshape(-1, 2),
            "skeletons_MV4": np.concatenate(skeletons),
            "sha256": np.array(found),
        }
        with partial_of(self.out / WORK / f"{shard.name}.npz") as unfinished, unfinished.open("wb") as noted:
            np.savez(noted, **note)  # type: ignore[arg-type]
        return shard

    def _add(
        self, archive: zipfile.ZipFile, row: int, frames: list[tuple[int, int]], masks: list[tuple[int, int]]
    ) -> str:
        """Write a tracklet's frames and masks alternately, record their positions, return the ending of frame names."""
        key, stems, every = str(self.table.keys_N[row]), self.table.stems(row), range(self.table.lengths[row])
        files = self.table.files(row, every, "frames")
        mask_files = self.table.files(row, every, "masks") if self.with_masks else ()
        ending = "." + files[0].name.rpartition(".")[2]
        for number, (stem, file) in enumerate(zip(stems, files, strict=True)):
            frames.append(_put(archive, member(key, stem, ending), _content(file, "frames")))
            if self.with_masks:
                masks.append(_put(archive, member(key, stem, MASK_ENDING), _content(mask_files[number], "masks")))
        return ending


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> tuple[int, int]:
    """Write a member; return the offset of its content in the zip file, and its size in bytes."""
    info = zipfile.ZipInfo(name)  # dated 1980, so that equal data give equal files
    archive.writestr(info, content)
    return info.header_offset + len(info.FileHeader(zip64=False)), len(content)


def _content(file: Readable, modality: Modality) -> bytes:
    try:
        content = read_retrying(file)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error
        raise DataError(f"{modality.removesuffix('s')} {file}: {reason}; `sptskm check` lists all of them") from error
    if not content:
        raise DataError(f"{modality.removesuffix('s')} {file}: empty file; `sptskm check` lists all of them")
    return content


def _complete(table: Tracklets, out: Path, shards: Sequence[Shard], holds: Sequence[Modality]) -> None:
    """Join the notes to the tables of the pack, then write `pack.json`, which marks the pack as complete."""
    files: dict[str, tuple[int, str]] = {}
    heads: dict[PackPart, int] = {}
    for part in PARTS:
        own = [shard for shard in shards if shard.name.startswith(part)]
        notes = [read_npz(out / WORK / f"{shard.name}.npz", NOTE) for shard in own]
        for shard, note in zip(own, notes, strict=True):
            files[shard.name] = (out / shard.name).stat().st_size, str(note["sha256"])
        content = _part_of(table, part) | _places_of(own, notes)
        if "skeletons" in holds:
            found = np.concatenate([np.empty((0, 14, 4), np.float32), *(note["skeletons_MV4"] for note in notes)])
            content[SUMS] = _sums(found, content["starts_N"], content["stops_N"])
        files[f"{part}.npz"] = _write(out / f"{part}.npz", partial(np.savez, **content))  # type: ignore[arg-type]
        if "skeletons" in holds:
            path = out / f"{part}-skeletons.npy"
            files[path.name] = _write(path, partial(np.save, arr=found, allow_pickle=False))
            heads[part] = files[path.name][0] - found.nbytes
    if record := _record(table, holds):
        text = json.dumps(record).encode()
        files[PACKED] = _write(out / PACKED, lambda file: file.write(text))
    summary = Summary(
        version=VERSION,
        of=read_json(out / WORK / "pack.json", dict[str, Any]),
        fingerprint=table.fingerprint,
        training_fingerprint=table.training_fingerprint,
        modalities=list(holds),
        layout="mars" if not table.pid_names else "manifest",
        tracklets=len(table),
        frames=int(table.lengths.sum()),
        pid_names=dict(table.pid_names),
        camera_names=dict(table.camera_names),
        clothes_names=dict(table.clothes_names),
        fps=table.fps_N.tolist() if table.fps_N.any() else [],
        methods={made: dict(method) for made, method in table.derived.methods.items() if made in holds},
        heads={part: heads.get(part, 0) for part in PARTS},
        files=files,
    )
    content = json.loads(json.dumps(asdict(summary)))  # as JSON gives it back
    write_text(out / SUMMARY, json.dumps(sealed(content), indent=1))
    _clean(out)


def _clean(out: Path) -> None:
    """Remove files that killed processes left in a complete pack."""
    for killed in out.glob("*.partial"):
        killed.unlink(missing_ok=True)
    if exists(out / WORK):
        shutil.rmtree(out / WORK)


def _record(table: Tracklets, holds: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the known fingerprints of the frames that masks and skeletons were made from, by kind and tracklet."""
    record: dict[str, dict[str, str]] = {}
    for made in (made for made in MADE if made in holds):
        keys = enumerate(table.keys_N.tolist())
        found = {key: table.derived.frames(made, table.folder(row, made), key) for row, key in keys}
        record[made] = {key: frames for key, frames in found.items() if frames is not None}
    return {made: frames for made, frames in record.items() if frames}


def _part_of(table: Tracklets, part: PackPart) -> dict[str, NDArray[Any]]:
    """Return the table of one part, with row and frame numbers counted within the part."""
    rows = slice(0, table.num_train) if part == "train" else slice(table.num_train, None)
    starts_N, stops_N = table.starts_N[rows], table.stops_N[rows]
    first, last = (int(starts_N.min()), int(stops_N.max())) if len(starts_N) else (0, 0)
    values = {name: getattr(table, name)[rows] for name in ("keys_N", "pids_N", "camids_N", "clothes_N")}
    query = table.query if part == "test" else table.query[:0]
    return values | {
        "stems_M": table.stems_M[first:last],
        "starts_N": starts_N - first,
        "stops_N": stops_N - first,
        "query": query,
    }


def _sums(skeletons_MV4: NDArray[np.float32], starts_N: IntArray, stops_N: IntArray) -> NDArray[np.uint32]:
    """Compute the CRC-32 of each tracklet's skeletons (N,)."""
    pairs = zip(starts_N.tolist(), stops_N.tolist(), strict=True)
    return np.array([zlib.crc32(skeletons_MV4[start:stop].tobytes()) for start, stop in pairs], np.uint32)


def _places_of(shards: Sequence[Shard], notes: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the positions of a part's zip members, in the order of its frames."""
    names = [shard.name for shard in shards for _ in range(shard.first, shard.last)]
    joined: dict[str, NDArray[Any]] = {"shard_N": np.array(names, np.str_)}
    empty = {"endings_N": np.empty(0, np.str_), "frames_M2": np.empty((0, 2), np.int64)}
    empty["masks_M2"] = empty["frames_M2"]
    for name, nothing in empty.items():
        joined[name] = np.concatenate([nothing, *(note[name] for note in notes)])
    assert set(joined) == set(PLACES)
    return joined


def _write(path: Path, write: Callable[[Any], None]) -> tuple[int, str]:
    """Write a file by way of memory, complete or not at all; return its size and SHA-256."""
    content = io.BytesIO()
    write(content)
    with partial_of(path) as unfinished:
        unfinished.write_bytes(content.getbuffer())
    return len(content.getbuffer()), hashlib.sha256(content.getbuffer()).hexdigest()


def verify_pack(folder: Path, workers: int | None = None) -> list[str]:
    """Verify the checksums of a pack; return one sentence for each wrong file, none if all are right."""
    wanted = {name: digest for name, (_, digest) in read_summary(folder).files.items()}
    said: list[str] = []
    with ThreadPoolExecutor(workers or cores()) as pool:  # reading and hashing release the GIL
        sums = pool.map(lambda name: checksum(folder / name), wanted)
        for name, found in tqdm(zip(wanted, sums, strict=True), "verify", len(wanted), unit=" files", disable=None):
            if found != wanted[name]:
                said.append(f"{folder / name}: has the checksum {found or 'of no file'}, wanted {wanted[name]}")
    return said
