"""Read MARS (Zheng et al., ECCV 2016) from its own files: name lists, .mat tables, optional clothes.csv."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sptskm.common.atomic import write_bytes, write_text
from sptskm.common.errors import DataError
from sptskm.common.matlab import read_mat
from sptskm.common.numbers import INT32, whole_numbers
from sptskm.common.reading import read_text
from sptskm.common.tables import read_table
from sptskm.data.files import mat_bytes
from sptskm.data.names import bare_name, check_known, check_names, label
from sptskm.data.tracklets import (
    ENDINGS,
    IntArray,
    Modality,
    Sources,
    Tracklets,
    check_ranges,
    check_table,
    decode_names,
    encode_names,
)

log = logging.getLogger(__name__)

_SUFFIXES: dict[Modality, str] = {"frames": "", "masks": "_mask", "skeletons": "_joint3d"}


def read_mars(root: str | Path, test: bool = True) -> Tracklets:
    """Read the table of a data set in the MARS layout; only the files in `info/` (and clothes.csv) are read.

    Frames, masks and skeletons are expected in `bbox_train`, `bbox_train_mask`, `bbox_train_joint3d` and the
    corresponding folders for test, or in the doubled form `bbox_train/bbox_train`; none of them needs to exist.
    Without `test` no file of the test part is opened, and the table ends with the training rows.
    Raises DataError or FileNotFoundError naming the file at fault.
    """
    root = Path(root)
    stems_M, rows = _read_part(root, "train")
    num_train, query = len(rows), np.array([], dtype=np.int64)
    if test:
        test_stems, test_rows = _read_part(root, "test")
        query = _read_query(root / "info" / "query_IDX.mat", test_rows)
        test_rows[:, :2] += len(stems_M)  # test frames follow the training frames
        stems_M, rows = np.concatenate([stems_M, test_stems]), np.concatenate([rows, test_rows])
    starts_N = rows[:, 0] - 1
    keys_N = decode_names(stems_M[starts_N])
    table = Tracklets(
        keys_N=keys_N,
        stems_M=stems_M,
        starts_N=starts_N,
        stops_N=rows[:, 1],
        pids_N=rows[:, 2],
        camids_N=rows[:, 3],
        clothes_N=_labels_of_clothes(root / "clothes.csv", keys_N, whole=test),
        num_train=num_train,
        query=query,
        place=MarsFolders(
            {(split, modality): _folder(root, split, modality) for split in ("train", "test") for modality in ENDINGS},
            num_train,
        ),
    )
    tables = (str(root / "info" / f"{name}.mat") for name in ("tracks_train_info", "tracks_test_info", "query_IDX"))
    check_table(table, Sources(*tables))
    return table


@dataclass(frozen=True)
class MarsFolders:
    """The folder of each ("train" | "test", modality); files lie in subfolders named stem[:4]."""

    folders: Mapping[tuple[str, Modality], Path]
    num_train: int

    def files(
        self,
        row: int,
        frames: Sequence[int],  # noqa: ARG002 - files are found by name
        stems: Sequence[str],
        modality: Modality,
    ) -> Sequence[Path]:
        """Return one path per frame, named like the frame; the files need not exist."""
        folder, ending = self.folder(row, modality), ENDINGS[modality]
        return [folder / stem[:4] / (stem + ending) for stem in stems]

    def whole(self, row: int) -> None:
        """Return None: every frame has a skeleton file of its own."""

    def folder(self, row: int, modality: Modality) -> Path:
        """Return the folder of a modality in the part (train or test) that the row belongs to."""
        return self.folders["train" if row < self.num_train else "test", modality]


def mars_folders(root: Path, num_train: int) -> MarsFolders:
    """Return the folders of a data set in the plain MARS layout."""
    names = {
        (part, modality): f"bbox_{part}{suffix}" for part in ("train", "test") for modality, suffix in _SUFFIXES.items()
    }
    return MarsFolders({key: root / name for key, name in names.items()}, num_train)


def write_mars_tables(root: Path, table: Tracklets) -> None:
    """Write the files in `info/`, and clothes.csv if outfits are known, as `read_mars` reads them."""
    info = root / "info"
    info.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", table.train), ("test", table.test)):
        first = int(table.starts_N[rows[0]]) if len(rows) else 0
        last = int(table.stops_N[rows[-1]]) if len(rows) else 0
        names = b"".join(stem + b".jpg\r\n" for stem in table.stems_M[first:last].tolist())
        write_bytes(info / f"{part}_name.txt", names)
        ranges = (table.starts_N - first + 1, table.stops_N - first, table.pids_N, table.camids_N)
        rows_N4 = np.stack([column[rows] for column in ranges], axis=1).astype(np.int32)
        write_bytes(info / f"tracks_{part}_info.mat", mat_bytes(f"track_{part}_info", rows_N4))
    write_bytes(info / "query_IDX.mat", mat_bytes("query_IDX", (table.query[None] + 1).astype(np.uint16)))
    if table.has_clothes:
        known = zip(table.keys_N.tolist(), table.clothes_N.tolist(), strict=True)
        lines = [f"{key},{clothes}\n" for key, clothes in known if clothes >= 0]
        write_text(root / "clothes.csv", "".join(["tracklet,clothes\n", *lines]))


def _read_part(root: Path, part: str) -> tuple[NDArray[np.bytes_], IntArray]:
    """Read the frame names and the table of the training or the test part."""
    stems = _read_names(root / "info" / f"{part}_name.txt")
    return stems, _read_table(root / "info" / f"tracks_{part}_info.mat", f"track_{part}_info", len(stems))


def _read_names(path: Path) -> NDArray[np.bytes_]:
    """Read the frame names without ending (M,), in file order; the ranges in the tables refer to these lines."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; MARS-evaluation's info folder belongs there")
    text = read_text(path)
    if "/" in text or "\\" in text or ".." in text:
        raise DataError(f"{path}: holds a path, wanted bare file names such as 0001C1T0001F001.jpg")
    names = [line for line in map(str.strip, text.split("\n")) if line]
    if not names:
        raise DataError(f"{path}: is empty, wanted one frame name per line")
    if len(names) < len(text.split()):
        raise DataError(f"{path}: has {len(text.split())} words in {len(names)} lines, wanted one name in each")
    check_names(names, f"{path}:")
    stems = [name.partition(".")[0] for name in names]
    if len(set(stems)) < len(stems):
        twice, count = Counter(stems).most_common(1)[0]
        raise DataError(f"{path}: has {twice} {count} times, wanted each frame once")
    return encode_names(stems, str(path))


