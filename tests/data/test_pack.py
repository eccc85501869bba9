"""A pack holds what the files held, and survives what happens to jobs."""

import errno
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.handmade import write_files, write_frame_of, write_tables

from sptskm.cli import main
from sptskm.common.errors import DataError
from sptskm.data import Tracklets, read_dataset, read_mars
from sptskm.data.check import check_dataset
from sptskm.data.files import read_skeletons
from sptskm.data.packs.contents import SUMMARY, checksum
from sptskm.data.packs.unpacking import unpack
from sptskm.data.packs.writing import WORK, pack, plan_shards, verify_pack
from sptskm.data.tracklets import Modality

KINDS = ("frames", "masks")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "files")


def packed(root: Path, frames: int = 4) -> Path:
    out = root.parent / "pack"
    pack(read_dataset(root), out, frames, workers=1)
    return out


def contents(table: Tracklets) -> dict[str, list[bytes]]:
    """Bytes of all frames and masks, and the numbers of all skeletons."""
    found: dict[str, list[bytes]] = {}
    for row, key in enumerate(table.keys_N.tolist()):
        every = range(table.lengths[row])
        files = [file.read_bytes() for kind in KINDS for file in table.files(row, every, kind)]  # type: ignore[arg-type]
        found[key] = [*files, read_skeletons(table, row, every).tobytes()]
    return found


def bytes_of(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


def test_a_pack_is_the_same_table_with_the_same_bytes(root: Path) -> None:
    files, from_pack = read_mars(root), read_dataset(packed(root))
    assert from_pack.fingerprint == files.fingerprint
    assert from_pack.keys_N.tolist() == files.keys_N.tolist()
    assert from_pack.query.tolist() == files.query.tolist()
    assert contents(from_pack) == contents(files)


def test_frames_come_in_the_order_asked_for(root: Path) -> None:
    files, from_pack = read_mars(root), read_dataset(packed(root))
    for kind in KINDS:
        wanted, found = ([f.read_bytes() for f in t.files(2, [3, 0, 2], kind)] for t in (files, from_pack))  # type: ignore[arg-type]
        assert found == wanted


def test_no_zip_file_has_more_frames_than_wanted_but_for_one_tracklet(root: Path) -> None:
    table = read_mars(root)
    for frames in (1, 4, 5, 100):
        shards = plan_shards(table, frames)
        assert [row for shard in shards for row in range(shard.first, shard.last)] == list(range(len(table)))
        for shard in shards:
            rows = range(shard.first, shard.last)
            assert len(rows) == 1 or table.lengths[rows].sum() <= frames
            assert all((row < table.num_train) == shard.name.startswith("train") for row in rows)


def test_without_the_test_part_no_file_of_it_is_opened(root: Path) -> None:
    out = packed(root)
    for path in out.glob("test*"):
        path.unlink()
    table = read_dataset(out, test=False)
    assert table.training_fingerprint == read_mars(root).training_fingerprint
    assert len(table) == table.num_train
    assert contents(table) == {key: contents(read_mars(root))[key] for key in table.keys_N.tolist()}
    with pytest.raises(FileNotFoundError, match=r"test.npz: no such file, though pack.json beside it says so"):
        read_dataset(out)


def test_a_pack_is_checked_like_files(root: Path) -> None:
    report = check_dataset(packed(root), workers=1)
    assert report == check_dataset(root, workers=1)
    assert report.ok


def test_any_tool_reads_the_zip_files_in_which_masks_follow_their_frames(root: Path) -> None:
    table, out = read_mars(root), packed(root)
    with zipfile.ZipFile(out / "train-0000.zip") as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        assert archive.read(names[0]) == table.files(0, [0], "frames")[0].read_bytes()
    assert names[:4] == [f"0003C1T0001F001/0003C1T0001F00{n}{e}" for n in (1, 2) for e in (".jpg", ".mask.png")]


def test_the_frames_and_masks_of_a_clip_are_read_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, reads = read_dataset(packed(root)), []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *place: reads.append(place) or pread(*place))
    for kind in KINDS:
        table.files(2, [1, 2, 3], kind)  # type: ignore[arg-type]
    assert len(reads) == 1


