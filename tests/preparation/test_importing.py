"""What people have already, brought in by one command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.handmade import write_files
from helpers.keypoints import seen_by_kinect, upright
from helpers.networks import frames_only
from numpy.typing import NDArray

from sptskm import cli
from sptskm.common.endings import EXIT_BAD_INPUT
from sptskm.data import read_mars
from sptskm.data.check import check_dataset
from sptskm.data.derived import HOME
from sptskm.data.files import read_mask, read_skeleton
from sptskm.preparation.formats import results_from
from sptskm.preparation.layouts import LAYOUTS
from sptskm.preparation.parsing import COLOURS

ORDER = np.random.default_rng(1).permutation(25)
TORSO = [(0, -1.6, 0.1, 0.9), *[(0.1 * j, -1.5 + 0.1 * j, 0.0, 0.8) for j in range(1, 14)]]


@pytest.fixture
def frames(walkers: Path, tmp_path: Path) -> Path:
    return frames_only(walkers, tmp_path / "data")


def bring(made: str, data: Path, place: Path, *words: str) -> int:
    return cli.main(["prepare", made, "--data", str(data), "--from", str(place), *words])


@pytest.mark.parametrize("kind", ["labels", "colours", "binary", "silhouette"])
def test_masks_of_every_kind_become_those_that_training_reads(
    walkers: Path, frames: Path, tmp_path: Path, kind: str
) -> None:
    table, theirs = read_mars(walkers), tmp_path / "theirs"
    for row in range(len(table)):
        for frame in range(table.lengths[row]):
            own = table.path(row, frame, "masks")
            person_HW = read_mask(own) > 0
            folder = theirs / own.parent.name if kind == "labels" else theirs
            folder.mkdir(parents=True, exist_ok=True)
            if kind == "colours":
                image = np.where(person_HW[..., None], np.uint8(COLOURS[5]), np.uint8(0))[..., ::-1]
                cv2.imwrite(str(folder / f"{own.stem}_vis.png"), image)
            else:
                value = {"labels": 13, "binary": 1, "silhouette": 255}[kind]
                cv2.imwrite(str(folder / own.name), np.where(person_HW, np.uint8(value), np.uint8(0)))
    assert bring("masks", frames, theirs, "--kind", kind) == 0
    found = read_mars(frames)
    for row in (0, len(table) // 2, len(table) - 1):
        np.testing.assert_array_equal(read_mask(found.path(row, 0, "masks")), read_mask(table.path(row, 0, "masks")))


def test_a_mask_that_is_missing_and_one_of_another_size_are_named(
    walkers: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, theirs = read_mars(walkers), tmp_path / "theirs"
    theirs.mkdir()
    for row in range(len(table)):
        for frame in range(table.lengths[row]):
            shutil.copy(table.path(row, frame, "masks"), theirs)
    missing, small = (table.path(row, 0, "masks") for row in (1, 2))
    (theirs / missing.name).unlink()
    cv2.imwrite(str(theirs / small.name), np.zeros((4, 2), np.uint8))
    assert bring("masks", frames, theirs, "--kind", "binary") == EXIT_BAD_INPUT
    out = capsys.readouterr().out
    assert f"has no {missing.stem} with .png or" in out
    assert "is 4x2, wanted" in out
    assert cli.main(["prepare", "masks", "--data", str(frames), "--verify"]) == EXIT_BAD_INPUT


def test_images_of_a_list_of_results_that_are_no_frame_are_told(
    frames: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [*read_mars(frames).stems(0), "door-1", "door-2"]
    points = np.random.default_rng(0).uniform(0.1, 0.9, 51).tolist()
    path = tmp_path / "coco.json"
    path.write_text(json.dumps([{"file_name": f"{name}.jpg", "keypoints": points} for name in names]))
    bring("skeletons", frames, path, "--layout", "coco-17")
    assert f"{path}: 2 of {len(names)} images are no frame of the data set (door-1)" in "".join(capfd.readouterr())


def test_openpose_files_coco_results_and_one_file_per_tracklet_become_skeletons(frames: Path, tmp_path: Path) -> None:
    table = read_mars(frames)
    openpose, coco, whole = (tmp_path / name for name in ("openpose", "coco.json", "whole"))
    openpose.mkdir()
    whole.mkdir()
    results = []
    for row in range(len(table)):
        points = upright(np.random.default_rng(row).uniform(1, 100, (int(table.lengths[row]), 25, 3)), "openpose-25")
        points[:, 13:17, 1] += 1000  # the legs of COCO; two of them are eyes to OpenPose
        points[..., 2] = 0.5
        np.save(whole / f"{table.stems(row)[0]}.npy", points)
        for frame, stem in enumerate(table.stems(row)):
            people = [{"pose_keypoints_2d": points[frame].ravel().tolist()}]
            (openpose / f"{stem}_keypoints.json").write_text(json.dumps({"people": people}))
            flat = points[frame, :17].ravel().tolist()
            results.append({"file_name": f"{stem}.jpg", "keypoints": flat, "score": 1.0})
    coco.write_text(json.dumps(results))
    found = {}
    for place, layout in ((openpose, "openpose-25"), (whole, "openpose-25"), (coco, "coco-17")):
        assert bring("skeletons", frames, place, "--layout", layout) == 0
        found[place] = read_skeleton(table.path(3, 1, "skeletons"))
        for folder in (*frames.glob("*_joint3d"), frames / HOME):
            shutil.rmtree(folder)
    np.testing.assert_array_equal(found[openpose], found[whole])
    assert not found[openpose][:, 2].any(), "no depth"
    wanted = np.random.default_rng(3).uniform(1, 100, (int(table.lengths[3]), 25, 3))[1]
    np.testing.assert_allclose(found[openpose][[0, 1], :2], wanted[[0, 1], :2], rtol=1e-6)
    np.testing.assert_allclose(found[coco][0, :2], wanted[0, :2], rtol=1e-6)


def test_a_frame_without_key_points_is_named_and_has_no_skeleton(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, theirs = read_mars(frames), tmp_path / "theirs"
    theirs.mkdir()
    np.save(theirs / f"{table.stems(0)[0]}.npy", np.array(TORSO))
    assert bring("skeletons", frames, theirs, "--layout", "14", "--channels", "xyzc") == EXIT_BAD_INPUT
    out = capsys.readouterr().out
    assert f"1 skeletons imported, 0 were there, {table.lengths.sum() - 1} failed" in out
    assert f"{theirs}: has no key points of {table.stems(0)[1]}" in out
    assert not table.path(0, 1, "skeletons").exists()
    np.testing.assert_allclose(read_skeleton(table.path(0, 0, "skeletons")), TORSO, rtol=1e-6)


@pytest.mark.parametrize(
    ("made", "words", "sentence"),
    [
        ("masks", [], "--kind is missing: what the masks are is not guessed"),
        ("skeletons", [], "--layout is missing: the order of the key points is not guessed"),
        ("skeletons", ["--layout", "coco-18"], "layout 'coco-18' with channels 'xyc' is unknown, wanted a layout of"),
    ],
)
def test_what_is_not_said_or_unknown_is_refused_in_one_sentence(
    frames: Path, tmp_path: Path, made: str, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs.json").write_text("[]")
    assert bring(made, frames, tmp_path / "theirs.json", *words) == EXIT_BAD_INPUT
    assert sentence in capsys.readouterr().err


def write_openpose(data: Path, place: Path, points_KC: NDArray[np.float64]) -> list[str]:
    """The same person in every frame of a data set; the names of the frames."""
    place.mkdir()
    people = {"people": [{"pose_keypoints_2d": points_KC.ravel().tolist()}]}
    stems = [path.stem for path in data.glob("bbox_*/*/*.jpg")]
    for stem in stems:
        (place / f"{stem}_keypoints.json").write_text(json.dumps(people))
    return stems


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A small data set of frames alone."""
    root = write_files(tmp_path / "few")
    for folder in (*root.glob("*_mask"), *root.glob("*_joint3d")):
        shutil.rmtree(folder)
    return root