def _read_table(path: Path, key: str, num_lines: int) -> IntArray:
    """Read the table (N, 4): first line, last line (1-based, inclusive), pid, camid.

    The result is int64, so that uint16 arithmetic cannot wrap. Raises FileNotFoundError and DataError.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; MARS-evaluation's info folder belongs there")
    table = read_mat(path, key)
    if table.ndim != 2 or table.shape[1] != 4 or not len(table):
        raise DataError(f"{path}: {key} has shape {table.shape}, wanted (tracklets, 4)")
    table = whole_numbers(table, f"{path}: {key}", *INT32)
    check_ranges(table[:, 0] - 1, table[:, 1], num_lines, str(path))
    return table


def _read_query(path: Path, rows: IntArray) -> IntArray:
    """Read the queries as 0-based rows of the test table `rows` (N, 4); the file is 1-based and uint16."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; MARS-evaluation's info folder belongs there")
    found = read_mat(path, "query_IDX")
    if found.ndim > 2 or (found.size and max(found.shape, default=1) != found.size):
        raise DataError(f"{path}: query_IDX has shape {found.shape}, wanted one row or one column")
    query = whole_numbers(found.ravel(), f"{path}: query_IDX", *INT32, unit="entry")
    if not len(query):
        raise DataError(f"{path}: query_IDX is empty, wanted rows of the test table")
    if len(np.unique(query)) < len(query):
        raise DataError(f"{path}: query_IDX repeats a row, wanted each query once")
    if not 1 <= query.min() <= query.max() <= len(rows):
        raise DataError(
            f"{path}: query_IDX spans {query.min()} to {query.max()}, wanted 1 to {len(rows)} (rows of the test table)"
        )
    persons, counts = np.unique(rows[query - 1, 2:], axis=0, return_counts=True)
    if (counts > 1).any():
        pid, camid = persons[counts.argmax()]
        raise DataError(
            f"{path}: query_IDX has {counts.max()} queries of identity {pid} at camera {camid}, wanted one as in MARS "
            "(a manifest may have more)"
        )
    return query - 1


def read_clothes(path: Path, keys: Sequence[str], whole: bool = True) -> dict[str, str]:
    """Read the outfits by tracklet from clothes.csv (columns tracklet, clothes); empty if there is no such file.

    A line names a tracklet by its key, with or without an ending such as .jpg or folders before it. If `keys` are the
    `whole` data set, lines that name no tracklet are logged; otherwise they may belong to the remaining tracklets and
    are ignored. Raises DataError for a tracklet that is named twice, and if no line names a tracklet.
    """
    if not path.is_file():
        return {}
    known, lines, others = set(keys), dict[str, str](), list[str]()
    worn: dict[str, str] = {}
    for place, line in read_table(path, _check_columns):
        name, clothes = (label(line.get(column) or "", f"{path}: {place}") for column in ("tracklet", "clothes"))
        check_known(clothes, f"{path}: {place}: clothes")
        key = name if name in known else bare_name(name)
        if key in lines:
            raise DataError(f"{path}: {place} names {name} again, which {lines[key]} does, wanted each tracklet once")
        lines[key] = place
        if key not in known:
            others.append(f"{place}, {name}")
        if clothes:
            worn[key] = clothes
    if whole and lines and len(others) == len(lines):
        raise DataError(
            f"{path}: none of its {len(lines)} lines names a tracklet ({others[0]}), wanted names such as {keys[0]}"
        )
    if whole and others:
        silent = sum(key not in worn for key in keys)
        told = f"{len(others)} of {len(lines)} lines name no tracklet ({others[0]})"
        log.warning("%s: %s, %d of %d tracklets have no outfit", path, told, silent, len(keys))
    return worn


def _check_columns(found: Sequence[str], place: str) -> None:
    if not {"tracklet", "clothes"} <= set(found) or len(set(found)) < len(found):
        raise DataError(f"{place.partition(': ')[0]}: columns are {list(found)}, wanted tracklet,clothes")


def _labels_of_clothes(path: Path, keys_N: NDArray[np.str_], whole: bool) -> IntArray:
    """Return the outfit label of each row; -1 if there is no clothes.csv or it does not name the tracklet."""
    keys = keys_N.tolist()
    worn = read_clothes(path, keys, whole)
    labels = {name: number for number, name in enumerate(sorted(set(worn.values())))}
    return np.array([labels[worn[key]] if key in worn else -1 for key in keys], np.int64)


def _folder(root: Path, split: str, modality: Modality) -> Path:
    """Return the folder of a modality of a split: plain, or doubled as in some copies of MARS."""
    home = f"bbox_{split}"
    name = home + _SUFFIXES[modality]
    candidates = (root / name / name, root / home / name, root / name)
    return next((folder for folder in candidates if folder.is_dir()), root / name)
