"""Whatever has happened to the bytes of a pack: what is read is what was written, or one sentence that names a file."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.handmade import write_files

from sptskm.common.errors import DataError
from sptskm.data import Tracklets, read_dataset
from sptskm.data.check import check_dataset
from sptskm.data.files import read_frame, read_skeletons
from sptskm.data.packs.contents import SUMMARY, SUMS
from sptskm.data.packs.writing import pack


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of several zip files; copied before it is changed."""
    home = tmp_path_factory.mktemp("whole")
    pack(read_dataset(write_files(home / "files")), home / "pack", 4, workers=1)
    return home / "pack"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "pack"))


def everything(folder: Path) -> list[Any]:
    """What a user sees of a pack."""
    table = read_dataset(folder)
    found: list[Any] = [table.fingerprint, table.clothes_N.tolist(), table.pid_names, table.camera_names]
    for row in range(len(table)):
        every = range(table.lengths[row])
        found += [file.read_bytes() for kind in ("frames", "masks") for file in table.files(row, every, kind)]
        found.append(read_skeletons(table, row, every).tobytes())
    return found


def changed_summary(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    summary = json.loads((folder / SUMMARY).read_text())
    change(summary)
    (folder / SUMMARY).write_text(json.dumps(summary))


def changed_table(folder: Path, part: str, **arrays: Any) -> None:
    """With the size that the summary knows, which is only compared when a zip file is opened."""
    with np.load(folder / f"{part}.npz") as content:
        found = dict(content)
    np.savez(folder / f"{part}.npz", **(found | {name: change(found[name]) for name, change in arrays.items()}))


def as_of_before(folder: Path) -> None:
    """Take away the checksums that packs used not to have."""
    for part in ("train", "test"):
        with np.load(folder / f"{part}.npz") as content:
            found = dict(content)
        del found[SUMS]
        np.savez(folder / f"{part}.npz", **found)
    changed_summary(folder, lambda summary: summary.pop("checksum"))


@pytest.mark.parametrize("age", ["new", "old"])
def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(age: str, copy: Path) -> None:
    if age == "old":
        as_of_before(copy)
    wanted, rng, equal = everything(copy), np.random.default_rng(0), 0
    for path in sorted(copy.iterdir()):
        if age == "old" and path.name == SUMMARY:
            continue  # nothing guards the names in it
        good = path.read_bytes()
        for bit in rng.integers(0, 8 * len(good), 25).tolist():
            damaged = bytearray(good)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with suppress(DataError, FileNotFoundError):
                assert everything(copy) == wanted, f"{path.name}, bit {bit}"
                equal += 1
        path.write_bytes(good)
    assert equal < 100, "most bits are content"
    assert everything(copy) == wanted


def test_check_names_every_damaged_file_of_a_pack(copy: Path) -> None:
    table, path = read_dataset(copy), copy / "train-0000.zip"
    first, second = table.files(0, [0, 1], "frames")
    content = path.read_bytes()
    for file in (first, second):
        at = content.index(file.read_bytes()) + 30
        content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    path.write_bytes(content)
    report = check_dataset(copy, workers=1)
    assert [str(problem.path) for problem in report.problems] == [str(first), str(second)]
    assert f"{first}: is damaged: has the checksum" in report.problems[0].sentence
    with pytest.raises(
        DataError, match=r"train-0000.zip:.*F001.jpg: is damaged: has the checksum \w{8}, wanted \w{8};"
    ):
        read_frame(read_dataset(copy).files(0, [0], "frames")[0])


def test_changed_skeletons_are_named_with_their_tracklet(copy: Path) -> None:
    path = copy / "train-skeletons.npy"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    table = read_dataset(copy)
    assert read_skeletons(table, 0, [0]).shape == (1, 14, 4)
    with pytest.raises(DataError, match=rf"^skeletons {path}: is damaged: tracklet 0005C4T0001F001 has the checksum"):
        read_skeletons(table, 3, [0])


def test_a_pack_of_before_opens_and_its_skeletons_are_verified_as_one(copy: Path) -> None:
    wanted = everything(copy)
    as_of_before(copy)
    assert everything(copy) == wanted
    path = copy / "test-skeletons.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=rf"^{path}: is damaged: has the checksum \w+, wanted \w+$"):
        read_skeletons(read_dataset(copy), 4, [0])


def test_changed_names_in_the_summary_are_noticed(copy: Path) -> None:
    changed_summary(copy, lambda summary: summary["camera_names"].update({"1": "door"}))
    with pytest.raises(DataError, match=r"pack.json: is damaged"):
        read_dataset(copy)


def first_file(summary: dict[str, Any], name: str) -> None:
    summary["files"] = {name: summary["files"].pop("train-0000.zip"), **summary["files"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("files"), "files"),
        (lambda s: s.update(files=[]), "files"),
        (lambda s: s.update(files={"a.zip": [-1, ""]}), "names the file 'a.zip' of -1 bytes"),
        (lambda s: s.update(heads={"train": "many"}), "heads"),
        (lambda s: s.update(heads={}), "bytes of skeletons"),
        (lambda s: s.update(modalities=["pictures"]), "modalities"),
        (lambda s: s.update(modalities=["frames"]), "has places of"),
        (lambda s: s.update(layout="other"), "layout"),
        (lambda s: s.update(pid_names={"anna": "1"}), "pid_names"),
        (lambda s: s.update(version={}), "is of version {}, wanted 1"),
        (lambda s: s.pop("version"), "is of version None, wanted 1"),
        (lambda s: s.pop("training_fingerprint"), "training_fingerprint"),
        (lambda s: first_file(s, "../train-0000.zip"), "names the file '../train-0000.zip'"),
        (lambda s: first_file(s, "/etc/passwd"), "names the file '/etc/passwd'"),
        (lambda s: first_file(s, "a\nb"), "names the file 'a\\nb'"),
        (lambda s: first_file(s, "other.zip"), "names the zip file 'train-0000.zip', which pack.json does not know"),
    ],
)
def test_a_summary_that_is_none_is_a_sentence(
    change: Callable[[dict[str, Any]], object], said: str, copy: Path
) -> None:
    changed_summary(copy, change)
    with pytest.raises(DataError) as caught:
        read_dataset(copy)
    assert said in str(caught.value)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe\xfd", b"nothing", b"[" * 100_000])
def test_a_summary_that_is_no_json_is_a_sentence(content: bytes, copy: Path) -> None:
    (copy / SUMMARY).write_bytes(content)
    with pytest.raises(DataError, match=rf"^{copy / SUMMARY}: not readable"):
        read_dataset(copy)


TABLES: dict[str, tuple[dict[str, Callable[[Any], Any]], str]] = {
    "far away": ({"frames_M2": lambda a: a + np.array([10**12, 0])}, "has no bytes 10+.* as its tables say"),
    "huge": ({"frames_M2": lambda a: a + np.array([0, 10**15])}, "names more bytes than its zip files have"),
    "all the same": ({"masks_M2": lambda a: np.tile([[30, 10**4]], (len(a), 1))}, "names more bytes than its zip"),
    "negative": ({"masks_M2": lambda a: a - 10**6}, "masks_M2 holds -"),
    "fractions": ({"frames_M2": lambda a: a.astype(float)}, "frames_M2 is float64"),
    "no masks": ({"masks_M2": lambda a: a[:0]}, "has places of 0 masks"),
    "beyond": ({"stops_N": lambda a: a + 10**9}, "covers lines"),
    "queries": ({"query": lambda _: np.array([99])}, "queries are rows 99 to 99"),
    "elsewhere": ({"shard_N": lambda a: np.full(len(a), "../../x.zip")}, "names the zip file '../../x.zip'"),
    "fewer": ({"pids_N": lambda a: a[1:]}, "pids_N has"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_promises_what_is_not_there_is_a_sentence(name: str, copy: Path) -> None:
    changes, said = TABLES[name]
    changed_table(copy, "test", **changes)
    with pytest.raises(DataError, match=said):
        everything(copy)


def test_a_table_of_other_places_gives_no_other_frame(copy: Path) -> None:
    changed_table(copy, "train", frames_M2=lambda a: np.concatenate([a[1:2], a[1:]]))
    with pytest.raises(DataError, match=r"F001.jpg: is damaged: no such file begins there"):
        everything(copy)


def test_a_packed_table_that_is_compressed_takes_no_memory(copy: Path) -> None:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<i8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(copy / "train.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("starts_N.npy", content.getvalue() + bytes(10**6))
    with pytest.raises(DataError, match=r"train.npz: not readable \(is compressed, wanted arrays as they are\)"):
        read_dataset(copy)


def test_files_without_masks_are_packed_and_read(tmp_path: Path) -> None:
    root = write_files(tmp_path / "files")
    for folder in root.glob("*_mask"):
        shutil.rmtree(folder)
    pack(read_dataset(root), tmp_path / "pack", workers=1)
    table: Tracklets = read_dataset(tmp_path / "pack")
    wanted = [file.read_bytes() for file in read_dataset(root).files(1, [0, 2], "frames")]
    assert [file.read_bytes() for file in table.files(1, [0, 2], "frames")] == wanted


def test_a_damaged_note_of_an_unfinished_pack_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = write_files(tmp_path / "files"), tmp_path / "pack"
    with monkeypatch.context() as context:
        context.setattr("sptskm.data.packs.writing._complete", lambda *_: None)
        with pytest.raises(FileNotFoundError):  # as killed before the end
            pack(read_dataset(root), out, 4, workers=1)
    note = sorted((out / "unfinished").glob("*.npz"))[0]
    note.write_bytes(note.read_bytes()[:-30])
    with pytest.raises(DataError, match=rf"^{note}: not a readable .npz file"):
        pack(read_dataset(root), out, 4, workers=1)