@pytest.mark.parametrize(
    ("gone", "counts"),
    [
        ([4], "a whole skeleton 0, a partial one {n}, without one 0"),
        ([0, 15, 16], "a whole skeleton {n}, a partial one 0, without one 0"),
        ([0, 15, 16, 17, 18], "a whole skeleton 0, a partial one {n}, without one 0"),
        ([0, 1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 18], "a whole skeleton 0, a partial one 0, without one {n}"),
    ],
)
def test_joints_that_openpose_did_not_see_are_masked_and_the_frame_stays(
    few: Path, tmp_path: Path, gone: list[int], counts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points = upright(np.random.default_rng(0).uniform(20, 100, (25, 3)), "openpose-25")
    points[:, 2] = 0.8
    points[gone] = 0
    stems = write_openpose(few, tmp_path / "theirs", points)
    assert bring("skeletons", few, tmp_path / "theirs", "--layout", "openpose-25") == 0
    assert counts.format(n=len(stems)) in capsys.readouterr().out
    report, usable = check_dataset(few, workers=1), not counts.endswith("{n}")
    assert report.frames_without_skeleton == (0 if usable else len(stems))
    assert report.partial_skeletons == (len(stems) if "partial one {n}" in counts else 0)
    if usable:
        skeleton = read_skeleton(read_mars(few).path(0, 0, "skeletons"))
        assert np.isfinite(skeleton).all()
        assert (skeleton[:, 3] == 0).sum() == ("partial one {n}" in counts)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--layout", "openpose-25"],
            "the confidence 3.5 as --channels xyc says, wanted 0 to 1; key points in space",
        ),
        (["--layout", "kinect-25"], "--channels is missing: key points of kinect-25 usually have a depth"),
        (["--layout", "kinect-25", "--channels", "xyc"], "have the confidence 3.5 as --channels xyc says"),
    ],
)
def test_depths_are_not_taken_for_confidences(
    few: Path, tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    table = read_mars(few)
    for row in range(len(table)):
        points = seen_by_kinect("kinect-25", int(table.lengths[row]), row)
        points[..., 2] += 3.5 - points[0, 0, 2]
        np.save(theirs / f"{table.stems(row)[0]}.npy", points)
    assert bring("skeletons", few, theirs, *words) == EXIT_BAD_INPUT
    assert sentence in capsys.readouterr().err
    assert bring("skeletons", few, theirs, "--layout", "kinect-25", "--channels", "xyz") == 0


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (lambda points: points * [1, -1, 1], "in 8 of 8 walks the feet lie from the head toward -y as kinect-25 has"),
        (lambda points: points[:, ORDER], "is the order of the points kinect-25?"),
        (
            lambda points: np.where(np.abs(points) == 0.5, -1, points),
            "points have the coordinates -1, -1, -1, wanted NaN",
        ),
    ],
)
def test_key_points_of_other_axes_or_orders_are_refused_before_a_skeleton_is_written(
    few: Path,
    tmp_path: Path,
    what: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    theirs, table = tmp_path / "theirs", read_mars(few)
    theirs.mkdir()
    for row in range(len(table)):
        points = seen_by_kinect("kinect-25", int(table.lengths[row]), row)
        np.save(theirs / f"{table.stems(row)[0]}.npy", what(points))
    assert bring("skeletons", few, theirs, "--layout", "kinect-25", "--channels", "xyz") == EXIT_BAD_INPUT
    assert sentence in capsys.readouterr().err
    assert not list(few.glob("*_joint3d"))
    assert not (few / HOME).exists()


def test_single_frames_of_a_noisy_estimator_are_of_people_and_size_is_not_told_without_legs(
    few: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs, table, rng = tmp_path / "theirs", read_mars(few), np.random.default_rng(0)
    theirs.mkdir()
    legs = [place for place, name in enumerate(LAYOUTS["kinect-25"]) if name.endswith(("knee", "ankle"))]
    for row in range(len(table)):
        points = seen_by_kinect("kinect-25", int(table.lengths[row]), row)[:1] + rng.normal(0, 0.08, (1, 25, 3))
        points[:, legs] = np.nan
        np.save(theirs / f"{table.stems(row)[0]}.npy", points)
    with caplog.at_level("INFO"):
        bring("skeletons", few, theirs, "--layout", "kinect-25", "--channels", "xyz")
    assert read_mars(few).path(0, 0, "skeletons").exists()
    assert "sum to" not in caplog.text


def test_a_file_of_too_few_frames_is_one_failure(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, table = tmp_path / "theirs", read_mars(few)
    theirs.mkdir()
    for row in range(len(table)):
        length = int(table.lengths[row]) - (row == 2)
        points = upright(np.random.default_rng(row).uniform(0.1, 1, (length, 14, 3)), "14")
        np.save(theirs / f"{table.stems(row)[0]}.npy", points)
    assert bring("skeletons", few, theirs, "--layout", "14") == EXIT_BAD_INPUT
    out = capsys.readouterr().out
    assert ", 1 failed (4 files)" in out
    assert out.count("3 frames, wanted 1, or 4 for the tracklet") == 1
    assert "(and 3 others)" in out


def test_a_score_that_is_no_number_says_nothing_for_a_person(tmp_path: Path) -> None:
    one, other = ([x, 20, 0.5] * 17 for x in (10, 500))
    for scores in (("NaN", "0.9"), ("0.9", "NaN")):
        people = zip((one, other) if scores[0] == "NaN" else (other, one), scores, strict=True)
        entries = [f'{{"image_id": "a.jpg", "keypoints": {points}, "score": {score}}}' for points, score in people]
        (tmp_path / "x.json").write_text(f"[{', '.join(entries)}]")
        assert results_from(tmp_path / "x.json", "coco-17", "xyc")["a"][0, 0] == 500
