"""Whether a data set is what its tables promise."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from helpers.handmade import TEST, TRAIN, write_files, write_tables

from sptskm.common.errors import DataError
from sptskm.data import read_dataset, read_mars
from sptskm.data.check import KEPT, Report, check_dataset
from sptskm.data.files import read_skeletons
from sptskm.data.manifest import Entry, write_entries

FRAMES = {"train": sum(walk.frames for walk in TRAIN), "test": sum(walk.frames for walk in TEST)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "mars")


def look(root: Path, decode: bool = True) -> Report:
    return check_dataset(root, decode=decode, workers=1)


def found(report: Report) -> dict[tuple[str, str], tuple[int, int]]:
    return {(count.split, count.modality): (count.found, count.unreadable) for count in report.counts}


@pytest.mark.parametrize("name", ["walks.csv", "walks.jsonl"])
def test_a_manifest_of_tracklets_and_frames_alone_is_ok_as_it_can_be_embedded(root: Path, name: str) -> None:
    line = {"tracklet": "a", "frames": f"{next((root / 'bbox_test').iterdir())}/*.jpg"}
    text = ",".join(line) + "\n" + ",".join(line.values()) if name.endswith("csv") else json.dumps(line)
    (root / name).write_text(f"{text}\n")
    report = look(root / name)
    assert report.ok
    assert found(report)["test", "frames"][0] > 0
    assert "no tracklet has an identity: they can be embedded and searched, not trained on" in report.text()
    assert "no tracklet has an identity" not in look(root).text()
    (root / name).write_text(f"{text}\n".replace("tracklet", "split").replace("a,", "train,"))
    with pytest.raises(DataError, match=r"lacks the column (tracklet|camera)"):
        look(root / name)


@pytest.mark.parametrize("decode", [True, False])
def test_a_complete_data_set_is_ok(root: Path, decode: bool) -> None:
    report = look(root, decode)
    assert report.ok
    assert [(c.split, c.modality) for c in report.counts] == [
        (split, modality) for split in FRAMES for modality in ("frames", "masks", "skeletons")
    ]
    for count in report.counts:
        assert (count.promised, count.found, count.unreadable) == (FRAMES[count.split], FRAMES[count.split], 0)
        assert not count.absent
    assert report.tracklets == len(TRAIN) + len(TEST)
    assert (report.frames_without_skeleton, report.tracklets_without_skeleton, report.size_mismatches) == (0, 0, 0)
    assert report.mislabelled == 0
    assert report.problems == ()


def test_the_generated_data_set_is_ok_with_several_workers(walkers: Path) -> None:
    report = check_dataset(walkers, workers=2)
    assert report.ok
    assert report == check_dataset(walkers, workers=1)
    table = read_mars(walkers)
    assert sum(count.found for count in report.counts) == 3 * table.lengths.sum()


@pytest.mark.parametrize(("modality", "kind"), [("frames", "frame"), ("masks", "mask"), ("skeletons", "skeleton")])
def test_a_missing_file_is_counted_and_named(root: Path, modality: str, kind: str) -> None:
    path = read_mars(root).path(2, 1, modality)  # type: ignore[arg-type]
    path.unlink()
    for report in (look(root), look(root, decode=False)):
        assert not report.ok
        assert [problem.path for problem in report.problems] == [path]
        assert report.problems[0].sentence == f"{kind} {path}: no such file"
        assert found(report)["train", modality] == (FRAMES["train"] - 1, 0)
        assert found(report)["test", modality] == (FRAMES["test"], 0)


@pytest.mark.parametrize("modality", ["frames", "masks", "skeletons"])
def test_a_corrupt_file_is_found_by_decoding_only(root: Path, modality: str) -> None:
    path = read_mars(root).path(6, 0, modality)  # type: ignore[arg-type]
    path.write_bytes(b"not what it should be" * 20)
    report = look(root)
    assert [problem.path for problem in report.problems] == [path]
    assert f"{path}: corrupt" in report.problems[0].sentence
    assert found(report)["test", modality] == (FRAMES["test"], 1)
    assert look(root, decode=False).ok


def test_an_empty_file_is_found_without_decoding(root: Path) -> None:
    path = read_mars(root).path(6, 0, "frames")
    path.write_bytes(b"")
    report = look(root, decode=False)
    assert found(report)["test", "frames"] == (FRAMES["test"], 1)
    assert report.problems[0].sentence == f"frame {path}: empty file"


def test_a_modality_without_any_folder_is_absent_and_no_problem(root: Path) -> None:
    for split in FRAMES:
        shutil.rmtree(root / f"bbox_{split}_joint3d")
    report = look(root)
    assert report.ok
    assert {(c.split, c.modality) for c in report.counts if c.absent} == {(s, "skeletons") for s in FRAMES}
    assert report.tracklets_without_skeleton == 0
    assert "absent" in report.text()


def test_a_modality_that_lacks_one_split_is_a_problem_for_every_file_of_it(root: Path) -> None:
    shutil.rmtree(root / "bbox_test_mask")
    report = look(root)
    assert report.num_problems == FRAMES["test"]
    assert not any(count.absent for count in report.counts)
    assert found(report)["test", "masks"] == (0, 0)


def test_tables_without_any_folder_are_not_ok(tmp_path: Path) -> None:
    report = look(write_tables(tmp_path))
    assert report.num_problems == 1
    assert report.problems[0].sentence == f"{tmp_path}: holds no folder of frames, masks or skeletons"


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_frames_in_which_nobody_was_found_are_counted_and_no_problem(root: Path, value: float) -> None:
    table = read_mars(root)
    for row, frame in ((0, 0), (0, 1), (2, 3)):
        scipy.io.savemat(table.path(row, frame, "skeletons"), {"new_joint": np.full((14, 4), value)})
    report = look(root)
    assert report.ok
    assert report.frames_without_skeleton == 3
    assert report.tracklets_without_skeleton == 1, "row 0 has no other frame"


def test_tracklets_whose_skeletons_are_all_missing_are_counted(root: Path) -> None:
    table = read_mars(root)
    for frame in range(3):
        table.path(1, frame, "skeletons").unlink()
    table.path(2, 0, "skeletons").unlink()
    for report in (look(root), look(root, decode=False)):
        assert (report.tracklets_without_skeleton, report.num_problems) == (1, 4)


def test_skeletons_whose_heads_are_below_their_feet_are_told(walkers: Path, tmp_path: Path) -> None:
    table = read_mars(walkers)
    names = []
    for row in range(3):
        skeletons_FV4 = read_skeletons(table, row, range(8)) * np.array([1, -1 if row < 2 else 1, 1, 1], np.float32)
        np.save(tmp_path / f"{row}.npy", skeletons_FV4)
        names.append(Entry(str(row), str(row), "a", "train", "", skeleton=f"{row}.npy"))
    write_entries(tmp_path / "walks.csv", names)
    report = look(tmp_path / "walks.csv")
    assert report.upside_down == 2
    assert report.ok
    assert "tracklets with heads below feet, where y is down: 2\n" in report.text()
    assert "heads below feet" not in look(walkers).text()


def test_a_mask_of_another_size_is_counted_and_named(root: Path) -> None:
    path = read_mars(root).path(5, 2, "masks")
    path.write_bytes(cv2.imencode(".png", np.zeros((10, 8), np.uint8))[1].tobytes())
    report = look(root)
    assert report.size_mismatches == report.num_problems == 1
    assert report.problems[0].path == path
    assert report.problems[0].sentence == f"mask {path}: is 10x8, wanted 16x8 like its frame"
    assert found(report)["test", "masks"] == (FRAMES["test"], 0), "it is readable"


def test_masks_can_be_checked_where_frames_are_absent_or_broken(root: Path) -> None:
    read_mars(root).path(0, 0, "frames").write_bytes(b"x")
    assert look(root).num_problems == 1
    for split in FRAMES:
        shutil.rmtree(root / f"bbox_{split}")
    assert look(root).ok


def resort(root: Path, split: str) -> Path:
    """Put a name list into another order, as a file system or a tool might."""
    path = root / "info" / f"{split}_name.txt"
    path.write_text("\n".join(sorted(path.read_text().split(), reverse=True)))
    return path


def test_a_resorted_name_list_is_found_though_every_file_exists(root: Path) -> None:
    path = resort(root, "train")
    for report in (look(root), look(root, decode=False)):
        assert not report.ok
        assert report.mislabelled == report.num_problems == 4, "5 before 3: all rows but none of the test table"
        assert {problem.path for problem in report.problems} == {path}
        assert report.problems[0].sentence == (
            f"{path}: 0005C4T0001F001 belongs to row 1 of the train table, wanted a name with 0003"
        )
        assert "disagree on the identity: 4" in report.text()


def test_junk_and_distractors_are_checked_by_their_own_names(root: Path) -> None:
    resort(root, "test")
    told = [problem.sentence.split("wanted")[1] for problem in look(root).problems]
    assert told[:2] == [" a name with 00-1", " a name with 0000"]


def test_one_wrong_name_within_a_tracklet_is_enough(root: Path) -> None:
    path = root / "info" / "train_name.txt"
    names = path.read_text().split()
    names[1], names[5] = names[5], names[1]
    path.write_text("\n".join(names))
    report = look(root)
    assert report.mislabelled == 2
    assert "0005C1T0001F001 belongs to row 1" in report.problems[0].sentence
    assert "0003C1T0001F002 belongs to row 3" in report.problems[1].sentence


def test_many_problems_are_all_counted_and_the_first_told(root: Path) -> None:
    for split in FRAMES:
        for path in (root / f"bbox_{split}").glob("*/*.jpg"):
            path.unlink()
        for path in (root / f"bbox_{split}_mask").glob("*/*.png"):
            path.write_bytes(b"x")
    report = look(root)
    assert report.num_problems == 2 * sum(FRAMES.values()) > KEPT
    assert len(report.problems) == KEPT
    assert report.problems[0].path == read_mars(root).path(0, 0, "frames")
    assert f"problems: {report.num_problems}, the first {KEPT}:" in report.text()


def test_the_text_is_an_aligned_table_and_the_problems(root: Path) -> None:
    path = read_mars(root).path(2, 1, "frames")
    path.unlink()
    lines = look(root).text().splitlines()
    assert lines[0].split() == ["split", "modality", "promised", "found", "unreadable"]
    assert lines[1].split() == ["train", "frames", "10", "9", "0"]
    assert lines[6].split() == ["test", "skeletons", "8", "8", "0"]
    assert len({len(line) for line in lines[:7]}) == 1
    assert lines[-2:] == ["problems: 1", f"  frame {path}: no such file"]


def test_a_report_cannot_be_changed(root: Path) -> None:
    with pytest.raises(AttributeError):
        look(root).num_problems = 0  # type: ignore[misc]


def test_unusable_tables_stop_the_check(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train_name\.txt"):
        check_dataset(tmp_path)
    root = write_tables(tmp_path, query=[99])
    with pytest.raises(DataError, match="query_IDX"):
        check_dataset(root)


LENGTHS = {"anna-1": 3, "anna-2": 2, "berta-1": 4}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three tracklets with frames, masks and skeletons: of two in one array each, of the last in a file a frame."""
    for name, length in LENGTHS.items():
        skeletons = np.random.default_rng(length).normal(size=(length, 14, 4))
        for kind, ending in (("frames", ".png"), ("masks", ".png"), ("skeletons", ".mat")):
            folder = tmp_path / kind / name
            folder.mkdir(parents=True)
            for frame in range(length):
                path = folder / f"{frame}{ending}"
                if kind == "skeletons" and name == "berta-1":
                    scipy.io.savemat(path, {"new_joint": skeletons[frame]})
                elif kind != "skeletons":
                    cv2.imwrite(str(path), np.repeat([[255], [0]], [3, 3], axis=0).repeat(4, axis=1).astype(np.uint8))
        np.save(tmp_path / "skeletons" / f"{name}.npy", skeletons)
    entries = [
        Entry(
            name,
            name.split("-")[0],
            name,
            "query" if name == "berta-1" else "train",
            f"frames/{name}",
            f"masks/{name}",
            f"skeletons/{name}" + ("" if name == "berta-1" else ".npy"),
        )
        for name in LENGTHS
    ]
    write_entries(tmp_path / "m.csv", entries)
    return tmp_path / "m.csv"


