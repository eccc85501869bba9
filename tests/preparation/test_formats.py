"""What people already have, read; and what training reads, written.

Shapes: H rows, W columns, F frames, K key points, C channels, V = 14 joints, 4 = x, y, z, confidence.
"""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.io
from helpers.oracles import needs_shared, oracle
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.data.files import read_mask, read_skeleton
from sptskm.data.skeletons import JOINTS, normalise
from sptskm.preparation.formats import (
    MaskKind,
    mask_from,
    points_from,
    results_from,
    write_mask,
    write_skeleton,
)
from sptskm.preparation.layouts import LAYOUTS, to_joints
from sptskm.preparation.parsing import COLOURS

SIZE = (12, 8)
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]


def person() -> Bytes:
    """(H, W) of 0 and 255, off the borders."""
    mask = np.zeros(SIZE, np.uint8)
    mask[2:10, 3:6] = 255
    return mask


def saved(path: Path, image: NDArray[Any]) -> Path:
    """Whatever OpenCV makes of the array and the ending; colours are blue, green, red."""
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def labels() -> Bytes:
    """A label map whose person is that of `person`, with all 19 labels."""
    found = np.zeros(SIZE, np.uint8)
    found[person() > 0] = np.arange(24) % 19 + 1
    return found


def test_labels_are_a_person_wherever_they_are_not_background(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", labels())
    np.testing.assert_array_equal(mask_from(path, "labels", SIZE), person())
    assert not read_mask(path).any(), "the same file as a mask would be empty"


def test_labels_in_three_equal_channels_are_labels(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.dstack([labels()] * 3))
    np.testing.assert_array_equal(mask_from(path, "labels", SIZE), person())


def test_the_colours_of_labels_are_read_back_as_a_person(tmp_path: Path) -> None:
    path = saved(tmp_path / "a_vis.png", np.array(COLOURS, np.uint8)[labels()][..., ::-1])
    np.testing.assert_array_equal(mask_from(path, "colours", SIZE), person())
    assert np.any(read_mask(path) != person()), "the same file as a mask would lose dress and face"


@pytest.mark.parametrize("kind", ["binary", "silhouette"])
@pytest.mark.parametrize(("dark", "light"), [(0, 1), (0, 255), (40, 90), (254, 255)])
def test_of_two_values_the_lighter_is_the_person(tmp_path: Path, kind: MaskKind, dark: int, light: int) -> None:
    image = np.where(person() > 0, light, dark).astype(np.uint8)
    np.testing.assert_array_equal(mask_from(saved(tmp_path / "a.png", image), kind, SIZE), person())


def test_two_colours_are_two_values(tmp_path: Path) -> None:
    image = np.where(person()[..., None] > 0, (0, 255, 255), (60, 0, 0)).astype(np.uint8)
    np.testing.assert_array_equal(mask_from(saved(tmp_path / "a.png", image), "binary", SIZE), person())


@pytest.mark.parametrize(("value", "wanted"), [(0, 0), (255, 255), (1, 255)])
def test_one_value_is_an_empty_or_a_full_mask(tmp_path: Path, value: int, wanted: int) -> None:
    path = saved(tmp_path / "a.png", np.full(SIZE, value, np.uint8))
    np.testing.assert_array_equal(mask_from(path, "binary", SIZE), wanted)


def test_a_jpeg_of_a_mask_is_thresholded_as_the_published_reader_does(tmp_path: Path) -> None:
    mask = np.kron(person(), np.ones((7, 7), np.uint8))  # borders within JPEG's blocks
    path = saved(tmp_path / "a.jpg", mask)
    assert len(np.unique(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))) > 2
    found = mask_from(path, "silhouette", mask.shape)
    np.testing.assert_array_equal(found, read_mask(path))
    assert (found != mask).mean() < 0.02


@pytest.mark.parametrize("kind", ["binary", "silhouette"])
def test_inverting_exchanges_person_and_background(tmp_path: Path, kind: MaskKind) -> None:
    path = saved(tmp_path / "a.png", 255 - person())
    np.testing.assert_array_equal(mask_from(path, kind, SIZE, invert=True), person())