def test_packs_of_the_same_data_have_the_same_bytes_however_often_they_were_killed(root: Path) -> None:
    wanted = bytes_of(packed(root, 2))
    table, again = read_mars(root), root.parent / "again"
    lost = table.files(6, [0], "frames")[0]
    content = lost.read_bytes()
    assert isinstance(lost, Path)
    lost.unlink()
    with pytest.raises(DataError, match=rf"^frame {lost}: no such file; `sptskm check` lists all of them$"):
        pack(table, again, 2, workers=1)
    done = sorted((again / WORK).glob("*.npz"))
    assert len(done) == len(plan_shards(table, 2)) - 2, "all before the one that failed, none after"
    assert not list(again.glob("*.partial"))
    assert not (again / SUMMARY).exists()
    lost.write_bytes(content)
    pack(table, again, 2, workers=2)
    assert bytes_of(again) == wanted
    assert not (again / WORK).exists()


def test_a_killed_pack_is_not_taken_for_a_complete_one_and_goes_on(walkers: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    pack(read_dataset(walkers), whole, 30, workers=1)
    command = [sys.executable, "-m", "sptskm.cli", "pack", str(walkers), str(out), "--frames", "30", "--workers", "1"]
    process = subprocess.Popen(command, start_new_session=True)
    while not list((out / WORK).glob("*.npz")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / SUMMARY).exists(), "killed too late to show anything"
    with pytest.raises(FileNotFoundError):
        read_dataset(out)
    assert main(command[3:]) == 0
    assert bytes_of(out) == bytes_of(whole)


def test_a_folder_of_something_else_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=rf"^{root}: is not empty and no pack, wanted a new folder$"):
        pack(read_mars(root), root, workers=1)
    out = packed(root)
    with pytest.raises(DataError, match=r"holds another pack \(frames 4 -> 5\), wanted a new folder"):
        pack(read_mars(root), out, 5, workers=1)


def test_packing_a_complete_pack_again_changes_nothing(root: Path) -> None:
    out = packed(root)
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert packed(root) == out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == stamps


@pytest.mark.parametrize("kind", KINDS)
def test_a_complete_pack_of_files_that_have_changed_is_not_taken_for_theirs(root: Path, kind: Modality) -> None:
    out, changed = packed(root), read_mars(root).path(1, 0, kind)
    size = changed.stat().st_size
    changed.write_bytes(changed.read_bytes() + b"more")
    told = rf"pack: was packed when {changed} had {size} bytes, now it has {size + 4}, wanted a new folder"
    with pytest.raises(DataError, match=told):
        packed(root)
    changed.unlink()  # a data set that has been tidied up is no other one
    assert packed(root) == out


def test_a_changed_byte_is_found_and_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = packed(root)
    assert verify_pack(out) == []
    assert main(["pack", str(out), "--verify"]) == 0
    for name in ("train-0001.zip", "test-skeletons.npy"):
        path = out / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    (out / "test.npz").unlink()
    said = verify_pack(out)
    assert [line.split(":")[0] for line in said] == [
        str(out / name) for name in ("train-0001.zip", "test.npz", "test-skeletons.npy")
    ]
    assert "of no file" in said[1]
    assert main(["pack", str(out), "--verify"]) == 2
    assert str(out / "train-0001.zip") in capsys.readouterr().out


def test_a_zip_file_cut_short_is_a_sentence(root: Path) -> None:
    out = packed(root)
    path = out / "train-0000.zip"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{path}: has {size - 1} bytes, wanted {size} as pack.json says"):
        read_dataset(out).files(0, [1], "frames")


