"""MARS (Zheng et al., ECCV 2016) from its own files: name lists, .mat tables, optional clothes.csv."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from sptskm.atomic import write_bytes, write_text
from sptskm.data.errors import DataError
from sptskm.data.files import mat_bytes
from sptskm.data.tracklets import ENDINGS, IntArray, Modality, Tracklets, check_ranges

_SUFFIXES: dict[Modality, str] = {"frames": "", "masks": "_mask", "skeletons": "_joint3d"}


def read_mars(root: str | Path, test: bool = True) -> Tracklets:
    """The table of a data set in the MARS layout; only the files in `info/` (and clothes.csv) are read.

    Frames, masks and skeletons are looked for in `bbox_train`, `bbox_train_mask`, `bbox_train_joint3d` and
    the same for test, or in the doubled form `bbox_train/bbox_train`; none of them needs to exist.
    Without `test` no file of the test part is opened, and the table ends with the training rows.
    Raises DataError or FileNotFoundError naming the file at fault.
    """
    root = Path(root)
    stems_M, rows = _read_part(root, "train")
    num_train, query = len(rows), np.array([], dtype=np.int64)
    if test:
        test_stems, test_rows = _read_part(root, "test")
        query = _read_query(root / "info" / "query_IDX.mat", len(test_rows))
        test_rows[:, :2] += len(stems_M)  # their frames follow those of the training part
        stems_M, rows = np.concatenate([stems_M, test_stems]), np.concatenate([rows, test_rows])
    starts_N = rows[:, 0] - 1
    keys_N = stems_M[starts_N].astype(str)
    return Tracklets(
        keys_N=keys_N,
        stems_M=stems_M,
        starts_N=starts_N,
        stops_N=rows[:, 1],
        pids_N=rows[:, 2],
        camids_N=rows[:, 3],
        clothes_N=_read_clothes(root / "clothes.csv", keys_N),
        num_train=num_train,
        query=query,
        place=MarsFolders(
            {(split, modality): _folder(root, split, modality) for split in ("train", "test") for modality in ENDINGS},
            num_train,
        ),
    )


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
        """One file a frame, named like it."""
        folder, ending = self.folder(row, modality), ENDINGS[modality]
        return [folder / stem[:4] / (stem + ending) for stem in stems]

    def whole(self, row: int) -> None:
        """Every frame has a skeleton file of its own."""

    def folder(self, row: int, modality: Modality) -> Path:
        """That of the row's part."""
        return self.folders["train" if row < self.num_train else "test", modality]


def mars_folders(root: Path, num_train: int) -> MarsFolders:
    """Where the files of a data set in the plain layout lie."""
    names = {
        (part, modality): f"bbox_{part}{suffix}" for part in ("train", "test") for modality, suffix in _SUFFIXES.items()
    }
    return MarsFolders({key: root / name for key, name in names.items()}, num_train)


def write_mars_tables(root: Path, table: Tracklets) -> None:
    """The files in `info/`, and clothes.csv where outfits are known, as `read_mars` reads them."""
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
    """Frame names and the table of the training or the test part."""
    stems = _read_names(root / "info" / f"{part}_name.txt")
    return stems, _read_table(root / "info" / f"tracks_{part}_info.mat", f"track_{part}_info", len(stems))


def _read_names(path: Path) -> NDArray[np.bytes_]:
    """Frame names without ending (M,), in file order; the tables' ranges index these lines."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; MARS-evaluation's info folder belongs there")
    content = path.read_bytes()
    if b"/" in content or b"\\" in content or b".." in content:
        raise DataError(f"{path}: holds a path, wanted bare file names such as 0001C1T0001F001.jpg")
    names = np.array(content.split(), dtype=np.bytes_)
    if not len(names):
        raise DataError(f"{path}: is empty, wanted one frame name per line")
    return np.char.partition(names, b".")[:, 0]


def _read_mat(path: Path, key: str) -> NDArray[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; MARS-evaluation's info folder belongs there")
    try:
        content = scipy.io.loadmat(path)
    except Exception as error:
        raise DataError(f"{path}: not a readable .mat file ({error})") from error
    if key not in content:
        found = ", ".join(name for name in content if not name.startswith("__"))
        raise DataError(f"{path}: holds {found or 'nothing'}, wanted the variable {key}")
    return np.asarray(content[key])


def _read_table(path: Path, key: str, num_lines: int) -> IntArray:
    """(N, 4) first line, last line (1-based, inclusive), pid, camid; int64, so that uint16 arithmetic cannot wrap."""
    table = _read_mat(path, key)
    if table.ndim != 2 or table.shape[1] != 4:
        raise DataError(f"{path}: {key} has shape {table.shape}, wanted (tracklets, 4)")
    table = table.astype(np.int64)
    check_ranges(table[:, 0] - 1, table[:, 1], num_lines, str(path))
    return table


def _read_query(path: Path, num_test: int) -> IntArray:
    """0-based rows of the test table; the file is 1-based and uint16."""
    query = _read_mat(path, "query_IDX").astype(np.int64).ravel()
    if not len(query):
        raise DataError(f"{path}: query_IDX is empty, wanted rows of the test table")
    if len(np.unique(query)) < len(query):
        raise DataError(f"{path}: query_IDX repeats a row, wanted each query once")
    if not 1 <= query.min() <= query.max() <= num_test:
        raise DataError(
            f"{path}: query_IDX spans {query.min()} to {query.max()}, wanted 1 to {num_test} (rows of the test table)"
        )
    return query - 1


def _read_clothes(path: Path, keys_N: NDArray[np.str_]) -> IntArray:
    """Outfit label per row, -1 where clothes.csv (columns tracklet, clothes) is absent or silent."""
    clothes_N = np.full(len(keys_N), -1, dtype=np.int64)
    if not path.is_file():
        return clothes_N
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if not {"tracklet", "clothes"} <= set(reader.fieldnames or ()):
            raise DataError(f"{path}: columns are {reader.fieldnames}, wanted tracklet,clothes")
        worn = {line["tracklet"]: line["clothes"] for line in reader if line["clothes"]}
    labels = {name: label for label, name in enumerate(sorted(set(worn.values())))}
    known = [(row, labels[worn[key]]) for row, key in enumerate(keys_N) if key in worn]
    if known:
        rows, values = zip(*known, strict=True)
        clothes_N[list(rows)] = values
    return clothes_N


def _folder(root: Path, split: str, modality: Modality) -> Path:
    """Where a modality of a split lies: plain, or doubled as in some copies of MARS in the wild."""
    home = f"bbox_{split}"
    name = home + _SUFFIXES[modality]
    candidates = (root / name / name, root / home / name, root / name)
    return next((folder for folder in candidates if folder.is_dir()), root / name)