@pytest.mark.parametrize(("image", "invert", "hint"), [(255 - person(), False, "True"), (person(), True, "False")])
def test_an_inverted_silhouette_is_refused(tmp_path: Path, image: Bytes, invert: bool, hint: str) -> None:
    path = saved(tmp_path / "a.png", image)
    with pytest.raises(DataError) as error:
        mask_from(path, "silhouette", SIZE, invert=invert)
    assert str(error.value) == (
        f"mask {path}: 100% of its border is person, wanted at most half; invert={hint} exchanges both"
    )


def test_a_silhouette_may_touch_the_border(tmp_path: Path) -> None:
    for corner in (slice(0, 1), slice(-1, None)):
        mask = person()
        mask[:, corner] = 255
        mask[corner, 2:6] = 255  # 16 of 36 pixels of the border
        np.testing.assert_array_equal(mask_from(saved(tmp_path / "a.png", mask), "silhouette", SIZE), mask)


NOISE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "image", "kind", "told"),
    [
        ("a.png", labels() + 1, "labels", "holds the label 20, wanted 0 to 19"),
        ("a.jpg", labels(), "labels", "is a JPEG, which changes values, wanted labels in a PNG"),
        ("a.png", NOISE, "labels", "is a colour image, wanted labels 0 to 19, or the kind colours"),
        ("a.png", labels(), "binary", "holds 20 grey values, 0% of those above 30 being 225 or more, wanted two"),
        ("a.png", np.array(COLOURS, np.uint8)[labels()], "binary", "wanted two values, or black and white"),
        ("a.png", NOISE, "silhouette", "wanted two values, or black and white with soft borders"),
        (
            "a.png",
            labels() + 1,
            "colours",
            r"\(1, 1, 1\) at row 0, column 0 is no label's colour, wanted one of the 20",
        ),
        ("a.png", np.dstack([person()] * 4), "binary", "has 4 channels of uint8, wanted 1 or 3 of uint8"),
        ("a.png", person().astype(np.uint16), "binary", "has 1 channels of uint16, wanted 1 or 3 of uint8"),
        ("a.png", person()[:10], "binary", "is 10x8, wanted 12x8 like its frame"),
        ("a.png", person().T, "labels", "is 8x12, wanted 12x8 like its frame"),
    ],
)
def test_what_is_no_mask_of_its_kind_is_told_in_a_sentence(
    tmp_path: Path, name: str, image: Bytes, kind: MaskKind, told: str
) -> None:
    path = saved(tmp_path / name, image)
    with pytest.raises(DataError, match=told) as error:
        mask_from(path, kind, SIZE)
    assert str(error.value).startswith(f"mask {path}: ")


def test_files_that_cannot_be_read_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(FileNotFoundError, match=r"^mask .*a\.png: no such file$"):
        mask_from(path, "binary", SIZE)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="empty file"):
        mask_from(path, "binary", SIZE)
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="corrupt, not a readable image"):
        mask_from(path, "binary", SIZE)
    with pytest.raises(DataError, match="cannot be read"):
        mask_from(tmp_path, "binary", SIZE)


def test_unknown_kinds_and_inverted_labels_are_refused(tmp_path: Path) -> None:
    for kind, invert in (("alpha", False), ("labels", True), ("colours", True)):
        with pytest.raises(ValueError, match=f"kind '{kind}' with invert={invert} are unknown, wanted labels, colours"):
            mask_from(tmp_path, kind, SIZE, invert=invert)  # type: ignore[arg-type]


