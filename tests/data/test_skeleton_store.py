"""Skeletons in memory. Legend: F frames of a tracklet."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from helpers.handmade import write_files, write_tables

from sptskm.common.errors import DataError
from sptskm.config import SminClips
from sptskm.data import Tracklets, read_mars
from sptskm.data.clips import AllClips
from sptskm.data.skeleton_clips import SkeletonSource
from sptskm.data.skeleton_store import load_skeletons, resampled, resampled_length


@pytest.fixture
def table(tmp_path: Path) -> Tracklets:
    return read_mars(write_files(tmp_path / "mars"))


def test_stored_skeletons_are_those_of_the_files(table: Tracklets) -> None:
    rows = np.array([2, 0])
    store = load_skeletons(table, rows, normalised=False)
    for row in rows.tolist():
        values, valid = store.frames(row)
        wanted = [
            scipy.io.loadmat(table.path(row, frame, "skeletons"))["new_joint"] for frame in range(table.lengths[row])
        ]
        np.testing.assert_array_equal(values, np.array(wanted, np.float32))
        assert valid.all()


def test_only_the_first_frames_are_kept_where_that_is_asked(table: Tracklets) -> None:
    store = load_skeletons(table, np.array([2, 3]), normalised=False, first_frames=3)
    whole = load_skeletons(table, np.array([2]), normalised=False)
    np.testing.assert_array_equal(store.frames(2)[0], whole.frames(2)[0][:3])
    assert len(store.frames(3)[0]) == 1


def test_normalised_skeletons_are_rooted_at_the_hips(table: Tracklets) -> None:
    values, _ = load_skeletons(table, np.array([2])).frames(2)
    np.testing.assert_allclose((values[:, 8, :3] + values[:, 11, :3]) / 2, 0, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("normalised", [True, False])
def test_a_frame_without_a_skeleton_is_zero_and_not_valid_and_leaves_the_others_alone(
    table: Tracklets, value: float, normalised: bool
) -> None:
    path = table.path(2, 1, "skeletons")
    joints = scipy.io.loadmat(path)["new_joint"]
    joints[(slice(None) if value == 0 else slice(4, 12)), :3] = value
    scipy.io.savemat(path, {"new_joint": joints})
    values, valid = load_skeletons(table, np.array([2]), normalised).frames(2)
    assert valid.tolist() == [True, False, True, True]
    assert not values[1].any()
    path.unlink()
    without, still_valid = load_skeletons(table, np.array([2]), normalised).frames(2)
    np.testing.assert_array_equal(values, without)
    np.testing.assert_array_equal(valid, still_valid)
    assert values.isfinite().all()
    assert values[[0, 2, 3]].flatten(1).any(dim=1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_frame_of_which_a_joint_is_missing_is_valid_with_confidence_zero_there(
    table: Tracklets, value: float
) -> None:
    path = table.path(2, 1, "skeletons")
    joints = scipy.io.loadmat(path)["new_joint"]
    joints[:, 3] = 0.5
    joints[5] = value
    scipy.io.savemat(path, {"new_joint": joints})
    values, valid = load_skeletons(table, np.array([2])).frames(2)
    assert valid.all()
    assert values.isfinite().all()
    assert values[1, 5, 3] == 0
    assert (values[1, [4, 6], 3] == 0.5).all()


def test_a_corrupt_skeleton_is_one_sentence_with_its_path(table: Tracklets) -> None:
    path = table.path(2, 1, "skeletons")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=rf"^skeleton {path}: corrupt, not a readable \.mat file"):
        load_skeletons(table, np.array([2]))


def test_a_tracklet_without_any_skeleton_keeps_its_row(table: Tracklets) -> None:
    for frame in range(3):
        table.path(1, frame, "skeletons").unlink()
    rows = np.array([0, 1, 2])
    store = load_skeletons(table, rows)
    assert store.has_any(rows).tolist() == [True, False, True]
    assert [len(store.frames(row)[0]) for row in rows.tolist()] == [2, 3, 4]
    source = SkeletonSource(store, SminClips(test_frames=6))
    assert source.all_clips(1).shape == (0, 6)
    assert AllClips(source, limit=0).pieces(1) == []
    assert len(AllClips(source, limit=0).pieces(2)) == 1


def test_no_skeleton_at_all_names_the_folder(tmp_path: Path) -> None:
    table = read_mars(write_tables(tmp_path))
    with pytest.raises(DataError, match=rf"{tmp_path}/bbox_train_joint3d: no skeleton found for any of 4 tracklets"):
        load_skeletons(table, table.train)


def test_a_row_that_was_not_loaded_is_no_tracklet_without_skeletons(table: Tracklets) -> None:
    store = load_skeletons(table, np.array([2, 0]))
    with pytest.raises(KeyError, match="row 1: its skeletons were not loaded"):
        store.has_any(np.array([0, 1]))
    with pytest.raises(KeyError, match="row 3"):
        store.frames(3)


def test_the_generated_walkers_all_have_skeletons(walkers: Path) -> None:
    table = read_mars(walkers)
    assert load_skeletons(table, table.train).has_any(table.train).all()


def test_skeletons_are_brought_to_one_rate_by_time() -> None:
    """A movement that is linear in time has the same values at the same times, whatever the rate."""
    moving = np.arange(9, dtype=np.float32)[:, None, None] * np.ones((1, 14, 4), np.float32)
    for rate, wanted, expected in (
        (12.5, 25.0, np.arange(17) / 2),
        (50.0, 25.0, np.arange(0, 9, 2)),
        (30.0, 25.0, np.arange(7) * 1.2),
        (25.0, 25.0, np.arange(9)),
        (0.0, 25.0, np.arange(9)),
        (30.0, 0.0, np.arange(9)),
    ):
        found = resampled(moving, rate, wanted)
        np.testing.assert_allclose(found[:, 3, 1], expected, rtol=1e-6)
        assert len(found) == resampled_length(9, rate, wanted)


def test_a_frame_beside_one_without_a_skeleton_is_the_nearer_one() -> None:
    skeletons = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((1, 14, 4), np.float32)
    skeletons[1] = np.nan
    found = resampled(skeletons, 10.0, 40.0)[:, 0, 0]
    np.testing.assert_array_equal(found, [0, 0, 0, np.nan, np.nan, np.nan, np.nan, 2, 2])


def test_tracklets_of_a_known_rate_are_stored_at_the_one_that_is_asked_for(table: Tracklets) -> None:
    known = replace(table, fps_N=np.where(np.arange(len(table)) == 2, 50.0, 0.0))
    length = int(table.lengths[2])
    store = load_skeletons(known, np.array([2, 3]), normalised=False, fps=25.0)
    whole = load_skeletons(table, np.array([2, 3]), normalised=False, fps=25.0)
    assert [len(store.frames(row)[0]) for row in (2, 3)] == [(length + 1) // 2, int(table.lengths[3])]
    np.testing.assert_array_equal(store.frames(2)[0], whole.frames(2)[0][::2])
    assert known.fingerprint != table.fingerprint == replace(table, fps_N=np.zeros(len(table))).fingerprint


@pytest.mark.parametrize(("rates", "told"), [((50, 0, 0, 50), True), ((50, 25, 25, 50), False), ((0, 0, 0, 0), False)])
def test_rates_that_only_some_tracklets_have_are_told(
    table: Tracklets, caplog: pytest.LogCaptureFixture, rates: tuple[int, ...], told: bool
) -> None:
    known = replace(table, fps_N=np.resize(np.array(rates, float), len(table)))
    load_skeletons(known, np.arange(4), fps=25.0)
    assert ("2 of 4 tracklets have no fps and stay as they are, the others" in caplog.text) == told
