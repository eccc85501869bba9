"""SMIN's static branch. Legend: B clips, T frames, V joints, S measures, N tracklets, D directions."""

import numpy as np
import pytest
import torch
from torch import Tensor

from sptskm.data.mirror import mirrored
from sptskm.models.body import CLIP, LEAST_FRAMES, BodyMeasures, two_covariance
from sptskm.synthetic.walkers import draw_walker, pose

B, T = 3, 9


def clips(people: int = B, frames: int = T, seed: int = 0) -> Tensor:
    """Walkers of several sizes (B, 4, T, 14), each at another phase."""
    rng = np.random.default_rng(seed)
    walkers = [draw_walker(rng) for _ in range(people)]
    joints = np.stack([pose(w.body, w.gait, n + np.arange(frames) / 3)[:, :14] for n, w in enumerate(walkers)])
    return torch.from_numpy(np.concatenate([joints, np.ones((*joints.shape[:3], 1))], axis=3)).permute(0, 3, 1, 2)


def fitted(seed: int = 0, motion: bool = False, frames: int = T) -> BodyMeasures:
    """The branch with the metric of twelve walkers, of each of whom four clips were seen by a noisy sensor."""
    noise = torch.Generator().manual_seed(seed)
    people = clips(12, frames, seed=seed + 1)
    seen = torch.cat([people + 0.01 * torch.randn(people.shape, generator=noise) for _ in range(4)])
    body = BodyMeasures(motion).double()
    body.fit(body.measures(seen), np.tile(np.arange(12), 4))
    return body


def test_vectors_have_unit_length_and_differ_between_people() -> None:
    body, x = fitted(), clips()
    vectors = body(x)
    assert vectors.shape == (B, body.dim)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(B, dtype=torch.float64))
    assert (torch.cdist(vectors, vectors) + 9 * torch.eye(B)).min() > 0.1


def test_a_noisy_clip_is_nearest_to_its_person() -> None:
    body, people = fitted(), clips(20, seed=7)
    again = people + 0.01 * torch.randn(people.shape, generator=torch.Generator().manual_seed(1))
    assert torch.cdist(body(again), body(people)).argmin(dim=1).equal(torch.arange(20))


def test_before_it_is_fitted_all_clips_are_alike() -> None:
    vectors = BodyMeasures().double()(clips())
    assert vectors.equal(vectors[:1].expand_as(vectors))


def test_measures_are_medians_over_the_valid_frames() -> None:
    body, x = BodyMeasures().double(), clips()
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[:, 2] = valid[1, 5:] = False
    spoilt = torch.where(valid[:, None, :, None], x, 0.0)
    torch.testing.assert_close(body.measures(spoilt, valid)[0], body.measures(x[:1, :, valid[0]])[0])
    torch.testing.assert_close(body.measures(spoilt, valid)[1], body.measures(x[1:2, :, valid[1]])[0])


def test_one_broken_frame_changes_little_and_a_clip_without_frames_is_finite() -> None:
    body, x = fitted(), clips(frames=31)
    broken = x.clone()
    broken[:, :3, 4] *= 100
    assert (body(broken) - body(x)).norm(dim=1).max() < 0.2
    nothing = body(torch.zeros_like(x), torch.zeros(B, 31, dtype=torch.bool))
    assert nothing.isfinite().all()


def test_the_mirror_image_has_the_same_measures() -> None:
    body, x = BodyMeasures().double(), clips()
    torch.testing.assert_close(body.measures(mirrored(x)), body.measures(x))


def test_bones_are_measured_in_the_unit_of_the_skeletons() -> None:
    body, x = BodyMeasures().double(), clips()
    twice = x.clone()
    twice[:, :3] *= 2
    torch.testing.assert_close(body.measures(twice), 2 * body.measures(x))


