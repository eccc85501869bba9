"""Masks and skeletons know which frames and which method they were made of."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.handmade import write_files
from helpers.keypoints import upright

from sptskm import cli
from sptskm.common.endings import EXIT_BAD_INPUT
from sptskm.data import Tracklets, read_dataset, read_mars
from sptskm.data.check import check_dataset
from sptskm.data.derived import (
    HOME,
    MADE_OF,
    SETTINGS,
    describe_method,
    fingerprint_frames,
    method_differences,
    read_derived,
    write_frames,
)
from sptskm.preparation.formats import write_mask, write_skeleton
from sptskm.preparation.parsing import COLOURS
from sptskm.preparation.work import Maker, prepare_shard

GRABCUT = {"method": "grabcut"}


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A data set of a few small frames with different content, before anything was prepared."""
    root = write_files(tmp_path / "data", (32, 16))
    for kind in ("mask", "joint3d"):
        for part in ("train", "test"):
            shutil.rmtree(root / f"bbox_{part}_{kind}")
    for number, path in enumerate(sorted(root.glob("bbox_*/*/*.jpg"))):
        cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 255, (32, 16, 3), np.uint8))
    return root


@pytest.fixture
def labels(frames: Path, tmp_path: Path) -> Path:
    """Label images of all frames, of which nothing but the kind `labels` is right."""
    table, place = read_mars(frames), tmp_path / "labels"
    place.mkdir()
    for path in (table.path(row, f, "frames") for row in range(len(table)) for f in range(table.lengths[row])):
        image = np.zeros(cv2.imread(str(path)).shape[:2], np.uint8)
        image[5:-5, 3:-3] = 7
        cv2.imwrite(str(place / f"{path.stem}.png"), image)
    return place


def masks(data: Path, *words: object) -> int:
    return cli.main(["prepare", "masks", "--data", str(data), *map(str, words)])


def film_again(table: Tracklets, row: int) -> None:
    """Give a tracklet other frames of the same names and sizes."""
    for frame in range(table.lengths[row]):
        path = table.path(row, frame, "frames")
        cv2.imwrite(str(path), cv2.imread(str(path))[:, ::-1])


