"""Clips as tensors. Legend: c clips, T frames, H rows, W columns, V joints."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import torch
from handmade import TRAIN, Walk, write_files, write_tables

from sptskm.config import SminClips, SsinClips
from sptskm.data import DataError, Tracklets, clips, read_mars
from sptskm.data.sampler import Draw
from sptskm.data.skeleton_store import SkeletonStore, load_skeletons

SSIN = SsinClips(frames=2, height=16, width=8)
SMIN = SminClips(frames=4, test_frames=6, random_move=False, normalise=False)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sptskm.data.files.PAUSE_S", 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "mars")


@pytest.fixture
def table(root: Path) -> Tracklets:
    return read_mars(root)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def walk_of(frames: int, valid: list[int] | None = None) -> SkeletonStore:
    """One tracklet (row 7) whose frame f is filled with f + 1 where it is valid."""
    valid_F = np.isin(np.arange(frames), range(frames) if valid is None else valid)
    values = np.ones((frames, 14, 4), np.float32) * (np.arange(frames) + 1)[:, None, None]
    return SkeletonStore({7: 0}, {7: frames}, values * valid_F[:, None, None], valid_F)


# Frames and masks


def test_a_training_clip_is_uint8_frames_and_masks_of_the_wanted_size(table: Tracklets) -> None:
    frames, masks = clips.FrameSource(table, replace(SSIN, height=20, width=12)).draw(2, rng())
    assert (frames.shape, masks.shape) == ((2, 3, 20, 12), (2, 20, 12))
    assert frames.dtype == masks.dtype == torch.uint8


def test_test_clips_are_the_dense_clips_in_order_frame_beside_mask(table: Tracklets) -> None:
    source = clips.FrameSource(table, SSIN)
    frames, masks = source.read(1, source.all_clips(1))  # 3 frames of brightness 20, 30 and 40
    assert (frames.shape, masks.shape) == ((2, 2, 3, 16, 8), (2, 2, 16, 8))
    assert frames.float().mean(dim=(2, 3, 4)).round().tolist() == [[20, 30], [40, 40]]
    assert (masks[..., :8, :] == 255).all()
    assert not masks[..., 8:, :].any()


def test_frames_arrive_red_green_blue(table: Tracklets) -> None:
    path = table.path(3, 0, "frames")
    path.write_bytes(cv2.imencode(".png", np.full((16, 8, 3), (10, 90, 200), np.uint8))[1].tobytes())
    frames, _ = clips.FrameSource(table, SSIN).read(3, np.array([[0, 0]]))
    assert frames[0, 0, :, 0, 0].tolist() == [200, 90, 10]


def test_the_last_frame_is_drawn_unless_the_published_sampling_is_chosen(table: Tracklets) -> None:
    for last_window in (True, False):
        source = clips.FrameSource(table, replace(SSIN, last_window=last_window))
        seen = {round(source.draw(2, rng(seed))[0][-1].float().mean().item()) for seed in range(30)}
        assert (80 in seen) is last_window, "row 2 has frames of brightness 50 to 80"


def test_the_same_draw_gives_the_same_clip_and_another_gives_another(walkers: Path) -> None:
    table = read_mars(walkers)
    data = clips.TrainClips(clips.FrameSource(table, replace(SSIN, height=64, width=32)), seed=3)
    draw = Draw(row=1, epoch=2, position=5)
    one, again = data[draw], data[draw]
    assert one.row == 1
    for a, b in zip(one.inputs, again.inputs, strict=True):
        assert torch.equal(a, b)
    others = [data[draw._replace(position=6)], data[draw._replace(epoch=3)], replace(data, seed=4)[draw]]
    for other in others:
        assert not torch.equal(one.inputs[0], other.inputs[0])


def test_pieces_hold_every_clip_once_and_at_most_16(tmp_path: Path) -> None:
    table = read_mars(write_tables(tmp_path, train=[Walk(1, 1, 70), Walk(1, 2, 32), Walk(2, 1, 2)]))
    data = clips.AllClips(clips.FrameSource(table, SSIN), limit=0)
    spans = [[(piece.first, piece.last) for piece in data.pieces(row)] for row in range(3)]
    assert spans == [[(0, 16), (16, 32), (32, 35)], [(0, 16)], [(0, 1)]]
    few = replace(data, limit=5)
    assert [(piece.first, piece.last) for piece in few.pieces(0)] == [(0, 5)]


def test_a_piece_reads_its_own_clips(table: Tracklets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "PIECE", 1)
    data = clips.AllClips(clips.FrameSource(table, SSIN), limit=0)
    pieces = data.pieces(1)
    assert len(pieces) == 2
    brightness = [data[piece].inputs[0].float().mean(dim=(2, 3, 4)).round().tolist() for piece in pieces]
    assert brightness == [[[20, 30]], [[40, 40]]]
    assert [data[piece].piece for piece in pieces] == pieces


@pytest.mark.parametrize(("modality", "kind"), [("frames", "frame"), ("masks", "mask")])
@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_a_file_that_cannot_be_used_is_one_sentence_with_its_path(
    table: Tracklets, modality: str, kind: str, damage: str
) -> None:
    path = table.path(1, 1, modality)  # type: ignore[arg-type]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"not an image")
    wanted = rf"^{kind} {path}: (no such file \(after 3 attempts\)|corrupt, not a readable image)$"
    source = clips.FrameSource(table, SSIN)
    with pytest.raises(DataError, match=wanted):
        source.read(1, source.all_clips(1))
    with pytest.raises(DataError, match=wanted):
        source.draw(1, rng())


def test_a_mask_of_another_size_than_its_frame_is_refused(table: Tracklets) -> None:
    path = table.path(0, 1, "masks")
    path.write_bytes(cv2.imencode(".png", np.zeros((8, 16), np.uint8))[1].tobytes())
    wanted = rf"^mask {path}: is 8x16, wanted 16x8 like {table.path(0, 1, 'frames').name}$"
    with pytest.raises(DataError, match=wanted):
        clips.FrameSource(table, SSIN).draw(0, rng())


# Skeletons


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
    joints[(slice(None) if value == 0 else 5), :3] = value
    scipy.io.savemat(path, {"new_joint": joints})
    values, valid = load_skeletons(table, np.array([2]), normalised).frames(2)
    assert valid.tolist() == [True, False, True, True]
    assert not values[1].any()
    path.unlink()
    without, still_valid = load_skeletons(table, np.array([2]), normalised).frames(2)
    np.testing.assert_array_equal(values, without)
    np.testing.assert_array_equal(valid, still_valid)
    assert np.isfinite(values).all()
    assert values[[0, 2, 3]].any(axis=(1, 2)).all()


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
    source = clips.SkeletonSource(store, SMIN)
    assert source.all_clips(1).shape == (0, 6)
    assert clips.AllClips(source, limit=0).pieces(1) == []
    assert len(clips.AllClips(source, limit=0).pieces(2)) == 1


def test_no_skeleton_at_all_names_the_folder(tmp_path: Path) -> None:
    table = read_mars(write_tables(tmp_path))
    with pytest.raises(DataError, match=rf"{tmp_path}/bbox_train_joint3d: no skeleton found for any of 4 tracklets"):
        load_skeletons(table, table.train)


def test_a_skeleton_clip_is_coordinates_by_time_by_joints(table: Tracklets) -> None:
    store = load_skeletons(table, np.array([2]), normalised=False)
    skeletons, valid = clips.SkeletonSource(store, SMIN).draw(2, rng())
    assert (skeletons.shape, skeletons.dtype) == ((4, 4, 14), torch.float32)
    assert (valid.shape, valid.dtype) == ((4,), torch.bool)
    np.testing.assert_array_equal(skeletons.numpy().transpose(1, 2, 0), store.frames(2)[0])


def test_windows_of_a_long_tracklet_are_drawn_everywhere() -> None:
    source = clips.SkeletonSource(walk_of(7), SMIN)
    drawn = {tuple(source.draw(7, rng(seed))[0][0, :, 0].tolist()) for seed in range(60)}
    assert drawn == {(s, s + 1, s + 2, s + 3) for s in range(1, 5)}


def test_a_short_tracklet_is_padded_at_its_end_with_frames_that_are_not_valid() -> None:
    source = clips.SkeletonSource(walk_of(3), replace(SMIN, random_move=True))
    skeletons, valid = source.draw(7, rng())
    assert valid.tolist() == [True, True, True, False]
    assert not skeletons[:, 3].any()
    assert skeletons[:, :3].any()
    skeletons, valid = source.read(7, source.all_clips(7))
    assert skeletons[0, 0, :, 0].tolist() == [1, 2, 3, 0, 0, 0]
    assert valid.tolist() == [[True] * 3 + [False] * 3]


def test_movement_does_not_fill_gaps() -> None:
    source = clips.SkeletonSource(walk_of(4, valid=[0, 3]), replace(SMIN, random_move=True))
    for seed in range(10):
        skeletons, valid = source.draw(7, rng(seed))
        assert valid.tolist() == [True, False, False, True]
        assert not skeletons[:, 1:3].any()


def test_a_training_window_always_holds_a_valid_frame() -> None:
    for place in (0, 20, 49):
        source = clips.SkeletonSource(walk_of(50, valid=[place]), SMIN)
        for seed in range(20):
            skeletons, valid = source.draw(7, rng(seed))
            assert valid.sum() == 1
            assert skeletons[:, valid].eq(place + 1).all()


def test_test_clips_cover_the_tracklet_and_leave_out_windows_without_a_skeleton() -> None:
    source = clips.SkeletonSource(walk_of(20), SMIN)
    assert set(source.all_clips(7).ravel().tolist()) == set(range(20))
    gappy = clips.SkeletonSource(walk_of(20, valid=[0, 1, 19]), SMIN)
    kept = gappy.all_clips(7)
    assert [clip[0] for clip in kept.tolist()] == [0, 14]
    skeletons, valid = gappy.read(7, kept)
    assert valid.tolist() == [[True, True] + [False] * 4, [False] * 5 + [True]]
    assert skeletons[1, 0, :, 0].tolist() == [0, 0, 0, 0, 0, 20]


def test_the_same_draw_gives_the_same_skeleton_clip() -> None:
    data = clips.TrainClips(clips.SkeletonSource(walk_of(30), replace(SMIN, random_move=True)), seed=1)
    draw = Draw(row=7, epoch=0, position=0)
    assert torch.equal(data[draw].inputs[0], data[draw].inputs[0])
    assert not torch.equal(data[draw].inputs[0], data[draw._replace(position=1)].inputs[0])


def test_the_generated_data_set_gives_clips_of_both_streams(walkers: Path) -> None:
    table = read_mars(walkers)
    frames, masks = clips.FrameSource(table, replace(SSIN, height=64, width=32)).draw(0, rng())
    assert frames.float().std() > 10
    assert 0.02 < (masks == 255).float().mean() < 0.9
    store = load_skeletons(table, table.train)
    assert store.has_any(table.train).all()
    assert len(TRAIN) < len(table.train)