def test_tables_that_are_not_those_of_the_summary_are_refused(root: Path) -> None:
    out = packed(root)
    summary = json.loads((out / SUMMARY).read_text())
    (out / SUMMARY).write_text(json.dumps(summary | {"training_fingerprint": "0" * 16}))
    with pytest.raises(DataError, match=r"fingerprint \w+, wanted 0{16}"):
        read_dataset(out)
    (out / SUMMARY).write_text(json.dumps(summary | {"version": 99}))
    with pytest.raises(DataError, match=r"pack.json: is of version 99, wanted 1"):
        read_dataset(out)


def test_a_pickle_in_a_pack_is_not_executed(root: Path) -> None:
    out = packed(root)
    np.savez(out / "train.npz", keys_N=np.array([Trap(out / "executed")], dtype=object))
    with pytest.raises(DataError, match=r"train.npz: not readable"):
        read_dataset(out)
    assert not (out / "executed").exists()


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_data_without_masks_or_skeletons_are_packed_without(root: Path) -> None:
    for split in ("train", "test"):
        shutil.rmtree(root / f"bbox_{split}_mask")
        shutil.rmtree(root / f"bbox_{split}_joint3d")
    table = read_dataset(packed(root))
    assert not table.files(0, [0], "masks")[0].is_file()
    with pytest.raises(FileNotFoundError):
        table.files(0, [0], "masks")[0].read_bytes()
    assert np.isnan(read_skeletons(table, 0, [0, 1])).all()
    counts = check_dataset(root.parent / "pack", workers=1).counts
    assert {c.modality for c in counts if c.absent} == {"masks", "skeletons"}


def test_frames_without_a_skeleton_stay_so(root: Path) -> None:
    read_mars(root).path(2, 1, "skeletons").unlink()
    found = read_skeletons(read_dataset(packed(root)), 2, range(4))
    assert np.isnan(found).all(axis=(1, 2)).tolist() == [False, True, False, False]


def test_a_pack_goes_to_other_processes_without_its_open_files(root: Path) -> None:
    table = read_dataset(packed(root))
    wanted = contents(table)
    assert contents(pickle.loads(pickle.dumps(table))) == wanted  # noqa: S301 - our own


def test_files_of_a_pack_cannot_be_written_to(root: Path) -> None:
    with pytest.raises(DataError, match=r"lies in a pack, which is only read; `sptskm unpack` it first"):
        read_dataset(packed(root)).path(0, 0, "masks")


def test_unpacking_gives_the_files_in_the_layout_of_mars(root: Path, tmp_path: Path) -> None:
    (root / "clothes.csv").write_text("tracklet,clothes\n0003C1T0001F001,0\n0005C1T0001F001,1\n")
    out = tmp_path / "unpacked"
    assert main(["unpack", str(packed(root)), str(out)]) == 0
    files, again = read_mars(root), read_dataset(out)
    assert again.fingerprint == files.fingerprint
    assert again.clothes_N.tolist() == files.clothes_N.tolist()
    for folder in ("bbox_train", "bbox_test", "bbox_train_mask", "bbox_test_mask"):
        assert bytes_of(out / folder) == bytes_of(root / folder)
    assert contents(again) == contents(files)


def test_unpacking_goes_on_where_it_was_killed(root: Path, tmp_path: Path) -> None:
    out, source = tmp_path / "unpacked", packed(root)
    unpack(source, out)
    wanted = bytes_of(out)
    table = read_mars(out)
    table.path(1, 1, "frames").write_bytes(b"half")
    table.path(2, 1, "masks").unlink()
    unpack(source, out)
    assert bytes_of(out) == wanted


def test_many_small_tracklets_need_few_files(tmp_path: Path) -> None:
    root = write_tables(tmp_path / "files")
    for split in ("train", "test"):
        for index, name in enumerate((root / "info" / f"{split}_name.txt").read_text().split()):
            write_frame_of(root, split, name.partition(".")[0], index, (16, 8))
    out = packed(root, 1000)
    assert sorted(path.name for path in out.iterdir()) == [
        "pack.json", "test-0000.zip", "test-skeletons.npy", "test.npz", "train-0000.zip", "train-skeletons.npy",
        "train.npz",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["../../escaped", "/escaped"])