@pytest.mark.parametrize("decode", [True, False])
def test_a_complete_manifest_is_ok_also_with_skeletons_in_one_array(manifest: Path, decode: bool) -> None:
    report = look(manifest, decode)
    assert report.ok
    assert found(report) == {
        (split, modality): (count, 0)
        for split, count in (("train", 5), ("test", 4))
        for modality in ("frames", "masks", "skeletons")
    }
    assert (report.tracklets, report.mislabelled, report.tracklets_without_skeleton) == (3, 0, 0)


def test_what_is_missing_or_broken_of_a_manifest_is_named(manifest: Path) -> None:
    table = read_dataset(manifest)
    frame, mask, skeletons = table.path(0, 2, "frames"), table.path(2, 0, "masks"), table.path(2, 1, "skeletons")
    frame.write_bytes(b"x")
    mask.unlink()
    skeletons.unlink()
    report = look(manifest)
    assert [problem.path for problem in report.problems] == [frame, mask, skeletons]
    assert found(report)["train", "frames"] == (5, 1)
    assert found(report)["test", "masks"] == (3, 0)
    assert found(report)["test", "skeletons"] == (3, 0)


def test_arrays_of_skeletons_that_are_missing_or_of_another_length_are_named(manifest: Path) -> None:
    missing, short = (manifest.parent / "skeletons" / f"anna-{number}.npy" for number in (1, 2))
    missing.unlink()
    np.save(short, np.ones((1, 14, 4)))
    report = look(manifest)
    assert [problem.sentence for problem in report.problems] == [
        f"skeletons {missing}: no such file",
        f"skeletons {short}: is float64 (1, 14, 4), wanted (2, 14, 4) numbers",
    ]
    assert found(report)["train", "skeletons"] == (2, 2)
    assert report.tracklets_without_skeleton == 2


def test_frames_of_an_array_in_which_nobody_was_found_are_counted(manifest: Path) -> None:
    path = manifest.parent / "skeletons" / "anna-1.npy"
    skeletons = np.load(path)
    skeletons[0], skeletons[2, :, :3] = np.nan, 0
    np.save(path, skeletons)
    report = look(manifest)
    assert report.ok
    assert (report.frames_without_skeleton, report.tracklets_without_skeleton) == (2, 0)


def test_a_manifest_without_masks_and_skeletons_is_ok(manifest: Path) -> None:
    for kind in ("masks", "skeletons"):
        shutil.rmtree(manifest.parent / kind)
    report = look(manifest)
    assert report.ok
    assert {count.modality for count in report.counts if count.absent} == {"masks", "skeletons"}
