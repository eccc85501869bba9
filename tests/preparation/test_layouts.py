"""Shapes: F frames, K key points, V = 14 joints, 4 = x, y, z, confidence."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from helpers.oracles import needs_shared, oracle
from numpy.typing import NDArray
from scipy.special import expit

from sptskm.common.errors import ConfigError
from sptskm.data.skeletons import JOINTS, normalise
from sptskm.preparation.blazepose import Raw, joints_unchecked
from sptskm.preparation.importing import ImportSource
from sptskm.preparation.layouts import LAYOUTS, Channels, Layout, read_layout, to_joints

Floats = NDArray[np.float64]

# index of each of the 14 joints in every layout, written down apart from the names; -1 is the middle of others
INDEX = {
    "14": [*range(14)],
    "mpii-16": [9, 8, 12, 11, 10, 13, 14, 15, 2, 1, 0, 3, 4, 5],
    "coco-17": [0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15],
    "openpose-18": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
    "openpose-25": [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14],
    "halpe-26": [17, 18, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15],
    "blazepose-33": [-1, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27],
    "coco-wholebody-133": [0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15],
    "human36m-17": [10, 8, 14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6],
    "kinect-20": [3, 2, 8, 9, 10, 4, 5, 6, 16, 17, 18, 12, 13, 14],
    "kinect-25": [3, 2, 8, 9, 10, 4, 5, 6, 16, 17, 18, 12, 13, 14],
}


def points(layout: Layout, channels: Channels = "xyzc", frames: int = 3) -> Floats:
    """Key points of which no two numbers are alike; confidence between 0 and 1."""
    shape = frames, len(LAYOUTS[layout]), len(channels)
    values: Floats = np.arange(1.0, np.prod(shape) + 1).reshape(shape)
    if channels.endswith("c"):
        values[..., -1] /= values.max() + 1
    return values


@pytest.mark.parametrize("layout", get_args(Layout))
def test_every_joint_is_taken_from_its_key_point(layout: Layout) -> None:
    given = points(layout)
    out = to_joints(given, layout, "xyzc")
    assert out.shape == (3, 14, 4)
    for joint, index in enumerate(INDEX[layout]):
        if index >= 0:
            np.testing.assert_array_equal(abs(out[:, joint]), given[:, index], err_msg=JOINTS[joint])


def test_every_layout_has_as_many_names_as_its_title_says() -> None:
    assert set(LAYOUTS) == set(INDEX) == set(get_args(Layout))
    for layout, names in LAYOUTS.items():
        assert len(names) == len(set(names)) == int(layout.rpartition("-")[2])


def test_without_a_neck_it_is_the_middle_of_the_shoulders_with_the_lesser_confidence() -> None:
    given = points("coco-17")
    neck = to_joints(given, "coco-17", "xyzc")[:, 1]
    np.testing.assert_allclose(neck[:, :3], (given[:, 5, :3] + given[:, 6, :3]) / 2)
    np.testing.assert_array_equal(neck[:, 3], given[:, 5, 3])


@pytest.mark.parametrize("channels", ["xy", "xyc"])
def test_key_points_of_a_picture_get_no_depth(channels: Channels) -> None:
    given = points("openpose-18", channels)
    out = to_joints(given, "openpose-18", channels)
    np.testing.assert_array_equal(out[..., :2], given[:, :14, :2])
    assert not out[..., 2].any()
    np.testing.assert_array_equal(out[..., 3], given[:, :14, 2] if channels == "xyc" else 1.0)


def test_three_numbers_are_depth_or_confidence_as_the_caller_says() -> None:
    given = points("openpose-18", "xyz")
    out = to_joints(given, "openpose-18", "xyz")
    np.testing.assert_array_equal(out[..., :3], given[:, :14])
    assert (out[..., 3] == 1).all()


@pytest.mark.parametrize("reason", ["nan", "infinite", "nan confidence", "no confidence", "negative", "zeros"])
def test_a_missing_key_point_makes_its_joint_nan_and_no_other(reason: str) -> None:
    given = points("openpose-18")
    whole = to_joints(given, "openpose-18", "xyzc")
    wrong = {"nan": (0, np.nan), "infinite": (1, np.inf), "nan confidence": (3, np.nan)}
    channel, value = wrong.get(reason, (3, -0.5 if reason == "negative" else 0.0))
    if reason == "zeros":
        given[1, 4, :3] = 0
    else:
        given[1, 4, channel] = value
    out = to_joints(given, "openpose-18", "xyzc")
    assert np.isnan(out[1, 4]).all()
    out[1, 4] = whole[1, 4]
    np.testing.assert_array_equal(out, whole)


def test_a_missing_shoulder_takes_the_computed_neck_with_it() -> None:
    given = points("coco-17", "xyc")
    given[2, 6] = 0
    out = to_joints(given, "coco-17", "xyc")
    assert np.isnan(out[2, [1, 2]]).all()
    assert np.isfinite(np.delete(out[2], [1, 2], axis=0)).all()


def test_missing_key_points_that_no_joint_needs_do_not_matter() -> None:
    given = points("mpii-16")
    given[:, [6, 7]] = np.nan
    assert np.isfinite(to_joints(given, "mpii-16", "xyzc")).all()


def test_a_joint_at_the_origin_counts_where_zeros_are_no_sign() -> None:
    given = points("kinect-25", "xyz")
    given[:, 3] = 0
    assert np.isnan(to_joints(given, "kinect-25", "xyz")[:, 0]).all()
    out = to_joints(given, "kinect-25", "xyz", zero_is_missing=False)
    np.testing.assert_array_equal(out[:, 0], [[0, 0, 0, 1]] * 3)


@pytest.mark.parametrize(
    ("gone", "sources"),
    [([0], [3, 4]), ([0, 3], [1, 2]), ([0, 1, 2, 3], [4]), ([0, 3, 4], [1, 2]), ([0, 2, 3, 4], [1])],
)
def test_without_a_nose_the_head_is_between_the_ears_or_eyes_in_that_frame(gone: list[int], sources: list[int]) -> None:
    given = points("coco-17", "xyc")
    wanted, nose = given[1, sources].mean(axis=0), given[0, 0].copy()
    wanted[2] = given[1, sources, 2].min()
    given[1, gone] = 0
    out = to_joints(given, "coco-17", "xyc")[:, 0]
    np.testing.assert_allclose(out[1, [0, 1, 3]], wanted)
    np.testing.assert_array_equal(out[0, [0, 1, 3]], nose)


def test_confidence_is_at_most_one_and_the_caller_s_array_is_untouched() -> None:
    given = points("coco-17", "xyc")
    given[..., 2] = 2
    before = given.copy()
    assert (to_joints(given, "coco-17", "xyc")[..., 3] == 1).all()
    np.testing.assert_array_equal(given, before)


def test_no_frames_are_no_skeletons() -> None:
    assert to_joints(np.zeros((0, 17, 3)), "coco-17", "xyc").shape == (0, 14, 4)


@pytest.mark.parametrize("layout", ["kinect-20", "kinect-25"])
def test_kinects_axes_are_turned_into_ours(layout: Layout) -> None:
    """Someone facing the sensor has the left hand at the picture's right, and the head above."""
    given = np.full((1, len(LAYOUTS[layout]), 3), [0.0, -0.5, 2.0])
    given[0, LAYOUTS[layout].index("left wrist")] = [-0.4, 0.1, 2.0]
    given[0, LAYOUTS[layout].index("head")] = [0.0, 0.7, 2.1]
    found = dict(zip(JOINTS, to_joints(given, layout, "xyz")[0], strict=True))
    assert found["left wrist"].tolist() == [0.4, -0.1, 2.0, 1.0]
    assert found["head"].tolist() == [0.0, -0.7, 2.1, 1.0]