def test_a_written_mask_is_one_channel_and_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "0001C1T0001F001.png"
    write_mask(path, person())
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), person())
    np.testing.assert_array_equal(read_mask(path), person())
    assert list(tmp_path.iterdir()) == [path], "nothing temporary is left"


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (person() // 255, "holds the value 1, wanted 0 and 255"),
        (person() > 0, r"is bool \(12, 8\), wanted uint8 \(height, width\)"),
        (np.zeros((4, 4, 3), np.uint8), r"is uint8 \(4, 4, 3\), wanted"),
    ],
)
def test_another_array_is_not_written_as_a_mask(tmp_path: Path, mask: NDArray[Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        write_mask(tmp_path / "a.png", mask)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_written_skeleton_is_read_back_bit_for_bit(tmp_path: Path, dtype: type) -> None:
    skeleton = np.random.default_rng(0).normal(size=(14, 4)).astype(np.float32).astype(dtype)
    skeleton[3] = np.nan
    path = tmp_path / "0001C1T0001F001.mat"
    write_skeleton(path, skeleton)
    assert read_skeleton(path).tobytes() == skeleton.astype(np.float32).tobytes()
    assert scipy.io.loadmat(path)["new_joint"].dtype == dtype
    assert list(tmp_path.iterdir()) == [path]


def test_equal_skeletons_are_equal_files_on_any_day(tmp_path: Path) -> None:
    write_skeleton(tmp_path / "a.mat", np.ones((14, 4)))
    header = (tmp_path / "a.mat").read_bytes()[:128]
    assert b"Created on" not in header
    assert header.startswith(b"MATLAB 5.0 MAT-file")
    assert header[124:] == b"\x00\x01IM", "version and byte order as before"


@pytest.mark.parametrize("skeleton", [np.ones((16, 4)), np.ones((4, 14)), np.ones((14, 4), np.int64)])
def test_another_array_is_not_written_as_a_skeleton(tmp_path: Path, skeleton: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"wanted float32 or float64 \(14, 4\)"):
        write_skeleton(tmp_path / "a.mat", skeleton)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    write_mask(path, person())
    before = path.read_bytes()

    write_bytes = Path.write_bytes

    def full_disk(place: Path, content: bytes) -> None:
        write_bytes(place, content[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_mask(path, 255 - person())
    assert path.read_bytes() == before


def key_points(frames: int = 3, points: int = 14, channels: int = 4) -> Floats:
    """(F, K, C), all different and none 0, the last channel below 1."""
    values = np.random.default_rng(points).uniform(0.1, 0.9, (frames, points, channels))
    return np.round(values, 6)


@pytest.mark.parametrize("name", ["new_joint", "joints"])
@pytest.mark.parametrize(("layout", "points"), [("14", 14), ("mpii-16", 16)])
def test_mat_files_are_read_in_both_orientations(tmp_path: Path, name: str, layout: Any, points: int) -> None:
    wanted = key_points(1, points)
    for array in (wanted[0], wanted[0].T):
        scipy.io.savemat(tmp_path / "a.mat", {name: array})
        np.testing.assert_array_equal(points_from(tmp_path / "a.mat", layout, "xyzc"), wanted)


def test_of_both_variables_the_published_one_counts(tmp_path: Path) -> None:
    one, two = key_points(2)
    scipy.io.savemat(tmp_path / "a.mat", {"joints": one, "new_joint": two})
    np.testing.assert_array_equal(points_from(tmp_path / "a.mat", "14", "xyzc")[0], two)


@pytest.mark.parametrize("ending", ["npy", "json"])
def test_arrays_and_nested_lists_hold_a_frame_or_a_tracklet(tmp_path: Path, ending: str) -> None:
    wanted, path = key_points(3, 17, 3), tmp_path / f"a.{ending}"
    for array in (wanted, wanted.swapaxes(1, 2), wanted[0], wanted[0].T):
        if ending == "npy":
            np.save(path, array)
        else:
            path.write_text(json.dumps(array.tolist()))
        found = points_from(path, "coco-17", "xyz")
        np.testing.assert_array_equal(found, wanted if array.ndim == 3 else wanted[:1])
        assert found.dtype == np.float64


def test_null_and_nan_in_lists_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([[None, 1.0], [float("nan"), 2.0], *[[3.0, 4.0]] * 12]))
    found = points_from(path, "14", "xy")[0]
    assert np.isnan(found[:2, 0]).all()
    assert not np.isnan(found[:, 1]).any()


def openpose(path: Path, *people: Floats) -> Path:
    """A frame as OpenPose writes it."""
    content = [{"person_id": [-1], "pose_keypoints_2d": person.ravel().tolist()} for person in people]
    path.write_text(json.dumps({"version": 1.3, "people": content}))
    return path


def test_of_openpose_s_people_the_most_certain_is_taken(tmp_path: Path) -> None:
    people = key_points(3, 25, 3)
    people[:, :, 2] = np.array([0.3, 0.8, 0.5])[:, None]
    people[0, 0, 2] = 1.0  # a single certain point is not what counts
    found = points_from(openpose(tmp_path / "a.json", *people), "openpose-25", "xyc")
    np.testing.assert_array_equal(found, people[1:2])


def test_where_openpose_found_nobody_the_skeleton_is_nan(tmp_path: Path) -> None:
    skeletons = to_joints(points_from(openpose(tmp_path / "a.json"), "openpose-18", "xyc"), "openpose-18", "xyc")
    assert skeletons.shape == (1, 14, 4)
    assert np.isnan(skeletons).all()


def test_points_that_openpose_left_at_zero_are_missing(tmp_path: Path) -> None:
    person = key_points(1, 18, 3)[0]
    person[4] = 0
    skeletons = to_joints(
        points_from(openpose(tmp_path / "a.json", person), "openpose-18", "xyc"), "openpose-18", "xyc"
    )
    assert np.isnan(skeletons[0]).any(axis=1).tolist() == [joint == 4 for joint in range(14)]


def coco(path: Path, *entries: tuple[dict[str, Any], Floats]) -> Path:
    """A list of results: what an entry says beside its key points, and these."""
    path.write_text(json.dumps([{**said, "keypoints": points.ravel().tolist()} for said, points in entries]))
    return path


def test_a_list_of_results_has_a_frame_for_each_image_in_their_order(tmp_path: Path) -> None:
    points = key_points(3, 17, 3)
    names = ("walk/0001C1T0001F002.jpg", "walk/0001C1T0001F001.jpg", "walk/0001C1T0001F002.jpg")
    entries = [
        ({"file_name": name, "score": s, "category_id": 1}, p)
        for name, s, p in zip(names, (0.3, 0.1, 0.7), points, strict=True)
    ]
    path = coco(tmp_path / "a.json", *entries)
    np.testing.assert_array_equal(points_from(path, "coco-17", "xyc"), points[[1, 2]])
    found = results_from(path, "coco-17", "xyc")
    assert list(found) == ["0001C1T0001F001", "0001C1T0001F002"]
    np.testing.assert_array_equal(found["0001C1T0001F002"], points[2])


def test_numbered_images_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    points = key_points(3, 17, 3)
    path = coco(tmp_path / "a.json", *(({"image_id": n}, p) for n, p in zip((10, 9, 200), points, strict=True)))
    assert list(results_from(path, "coco-17", "xyc")) == ["9", "10", "200"]
    np.testing.assert_array_equal(points_from(path, "coco-17", "xyc"), points[[1, 0, 2]])


def test_without_a_score_the_mean_confidence_decides(tmp_path: Path) -> None:
    points = key_points(2, 17, 3)
    points[0, :, 2], points[1, :, 2] = 0.9, 0.2
    path = coco(tmp_path / "a.json", *(({"image_id": "a.png"}, p) for p in points))
    np.testing.assert_array_equal(results_from(path, "coco-17", "xyc")["a"], points[0])


def test_of_equal_scores_the_first_counts(tmp_path: Path) -> None:
    points = key_points(2, 17, 3)
    path = coco(tmp_path / "a.json", *(({"image_id": 7, "score": 0.5}, p) for p in points))
    np.testing.assert_array_equal(results_from(path, "coco-17", "xyc")["7"], points[0])


def test_an_empty_list_of_results_has_no_frame(tmp_path: Path) -> None:
    path = coco(tmp_path / "a.json")
    assert points_from(path, "coco-17", "xyc").shape == (0, 17, 3)
    assert results_from(path, "coco-17", "xyc") == {}
    assert to_joints(points_from(path, "14", "xyc"), "14", "xyc").shape == (0, 14, 4)


def test_our_own_joints_pass_unchanged(tmp_path: Path) -> None:
    assert LAYOUTS["openpose-18"][1:14] == JOINTS[1:]
    wanted = key_points(4)
    np.save(tmp_path / "a.npy", wanted)
    skeletons = to_joints(points_from(tmp_path / "a.npy", "14", "xyzc"), "14", "xyzc")
    np.testing.assert_array_equal(skeletons, wanted)


def test_our_own_joints_without_depth_are_flat_and_with_zero_missing_or_not() -> None:
    points = key_points(2, 14, 2)
    points[1, 5] = 0
    skeletons = to_joints(points, "14", "xy")
    np.testing.assert_array_equal(skeletons[0, :, 2], 0)
    np.testing.assert_array_equal(skeletons[0, :, 3], 1)
    assert np.isnan(skeletons[1, 5]).all()
    assert not np.isnan(to_joints(points, "14", "xy", zero_is_missing=False)).any()


def test_what_is_imported_is_what_the_reader_of_training_reads(tmp_path: Path) -> None:
    points = key_points(1, 16)
    scipy.io.savemat(tmp_path / "theirs.mat", {"joints": points[0].T})
    skeletons = to_joints(points_from(tmp_path / "theirs.mat", "mpii-16", "xyzc"), "mpii-16", "xyzc")
    write_skeleton(tmp_path / "ours.mat", skeletons[0])
    found = read_skeleton(tmp_path / "ours.mat")
    np.testing.assert_array_equal(found[[0, 4, 13]], points[0, [9, 10, 5]].astype(np.float32))


PEOPLE: dict[str, Any] = {"people": [{"pose_keypoints_2d": [1.0] * 42}]}
RESULT = {"image_id": 1, "keypoints": [1.0] * 42}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "column 2 is not JSON"),
        (1.5, r"hold float64 \(\), wanted \(14, 3\) or \(frames, 14, 3\)"),
        ("null", r"hold float64 \(\), wanted"),
        ([[1.0, 2.0], [3.0]], "the file holds something else than even lists of numbers"),
        ([["x", "y", "z"]] * 14, "the file holds something else than even lists of numbers"),
        ([["1", "2", "0.5"]] * 14, "the file holds something else than even lists of numbers"),
        ([[1.0, 2.0, True]] * 14, "the file holds something else than even lists of numbers"),
        ([[1.0, 2.0, 3.0]] * 13, r"hold float64 \(13, 3\), wanted \(14, 3\)"),
        ({"annotations": [], "images": []}, "holds annotations, images, wanted OpenPose's people"),
        ({"people": [{"pose_keypoints_2d": [1.0] * 54}]}, r"person 0 has 54 numbers, wanted 42 \(14 points of 3\)"),
        ({"people": [PEOPLE["people"][0], {"face": []}]}, "person 1 has no pose_keypoints_2d"),
        ([RESULT, {"image_id": 2}], "result 1 has no keypoints"),
        ([{**RESULT, "keypoints": [1.0] * 51}], r"result 0 has 51 numbers, wanted 42 \(14 points of 3\)"),
        ([{"keypoints": [1.0] * 42}], "result 0 names no image, wanted a file_name or an image_id"),
        ([{**RESULT, "score": "high"}], "result 0 has the score 'high', wanted a number"),
        ([{**RESULT, "score": True}], "result 0 has the score True, wanted a number"),
        ([{**RESULT, "image_id": True}], "result 0 names no image, wanted a file_name or an image_id"),
        ([{**RESULT, "image_id": "a/1.jpg"}, {**RESULT, "image_id": "b/1.jpg"}], "has a/1.jpg and b/1.jpg, wanted one"),
    ],
)
def test_json_that_holds_no_key_points_is_told_in_a_sentence(tmp_path: Path, content: Any, told: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=told) as error:
        points_from(path, "14", "xyc")
    assert str(error.value).startswith(f"key points {path}: ")