def test_masks_whose_frames_were_replaced_are_named_by_check_and_made_again_alone(
    frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert masks(frames, "--method", "grabcut") == 0
    assert check_dataset(frames, workers=1).ok
    table = read_mars(frames)
    film_again(table, 2)
    report = check_dataset(frames, workers=1)
    (problem,) = report.problems
    assert problem.sentence.startswith(f"masks of tracklet {table.keys_N[2]} in ")
    assert "were made of other frames" in problem.sentence
    assert masks(frames, "--verify") == EXIT_BAD_INPUT
    assert f"masks were made of: {table.keys_N[2]};" in capsys.readouterr().out
    untouched, replaced = (table.path(row, 0, "masks").stat().st_mtime_ns for row in (1, 2))
    assert masks(frames, "--method", "grabcut") == 0
    number = table.lengths[2]
    assert re.search(f"^{number} masks made, .* 0 failed; {number} of other frames", capsys.readouterr().out)
    assert table.path(1, 0, "masks").stat().st_mtime_ns == untouched
    assert table.path(2, 0, "masks").stat().st_mtime_ns != replaced
    assert check_dataset(frames, workers=1).ok
    assert masks(frames, "--verify") == 0


def test_frames_that_are_only_touched_or_copied_elsewhere_leave_everything_valid(frames: Path, tmp_path: Path) -> None:
    assert masks(frames, "--method", "grabcut") == 0
    moved = Path(shutil.copytree(frames, tmp_path / "elsewhere", copy_function=shutil.copyfile))
    assert check_dataset(moved, workers=1).ok
    film_again(read_mars(moved), 0)
    assert not check_dataset(moved, workers=1).ok


def test_a_pack_keeps_the_record_and_gives_it_back(frames: Path, tmp_path: Path) -> None:
    assert masks(frames, "--method", "grabcut") == 0
    pack, files = tmp_path / "pack", tmp_path / "files"
    assert cli.main(["pack", str(frames), str(pack), "--workers", "1"]) == 0
    assert read_dataset(pack).derived.methods == {"masks": GRABCUT}
    assert check_dataset(pack, workers=1).ok
    assert cli.main(["pack", str(pack), "--verify"]) == 0
    assert cli.main(["unpack", str(pack), str(files)]) == 0
    assert read_dataset(files).derived.methods == {"masks": GRABCUT}
    assert check_dataset(files, workers=1).ok
    film_again(read_mars(files), 1)
    assert check_dataset(files, workers=1).num_problems == 1


def test_masks_that_were_replaced_with_their_frames_are_accepted_without_their_record(frames: Path) -> None:
    assert masks(frames, "--method", "grabcut") == 0
    film_again(read_mars(frames), 0)
    (problem,) = check_dataset(frames, workers=1).problems
    record = Path(problem.sentence.rpartition(", remove ")[2])
    assert record.is_file()
    record.unlink()
    assert check_dataset(frames, workers=1).ok


def test_a_pack_of_stale_masks_is_called_stale(frames: Path, tmp_path: Path) -> None:
    assert masks(frames, "--method", "grabcut") == 0
    film_again(read_mars(frames), 1)
    assert cli.main(["pack", str(frames), str(tmp_path / "pack"), "--workers", "1"]) == 0
    assert "made of other frames" in check_dataset(tmp_path / "pack", workers=1).text()


def test_what_somebody_brought_has_no_method_and_is_accepted(tmp_path: Path) -> None:
    data = write_files(tmp_path / "data")
    film_again(read_mars(data), 0)
    assert read_dataset(data).derived.methods == {}
    assert check_dataset(data, workers=1).ok
    assert masks(data, "--method", "grabcut") == 0
    assert read_dataset(data).derived.methods == {}, "nothing was made, so nothing is claimed"


def test_check_tells_the_methods(frames: Path, tmp_path: Path) -> None:
    assert masks(frames, "--method", "grabcut") == 0
    assert "\nmasks by grabcut\n" in check_dataset(frames, workers=1).text()
    brought = check_dataset(write_files(tmp_path / "brought"), workers=1).text()
    assert "\nmasks by an unknown method; skeletons by an unknown method\n" in brought


def test_a_method_that_makes_both_leaves_masks_that_somebody_brought(tmp_path: Path) -> None:
    data = write_files(tmp_path / "data")
    for folder in data.glob("*_joint3d"):
        shutil.rmtree(folder)
    brought = {path: path.read_bytes() for path in data.glob("*_mask/*/*.png")}
    results = {"masks": np.zeros((16, 8), np.uint8), "skeletons": np.ones((14, 4), np.float32)}
    method = Maker(
        {"masks": write_mask, "skeletons": write_skeleton},
        lambda frames, _: [results] * len(frames),  # type: ignore[arg-type,return-value]
        {"method": "both"},
    )
    outcome = prepare_shard(data, read_dataset(data), method)
    assert (outcome.made, outcome.kept) == (18, 18)
    assert {path: path.read_bytes() for path in brought} == brought
    assert read_dataset(data).derived.methods == {"skeletons": {"method": "both"}}


def test_a_killed_run_leaves_masks_that_know_their_frames(frames: Path) -> None:
    assert masks(frames, "--method", "grabcut") == 0
    table = read_mars(frames)
    table.path(2, 1, "masks").unlink()
    film_again(table, 2)
    kept = table.path(2, 0, "masks").stat().st_mtime_ns
    assert masks(frames, "--method", "grabcut") == 0
    assert table.path(2, 0, "masks").stat().st_mtime_ns != kept, (
        "the other masks of the tracklet were of old frames as well"
    )


def test_an_import_with_the_wrong_kind_makes_nothing_and_claims_nothing(frames: Path, labels: Path) -> None:
    assert masks(frames, "--from", labels, "--kind", "colours") == EXIT_BAD_INPUT
    assert not (frames / HOME / "masks" / SETTINGS).exists()
    assert not (frames / HOME / "masks" / MADE_OF).exists()
    assert masks(frames, "--from", labels, "--kind", "labels") == 0
    assert read_dataset(frames).derived.methods == {"masks": {"method": "imported", "as": "labels"}}


@pytest.mark.parametrize("words", [("--layout", "openpose25"), ("--layout", "openpose-25", "--channels", "xyk")])
def test_a_typo_in_the_layout_claims_nothing(frames: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    points = upright(np.random.default_rng(0).uniform(20, 100, (25, 3)), "openpose-25")
    points[:, 2] = 0.8
    people = {"people": [{"pose_keypoints_2d": points.ravel().tolist()}]}
    place = tmp_path / "points"
    place.mkdir()
    for path in frames.glob("bbox_*/*/*.jpg"):
        (place / f"{path.stem}_keypoints.json").write_text(json.dumps(people))
    command = ["prepare", "skeletons", "--data", str(frames), "--from", str(place)]
    assert cli.main([*command, *words]) == EXIT_BAD_INPUT
    assert not (frames / HOME / "skeletons" / SETTINGS).exists()
    assert cli.main([*command, "--layout", "openpose-25"]) == 0


def test_a_claim_of_which_no_result_is_left_stands_in_nobody_s_way(frames: Path) -> None:
    assert masks(frames, "--method", "grabcut") == 0
    for folder in frames.glob("bbox_*_mask"):
        shutil.rmtree(folder)
    colours = frames.parent / "colours"
    colours.mkdir()
    for path in frames.glob("bbox_*/*/*.jpg"):
        shape = cv2.imread(str(path)).shape
        cv2.imwrite(str(colours / f"{path.stem}_vis.png"), np.full(shape, COLOURS[5][::-1], np.uint8))
    assert masks(frames, "--from", colours, "--kind", "colours") == 0


def test_a_broken_record_is_one_sentence_that_names_it(frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert masks(frames, "--method", "grabcut") == 0
    settings = frames / HOME / "masks" / SETTINGS
    for content in (b"{", b"[]", b"\xff\xfe"):
        settings.write_bytes(content)
        assert cli.main(["check", str(frames), "--workers", "1"]) == EXIT_BAD_INPUT
        assert str(settings) in capsys.readouterr().err


@pytest.mark.parametrize("key", ["anna/1", "\u5f20\u4f1f", "door\udcff", "x" * 300])
def test_a_record_is_found_again_whatever_a_tracklet_is_called(tmp_path: Path, key: str) -> None:
    folder = tmp_path / "masks" / "somewhere"
    write_frames(tmp_path, "masks", folder, key, "1a2b")
    assert read_derived(tmp_path).frames("masks", folder, key) == "1a2b"
    assert read_derived(tmp_path).frames("skeletons", folder, key) is None
    assert read_derived(tmp_path).frames("masks", tmp_path, key) is None


def test_fingerprints_are_of_bytes_in_their_order() -> None:
    assert fingerprint_frames([b"ab", b"c"]) == fingerprint_frames([b"ab", b"c"])
    assert (
        len({fingerprint_frames(f) for f in ([b"ab", b"c"], [b"a", b"bc"], [b"c", b"ab"], [b"ab", None], [b"ab", b""])})
        == 5
    )


def test_methods_are_told_in_words_and_unknown_ones_differ_from_none() -> None:
    one = {"method": "jppnet", "weights": "1a", "precision": "float32"}
    assert describe_method(one) == "jppnet (weights 1a, precision float32)"
    assert method_differences({"masks": one}, {}) == method_differences({"masks": one}, {"masks": one}) == ""
    assert method_differences({"masks": one}, {"masks": GRABCUT}) == (
        "masks by jppnet (weights 1a, precision float32) and by grabcut"
    )