def test_kinects_places_in_pictures_are_left_as_they_are() -> None:
    given = points("kinect-25", "xy")
    assert to_joints(given, "kinect-25", "xy")[0, 0, :2].tolist() == given[0, 3].tolist()


@pytest.mark.parametrize(
    ("shape", "channels", "wanted"),
    [
        ((2, 18, 3), "xyc", r"shape \(2, 18, 3\), wanted \(frames, 17, 3\) for coco-17 as xyc"),
        ((2, 17, 3), "xyzc", r"shape \(2, 17, 3\), wanted \(frames, 17, 4\)"),
        ((17, 3), "xyc", r"shape \(17, 3\), wanted \(frames, 17, 3\)"),
        ((2, 17, 3), "cxy", "'coco-17' with channels 'cxy' is unknown, wanted .* xy, xyc, xyz, xyzc"),
    ],
)
def test_other_shapes_and_channels_are_refused(shape: tuple[int, ...], channels: Channels, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        to_joints(np.ones(shape), "coco-17", channels)


def test_an_unknown_layout_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"layout 'coco-18' .* wanted a layout of 14, mpii-16, coco-17"):
        to_joints(np.ones((1, 18, 3)), "coco-18", "xyc")  # type: ignore[arg-type]


@needs_shared
def test_mapping_and_normalisation_give_the_numbers_of_the_proposal() -> None:
    given = oracle("skeleton_proposal.npz")
    joints = np.concatenate([given["joints16"], given["conf16"][..., None]], axis=2)
    mapped = to_joints(joints, "mpii-16", "xyzc", zero_is_missing=False)
    np.testing.assert_allclose(normalise(mapped).transpose(2, 0, 1), given["out_4xTx14"], rtol=0, atol=1e-12)


