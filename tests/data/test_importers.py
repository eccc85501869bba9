"""From the layouts of public data sets to manifests, on miniatures of each."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import scipy.io
from helpers.handmade import QUERY, TEST, TRAIN, Walk, write_files, write_tables

from sptskm.cli import main
from sptskm.common.endings import EXIT_BAD_INPUT
from sptskm.common.errors import DataError
from sptskm.config import ConfigError
from sptskm.data import Tracklets, hold_out, read_dataset, read_mars
from sptskm.data.check import check_dataset
from sptskm.data.importers import ccvid, folder, ilidsvid, lsvid, mars, prid2011
from sptskm.data.manifest import Entry, read_entries, read_manifest, write_entries


def draw(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((4, 2, 3), np.uint8))


def frames(folder: Path, count: int = 2, ending: str = ".jpg") -> None:
    draw(*(folder / f"{number:03d}{ending}" for number in range(1, count + 1)))


def run(*words: object) -> int:
    return main(["import", *map(str, words)])


def counted(entries: Sequence[Entry]) -> dict[str, int]:
    return dict(Counter(entry.split for entry in entries))


def labels(table: Tracklets) -> list[tuple[str, str, str, int]]:
    """Name, identity, camera and length of every row."""
    rows = range(len(table))
    names = [(table.pid_name(row), table.camera_name(row)) for row in rows]
    return [(key, *name, n) for key, name, n in zip(table.keys_N.tolist(), names, table.lengths.tolist(), strict=True)]


# MARS


def as_mars(table: Tracklets) -> list[tuple[int, int]]:
    return [(int(table.pid_name(row)), int(table.camera_name(row))) for row in range(len(table))]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_mars_gives_the_rows_frames_and_labels_of_its_own_tables(walkers: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"m{ending}"
    assert run("mars", walkers, out) == 0
    wanted, found = read_mars(walkers), read_dataset(out)
    assert found.keys_N.tolist() == wanted.keys_N.tolist()
    assert found.stems_M.tolist() == wanted.stems_M.tolist()
    assert (found.starts_N == wanted.starts_N).all()
    assert as_mars(found) == list(zip(wanted.pids_N.tolist(), wanted.camids_N.tolist(), strict=True))
    assert (found.num_train, found.query.tolist()) == (wanted.num_train, sorted(wanted.query.tolist()))
    assert ((found.pids_N < 1) == (wanted.pids_N < 1)).all(), "junk and distractors keep their numbers"
    worn = [(mine, its) for mine, its in zip(found.clothes_N.tolist(), wanted.clothes_N.tolist(), strict=True)]
    assert len(set(worn)) == len(set(wanted.clothes_N.tolist())) == len(set(found.clothes_N.tolist()))
    for modality in ("frames", "masks", "skeletons"):
        for row in range(len(wanted)):
            assert found.path(row, 0, modality) == wanted.path(row, 0, modality).resolve()  # type: ignore[arg-type]
    ours, its = (hold_out(table, 0.4, seed=3) for table in (found, wanted))
    assert ours.hash == its.hash
    assert (ours.train == its.train).all()


def test_mars_has_clothes_by_name_and_folders_relative_to_its_root(tmp_path: Path) -> None:
    root = write_files(tmp_path / "mars")
    (root / "clothes.csv").write_text("tracklet,clothes\n0003C1T0001F001,red coat\n0003C2T0001F001,\n")
    assert run("mars", root) == 0
    entries = read_entries(root / "manifest.jsonl")
    assert entries == mars(root)
    assert entries[0] == Entry(
        tracklet="0003C1T0001F001",
        pid="3",
        camera="1",
        split="train",
        frames=("bbox_train/0003/0003C1T0001F001.jpg", "bbox_train/0003/0003C1T0001F002.jpg"),
        masks="bbox_train_mask/0003",
        skeleton="bbox_train_joint3d/0003",
        clothes="red coat",
    )
    assert [entry.split for entry in entries] == ["train"] * len(TRAIN) + ["junk", "distractor", "query", "gallery"]
    assert [entry.clothes for entry in entries[1:]] == [""] * (len(entries) - 1)
    assert QUERY == (3,)
    assert check_dataset(root / "manifest.jsonl", workers=1).ok


def test_doubled_folders_of_mars_are_found_and_shifted_names_refused(tmp_path: Path) -> None:
    root = write_tables(tmp_path)
    (root / "bbox_train" / "bbox_train").mkdir(parents=True)
    assert mars(root)[0].frames[0] == "bbox_train/bbox_train/0003/0003C1T0001F001.jpg"
    write_tables(root, test=TEST[::-1], query=[1])
    path = root / "info" / "test_name.txt"
    path.write_text("\n".join(sorted(path.read_text().split())))
    with pytest.raises(
        DataError, match=r"0002C1T0001F001 belongs to the tracklet of 0000.*`sptskm check .*` tells more"
    ):
        mars(root)


def test_tracklets_of_a_single_frame_need_no_image_to_be_imported(tmp_path: Path) -> None:
    root = write_tables(tmp_path, train=[Walk(1, 1, 1), Walk(1, 2, 1)])
    for ending in (".jsonl", ".parquet"):
        write_entries(root / f"m{ending}", mars(root))
        assert read_manifest(root / f"m{ending}").keys_N.tolist() == read_mars(root).keys_N.tolist()


# CCVID


@pytest.fixture
def ccvid_root(tmp_path: Path) -> Path:
    """Two training and two test identities in two outfits; session 3 is another place."""
    root = tmp_path / "CCVID"
    lists = {
        "train": ["session1/001_01\t001\t0", "session1/001_02\t001\t0", "session3/002_01\t002\t1"],
        "query": ["session1/003_12 003 0", "session2/004_01 004 1"],
        "gallery": ["session3/003_12 003 1", "session1/004_02/ 004 1", "session1/003_03 003 0"],
    }
    for name, lines in lists.items():
        (root / f"{name}.txt").parent.mkdir(exist_ok=True)
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n\n")
        for length, line in enumerate(lines, 1):
            frames(root / line.split()[0], length)
    return root


def test_ccvid_has_walks_for_cameras_and_outfits_of_each_person(ccvid_root: Path) -> None:
    entries = ccvid(ccvid_root)
    assert counted(entries) == {"train": 3, "query": 2, "gallery": 3}
    assert [(e.tracklet, e.camera, e.clothes) for e in entries[2:6]] == [
        ("session3/002_01", "13", "002_1"),
        ("session1/003_12", "12", "003_0"),
        ("session2/004_01", "1", "004_1"),
        ("session3/003_12", "24", "003_1"),
    ]
    assert entries[6].frames == "session1/004_02"


def test_an_imported_ccvid_can_be_read_and_checked(ccvid_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ccvid", ccvid_root) == 0
    out = ccvid_root / "manifest.csv"
    said = capsys.readouterr().out.splitlines()
    assert [line.split() for line in said] == [
        ["split", "tracklets", "identities", "cameras", "frames"],
        ["train", "3", "2", "3", "6"],
        ["query", "2", "2", "2", "3"],
        ["gallery", "3", "2", "3", "6"],
        ["all", "8", "4", "6", "15"],
        [str(out), "written;", "next:", "sptskm", "check", str(out)],
    ]
    table = read_dataset(out)
    assert table.has_clothes
    assert labels(table)[3] == ("session1/003_12", "003", "12", 1)
    report = check_dataset(out, workers=1)
    assert report.ok
    assert sum(count.found for count in report.counts) == 15
    assert main(["check", str(out), "--workers", "1"]) == 0


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("session1/005_01 005", "gallery.txt: line 2 has 2 words, wanted folder pid clothes"),
        ("session1/005 005 0", r"gallery.txt: line 2 has the folder session1/005, wanted session<number>/<pid>_<walk>"),
        ("../005_01 005 0", r"gallery.txt: line 2 has the folder \.\./005_01"),
    ],
)
def test_a_line_that_is_not_ccvid_s_is_named(ccvid_root: Path, line: str, sentence: str) -> None:
    (ccvid_root / "gallery.txt").write_text(f"session1/004_02 004 1\n{line}\n")
    with pytest.raises(DataError, match=sentence):
        ccvid(ccvid_root)


# LS-VID


@pytest.fixture
def lsvid_root(tmp_path: Path) -> Path:
    """Lists of beginnings of names and of a folder; the query is the second line of the test list."""
    root = tmp_path / "LS-VID"
    lists = root / "info" / "list_sequence"
    lists.mkdir(parents=True)
    (lists / "list_seq_train.txt").write_text("tracklet_train/0001/0001_01_ 1\ntracklet_train/0001/0001_11_ 1\n")
    (lists / "list_seq_test.txt").write_text(
        "tracklet_test/0007/0007_1_ 7\ntracklet_test/0007/0007_2_ 7\ntracklet_test/junk -1\n"
    )
    for name in ("0001_01_03_1", "0001_01_03_2", "0001_11_15_1"):
        draw(root / "tracklet_train" / "0001" / f"{name}.jpg")
    for name in ("0007/0007_1_02_1", "0007/0007_2_04_1", "0007/0007_21_04_1", "junk/x_1_04_1", "junk/x_1_04_2"):
        draw(root / "tracklet_test" / f"{name}.jpg")
    (root / "info" / "data").mkdir()
    scipy.io.savemat(root / "info" / "data" / "info_test.mat", {"query": np.array([[2.0]])})
    return root


def test_lsvid_has_cameras_in_names_and_queries_in_a_file(lsvid_root: Path) -> None:
    entries = lsvid(lsvid_root)
    assert [(e.pid, e.camera, e.split, e.frames) for e in entries] == [
        ("1", "3", "train", "tracklet_train/0001/0001_01_*"),
        ("1", "15", "train", "tracklet_train/0001/0001_11_*"),
        ("7", "2", "gallery", "tracklet_test/0007/0007_1_*"),
        ("7", "4", "query", "tracklet_test/0007/0007_2_*"),
        ("", "4", "junk", "tracklet_test/junk/*"),
    ]
    write_entries(lsvid_root / "m.csv", entries)
    assert read_dataset(lsvid_root / "m.csv").lengths.tolist() == [2, 1, 1, 1, 2]


def test_the_published_query_file_needs_a_package_that_nothing_else_does(
    lsvid_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lsvid_root / "info" / "data" / "info_test.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file, which is HDF5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        DataError, match=r"info_test\.mat is an HDF5 file, which needs one more package: pip install h5py"
    ):
        lsvid(lsvid_root)
    monkeypatch.setitem(sys.modules, "h5py", SimpleNamespace(File=OpenedHDF5))
    assert [e.split for e in lsvid(lsvid_root)] == ["train", "train", "query", "query", "junk"]


class OpenedHDF5(dict[str, np.ndarray]):
    """What h5py makes of a file."""

    def __init__(self, path: Path, mode: str) -> None:
        assert path.is_file()
        assert mode == "r"
        super().__init__(query=np.array([[1.0, 2.0]]))

    def __enter__(self) -> "OpenedHDF5":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"query": np.array([[4]])}, "query: entry 1 is 4, wanted whole numbers from 1 to 3"),
        ({"query": np.array([[0]])}, "query: entry 1 is 0, wanted whole"),
        ({"query": np.zeros((1, 0))}, "query is empty"),
        ({"other": np.array([[1]])}, "holds other, wanted the variable query"),
    ],
)
def test_queries_of_lsvid_are_lines_of_its_test_list(
    lsvid_root: Path, content: dict[str, np.ndarray], sentence: str
) -> None:
    path = lsvid_root / "info" / "data" / "info_test.mat"
    scipy.io.savemat(path, content)
    with pytest.raises(DataError, match=sentence):
        lsvid(lsvid_root)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"info_test\.mat: no such file"):
        lsvid(lsvid_root)


def test_tracklets_of_lsvid_without_images_or_camera_are_named(lsvid_root: Path) -> None:
    image = lsvid_root / "tracklet_train" / "0001" / "0001_11_15_1.jpg"
    image.rename(image.with_name("0001_11_x.jpg"))
    with pytest.raises(DataError, match=r"list_seq_train\.txt: line 2: the frame 0001_11_x\.jpg names no camera"):
        lsvid(lsvid_root)
    image.with_name("0001_11_x.jpg").unlink()
    with pytest.raises(DataError, match=r"list_seq_train\.txt: line 2: there are no images .*0001_11_\*"):
        lsvid(lsvid_root)


# iLIDS-VID and PRID 2011


@pytest.fixture
def ilids_root(tmp_path: Path) -> Path:
    """Four persons whose numbers have gaps, two ways to split them; masks lie beside the frames."""
    for person in ("person001", "person002", "person004", "person319"):
        for camera in ("cam1", "cam2"):
            frames(tmp_path / "i-LIDS-VID" / "sequences" / camera / person, 2, ".png")
            frames(tmp_path / "i-LIDS-VID" / "sequences" / camera / f"{person}_mask", 2, ".png")
    path = tmp_path / "train-test people splits" / "train_test_splits_ilidsvid.mat"
    path.parent.mkdir()
    scipy.io.savemat(path, {"ls_set": np.array([[3, 1, 4, 2], [2, 4, 1, 3]], np.uint16)})
    return tmp_path


def test_ilids_tests_on_the_first_half_of_a_row_from_camera_1_to_2(ilids_root: Path) -> None:
    entries = ilidsvid(ilids_root, split=1)
    assert [(e.pid, e.camera) for e in entries if e.split == "query"] == [("person001", "cam1"), ("person004", "cam1")]
    assert [(e.pid, e.camera) for e in entries if e.split == "gallery"] == [
        ("person001", "cam2"),
        ("person004", "cam2"),
    ]
    assert {(e.pid, e.camera) for e in entries if e.split == "train"} == {
        (person, camera) for person in ("person002", "person319") for camera in ("cam1", "cam2")
    }
    assert entries[0].frames == "i-LIDS-VID/sequences/cam1/person002"
    assert {e.pid for e in ilidsvid(ilids_root, split=2) if e.split == "query"} == {"person002", "person319"}


def test_ilids_splits_are_counted_from_1_and_checked(ilids_root: Path) -> None:
    for split in (0, 3):
        with pytest.raises(DataError, match=f"has no split {split}, wanted 1 to 2"):
            ilidsvid(ilids_root, split)
    path = ilids_root / "train-test people splits" / "train_test_splits_ilidsvid.mat"
    scipy.io.savemat(path, {"ls_set": np.array([[1, 2, 3, 3]])})
    with pytest.raises(DataError, match=r"ls_set has shape \(1, 4\), wanted each of the 4 persons once in each row"):
        ilidsvid(ilids_root)
    (ilids_root / "i-LIDS-VID" / "sequences" / "cam1" / "person500").mkdir()
    with pytest.raises(DataError, match="cam1 and cam2 hold folders of other names"):
        ilidsvid(ilids_root)


def test_prid_takes_the_persons_that_a_split_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for person in range(1, 6):
        for camera in ("cam_a", "cam_b"):
            frames(tmp_path / "prid_2011" / "multi_shot" / camera / f"person_{person:04d}", person, ".png")
    names = [f"person_{person:04d}" for person in range(1, 6)]
    splits = [{"train": names[:2], "test": names[2:4]}, {"train": names[2:4], "test": names[:2]}]
    (tmp_path / "splits_prid2011.json").write_text(json.dumps(splits))
    entries = prid2011(tmp_path, split=2)
    assert [(e.tracklet, e.split) for e in entries] == [
        ("cam_a/person_0003", "train"),
        ("cam_b/person_0003", "train"),
        ("cam_a/person_0004", "train"),
        ("cam_b/person_0004", "train"),
        ("cam_a/person_0001", "query"),
        ("cam_a/person_0002", "query"),
        ("cam_b/person_0001", "gallery"),
        ("cam_b/person_0002", "gallery"),
    ]
    assert run("prid2011", tmp_path, "--split", 2) == 0
    assert read_dataset(tmp_path / "manifest.csv").lengths.tolist() == [3, 3, 4, 4, 1, 2, 1, 2]
    assert run("prid2011", tmp_path, tmp_path / "other.csv", "--split", 3) == EXIT_BAD_INPUT
    assert "has no split 3, wanted 1 to 2" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[", "{}", "[{}]", "[[1]]", "3"])
def test_splits_of_prid_are_lists_of_train_and_test(tmp_path: Path, content: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"splits_prid2011\.json: no such file"):
        prid2011(tmp_path)
    (tmp_path / "splits_prid2011.json").write_text(content)
    with pytest.raises(DataError, match=r"splits_prid2011\.json: "):
        prid2011(tmp_path)


# folders


def walks(root: Path, pids: Sequence[str] = ("anna", "berta", "carl", "dora"), between: str = "/") -> Path:
    for pid in pids:
        for camera in ("door", "gate"):
            for number in range(1, 4):
                frames(root / between.join((pid, camera, str(number))), number)
    return root


def test_folders_are_imported_with_a_split_by_identity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("folder", walks(tmp_path), "--test-share", 0.5, "--seed", 1) == 0
    table = read_dataset(tmp_path / "manifest.csv")
    assert len(table) == 24
    assert (table.num_train, len(table.query)) == (12, 4)
    assert table.lengths.sum() == 4 * 2 * 6
    assert capsys.readouterr().out.splitlines()[2].split()[:4] == ["query", "4", "2", "2"]
    parts = [{table.pid_name(row) for row in rows.tolist()} for rows in (table.train, table.test)]
    assert not parts[0] & parts[1]


def test_names_of_folders_are_cut_by_a_pattern(tmp_path: Path) -> None:
    walks(tmp_path, between="_")
    frames(tmp_path / "eva_door_2_b")
    entries = folder(tmp_path, "{pid}_{camera}_{tracklet}")
    assert [(e.tracklet, e.pid, e.camera, e.split) for e in entries[:2]] == [
        ("anna_door_1", "anna", "door", ""),
        ("anna_door_2", "anna", "door", ""),
    ]
    assert (entries[-1].tracklet, entries[-1].pid, entries[-1].camera) == ("eva_door_2_b", "eva", "door")
    frames(tmp_path / "deep" / "p1" / "cam2-red coat" / "x")
    (entry,) = folder(tmp_path / "deep", "p{pid}/cam{camera}-{clothes}/{tracklet}")
    assert entry == Entry("p1/cam2-red coat/x", "1", "2", "", "p1/cam2-red coat/x", clothes="red coat")


def test_folders_without_labels_can_be_imported_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("walk 1", "walk 2"):
        frames(tmp_path / name)
    assert run("folder", tmp_path, "--pattern", "{tracklet}") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["junk", "2", "0", "1", "4"]
    table = read_dataset(tmp_path / "manifest.csv")
    assert table.keys_N.tolist() == ["walk 1", "walk 2"]
    assert main(["check", str(tmp_path / "manifest.csv"), "--workers", "1"]) == 0


def test_masks_skeletons_hidden_folders_and_files_are_no_tracklets(tmp_path: Path) -> None:
    walks(tmp_path)
    before = folder(tmp_path)
    for other in ("1_mask", "1_joint3d", ".cache"):
        frames(tmp_path / "anna" / "door" / other)
    (tmp_path / "notes.txt").write_text("x")
    assert folder(tmp_path) == before


def test_a_folder_that_is_called_like_a_pattern_can_be_imported(tmp_path: Path) -> None:
    for name in ("walk [1]", "walk.jpg"):
        frames(tmp_path / "anna" / "door" / name)
        frames(tmp_path / "berta" / "gate" / name)
    entries = [Entry(**{**vars(entry), "split": "train"}) for entry in folder(tmp_path)]
    write_entries(tmp_path / "m.csv", entries)
    assert read_dataset(tmp_path / "m.csv").lengths.tolist() == [2] * 4


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("{pid}_{camera}", "anna: is not called as {pid}_{camera} says; set --pattern, or move it away"),
        ("{pid}/{camera}", "anna/door: holds no images, wanted a folder of frames as {pid}/{camera} says"),
        (
            "{pid}/{camera}/{tracklet}/{time}",
            ": holds no folder as --pattern {pid}/{camera}/{tracklet}/{time} says; {tracklet} is a folder of frames "
            "without labels, {pid}_{camera}_{tracklet} one called anna_door_1",
        ),
    ],
)
def test_a_folder_that_does_not_match_is_named(tmp_path: Path, pattern: str, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        folder(walks(tmp_path), pattern)
    assert str(caught.value).endswith(sentence)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("", "lacks {tracklet}, wanted {pid} and {camera}, or {tracklet} without labels"),
        ("walks/[", "lacks {tracklet}, wanted {pid} and {camera}, or {tracklet} without labels"),
        ("{pid}_{pid}_{camera}", "has {pid} twice, wanted it once"),
        ("{pid}/{tracklet}", "lacks {camera}, wanted {pid} and {camera}, or {tracklet} without labels"),
        ("{pid}{camera}", "{pid}{camera} has nothing behind {pid}, wanted a sign that ends it"),
        ("{pid}/{camera}/{who}", "knows no {who}, wanted some of pid, camera, tracklet, clothes, time"),
        ("{pid}/{camera}/{pid}", "has {pid} twice, wanted it once"),
    ],
)
def test_a_pattern_that_cannot_be_read_is_a_sentence(tmp_path: Path, pattern: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        folder(tmp_path, pattern)
    assert str(caught.value).startswith("--pattern")
    assert str(caught.value).endswith(sentence)


# manifests, and the command


def test_a_manifest_changes_its_form_and_stays_what_it_is(ccvid_root: Path) -> None:
    assert run("ccvid", ccvid_root) == 0
    first = ccvid_root / "manifest.csv"
    for before, after in (
        (first, "a.jsonl"),
        (ccvid_root / "a.jsonl", "b.parquet"),
        (ccvid_root / "b.parquet", "c.csv"),
    ):
        assert run("manifest", before, ccvid_root / after) == 0
        assert read_entries(ccvid_root / after) == read_entries(first)
    assert (ccvid_root / "c.csv").read_bytes() == first.read_bytes()


def test_a_manifest_without_split_is_split_by_identity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walks(tmp_path)
    path = tmp_path / "own.csv"
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["tracklet", "pid", "camera", "frames"])
        lines.writerows([e.tracklet, e.pid, e.camera, e.frames] for e in folder(tmp_path))
    assert run("manifest", path) == EXIT_BAD_INPUT
    assert "`sptskm import manifest FILE OUT --test-share 0.5` splits by identity" in capsys.readouterr().err
    assert run("manifest", path, "--test-share", 0.5) == 0
    assert run("folder", tmp_path, tmp_path / "same.csv") == 0
    assert read_entries(tmp_path / "manifest.csv") == read_entries(tmp_path / "same.csv")


def test_a_manifest_elsewhere_names_its_files_by_absolute_paths(
    ccvid_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ccvid_root.parent)
    out = tmp_path / "lists" / "ccvid.csv"
    assert run("ccvid", "CCVID", out) == 0
    assert read_entries(out)[0].frames == str(ccvid_root.resolve() / "session1" / "001_01")
    assert check_dataset(out, workers=1).ok
    again = tmp_path / "third" / "again.jsonl"
    assert run("manifest", out, again) == 0
    assert read_entries(again) == read_entries(out)
    inside = ccvid_root / "lists" / "m.csv"
    assert run("ccvid", "CCVID", inside) == 0
    assert check_dataset(inside, workers=1).ok


@pytest.mark.parametrize("layout", ["mars", "ccvid", "lsvid", "ilidsvid", "prid2011", "folder", "manifest"])
def test_a_root_that_is_not_there_or_empty_is_one_sentence(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "none", tmp_path / "empty"):
        assert run(layout, root) == EXIT_BAD_INPUT
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"sptskm: {root}")
    assert not list((tmp_path / "empty").iterdir())


def test_nothing_is_written_where_a_tracklet_is_missing_or_a_file_is_in_the_way(
    ccvid_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ccvid_root / "manifest.csv"
    (ccvid_root / "session1" / "004_02").rename(ccvid_root / "moved")
    assert run("ccvid", ccvid_root) == EXIT_BAD_INPUT
    assert "tracklet session1/004_02 has no images in session1/004_02" in capsys.readouterr().err
    assert not out.exists()
    (ccvid_root / "moved").rename(ccvid_root / "session1" / "004_02")
    out.write_text("by hand")
    assert run("ccvid", ccvid_root) == EXIT_BAD_INPUT
    assert f"{out}: exists already" in capsys.readouterr().err
    assert out.read_text() == "by hand"


def test_lists_of_frames_cannot_go_to_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tables(tmp_path)
    assert run("mars", root, root / "m.csv") == EXIT_BAD_INPUT
    assert "which CSV cannot hold; wanted .jsonl" in capsys.readouterr().err
    assert not (root / "m.csv").exists()


def test_an_option_of_another_layout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("ccvid", tmp_path, "--pattern", "{pid}")
    assert "unrecognized arguments: --pattern" in capsys.readouterr().err
