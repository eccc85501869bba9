"""Shapes: F frames, V = 14 joints, C = 4 channels."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.oracles import SHARED
from numpy.typing import NDArray

from sptskm.data.skeletons import EDGE_TOTAL, EDGES, JOINTS, MIRRORED, PARENTS, edge_total, normalise

# row of the 16-joint MPII skeleton that each of the 14 joints is read from
FROM_MPII = (9, 8, 12, 11, 10, 13, 14, 15, 2, 1, 0, 3, 4, 5)

Floats = NDArray[np.float64]


def _walk(seed: int = 0, frames: int = 9) -> Floats:
    """A roughly human tracklet, seen at an angle and off the origin."""
    rng = np.random.default_rng(seed)
    person = np.array(
        [
            [0, -0.9, 0],
            [0, -0.6, 0],
            *([-0.2, -0.55, 0], [-0.25, -0.3, 0], [-0.25, -0.1, -0.1]),
            *([0.2, -0.55, 0], [0.25, -0.3, 0], [0.25, -0.1, -0.1]),
            *([-0.1, 0, 0], [-0.1, 0.4, -0.1], [-0.1, 0.8, 0]),
            *([0.1, 0, 0], [0.1, 0.4, 0.1], [0.1, 0.8, 0.2]),
        ]
    )
    points = person + rng.normal(0, 0.02, (frames, 14, 3))
    points = _turn(points, 0.8) * 1.9 + [3.0, -1.0, 7.0]
    return np.concatenate([points, rng.uniform(0.2, 1, (frames, 14, 1))], axis=2)


def _turn(points: Floats, angle: float) -> Floats:
    cos, sin = np.cos(angle), np.sin(angle)
    turned: Floats = points @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    return turned


def _with_points(skeletons: Floats, points: Floats) -> Floats:
    return np.concatenate([points, skeletons[..., 3:]], axis=2)


def test_the_skeleton_is_a_tree_over_fourteen_joints() -> None:
    assert len(JOINTS) == len(set(JOINTS)) == 14
    assert len(EDGES) == 13
    reached = {1}
    for _ in EDGES:
        reached |= {end for edge in EDGES if reached & set(edge) for end in edge}
    assert reached == set(range(14))


def test_position_size_and_heading_of_the_input_do_not_matter() -> None:
    walk = _walk()
    moved = _turn(walk[..., :3], -2.3) * 0.37 + [5.0, 2.0, -8.0]
    assert not np.allclose(moved, walk[..., :3])
    np.testing.assert_allclose(normalise(_with_points(walk, moved)), normalise(walk), atol=1e-12)


def test_a_shift_of_single_frames_does_not_matter() -> None:
    walk = _walk()
    shift = np.random.default_rng(1).normal(0, 3, (len(walk), 1, 3))
    moved = _with_points(walk, walk[..., :3] + shift)
    np.testing.assert_allclose(normalise(moved), normalise(walk), atol=1e-12)


def test_normalising_twice_changes_nothing() -> None:
    once = normalise(_walk())
    np.testing.assert_allclose(normalise(once), once, atol=1e-12)


def test_a_normalised_person_is_rooted_scaled_and_faces_the_camera() -> None:
    out = normalise(_walk())
    np.testing.assert_allclose((out[:, 8] + out[:, 11])[:, :3], 0, atol=1e-12)
    bones = [np.linalg.norm(out[:, a, :3] - out[:, b, :3], axis=1) for a, b in EDGES]
    assert np.median(np.sum(bones, axis=0)) == pytest.approx(EDGE_TOTAL)
    left_minus_right = (out[:, 11] - out[:, 8] + out[:, 5] - out[:, 2]).mean(axis=0)
    assert left_minus_right[0] > 0.2
    assert abs(left_minus_right[2]) < 0.02


def test_the_heading_counts_frames_by_their_least_certain_corner() -> None:
    walk = _walk()
    turned = _with_points(walk, walk[..., :3])
    turned[0, :, :3] = _turn(walk[0, :, :3], 1.5)
    walk[0, 5, 3] = turned[0, 5, 3] = 0.0
    np.testing.assert_allclose(normalise(turned)[1:], normalise(walk)[1:], atol=1e-12)
    turned[0, :, 3] = 1.0
    assert not np.allclose(normalise(turned)[1:], normalise(walk)[1:], atol=0.02)


def test_confidence_and_the_caller_s_array_are_untouched() -> None:
    walk = _walk()
    before = walk.copy()
    out = normalise(walk)
    np.testing.assert_array_equal(out[..., 3], before[..., 3])
    np.testing.assert_array_equal(walk, before)


def test_an_invalid_frame_stays_nan_and_does_not_disturb_the_others() -> None:
    walk = _walk()
    expected = normalise(np.delete(walk, [2, 4], axis=0))
    walk[2] = np.nan
    walk[4, 7, 1] = np.nan
    out = normalise(walk)
    assert np.isnan(out[[2, 4], :, :3]).all()
    np.testing.assert_array_equal(np.delete(out, [2, 4], axis=0), expected)


def test_a_tracklet_without_a_valid_frame_comes_back_as_nan() -> None:
    assert np.isnan(normalise(np.full((3, 14, 4), np.nan))).all()
    assert normalise(np.zeros((0, 14, 4))).shape == (0, 14, 4)


def test_a_skeleton_without_a_direction_is_not_turned() -> None:
    walk = np.zeros((2, 14, 4))
    walk[:, :, 1] = np.arange(14)
    out = normalise(walk)
    np.testing.assert_array_equal(out[..., [0, 2]], 0)


@pytest.mark.parametrize("shape", [(14, 4), (5, 16, 4), (5, 14, 3)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="wanted \\(frames, 14, 4\\)"):
        normalise(np.ones(shape))


def test_a_skeleton_without_extent_is_refused() -> None:
    with pytest.raises(ValueError, match="bone total of 0"):
        normalise(np.zeros((2, 14, 4)))


@pytest.mark.shared
def test_the_proposal_s_oracle_is_met() -> None:
    path = SHARED / "oracles" / "skeleton_proposal.npz"
    if not path.is_file():
        pytest.skip("the oracle skeleton_proposal.npz is not on this machine")
    oracle = np.load(path, allow_pickle=False)
    confidence = np.clip(oracle["conf16"], 0, 1)
    joints = np.concatenate([oracle["joints16"], confidence[..., None]], axis=2)
    out = normalise(joints[:, FROM_MPII])
    np.testing.assert_allclose(out.transpose(2, 0, 1), oracle["out_4xTx14"], atol=1e-12)


def test_sizes_may_be_kept_while_the_person_is_centred_and_turned() -> None:
    walk = _walk()
    kept, scaled = normalise(walk, scaled=False), normalise(walk)
    total = edge_total(walk[..., :3])
    assert edge_total(kept[..., :3]) == pytest.approx(total)
    np.testing.assert_allclose(kept[..., :3] * EDGE_TOTAL / total, scaled[..., :3], atol=1e-12)


def test_parents_are_the_neighbours_toward_the_neck_and_partners_are_named_after_each_other() -> None:
    neck = JOINTS.index("neck")
    assert {frozenset(pair) for pair in enumerate(PARENTS) if pair[0] != neck} == {frozenset(edge) for edge in EDGES}
    assert PARENTS[neck] == neck
    other = {"left": "right", "right": "left"}
    partners = [" ".join(other.get(word, word) for word in name.split()) for name in JOINTS]
    assert partners == [JOINTS[partner] for partner in MIRRORED]
