"""Define the kinds of files that hold data: tables, boxes, key points, frames, masks, skeletons, packs, data sets."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.io

from faults import binary_mutations as b
from faults import mutations as m
from faults.project import copy
from faults.subjects import Subject, content_of, wrong_table
from sptskm.common.errors import DataError
from sptskm.data import read_dataset
from sptskm.data.derived import read_derived, write_frames, write_method
from sptskm.data.files import mat_bytes, read_frame, read_mask, read_skeleton, read_skeletons
from sptskm.data.importers import ccvid, ilidsvid, lsvid, prid2011
from sptskm.data.manifest import read_entries, write_entries
from sptskm.data.packs.writing import verify_pack
from sptskm.preparation.formats import mask_from, points_from, results_from, write_mask
from sptskm.preparation.video import read_boxes

FRAMES = ["bbox_train", "bbox_test"]
FIRST = "0001/0001C1T0001F001"


def _table(path: Path) -> Any:
    return content_of(read_dataset(path))


def _manifest(ending: str) -> Callable[[Path, Path], Path]:
    def prepare(project: Path, folder: Path) -> Path:
        entries = read_entries(project / "manifest.jsonl")
        if ending in (".csv", ".tsv"):
            for name in FRAMES:
                (folder / name).symlink_to(project / "data" / name)
            head = ["tracklet", "pid", "camera", "split", "frames", "masks", "skeleton", "clothes", "time"]
            lines = [head]
            for entry in entries:
                pattern = f"{entry.frames[0].removeprefix('data/')[:-7]}*.jpg"
                lines.append([entry.tracklet, entry.pid, entry.camera, entry.split, pattern, "", "", entry.clothes, ""])
            comma = "," if ending == ".csv" else "\t"
            (folder / f"m{ending}").write_text("".join(comma.join(line) + "\n" for line in lines))
        else:
            write_entries(folder / f"m{ending}", entries)
        return folder / f"m{ending}"

    return prepare


def _mars(name: str) -> Callable[[Path, Path], Path]:
    def prepare(project: Path, folder: Path) -> Path:
        copy(project / "data" / "info", folder / "info")
        copy(project / "data" / "clothes.csv", folder / "clothes.csv")
        return folder / name

    return prepare


def _of_info(path: Path) -> Any:
    return _table(path.parent.parent if path.parent.name == "info" else path.parent)


def _not_whole(content: bytes, rng: np.random.Generator) -> bytes:
    """Make a cell of a table of whole numbers fractional, infinite, NaN or huge, or change the type of the table."""
    found = {key: value for key, value in scipy.io.loadmat(io.BytesIO(content)).items() if not key.startswith("__")}
    name, table = next(iter(found.items()))
    changed: Any = table.astype(np.float64)
    value = m.pick(rng, [0.5, np.nan, np.inf, -np.inf, 1e30, -1e30, "complex", "cells", "text"])
    if value == "complex":
        changed = table + 1j
    elif value == "cells":
        changed = np.empty(table.shape, object)
        changed[:] = table
    elif value == "text":
        changed = np.full(table.shape, "7")
    else:
        at = int(rng.integers(changed.size))
        changed.reshape(-1)[at] = changed.reshape(-1)[at] + 0.5 if value == 0.5 else value
    return mat_bytes(name, changed)


NOT_WHOLE = m.Mutation("not whole", _not_whole, "wrong")


def _boxes(project: Path, folder: Path) -> Path:
    return copy(project / "door.txt", folder / "door.txt")


def _part_of_a_number(content: bytes, rng: np.random.Generator) -> bytes:
    """Make the number of a frame or track invalid: fractional, negative, NaN or far too large."""
    lines = content.split(b"\n")
    at = int(rng.integers(len(lines) - 1))
    cells = lines[at].split(b",")
    where = int(rng.integers(2))
    cells[where] = m.pick(rng, [cells[where] + b".5", b"1e300", b"9" * 30, b"nan", b"-2", cells[where] + b".0000001"])
    lines[at] = b",".join(cells)
    return b"\n".join(lines)


def _wrong_boxes(found: Any) -> str:
    if found.frames_B.min() < 1 or found.tracks_B.min() < 0:
        return "a frame below 1 or a track below 0"
    left, top, right, bottom = found.corners_B4.T
    return "a box without extent" if (right < left).any() or (bottom < top).any() else ""


def _points_18() -> list[list[float]]:
    rng = np.random.default_rng(1)
    return [[float(x), float(y), 0.9] for x, y in rng.integers(1, 200, (18, 2))]


def _openpose(_project: Path, folder: Path) -> Path:
    flat = [number for point in _points_18() for number in point]
    people = [{"person_id": [-1], "pose_keypoints_2d": flat, "face_keypoints_2d": []}]
    (folder / "a_keypoints.json").write_text(json.dumps({"version": 1.3, "people": people}))
    return folder / "a_keypoints.json"


def _coco(_project: Path, folder: Path) -> Path:
    flat = [number for point in _points_18()[:17] for number in point]
    results = [{"image_id": n, "category_id": 1, "keypoints": flat, "score": 0.5 + n / 10} for n in (1, 2)]
    (folder / "results.json").write_text(json.dumps(results))
    return folder / "results.json"


def _nested(_project: Path, folder: Path) -> Path:
    (folder / "a.json").write_text(json.dumps(_points_18()))
    return folder / "a.json"


def _array_file(name: str) -> Callable[[Path, Path], Path]:
    def prepare(_project: Path, folder: Path) -> Path:
        array = np.array(_points_18())
        (folder / name).write_bytes(b.npy_bytes(array) if name.endswith(".npy") else mat_bytes("joints", array))
        return folder / name

    return prepare


def _from_data(place: str, name: str) -> Callable[[Path, Path], Path]:
    return lambda project, folder: copy(project / "data" / place, folder / name)


def _picture(name: str, values: int = 256) -> Callable[[Path, Path], Path]:
    def prepare(_project: Path, folder: Path) -> Path:
        image = np.random.default_rng(2).integers(0, values, (48, 24), dtype=np.uint8)
        image[12:36, 6:18] = values - 1
        cv2.imwrite(str(folder / name), image * (255 if values == 2 else 1))
        return folder / name

    return prepare


def _one_bit(_project: Path, folder: Path) -> Path:
    mask = np.zeros((48, 24), np.uint8)
    mask[12:36, 6:18] = 255
    write_mask(folder / "mask.png", mask)
    return folder / "mask.png"


def _npy_of_a_tracklet(project: Path, folder: Path) -> Path:
    (folder / "bbox_train").symlink_to(project / "data" / "bbox_train")
    first, second = (f"bbox_train/{FIRST[:-3].replace('C1', camera)}*.jpg" for camera in ("C1", "C2"))
    (folder / "m.csv").write_text(
        f"tracklet,pid,camera,split,frames,skeleton\na,1,1,train,{first},a.npy\nb,1,2,train,{second},b.npy\n"
    )
    table = read_dataset(folder / "m.csv")
    skeletons = np.random.default_rng(3).random((int(table.lengths[0]), 14, 4)).astype(np.float32)
    (folder / "a.npy").write_bytes(b.npy_bytes(skeletons))
    return folder / "a.npy"


def _skeletons_of_row(path: Path) -> Any:
    table = read_dataset(path.parent / "m.csv")
    return read_skeletons(table, 0, range(int(table.lengths[0])))


def _pack(name: str) -> Callable[[Path, Path], Path]:
    return lambda project, folder: copy(project / "pack", folder / "pack") / name


def _of_pack(path: Path) -> Any:
    table = read_dataset(path.parent)
    found: list[Any] = [content_of(table)]
    for row in range(len(table)):
        every = range(int(table.lengths[row]))
        found.append([read_frame(file) for file in table.files(row, every, "frames")])
        found.append([read_mask(file) for file in table.files(row, every, "masks")])
        found.append(read_skeletons(table, row, every))
    return found


def _verified(path: Path) -> Any:
    if problems := verify_pack(path.parent, workers=1):
        raise DataError(problems[0])
    return path.stat().st_size  # every byte of it counts


METHOD = {"method": "grabcut", "precision": "float32", "weights": "0123456789abcdef"}


def _method(_project: Path, folder: Path) -> Path:
    write_method(folder, "masks", METHOD)
    return next(folder.rglob("settings.json"))


def _made_of(_project: Path, folder: Path) -> Path:
    write_frames(folder, "masks", folder / "walks" / "a_mask", "a", "0123456789abcdef")
    return next(folder.rglob("made-of/*.json"))


def _record(path: Path) -> Any:
    root = next(parent.parent for parent in path.parents if parent.name == "prepared")
    found = read_derived(root)
    return found.methods, found.frames("masks", root / "walks" / "a_mask", "a")


def _images(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(1, 4):
        cv2.imwrite(str(folder / f"{number:03d}.jpg"), np.zeros((4, 2, 3), np.uint8))


def _ccvid(_project: Path, folder: Path) -> Path:
    lines = {"train": ["session1/001_01"], "query": ["session1/002_01"], "gallery": ["session2/002_01"]}
    for part, places in lines.items():
        for place in places:
            _images(folder / place)
        text = "".join(f"{place}\t{place[-6:-3]}\tu0_l0_s0_c0_a0\n" for place in places)
        (folder / f"{part}.txt").write_text(text)
    return folder / "gallery.txt"


def _prid(_project: Path, folder: Path) -> Path:
    for camera in ("cam_a", "cam_b"):
        for person in ("person_0001", "person_0002"):
            _images(folder / "prid_2011" / "multi_shot" / camera / person)
    (folder / "splits_prid2011.json").write_text(json.dumps([{"train": ["person_0001"], "test": ["person_0002"]}]))
    return folder / "splits_prid2011.json"


def _ilids(_project: Path, folder: Path) -> Path:
    for camera in ("cam1", "cam2"):
        for person in ("person001", "person002"):
            _images(folder / "i-LIDS-VID" / "sequences" / camera / person)
    path = folder / "train-test people splits" / "train_test_splits_ilidsvid.mat"
    path.parent.mkdir()
    path.write_bytes(mat_bytes("ls_set", np.array([[1, 2], [2, 1]])))
    return path


def _lsvid(name: str) -> Callable[[Path, Path], Path]:
    def prepare(_project: Path, folder: Path) -> Path:
        info = folder / "info"
        (info / "list_sequence").mkdir(parents=True)
        (info / "data").mkdir()
        for part, pid in (("train", 1), ("test", 2)):
            place = folder / "tracklet" / part
            place.mkdir(parents=True)
            lines = []
            for camera in (1, 2):
                for frame in range(3):
                    picture = place / f"000{pid}_0000_{camera}_{frame}.jpg"
                    cv2.imwrite(str(picture), np.zeros((4, 2, 3), np.uint8))
                lines.append(f"tracklet/{part}/000{pid}_0000_{camera} {pid}\n")
            (info / "list_sequence" / f"list_seq_{part}.txt").write_text("".join(lines))
        (info / "data" / "info_test.mat").write_bytes(mat_bytes("query", np.array([[1]])))
        return info / name

    return prepare


def _up(read: Callable[[Path], Any], levels: int) -> Callable[[Path], Any]:
    return lambda path: [vars(entry) for entry in read(path.parents[levels - 1])]


WHOLE = [*b.MAT, NOT_WHOLE, NOT_WHOLE]
XYC = ("openpose-18", "xyc")

SUBJECTS = [
    Subject("manifest .jsonl", "readers", _manifest(".jsonl"), _table, m.JSONL, wrong=wrong_table),
    Subject("manifest .csv", "readers", _manifest(".csv"), _table, m.CSV, wrong=wrong_table),
    Subject("manifest .tsv", "readers", _manifest(".tsv"), _table, m.CSV, wrong=wrong_table),
    Subject("manifest .parquet", "readers", _manifest(".parquet"), _table, [], wrong=wrong_table),
    Subject("MARS names", "readers", _mars("info/train_name.txt"), _of_info, m.TEXT, wrong=wrong_table),
    Subject("MARS training table", "readers", _mars("info/tracks_train_info.mat"), _of_info, WHOLE, wrong=wrong_table),
    Subject("MARS test table", "readers", _mars("info/tracks_test_info.mat"), _of_info, WHOLE, wrong=wrong_table),
    Subject("MARS queries", "readers", _mars("info/query_IDX.mat"), _of_info, WHOLE, wrong=wrong_table),
    Subject("clothes.csv", "readers", _mars("clothes.csv"), _of_info, m.CSV, wrong=wrong_table),
    Subject(
        "MOT boxes",
        "readers",
        _boxes,
        lambda path: replace(read_boxes(path), digest=""),
        [*m.CSV, m.Mutation("part of a number", _part_of_a_number, "wrong")],
        wrong=_wrong_boxes,
    ),
    Subject("OpenPose .json", "readers", _openpose, lambda path: points_from(path, *XYC), m.JSON),
    Subject("COCO .json", "readers", _coco, lambda path: results_from(path, "coco-17", "xyc"), m.JSON),
    Subject("key points .json", "readers", _nested, lambda path: points_from(path, *XYC), m.JSON),
    Subject("key points .npy", "readers", _array_file("a.npy"), lambda path: points_from(path, *XYC), b.NPY),
    Subject("key points .mat", "readers", _array_file("a.mat"), lambda path: points_from(path, *XYC), b.MAT),
    Subject("skeleton .mat", "files", _from_data(f"bbox_train_joint3d/{FIRST}.mat", "a.mat"), read_skeleton, b.MAT),
    Subject("skeletons .npy", "files", _npy_of_a_tracklet, _skeletons_of_row, b.NPY),
    Subject("frame .jpg", "files", _from_data(f"bbox_train/{FIRST}.jpg", "a.jpg"), read_frame, b.JPEG),
    Subject("frame .png", "files", _picture("a.png"), read_frame, b.IMAGE, checked=True),
    Subject("mask .png", "files", _picture("a.png", 2), read_mask, b.IMAGE, checked=True),
    Subject("mask of one bit", "files", _one_bit, read_mask, b.IMAGE, checked=True),
    Subject(
        "mask of labels", "readers", _picture("a.png", 20), lambda path: mask_from(path, "labels", (48, 24)), b.IMAGE
    ),
    Subject("mask of two values", "readers", _one_bit, lambda path: mask_from(path, "binary", (48, 24)), b.IMAGE),
    Subject("pack.json", "files", _pack("pack.json"), _of_pack, m.JSON),
    Subject("pack table", "files", _pack("train.npz"), _of_pack, [*b.NPZ, b.BOMB], checked=True),
    Subject("pack zip", "files", _pack("train-0000.zip"), _of_pack, [], checked=True),
    Subject("pack skeletons", "files", _pack("train-skeletons.npy"), _of_pack, b.NPY, checked=True),
    Subject("pack --verify", "files", _pack("test-0000.zip"), _verified, [], checked=True),
    Subject("method of masks", "derived", _method, _record, m.JSON),
    Subject("frames of masks", "derived", _made_of, _record, m.JSON),
    Subject("CCVID list", "readers", _ccvid, _up(ccvid, 1), m.TEXT),
    Subject("PRID splits", "readers", _prid, _up(prid2011, 1), m.JSON),
    Subject("iLIDS splits", "readers", _ilids, _up(ilidsvid, 2), WHOLE),
    Subject("LS-VID list", "readers", _lsvid("list_sequence/list_seq_test.txt"), _up(lsvid, 3), m.TEXT),
    Subject("LS-VID queries", "readers", _lsvid("data/info_test.mat"), _up(lsvid, 3), WHOLE),
]
