"""What of masks and skeletons can be used, and what a missing joint becomes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sptskm.data.skeletons import EDGES, JOINTS, normalise
from sptskm.data.usable import LEAST_JOINTS, Skeletons, counted, fill_joints, is_doubtful, mask_state, missing_joints

Floats = NDArray[np.float64]
WRIST, ELBOW, HEAD = JOINTS.index("right wrist"), JOINTS.index("right elbow"), 0
PERSON = np.array(
    [
        *([0, -0.9, 0], [0, -0.6, 0]),
        *([-0.2, -0.55, 0], [-0.25, -0.3, 0], [-0.25, -0.1, -0.1]),
        *([0.2, -0.55, 0], [0.25, -0.3, 0], [0.25, -0.1, -0.1]),
        *([-0.1, 0, 0], [-0.1, 0.4, -0.1], [-0.1, 0.8, 0]),
        *([0.1, 0, 0], [0.1, 0.4, 0.1], [0.1, 0.8, 0.2]),
    ]
)


def walk(frames: int = 7, scale: float = 1.0) -> Floats:
    """A person who walks to the right and swings the right arm, with every joint seen."""
    points = np.repeat(PERSON[None], frames, axis=0)
    points[:, WRIST, 0] += np.linspace(-0.3, 0.3, frames)
    points = scale * (points + np.linspace(3, 5, frames)[:, None, None] * [1, 0, 0] + [0, 2, 4])
    return np.concatenate([points, np.full((frames, 14, 1), 0.7)], axis=2)


def bone_total(skeletons: Floats) -> Floats:
    ends = np.array(EDGES)
    return np.linalg.norm(skeletons[:, ends[:, 0], :3] - skeletons[:, ends[:, 1], :3], axis=2).sum(axis=1)


def test_whole_skeletons_stay_as_they_are_to_the_bit() -> None:
    for given in (walk(), walk().astype(np.float32), np.random.default_rng(0).normal(size=(3, 14, 4)) ** 2):
        out = fill_joints(given)
        assert out.dtype == given.dtype
        assert out.tobytes() == given.tobytes()
        assert counted(given) == Skeletons(whole=len(given))


@pytest.mark.parametrize(("channel", "value"), [(0, np.nan), (2, np.inf), (3, np.nan), (3, 0.0), (slice(None), 0.0)])
def test_a_missing_joint_is_put_between_where_it_was_before_and_after(channel: int | slice, value: float) -> None:
    whole, given = walk(), walk()
    given[3, WRIST, channel] = value
    out = fill_joints(given)
    np.testing.assert_allclose(out[3, WRIST, :3], whole[3, WRIST, :3], atol=1e-9)
    assert out[3, WRIST, 3] == 0
    out[3, WRIST] = given[3, WRIST] = 0
    np.testing.assert_array_equal(out, given)
    assert counted(given) == Skeletons(whole=6, partial=1)


def test_what_is_completed_is_completed_in_the_same_way_again() -> None:
    given = walk(9).astype(np.float32)
    given[3, [0, 4]], given[5:7, 9:], given[8] = np.nan, 0, np.nan
    once = fill_joints(given)
    assert fill_joints(once).tobytes() == once.tobytes()
    assert counted(once) == counted(given) == Skeletons(whole=5, partial=3, without=1)


def test_at_the_ends_of_a_tracklet_the_joint_goes_along_with_the_body() -> None:
    whole, given = walk(), walk()
    given[[0, 1], HEAD] = np.nan
    np.testing.assert_allclose(fill_joints(given)[:2, HEAD, :3], whole[:2, HEAD, :3], atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 130.0])
@pytest.mark.parametrize("gone", [[0], [4], [3, 4], [10, 13], [8, 11], [8, 9, 10, 11, 12, 13], [0, 1], [1, 2, 3]])
def test_a_joint_that_no_frame_shows_is_put_where_an_upright_person_has_it(gone: list[int], scale: float) -> None:
    whole, given = walk(scale=scale), walk(scale=scale)
    given[:, gone] = 0
    out = fill_joints(given)
    assert np.isfinite(out).all()
    assert (out[:, gone, 3] == 0).all()
    off = np.linalg.norm(out[:, gone, :3] - whole[:, gone, :3], axis=2).max() / bone_total(whole)[0]
    assert off < 0.25, "within a tenth or so of a person's height for each bone"
    np.testing.assert_allclose(bone_total(out), bone_total(whole), rtol=0.25)
    assert np.isfinite(normalise(out)).all()


def test_a_frame_has_a_skeleton_while_half_of_its_joints_are_there() -> None:
    given = walk()
    given[2, LEAST_JOINTS:] = np.nan
    given[4, LEAST_JOINTS - 1 :] = 0
    out = fill_joints(given)
    assert np.isfinite(out[2]).all()
    assert np.isnan(out[4]).all()
    assert counted(given) == Skeletons(whole=5, partial=1, without=1)


@pytest.mark.parametrize("value", [np.nan, 0.0, 37.0])
def test_joints_that_are_all_at_one_place_are_no_skeleton(value: float) -> None:
    given = walk()
    given[5, :, :3] = value
    assert np.isnan(fill_joints(given)[5]).all()
    assert counted(given).without == 1
    given[:, :, :3] = value
    assert counted(given) == Skeletons(without=7)


def test_a_joint_that_is_the_origin_in_every_frame_is_there_and_one_that_is_it_once_is_not() -> None:
    given = walk()
    given[..., :3] -= given[:, [1], :3]
    assert not missing_joints(given).any()
    given = walk()
    given[3, 1, :3] = 0
    assert np.argwhere(missing_joints(given)).tolist() == [[3, 1]]


def test_confidences_that_nobody_knows_make_no_joint_missing() -> None:
    given = walk()
    given[..., 3] = 0
    assert counted(given) == Skeletons(whole=7)
    assert fill_joints(given).tobytes() == given.tobytes()


@pytest.mark.parametrize("channel", range(4))
@pytest.mark.parametrize("value", [1e10, -1e37])
def test_a_number_that_would_overflow_in_training_makes_a_joint_missing(channel: int, value: float) -> None:
    skeletons = walk()
    skeletons[3, 5, channel] = value
    assert np.argwhere(missing_joints(skeletons)).tolist() == [[3, 5]]
    assert is_doubtful(skeletons)
    assert np.abs(fill_joints(skeletons)).max() < 1e6


def test_no_frames_are_no_skeletons() -> None:
    assert fill_joints(np.empty((0, 14, 4))).shape == (0, 14, 4)
    assert counted(np.empty((0, 14, 4))) == Skeletons()


def test_masks_are_empty_below_one_percent_and_full_above_95() -> None:
    for share, state in ((0, "empty"), (0.005, "empty"), (0.02, ""), (0.94, ""), (0.96, "full"), (1, "full")):
        mask = np.zeros(1000, np.uint8)
        mask[: round(1000 * share)] = 255
        assert mask_state(mask.reshape(40, 25)) == state
