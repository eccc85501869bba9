"""Batches of skeleton clips. Legend: B clips, c test clips, F frames of a tracklet, T of a clip, V joints."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from helpers.oracles import needs_shared, oracle
from numpy.typing import NDArray
from torch import Tensor

from sptskm.config import Sampling, SminClips
from sptskm.data.clips import TrainItem
from sptskm.data.mirror import mirrored
from sptskm.data.sampler import Batch, Schedule
from sptskm.data.skeleton_clips import ANGLES_DEG, SCALES, SHIFTS, SkeletonSource, draw_moves, move_
from sptskm.data.skeleton_store import SkeletonStore
from sptskm.data.skeletons import JOINTS

CLIPS = SminClips(frames=4, test_frames=6, random_move=False)
MOVING = replace(CLIPS, random_move=True)
STILL = torch.tensor([[0, 0], [0, 0], [0, 0], [1, 1], [0, 0], [0, 0], [0, 0]], dtype=torch.float64)


def walk_of(frames: int, valid: Sequence[int] | None = None) -> SkeletonStore:
    """One tracklet (row 1; row 0 is not loaded) whose frame f is filled with f + 1 where it is valid."""
    valid_F = np.isin(np.arange(frames), range(frames) if valid is None else valid)
    values_F = torch.from_numpy((np.arange(frames) + 1) * valid_F).float()
    return SkeletonStore(np.array([-1, 0]), np.array([0, frames]), values_F[:, None, None].repeat(1, 14, 4), valid_F)


def crowd(tracklets: int = 24) -> SkeletonStore:
    """Random skeletons with gaps, of 1, 2, 3, ... frames; the first of each is valid."""
    rng = np.random.default_rng(0)
    lengths = np.arange(tracklets) + 1
    starts = np.cumsum(lengths) - lengths
    valid = rng.random(lengths.sum()) < 0.6
    valid[starts] = True
    values = torch.from_numpy(rng.normal(size=(len(valid), 14, 4)) * valid[:, None, None]).float()
    return SkeletonStore(starts, lengths, values, valid)


def schedule(rank: int = 0, world: int = 1) -> Schedule:
    """Three epochs of three batches of 8."""
    return Schedule(Sampling("shuffled", 4, 2), np.arange(24), np.arange(24), 3, 5, rank, world)


def drawn(store: SkeletonStore, seed: int = 0, clips: SminClips = CLIPS, count: int = 1) -> tuple[Tensor, Tensor]:
    """Clips of row 1."""
    batch = Batch(np.ones(count, np.int64), np.arange(count), epoch=0, number=0)
    skeletons, valid = SkeletonSource(store, clips).draw(batch, np.random.default_rng(seed)).inputs
    return skeletons, valid


def equal(ours: TrainItem, theirs: TrainItem) -> bool:
    pairs = zip((*ours.inputs, ours.row), (*theirs.inputs, theirs.row), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def skeletons(B: int = 1, T: int = 5) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(B, 4, T, 14)))


def drawing(**rows: tuple[float, float]) -> Tensor:
    """No movement but in the named rows."""
    draws = STILL.clone()
    for name, values in rows.items():
        draws[["Ax", "Ay", "Az", "S", "Tx", "Ty", "Tz"].index(name)] = torch.tensor(values, dtype=torch.float64)
    return draws[None]


# Windows


def test_a_batch_is_clips_by_coordinates_by_time_by_joints() -> None:
    store = crowd()
    batch = next(schedule().batches(0))
    (skeletons, valid), rows = SkeletonSource(store, MOVING).draw(batch, np.random.default_rng(0))
    assert (skeletons.shape, skeletons.dtype) == ((8, 4, 4, 14), torch.float32)
    assert (valid.shape, valid.dtype) == ((8, 4), torch.bool)
    assert skeletons.is_contiguous()
    assert rows.tolist() == batch.rows_G.tolist()


def test_a_clip_holds_the_frames_of_its_tracklet() -> None:
    store = crowd()
    batch = Batch(np.array([3, 3, 0]), np.arange(3), 0, 0)
    skeletons, valid = SkeletonSource(store, CLIPS).draw(batch, np.random.default_rng(0)).inputs
    values, there = store.frames(3)  # four frames, as many as a clip
    for n in range(2):
        assert skeletons[n].permute(1, 2, 0).equal(values)
        assert valid[n].tolist() == there.tolist()
    assert skeletons[2, :, :1].permute(1, 2, 0).equal(store.frames(0)[0])


def test_windows_of_a_long_tracklet_are_drawn_everywhere() -> None:
    skeletons, _ = drawn(walk_of(7), count=60)
    assert {tuple(clip) for clip in skeletons[:, 0, :, 0].tolist()} == {(s, s + 1, s + 2, s + 3) for s in range(1, 5)}


def test_a_short_tracklet_is_padded_at_its_end_with_frames_that_are_not_valid() -> None:
    skeletons, valid = drawn(walk_of(3), clips=MOVING)
    assert valid.tolist() == [[True, True, True, False]]
    assert not skeletons[:, :, 3].any()
    assert skeletons[:, :, :3].any()
    source = SkeletonSource(walk_of(3), MOVING)
    skeletons, valid = source.read(1, source.all_clips(1))
    assert skeletons[0, 0, :, 0].tolist() == [1, 2, 3, 0, 0, 0]
    assert valid.tolist() == [[True] * 3 + [False] * 3]


def test_movement_does_not_fill_gaps() -> None:
    skeletons, valid = drawn(walk_of(4, valid=[0, 3]), clips=MOVING, count=10)
    assert valid.tolist() == [[True, False, False, True]] * 10
    assert not skeletons[:, :, 1:3].any()


@pytest.mark.parametrize("place", [0, 20, 49])
def test_a_training_window_always_holds_a_valid_frame(place: int) -> None:
    skeletons, valid = drawn(walk_of(50, valid=[place]), count=40)
    assert (valid.sum(dim=1) == 1).all()
    assert skeletons.permute(0, 2, 1, 3)[valid].eq(place + 1).all()


def test_a_window_without_a_skeleton_moves_to_any_that_is_there() -> None:
    skeletons, _ = drawn(walk_of(90, valid=[10, 50, 80]), count=200)
    assert set(skeletons.amax(dim=(1, 2, 3)).tolist()) == {11, 51, 81}


def test_a_tracklet_without_any_skeleton_cannot_be_trained_on() -> None:
    with pytest.raises(ValueError, match="high"):
        drawn(walk_of(9, valid=[]))


def test_test_clips_cover_the_tracklet_and_leave_out_windows_without_a_skeleton() -> None:
    source = SkeletonSource(walk_of(20), CLIPS)
    assert set(source.all_clips(1).ravel().tolist()) == set(range(20))
    gappy = SkeletonSource(walk_of(20, valid=[0, 1, 19]), CLIPS)
    kept = gappy.all_clips(1)
    assert [clip[0] for clip in kept.tolist()] == [0, 14]
    skeletons, valid = gappy.read(1, kept)
    assert valid.tolist() == [[True, True] + [False] * 4, [False] * 5 + [True]]
    assert skeletons[1, 0, :, 0].tolist() == [0, 0, 0, 0, 0, 20]


# What a clip depends on


@pytest.mark.parametrize("world", [2, 4, 8])
def test_a_clip_has_the_same_bits_for_every_number_of_ranks(world: int) -> None:
    source = SkeletonSource(crowd(), replace(MOVING, frames=7))
    ranks = [list(source.batches(schedule(rank, world), 0)) for rank in range(world)]
    alone = list(source.batches(schedule(), 0))
    assert len(alone) == 9
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.cat([part.row for part in parts]).equal(whole.row)
        for n in range(2):
            assert torch.cat([part.inputs[n] for part in parts]).equal(whole.inputs[n])


@pytest.mark.parametrize("step", range(9))
def test_continuing_at_a_step_gives_exactly_the_rest(step: int) -> None:
    source = SkeletonSource(crowd(), MOVING)
    rest = list(source.batches(schedule(), step))
    assert len(rest) == 9 - step
    assert all(map(equal, rest, islice(source.batches(schedule(), 0), step, None)))


def test_seed_epoch_and_number_of_the_batch_change_its_clips() -> None:
    source, batch = SkeletonSource(crowd(), MOVING), next(schedule().batches(0))
    one = source.draw(batch, batch.generator(3))
    assert equal(one, source.draw(batch, batch.generator(3)))
    others = batch.generator(4), batch._replace(epoch=1).generator(3), batch._replace(number=1).generator(3)
    for rng in others:
        assert not equal(one, source.draw(batch, rng))


def test_clips_are_computed_in_the_type_of_the_skeletons() -> None:
    store, batch = crowd(), next(schedule().batches(0))
    single, double = (
        SkeletonSource(store.to(torch.device("cpu"), dtype), MOVING).draw(batch, np.random.default_rng(0)).inputs[0]
        for dtype in (torch.float32, torch.float64)
    )
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


def test_clips_are_made_on_the_device_that_holds_the_skeletons() -> None:
    store, batch = crowd(), next(schedule().batches(0))
    elsewhere = SkeletonSource(store.to(torch.device("meta"), torch.float32), MOVING)
    assert elsewhere.draw(batch, np.random.default_rng(0)).inputs[0].is_meta
    assert elsewhere.read(3, elsewhere.all_clips(3))[0].is_meta


# Movement


def test_no_movement_moves_nothing() -> None:
    torch.testing.assert_close(move_(skeletons(), STILL[None]), skeletons(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("row", "axis", "other"), [("Ax", 0, 1), ("Ay", 1, 2), ("Az", 2, 0)])
def test_a_rotation_turns_the_next_axis_towards_the_one_after_it(row: str, axis: int, other: int) -> None:
    third = 3 - axis - other
    unit = torch.eye(3, dtype=torch.float64)
    points = torch.cat([unit, torch.zeros(1, 3)]).reshape(1, 4, 1, 3)  # three joints, one on each axis
    turned = move_(points, drawing(**{row: (90, 90)}))[0, :3, 0].T
    torch.testing.assert_close(turned[axis], unit[axis], rtol=0, atol=1e-12)
    torch.testing.assert_close(turned[other], unit[third], rtol=0, atol=1e-12)
    torch.testing.assert_close(turned[third], -unit[other], rtol=0, atol=1e-12)


def test_rotations_are_applied_z_then_y_then_x() -> None:
    point = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).reshape(1, 4, 1, 1)
    turned = move_(point, drawing(Ax=(90, 90), Az=(90, 90)))[0, :3, 0, 0]  # x -> y by z, then y -> z by x
    np.testing.assert_allclose(turned, [0, 0, 1], atol=1e-12)


def test_scale_and_shift_run_linearly_from_the_first_to_the_last_frame() -> None:
    moved = move_(torch.ones(1, 4, 5, 14, dtype=torch.float64), drawing(S=(1, 3), Tx=(0, 4), Tz=(-2, 2)))[0]
    np.testing.assert_allclose(moved[0, :, 0], [1, 2.5, 4, 5.5, 7])
    np.testing.assert_allclose(moved[1, :, 0], [1, 1.5, 2, 2.5, 3])
    np.testing.assert_allclose(moved[2, :, 0], [-1, 0.5, 2, 3.5, 5])


def test_confidence_is_untouched() -> None:
    given = skeletons(3)
    moved = move_(given.clone(), torch.from_numpy(draw_moves(3, np.random.default_rng(0))))
    assert moved[:, 3].equal(given[:, 3])
    assert (moved - given)[:, :3].abs().amax(dim=(1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_clip_moves_alike_alone_and_among_others(dtype: torch.dtype) -> None:
    given, draws = skeletons(9, T=7).to(dtype), torch.from_numpy(draw_moves(9, np.random.default_rng(0))).to(dtype)
    alone = [move_(given[n : n + 1].clone(), draws[n : n + 1]) for n in range(9)]
    assert move_(given, draws).equal(torch.cat(alone))


def test_random_movement_draws_every_published_value_and_no_other() -> None:
    values: NDArray[np.float64] = draw_moves(100, np.random.default_rng(0))
    assert values.shape == (100, 7, 2)
    for row, wanted in enumerate([ANGLES_DEG] * 3 + [SCALES] + [SHIFTS] * 3):
        for column in range(2):
            assert set(values[:, row, column]) == set(wanted)
    assert (values[..., 0] != values[..., 1]).any(axis=0).all(), "first and last frame are drawn separately"
    assert (ANGLES_DEG, SCALES) == ((-10, -5, 0, 5, 10), (0.9, 1, 1.1))
    assert SHIFTS == (-0.2, -0.1, 0, 0.1, 0.2)


def test_sizes_in_metres_are_not_scaled_by_random_movement() -> None:
    """The rest of the movement is drawn and done as ever."""
    still = replace(crowd(), metric=True)
    batch = Batch(np.arange(8) + 16, np.arange(8), epoch=0, number=0)
    draw = SkeletonSource(still, MOVING).draw(batch, np.random.default_rng(0)).inputs[0]
    other = SkeletonSource(crowd(), MOVING).draw(batch, np.random.default_rng(0)).inputs[0]
    cut = SkeletonSource(still, CLIPS).draw(batch, np.random.default_rng(0)).inputs[0]
    assert not draw.equal(other)

    def sizes(x: Tensor) -> Tensor:
        return (x[:, :3, :, 1:] - x[:, :3, :, :-1]).norm(dim=1)

    torch.testing.assert_close(sizes(draw), sizes(cut), rtol=1e-4, atol=1e-5)


def test_left_and_right_are_exchanged_in_about_half_of_the_clips_and_nothing_else_changes() -> None:
    batch = Batch(np.tile(np.arange(8) + 16, 8), np.arange(64), epoch=0, number=0)
    plain = SkeletonSource(crowd(), CLIPS).draw(batch, np.random.default_rng(0)).inputs[0]
    found = SkeletonSource(crowd(), replace(CLIPS, mirrored=True)).draw(batch, np.random.default_rng(0)).inputs[0]
    images = mirrored(plain)
    exchanged = [
        clip.equal(image) and not clip.equal(own) for clip, image, own in zip(found, images, plain, strict=True)
    ]
    assert all(clip.equal(own) or swapped for clip, own, swapped in zip(found, plain, exchanged, strict=True))
    assert 16 < sum(exchanged) < 48


def test_mirroring_twice_changes_nothing_and_moves_the_left_wrist_to_the_right() -> None:
    given = skeletons(2)
    image = mirrored(given)
    assert mirrored(image).equal(given)
    left, right = JOINTS.index("left wrist"), JOINTS.index("right wrist")
    assert image[:, 0, :, right].equal(-given[:, 0, :, left])
    assert image[:, 1:, :, right].equal(given[:, 1:, :, left])


@needs_shared
def test_movement_equals_the_original() -> None:
    arrays = oracle("smin_feeder.npz")
    given, draws = (torch.from_numpy(arrays[name])[None] for name in ("in", "draws_Ax_Ay_Az_S_Tx_Ty_Tz"))
    np.testing.assert_allclose(move_(given.double(), draws.double())[0], arrays["out"], rtol=0, atol=1e-12)
