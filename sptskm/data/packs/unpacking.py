"""Unpack a pack to files: in the MARS layout if it came from there, else as one folder per tracklet and a manifest.

Frames and masks keep their bytes; skeletons keep their numbers as float32.
"""

import io
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from sptskm.common.atomic import write_bytes
from sptskm.common.errors import DataError
from sptskm.common.paths import check_inside, control_in, is_file
from sptskm.data.derived import HOME, MADE, write_frames, write_method
from sptskm.data.files import SKELETON_KEY, mat_bytes
from sptskm.data.manifest import NAMELESS, Entry, ManifestFolders, write_entries
from sptskm.data.mars import MarsFolders, mars_folders, write_mars_tables
from sptskm.data.packs.contents import read_summary
from sptskm.data.packs.reading import PackFiles, read_pack
from sptskm.data.tracklets import Modality, Tracklets, decode_names

MANIFEST = "manifest.csv"


def unpack(folder: Path, out: Path) -> Path:
    """Write all files of a pack to `out`, or the missing ones; return the path to use as `data.root`.

    The tables come last. Raises DataError or FileNotFoundError as `read_pack`.
    """
    summary, table = read_summary(folder), read_pack(folder)
    _check_names(folder, table)
    for name in ("info", HOME):
        check_inside(out, out / name / "file", folder)
    is_mars = summary.layout == "mars"
    target = mars_folders(out, table.num_train) if is_mars else _folders(table, out)
    for row in tqdm(range(len(table)), "unpack", unit=" tracklets", disable=None):
        for modality in summary.modalities:
            for place, files in groupby(_contents(table, row, modality, target), key=lambda file: file[0].parent):
                checked = False
                for path, content in files:
                    if not checked or control_in(path.name):
                        check_inside(out, path, folder)
                        place.mkdir(parents=True, exist_ok=True)
                        checked = True
                    if path.is_symlink() or not is_file(path) or path.stat().st_size != len(content):
                        write_bytes(path, content)
    _write_record(table, out, target)
    if is_mars:
        write_mars_tables(out, table)
        return out
    write_entries(out / MANIFEST, [_entry(table, row) for row in range(len(table))])
    return out / MANIFEST


def _write_record(table: Tracklets, out: Path, target: MarsFolders | ManifestFolders) -> None:
    """Write the record of masks and skeletons: the frames they were made from and the method, as far as known."""
    for made, method in table.derived.methods.items():
        write_method(out, made, method)
    for made in MADE:
        for row, key in enumerate(table.keys_N.tolist()):
            if frames := table.derived.frames(made, table.folder(row, made), key):
                write_frames(out, made, target.folder(row, made), key, frames)


def _check_names(folder: Path, table: Tracklets) -> None:
    """Check that the names in a pack lead to no file outside the target and to no file twice. Raises DataError."""
    keys, stems = table.keys_N.tolist(), decode_names(np.unique(table.stems_M)).tolist()
    for name in (*keys, *stems):
        path = PurePosixPath(name)
        if control_in(name):
            raise DataError(f"{folder}: holds the name {name!r}, wanted one without control characters")
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{folder}: holds the name {name}, wanted one without .. and without a leading /")
    assert isinstance(table.place, PackFiles)
    parts = (*stems, *table.place.endings_N.tolist())
    if len({str(PurePosixPath(key)) for key in keys}) < len(keys) or any("/" in part for part in parts):
        raise DataError(f"{folder}: holds names of tracklets or frames that share files, wanted each once")


def _folders(table: Tracklets, out: Path) -> ManifestFolders:
    assert isinstance(table.place, PackFiles)
    keys, endings = table.keys_N.tolist(), table.place.endings_N.tolist()
    folders: dict[Modality, list[Path]] = {
        "frames": [out / "frames" / key for key in keys],
        "masks": [out / "masks" / key for key in keys],
        "skeletons": [out / "skeletons" / f"{key}.npy" for key in keys],
    }
    return ManifestFolders(folders, endings, table.lengths.tolist())


def _contents(
    table: Tracklets, row: int, modality: Modality, target: MarsFolders | ManifestFolders
) -> list[tuple[Path, bytes]]:
    """Return the paths and contents of one modality's files of a tracklet."""
    frames, stems = range(table.lengths[row]), table.stems(row)
    if modality != "skeletons":
        paths = target.files(row, frames, stems, modality)
        return [(path, file.read_bytes()) for path, file in zip(paths, table.files(row, frames, modality), strict=True)]
    skeletons_FV4 = table.place.whole(row)
    assert skeletons_FV4 is not None
    if isinstance(target, MarsFolders):
        paths = target.files(row, frames, stems, modality)
        pairs = zip(paths, skeletons_FV4, strict=True)
        return [(path, mat_bytes(SKELETON_KEY, skeleton_V4)) for path, skeleton_V4 in pairs]
    content = io.BytesIO()
    np.save(content, skeletons_FV4, allow_pickle=False)
    return [(target.folder(row, modality), content.getvalue())]


def _entry(table: Tracklets, row: int) -> Entry:
    key, pid, clothes = str(table.keys_N[row]), int(table.pids_N[row]), int(table.clothes_N[row])
    nameless = {number: split for split, number in NAMELESS.items()}
    is_query = row - table.num_train in table.query
    split = "train" if row < table.num_train else nameless.get(pid, "query" if is_query else "gallery")
    return Entry(
        tracklet=key,
        pid="" if pid in nameless else table.pid_name(row),
        camera=table.camera_name(row),
        split=split,
        frames=f"frames/{key}",
        masks=f"masks/{key}",
        skeleton=f"skeletons/{key}.npy",
        clothes="" if clothes < 0 else table.clothes_names.get(clothes, str(clothes)),
        fps=f"{table.fps(row):g}" if table.fps(row) else "",
    )
