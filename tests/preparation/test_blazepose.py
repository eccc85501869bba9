"""BlazePose's masks and skeletons: what is found in generated walkers, and what is refused as impossible."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.blazepose_weights import blazepose_file

from sptskm.config import ConfigError
from sptskm.data import read_dataset
from sptskm.data.files import read_frame, read_mask
from sptskm.data.skeletons import JOINTS
from sptskm.preparation.blazepose import Raw, Runtime, find_person, is_possible, joints_of, open_network, square_around

HEAD, RIGHT_HIP, LEFT_HIP = JOINTS.index("head"), JOINTS.index("right hip"), JOINTS.index("left hip")


@pytest.fixture(scope="module")
def network() -> Runtime:
    return open_network(blazepose_file())


def crops(walkers: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Frames (blue first) of the generated data set with their true masks."""
    table = read_dataset(walkers)
    rows = table.train[:: max(len(table.train) // count, 1)][:count]
    return [
        (
            np.ascontiguousarray(read_frame(table.path(int(row), 3, "frames"))[..., ::-1]),
            read_mask(table.path(int(row), 3, "masks")),
        )
        for row in rows
    ]


def raw(presence: float = 0.99, scale: float = 1.0, logit: float = 4.0) -> Raw:
    """What the network would say of somebody who stands upright with the arms hanging."""
    places = {
        11: (-0.18, -0.5), 12: (0.18, -0.5), 13: (-0.2, -0.25), 14: (0.2, -0.25), 15: (-0.2, 0.0), 16: (0.2, 0.0),
        23: (-0.1, 0.0), 24: (0.1, 0.0), 25: (-0.1, 0.42), 26: (0.1, 0.42), 27: (-0.1, 0.84), 28: (0.1, 0.84),
        7: (-0.07, -0.7), 8: (0.07, -0.7),
    }  # fmt: skip
    world = np.zeros((39, 3), np.float32)
    for landmark, (x, y) in places.items():
        world[landmark, :2] = x * scale, y * scale
    landmarks = np.full((39, 5), logit, np.float32)
    return Raw(landmarks, world, presence, np.zeros((256, 256), np.float32))


def test_masks_of_generated_walkers_agree_with_the_true_ones(network: Runtime, walkers: Path) -> None:
    overlaps = []
    for frame, true in crops(walkers, 12):
        mask = find_person(network, frame).mask_HW
        assert mask.shape == true.shape
        assert set(np.unique(mask)) <= {0, 255}
        overlaps.append(((mask > 0) & (true > 0)).sum() / ((mask > 0) | (true > 0)).sum())
    assert np.mean(overlaps) > 0.9


def test_skeletons_stand_upright_in_metres_from_the_hips(network: Runtime, walkers: Path) -> None:
    for frame, _ in crops(walkers, 6):
        skeleton = find_person(network, frame).skeleton_V4
        assert skeleton.shape == (14, 4)
        np.testing.assert_allclose(skeleton[[RIGHT_HIP, LEFT_HIP], :3].mean(axis=0), 0, atol=0.02)
        assert -1.1 < skeleton[HEAD, 1] < -0.4, "y is down"
        assert ((skeleton[:, 3] >= 0) & (skeleton[:, 3] <= 1)).all()


def test_the_same_person_in_a_larger_picture_gives_the_same_skeleton(network: Runtime, walkers: Path) -> None:
    frame, _ = crops(walkers, 1)[0]
    height, width = frame.shape[:2]
    picture = cv2.copyMakeBorder(frame, 90, 70, 120, 110, cv2.BORDER_REPLICATE)
    alone = find_person(network, frame)
    within = find_person(network, frame, square_around(picture, (120, 90, 120 + width, 90 + height)))
    assert within.mask_HW.shape == (height, width)
    np.testing.assert_allclose(within.skeleton_V4, alone.skeleton_V4, atol=1e-3)
    assert (within.mask_HW != alone.mask_HW).mean() < 0.01


def test_a_picture_of_nobody_has_no_skeleton_and_an_empty_mask(network: Runtime) -> None:
    person = find_person(network, np.full((128, 64, 3), 90, np.uint8))
    assert person.presence < 0.5
    assert np.isnan(person.skeleton_V4).all()
    assert not person.mask_HW.any()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(raw(presence=0.49), id="nobody"),
        pytest.param(raw(logit=0.5), id="not believed"),
        pytest.param(raw(scale=0.3), id="tiny"),
        pytest.param(raw(scale=2.5), id="giant"),
        pytest.param(raw(scale=-1.0), id="upside down"),
    ],
)
def test_an_impossible_body_is_no_skeleton(said: Raw) -> None:
    assert np.isnan(joints_of(said)).all()


def test_a_possible_body_is_kept_with_its_confidence() -> None:
    skeleton = joints_of(raw())
    assert is_possible(skeleton)
    np.testing.assert_allclose(skeleton[:, 3], (1 / (1 + np.exp(-4.0))) ** 2, rtol=1e-5)


def test_one_limb_out_of_joint_is_no_skeleton() -> None:
    said = raw()
    said.world[16, 0] = 3.0
    assert np.isnan(joints_of(said)).all()


def test_both_engines_agree(network: Runtime, walkers: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="Compared where the extra `fast` is installed")
    other = open_network(blazepose_file(), "litert")
    for frame, _ in crops(walkers, 3):
        a, b = find_person(network, frame), find_person(other, frame)
        np.testing.assert_allclose(a.skeleton_V4, b.skeleton_V4, atol=1e-3)
        assert (a.mask_HW != b.mask_HW).sum() <= 4


def test_an_unknown_engine_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--engine is onnx, wanted opencv or litert"):
        open_network(tmp_path / "w.tflite", "onnx")
    (tmp_path / "w.tflite").write_bytes(b"<html>")
    with pytest.raises(ConfigError, match=r"w\.tflite: cannot be read"):
        open_network(tmp_path / "w.tflite", "opencv")
    pytest.importorskip("ai_edge_litert", reason="tried where the extra `fast` is installed")
    with pytest.raises(ConfigError, match=r"w\.tflite: cannot be read"):
        open_network(tmp_path / "w.tflite", "litert")


def test_an_array_that_is_no_picture_is_refused(network: Runtime) -> None:
    with pytest.raises(ValueError, match=r"frame is uint8 \(4, 4\), wanted uint8 \(height, width, 3\)"):
        find_person(network, np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="square is 4 x 4, wanted 256 x 256"):
        find_person(network, np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8))