def test_a_pack_from_elsewhere_writes_nowhere_but_below_the_given_folder(root: Path, tmp_path: Path, name: str) -> None:
    table = read_mars(root)
    keys = np.where(np.arange(len(table)) == 2, name, table.keys_N)
    pack(replace(table, keys_N=keys), tmp_path / "pack", workers=1)
    with pytest.raises(DataError, match=r"holds the name .*escaped, wanted one without \.\. and without a leading /"):
        unpack(tmp_path / "pack", tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_pack_on_a_file_system_that_fails_for_a_moment_is_read_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, pread, failures = read_dataset(packed(root)), os.pread, [OSError(5, "Input/output error")] * 2
    wanted = read_mars(root).files(0, [0], "frames")[0].read_bytes()
    monkeypatch.setattr("sptskm.data.files.time.sleep", lambda _: None)

    def failing(*place: int) -> bytes:
        if failures:
            raise failures.pop()
        return pread(*place)

    monkeypatch.setattr(os, "pread", failing)
    assert table.files(0, [0], "frames")[0].read_bytes() == wanted
    failures += [OSError(5, "Input/output error")] * 3
    with pytest.raises(DataError, match=r"train-0002.zip: Input/output error \(after 3 attempts\)$"):
        table.files(2, [0], "frames")


@dataclass(frozen=True)
class Called:
    """A file by a name of one's own."""

    name: str
    content: bytes

    def is_file(self) -> bool:
        return True

    def read_bytes(self) -> bytes:
        return self.content


@dataclass(frozen=True)
class OfOtherNames:
    """The files of a table, whatever their frames are called meanwhile."""

    table: Tracklets
    ending: str = ".jpg"

    def files(self, row: int, frames: Any, stems: Any, modality: Any) -> Any:  # noqa: ARG002
        files = self.table.files(row, frames, modality)
        return [Called(f"a{self.ending}", file.read_bytes()) for file in files] if modality == "frames" else files

    def whole(self, row: int) -> None:
        """Every frame has a file."""

    def folder(self, row: int, modality: Any) -> Path:
        return self.table.folder(row, modality)


def foreign(root: Path, folder: Path, **changes: Any) -> Path:
    """A pack whose maker has changed the names in it, checksums and all."""
    ending = changes.pop("ending", ".jpg")
    innocent = "." + "x" * (len(ending) - 1)
    table = replace(read_mars(root), place=OfOtherNames(read_mars(root), innocent))
    pack(replace(table, **{name: change(getattr(table, name)) for name, change in changes.items()}), folder, workers=1)
    for path in folder.glob("*.zip"):
        path.write_bytes(path.read_bytes().replace(innocent.encode(), ending.encode()))
    for path in folder.glob("*.npz"):
        with np.load(path) as content:
            found = dict(content)
        np.savez(path, **(found | {"endings_N": np.full(len(found["endings_N"]), ending)}))
    return folder


def second(value: Any) -> Any:
    return lambda array: np.where(np.arange(len(array)) == 1, value, array)


@pytest.mark.parametrize(
    "changes",
    [
        {"ending": "/../../../escaped.jpg"},
        {"ending": ".jpg/../../../../../escaped"},
        {"ending": ".\n"},
        {"keys_N": second("a/../../../escaped")},
        {"keys_N": second("line\nbreak")},
        {"keys_N": second("0003C1T0001F001")},
        {"keys_N": second("0003C1T0001F001/.")},
        {"stems_M": second(b"/escaped")},
        {"stems_M": second(b"../../../escaped")},
        {"stems_M": second(b"deep/escaped")},
        {"stems_M": second(b"\x1b[2J")},
    ],
)
@pytest.mark.parametrize("layout", ["mars", "manifest"])
def test_no_name_in_a_foreign_pack_leads_out_of_the_folder(
    root: Path, tmp_path: Path, changes: dict[str, Any], layout: str
) -> None:
    names = {"pid_names": lambda _: {1: "anna"}} if layout == "manifest" else {}
    folder, out = tmp_path / "pack", tmp_path / "deep" / "er" / "out"
    foreign(root, folder, **changes, **names)
    before = set(tmp_path.rglob("*"))
    with suppress(DataError):  # the layout of MARS has endings of its own
        unpack(folder, out)
        assert layout == "mars"
        assert "ending" in changes
    new = {path for path in set(tmp_path.rglob("*")) - before if out not in path.parents}
    assert new <= {out, out.parent, out.parent.parent}


@pytest.mark.parametrize("link", ["frames", "masks", "prepared", "frames/0003C1T0001F001", "manifest"])
def test_a_link_in_the_target_is_not_followed_out_of_it(root: Path, tmp_path: Path, link: str) -> None:
    folder = foreign(root, tmp_path / "pack", pid_names=lambda _: {1: "anna"})
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    if link == "manifest":
        out.mkdir()
        (out / "manifest.csv").symlink_to(outside / "file")
        (outside / "file").write_text("as it was")
        unpack(folder, out)
        assert (outside / "file").read_text() == "as it was"
        return
    (out / link).parent.mkdir(parents=True)
    (out / link).symlink_to(outside)
    with pytest.raises(DataError, match=rf"^{folder}: names the file {out}/.* lies outside of {out}$"):
        unpack(folder, out)
    assert list(outside.iterdir()) == []


def test_a_pack_killed_at_its_very_beginning_or_end_is_finished_by_the_same_command(root: Path) -> None:
    out = root.parent / "pack"
    (out / WORK).mkdir(parents=True)
    (out / WORK / ".pack.json.sptskm.partial").write_text("{")
    packed(root)
    wanted = bytes_of(out)
    (out / WORK).mkdir()
    (out / WORK / "pack.json").write_text("{}")
    (out / ".pack.json.sptskm.partial").touch()
    packed(root)
    assert bytes_of(out) == wanted
    assert not (out / WORK).exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from sptskm.cli import main

left, replace = int(sys.argv[1]), Path.replace

def replacing(self, target):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

Path.replace = replacing
sys.exit(main(sys.argv[2:]))
"""


def killed(after: int, *command: str) -> bool:
    """Whether a command did not live to write more files than that."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(after), *command], check=False, capture_output=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.slow
def test_commands_killed_anywhere_leave_nothing_behind_once_they_are_done(root: Path, tmp_path: Path) -> None:
    source = packed(root)
    main(["unpack", str(source), str(tmp_path / "whole")])
    wanted = bytes_of(tmp_path / "whole"), bytes_of(source)
    for after in (0, 5, 30):
        out = tmp_path / f"out-{after}"
        unpacking = "unpack", str(source), str(out)
        packing = "pack", str(root), str(tmp_path / f"pack-{after}"), "--frames", "4", "--workers", "1"
        assert killed(after, *unpacking)
        killed(after // 3, *packing)
        assert main([*unpacking]) == main([*packing]) == 0
        assert (bytes_of(out), bytes_of(tmp_path / f"pack-{after}")) == wanted


@pytest.mark.slow
def test_a_killed_synth_starts_afresh_and_leaves_nothing_behind(tmp_path: Path) -> None:
    sizes = "--train-ids 2 --test-ids 2 --cameras 2 --tracklets-per-camera 1 1 --frames 4 5 --distractors 0 --junk 0"
    command = ["synth", str(tmp_path / "data"), "--workers", "1", *sizes.split()]
    assert killed(0, *command)
    assert not (tmp_path / "data").exists()
    left = [path.name for path in tmp_path.iterdir()]
    assert main(command) == 0
    assert left
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_checksum_names_the_file_that_cannot_be_read() -> None:
    with pytest.raises(OSError, match="/proc/self/mem") as caught:  # reading its first byte is an input/output error
        checksum(Path("/proc/self/mem"))
    assert caught.value.errno == errno.EIO