def test_openpose_s_points_are_flat_with_confidence_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(PEOPLE))
    with pytest.raises(DataError, match="OpenPose writes the channels xyc, wanted xyzc"):
        points_from(path, "14", "xyzc")


def test_only_a_list_of_results_can_be_read_by_image(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content, found in ((PEOPLE, "people"), ([[1.0]], "a list"), (3, "a int")):
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=f"holds {found}, wanted COCO's list of results"):
            results_from(path, "14", "xyc")


def test_mat_and_npy_files_that_hold_no_key_points_are_told_in_a_sentence(tmp_path: Path) -> None:
    mat, npy = tmp_path / "a.mat", tmp_path / "a.npy"
    scipy.io.savemat(mat, {"skeleton": np.ones((14, 4))})
    with pytest.raises(DataError, match="holds skeleton, wanted the variable new_joint or joints"):
        points_from(mat, "14", "xyzc")
    scipy.io.savemat(mat, {"joints": np.ones((16, 4))})
    with pytest.raises(DataError, match=r"hold float64 \(16, 4\), wanted \(14, 4\) or \(frames, 14, 4\)"):
        points_from(mat, "14", "xyzc")
    np.save(npy, np.array(["a"] * 14))
    with pytest.raises(DataError, match=r"hold <U1 \(14,\), wanted"):
        points_from(npy, "14", "xyzc")
    np.save(npy, np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="holds object, wanted numbers or texts"):
        points_from(npy, "14", "xyzc")
    for path in (mat, npy):
        path.write_bytes(b"x" * 200)
        with pytest.raises(DataError, match=f"not a readable {path.suffix} file"):
            points_from(path, "14", "xyzc")
        path.unlink()
        with pytest.raises(FileNotFoundError, match=f"key points {path}: no such file"):
            points_from(path, "14", "xyzc")