def test_landmarks_of_blazepose_become_the_joints_that_this_house_takes_from_them() -> None:
    rng = np.random.default_rng(0)
    world, logits = rng.normal(size=(39, 3)).astype(np.float32), rng.normal(size=(39, 2)).astype(np.float32)
    landmarks = np.concatenate([np.zeros((39, 3), np.float32), logits], axis=1)
    nothing = np.zeros((1, 1), np.float32)
    points = np.concatenate([world, expit(logits).prod(axis=1, keepdims=True)], axis=1)[None, :33]
    found = to_joints(points, "blazepose-33", "xyzc")[0]
    np.testing.assert_allclose(found, joints_unchecked(Raw(landmarks, world, 1.0, nothing)), rtol=1e-5)


OWN = ["pelvis", "nose", "left shoulder", "right shoulder"] + [
    f"{side} {joint}" for side in ("right", "left") for joint in ("hip", "knee", "ankle", "elbow", "wrist", "toe")
]


def test_an_order_of_one_s_own_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sensor.yaml"
    path.write_text(yaml.safe_dump({"points": OWN, "axes": ["x", "-y", "z"]}))
    given = np.random.default_rng(0).uniform(1, 2, (3, len(OWN), 3))
    out = to_joints(given, read_layout(path), "xyz")
    for joint, name in (("head", "nose"), ("left wrist", "left wrist"), ("right ankle", "right ankle")):
        np.testing.assert_array_equal(
            out[:, JOINTS.index(joint)], np.c_[given[:, OWN.index(name)] * [1, -1, 1], np.ones(3)]
        )
    neck = given[:, [OWN.index(f"{side} shoulder") for side in ("left", "right")]].mean(axis=1) * [1, -1, 1]
    np.testing.assert_allclose(out[:, JOINTS.index("neck"), :3], neck)


def test_axes_of_one_s_own_turn_a_built_in_order_of_points(tmp_path: Path) -> None:
    path = tmp_path / "turned.yaml"
    path.write_text(yaml.safe_dump({"points": "kinect-25", "axes": ["x", "-z", "y"]}))
    given = np.random.default_rng(0).uniform(1, 2, (3, 25, 3))
    own = read_layout(path)
    found = to_joints(given, own, "xyz")[:, JOINTS.index("head"), :3]
    x, y, z = given[:, LAYOUTS["kinect-25"].index("head")].T
    np.testing.assert_array_equal(found, np.stack([x, -z, y], axis=1))
    assert ImportSource(path, layout=own, channels="xyz").method["axes"] == "x -z y"
    with pytest.raises(ConfigError, match="turned has the axes x, -z, y, wanted z last for xy"):
        to_joints(given[..., :2], own, "xy")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"points": OWN, "axes": ["x", "y", "y"]}, r"axes is \['x', 'y', 'y'\], wanted the file's axes"),
        ({"points": OWN, "axes": ["x", 1, "z"]}, "axes is .*, wanted the file's axes"),
        ({"points": OWN, "signs": [1, 1, 1]}, "has the key signs, wanted points, and perhaps name and axes"),
        ({"points": OWN[:-3]}, "points has nothing for the left elbow, wanted one of left elbow"),
        (
            {"points": OWN[2:]},
            "points has nothing for the head, wanted one of head top, head, nose",
        ),
        ({"points": [*OWN, "nose"]}, "points has nose twice"),
        ({"points": "nose"}, "points is 'nose', wanted a list of names"),
        ({"joints": OWN}, "has the key joints, wanted points"),
    ],
)
def test_a_wrong_order_of_one_s_own_is_one_sentence(tmp_path: Path, content: object, sentence: str) -> None:
    path = tmp_path / "sensor.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=f"sensor.yaml: {sentence}"):
        read_layout(path)