def test_a_measure_counts_by_how_people_differ_in_it_against_how_walks_of_one_do() -> None:
    """Two measures of equal spread: the first differs between people, the second between walks."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 5)
    first = rng.normal(size=40)[people] + 0.2 * rng.normal(size=200)
    second = 0.2 * rng.normal(size=40)[people] + rng.normal(size=200)
    mean_S, scale_S, directions_SD = two_covariance(np.stack([first, second], axis=1), people)
    step_SD = np.diag(scale_S) @ directions_SD
    assert np.linalg.norm(step_SD[0]) > 3 * np.linalg.norm(step_SD[1])
    np.testing.assert_allclose(mean_S, [first.mean(), second.mean()])


def test_with_one_walk_a_person_measures_are_only_standardised_and_constant_ones_say_nothing() -> None:
    measures = np.stack([np.arange(5.0), np.full(5, 2.0)], axis=1)
    _, scale_S, directions_SD = two_covariance(measures, np.arange(5))
    np.testing.assert_allclose(scale_S, [1 / measures[:, 0].std(), 0])
    np.testing.assert_array_equal(directions_SD, np.eye(2))


@pytest.mark.parametrize("people", [2, 14])
def test_the_metric_is_finite_for_few_people_and_measures_that_repeat_each_other(people: int) -> None:
    rng = np.random.default_rng(people)
    pids = np.repeat(np.arange(people), 2)
    one = rng.normal(size=(2 * people, 3))
    found = two_covariance(np.concatenate([one, one, 2 * one[:, :1]], axis=1), pids)
    assert all(np.isfinite(part).all() for part in found)


def test_no_measure_decides_alone() -> None:
    body, x = fitted(), clips(1)
    giant = x.clone()
    giant[:, :3] *= 1000
    standard = ((body.measures(giant) - body.mean) * body.scale).clamp(-CLIP, CLIP)
    assert standard.abs().max() == CLIP
    assert body(giant).isfinite().all()


def test_ranges_over_time_are_added_to_what_is_measured_and_are_without_the_outermost_tenths() -> None:
    body, both, x = BodyMeasures().double(), BodyMeasures(motion=True).double(), clips(frames=41)
    found = both.measures(x)
    assert found[:, : body.dim - 1].equal(body.measures(x))
    ankle = x[:, :3, :, [10, 13]] - x[:, :3, :, [8, 11]].mean(dim=3, keepdim=True)
    ordered = ankle.sort(dim=2).values
    ranges = (ordered[:, :, 36] - ordered[:, :, 4]).mean(dim=2)
    torch.testing.assert_close(found[:, -3:], (ranges + 0.01).log())
    broken = x.clone()
    broken[:, :3, 4] *= 100
    assert (both.measures(broken) - found)[:, body.dim - 1 :].abs().max() < 0.3


def test_ranges_of_a_clip_are_those_of_its_valid_frames_and_of_its_mirror_image() -> None:
    body, x = BodyMeasures(motion=True).double(), clips(frames=31)
    valid = torch.ones(B, 31, dtype=torch.bool)
    valid[:, 7:12] = False
    spoilt = torch.where(valid[:, None, :, None], x, 0.0)
    torch.testing.assert_close(body.measures(spoilt, valid), body.measures(x[:, :, valid[0]]))
    torch.testing.assert_close(body.measures(mirrored(x)), body.measures(x))


def test_people_of_one_body_are_told_apart_by_how_far_their_joints_move() -> None:
    """Everybody has the middle posture of one person and moves about it by another factor in each joint."""
    rng = torch.Generator().manual_seed(3)
    x = clips(1, 61).expand(8, -1, -1, -1).clone()
    middle = x[:, :3].median(dim=2, keepdim=True).values
    x[:, :3] = middle + (x[:, :3] - middle) * (0.5 + torch.rand(8, 1, 1, 14, generator=rng).double())
    body = fitted(motion=True, frames=61)
    again = x + 0.01 * torch.randn(x.shape, generator=rng)
    assert torch.cdist(body(again), body(x)).argmin(dim=1).equal(torch.arange(8))


def test_a_clip_too_short_for_ranges_is_compared_by_its_body() -> None:
    body, people = fitted(motion=True, frames=30), clips(20, 30, seed=7)
    valid = torch.zeros(20, 30, dtype=torch.bool)
    valid[:, : LEAST_FRAMES - 1] = True
    found = body(torch.where(valid[:, None, :, None], people, 0.0), valid)
    assert body.measures(people, valid)[:, -20:].isnan().all()
    assert found.isfinite().all()
    assert (torch.cdist(found, body(people)).argmin(dim=1) == torch.arange(20)).sum() > 12
    assert body(torch.zeros_like(people), torch.zeros_like(valid)).isfinite().all()


def test_a_measure_that_a_training_walk_does_not_tell_is_taken_from_the_others() -> None:
    measures = torch.randn(12, 55, generator=torch.Generator().manual_seed(0)).double()
    measures[3, -20:] = torch.nan
    body, pids = BodyMeasures(motion=True).double(), np.arange(12) // 3
    body.fit(measures, pids)
    filled = measures.clone()
    filled[3] = torch.where(measures[3].isnan(), measures.nanmean(dim=0), measures[3])
    expected = BodyMeasures(motion=True).double()
    expected.fit(filled, pids)
    assert all(a.equal(b) for a, b in zip(body.buffers(), expected.buffers(), strict=True))
    measures[:, -1] = torch.nan
    body.fit(measures, pids)
    assert all(buffer.isfinite().all() for buffer in body.buffers())