def test_other_endings_layouts_and_channels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1,2")
    with pytest.raises(DataError, match=r"a\.csv: end with \.csv, wanted \.mat, \.npy or \.json"):
        points_from(path, "14", "xyzc")
    for layout, channels in (("coco", "xyc"), ("14", "yx")):
        with pytest.raises(ValueError, match=f"layout '{layout}' with channels '{channels}' is unknown, wanted"):
            points_from(path, layout, channels)  # type: ignore[arg-type]


@needs_shared
def test_the_proposal_s_16_joints_come_out_normalised_as_its_oracle(tmp_path: Path) -> None:
    given = oracle("skeleton_proposal.npz")
    np.save(tmp_path / "a.npy", np.concatenate([given["joints16"], given["conf16"][..., None]], axis=2))
    skeletons = to_joints(points_from(tmp_path / "a.npy", "mpii-16", "xyzc"), "mpii-16", "xyzc", zero_is_missing=False)
    np.testing.assert_allclose(normalise(skeletons).transpose(2, 0, 1), given["out_4xTx14"], atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(30_000, 30_000), (0, 8), (2**31 - 1, 1)])
def test_a_mask_that_asks_for_gigabytes_or_for_nothing_is_refused_before_it_is_decoded(
    tmp_path: Path, height: int, width: int
) -> None:
    path = tmp_path / "m.png"
    content = bytearray(cv2.imencode(".png", np.zeros((4, 8), np.uint8))[1].tobytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"mask .*m.png: corrupt.*is {height}x{width}, wanted"):
        mask_from(path, "binary", (height, width))


def test_a_mask_of_16_bits_is_told_and_not_cut_to_8(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    cv2.imwrite(str(path), np.full((4, 8), 256, np.uint16))
    with pytest.raises(DataError, match="has 1 channels of uint16"):
        mask_from(path, "binary", (4, 8))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_key_points_nested_without_end_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"key points .*a\.json: is nested too deeply"):
        points_from(tmp_path / "a.json", "openpose-18", "xyc")
