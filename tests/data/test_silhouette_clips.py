"""Batches of sets of silhouettes. Legend: B clips, c test clips, T silhouettes, H rows, W columns."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from sptskm.config import GaitClips, Sampling
from sptskm.data.clips import TrainItem
from sptskm.data.sampler import Batch, Schedule
from sptskm.data.silhouette_clips import SilhouetteSource, seen
from sptskm.data.silhouettes import SilhouetteStore

CLIPS = GaitClips(frames=4, test_frames=6, height=32, width=16, shift=0)


def crowd(tracklets: int = 24) -> SilhouetteStore:
    """Random silhouettes: 1, 2, 3, ... of each tracklet."""
    counts = np.arange(tracklets) + 1
    bits = np.random.default_rng(0).integers(256, size=(counts.sum(), 64), dtype=np.uint8)
    return SilhouetteStore(np.cumsum(counts) - counts, counts, torch.from_numpy(bits), 32, 16)


def schedule(rank: int = 0, world: int = 1) -> Schedule:
    """Three epochs of three batches of 8."""
    return Schedule(Sampling("shuffled", 4, 2), np.arange(24), np.arange(24), 3, 5, rank, world)


def drawn(row: int, count: int, clips: GaitClips = CLIPS, seed: int = 0) -> torch.Tensor:
    batch = Batch(np.full(count, row), np.arange(count), epoch=0, number=0)
    return SilhouetteSource(crowd(), clips).draw(batch, np.random.default_rng(seed)).inputs[0]


def own(row: int) -> torch.Tensor:
    """All silhouettes of a tracklet and then their mirror images."""
    store = crowd()
    (start,), (count,) = store.spans(np.array([row]))
    found = store.take(start + np.arange(count))
    return torch.cat([found, found.flip(2)])


def numbers(clip: torch.Tensor, row: int) -> list[int]:
    """Which silhouettes of the tracklet these are; those of a mirrored clip count on behind the others."""
    return [int((own(row) == silhouette).flatten(1).all(dim=1).nonzero()[0, 0]) for silhouette in clip]


def equal(ours: TrainItem, theirs: TrainItem) -> bool:
    return torch.equal(ours.inputs[0], theirs.inputs[0]) and torch.equal(ours.row, theirs.row)


def test_a_batch_is_clips_by_silhouettes_by_rows_by_columns() -> None:
    (silhouettes,), rows = next(SilhouetteSource(crowd(), CLIPS).batches(schedule(), 0))
    assert (silhouettes.shape, silhouettes.dtype) == ((8, 4, 32, 16), torch.uint8)
    assert (rows.shape, rows.dtype) == ((8,), torch.int64)
    assert silhouettes.max() == 1


def test_a_clip_is_a_random_set_of_its_tracklet_in_order_or_its_mirror_image() -> None:
    found = [numbers(clip, row=11) for clip in drawn(11, count=200)]
    assert all(clip == sorted(set(clip)) for clip in found), "each once"
    assert all(clip[0] // 12 == clip[-1] // 12 for clip in found), "all of it is mirrored or nothing"
    assert 60 < sum(clip[0] >= 12 for clip in found) < 140
    taken = Counter(number % 12 for clip in found for number in clip)
    assert set(taken) == set(range(12))
    assert min(taken.values()) > 40


def test_a_short_tracklet_gives_some_of_its_silhouettes_again() -> None:
    (clip,) = drawn(1, count=1)
    assert {number % 2 for number in numbers(clip, row=1)} <= {0, 1}


def test_a_moved_clip_is_empty_where_nothing_was() -> None:
    clip = torch.ones(1, 2, 32, 16, dtype=torch.uint8)
    down, left = seen(clip, np.array([[0, 2, 0]]), 2), seen(clip, np.array([[1, 0, -1]]), 2)
    assert not down[:, :, :2].any()
    assert down[:, :, 2:].all()
    assert not left[..., -1:].any()
    assert left[..., :-1].all()


def test_moves_reach_as_far_as_the_key_says_and_no_further() -> None:
    clips = drawn(23, count=300, clips=replace(CLIPS, shift=2), seed=1)
    reached = {
        (move, axis)
        for clip in clips
        for axis in (1, 2)
        for move in (-2, -1, 1, 2)
        if not (clip.narrow(axis, 0, move) if move > 0 else clip.narrow(axis, clip.shape[axis] + move, -move)).any()
    }
    assert reached == {(move, axis) for axis in (1, 2) for move in (-2, -1, 1, 2)}


def test_clips_follow_from_seed_epoch_and_batch_alone() -> None:
    source = SilhouetteSource(crowd(), replace(CLIPS, shift=2))
    whole = list(source.batches(schedule(), 0))
    assert all(equal(*pair) for pair in zip(source.batches(schedule(), 4), whole[4:], strict=True))
    assert not torch.equal(whole[0].inputs[0], next(source.batches(schedule()._replace(seed=6), 0)).inputs[0])


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_clips_of_one_process(world: int) -> None:
    source = SilhouetteSource(crowd(), replace(CLIPS, shift=2))
    ranks = [next(source.batches(schedule(rank, world), 0)) for rank in range(world)]
    joined = TrainItem((torch.cat([r.inputs[0] for r in ranks]),), torch.cat([r.row for r in ranks]))
    assert equal(joined, next(source.batches(schedule(), 0)))


@pytest.mark.parametrize(("row", "clips"), [(0, 1), (5, 1), (6, 2), (23, 4)])
def test_test_clips_cover_every_silhouette(row: int, clips: int) -> None:
    source = SilhouetteSource(crowd(), CLIPS)
    found_cT = source.all_clips(row)
    assert found_cT.shape == (clips, 6)
    assert set(found_cT.ravel().tolist()) == set(range(row + 1))
    (silhouettes,) = source.read(row, found_cT)
    assert torch.equal(silhouettes, own(row)[torch.from_numpy(found_cT)])


def test_a_tracklet_without_silhouettes_has_no_test_clips() -> None:
    store = crowd()
    source = SilhouetteSource(replace(store, counts_N=np.where(np.arange(24) == 3, 0, store.counts_N)), CLIPS)
    assert source.all_clips(3).shape == (0, 6)
