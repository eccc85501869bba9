"""The gait stream's static branch. Legend: B clips, T frames, H rows, W columns, N tracklets."""

import numpy as np
import pytest
import torch
from torch import Tensor

from sptskm.models import Gait
from sptskm.models.averages import DIRECTIONS, SHRINK, AverageSilhouettes, main_directions, within_whitened

T, H, W = 4, 64, 44


def people(pids: list[int], coats: list[bool], seed: int = 0) -> Tensor:
    """Walks (B, T, H, W): legs tell who it is, the trunk what is worn, and noise is everywhere."""
    noise, columns = torch.Generator().manual_seed(seed), torch.arange(W).float()
    walks = torch.zeros(len(pids), T, H, W)
    for walk, pid, coat in zip(walks, pids, coats, strict=True):
        shape = np.random.default_rng(pid).uniform(3, 12, 8).repeat(8)
        shape[16:40] += 8 * coat
        shape[40:] += 2  # feet point forward
        walk[:] = ((columns - W / 2).abs()[None] < torch.from_numpy(shape)[:, None]).float()
        walk[:, 60:, 26:40], walk[:, 60:, :18] = 1, 0
    return (walks - (torch.rand(walks.shape, generator=noise) < 0.05).float()).abs()


def fitted(rows: tuple[int, ...] = (), count: int = 10) -> AverageSilhouettes:
    branch = AverageSilhouettes(H, W, rows)
    pids, coats = [*range(count)] * 4, [False] * count * 2 + [True] * count * 2
    branch.fit(branch.averages(people(pids, coats)), np.array(pids))
    return branch


def test_vectors_have_unit_length_and_all_are_alike_before_the_metric_is_learned() -> None:
    walks = people([50, 51], [False, False])
    vectors = fitted((0, 14, 40, 64))(walks)
    assert vectors.shape == (2, 2 * DIRECTIONS)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert not AverageSilhouettes(H, W)(walks).any()


def test_what_clothes_change_counts_little_for_people_who_were_not_seen_in_training() -> None:
    pids, branch = list(range(50, 70)), fitted()
    query, gallery = people(pids, [True] * 20, seed=1), people(pids, [False] * 20, seed=2)
    found = torch.cdist(branch(query), branch(gallery)).argmin(dim=1).eq(torch.arange(20)).sum()
    plain = torch.cdist(*(branch.averages(x).flatten(1) for x in (query, gallery)))
    assert found >= 15 > plain.argmin(dim=1).eq(torch.arange(20)).sum()


def test_rows_outside_the_bands_have_no_say() -> None:
    branch, walk = fitted((0, 14, 40, 64)), people([50], [False])
    other = walk.clone()
    other[..., 14:40, :] = torch.rand(T, 26, W)
    branch.way.zero_()  # which way people walk is seen in all rows
    torch.testing.assert_close(branch(other), branch(walk))


def test_a_walk_and_its_mirror_image_are_turned_the_same_way() -> None:
    branch, walks = fitted(), people([50, 51, 52], [False, True, False])
    torch.testing.assert_close(branch(walks.flip(3)), branch(walks))


def test_frames_that_are_not_valid_are_left_out_and_a_clip_without_any_is_finite() -> None:
    branch, walks = fitted(), people([50, 51], [False, True])
    valid = torch.tensor([[True, False, True, True], [False] * 4])
    torch.testing.assert_close(branch(walks, valid)[:1], branch(walks[:1, [0, 2, 3]]))
    assert branch(walks, valid).isfinite().all()


def test_walks_of_a_person_deviate_by_one_in_every_direction_but_for_the_shrinkage() -> None:
    rng = np.random.default_rng(0)
    pids = np.arange(300) // 3
    values = rng.normal(size=(100, 5))[pids] + rng.normal(size=(300, 5)) * [1, 2, 3, 4, 5]
    mean, directions = within_whitened(values, pids)
    directions = directions[:, directions.any(axis=0)]
    assert directions.shape == (5, 5)
    seen = (values - mean) @ directions
    apart = seen - np.stack([seen[pids == pid].mean(axis=0) for pid in range(100)])[pids]
    covariance = apart.T @ apart / 300
    assert np.allclose(covariance, np.diag(covariance.diagonal()), atol=1e-9)
    assert (covariance.diagonal() > 0.1).all()
    assert 1 < covariance.diagonal().max() < 1 / (1 - SHRINK)


@pytest.mark.parametrize("pids", [[0], [0, 1, 2]])
def test_without_two_walks_of_a_person_the_metric_is_finite(pids: list[int]) -> None:
    branch = AverageSilhouettes(H, W)
    branch.fit(branch.averages(people(pids, [False] * len(pids))), np.array(pids))
    assert branch(people([50], [True])).isfinite().all()


def test_directions_in_which_nothing_deviates_are_zero() -> None:
    directions = main_directions(np.array([[0.0, 3.0, 0.0], [0.0, -3.0, 4.0]]))
    assert directions[:, :2].any(axis=0).all()
    assert not directions[:, 2:].any()
    assert not directions[0].any()


def test_the_network_shares_the_distance_with_the_branch() -> None:
    torch.manual_seed(0)
    walks = people([50, 51], [False, True])
    model = Gait(3, width=4, depth=1, stride=2, embedding_dim=6, static=0.75, static_rows=(0, 14, 40, 64)).eval()
    assert model.averages is not None
    model.averages.load_state_dict(fitted((0, 14, 40, 64)).state_dict())
    one, two = model.embed(walks)
    assert one.shape == (model.embedding_dim,) == (15 * 6 + 2 * DIRECTIONS,)
    torch.testing.assert_close(one.norm(), torch.ones(()))
    of_branch = (model.averages(walks)[0] - model.averages(walks)[1]).square().sum()
    torch.testing.assert_close((one - two)[90:].square().sum(), 0.75 * of_branch)


def test_with_the_mirror_image_a_clip_and_its_mirror_image_have_the_same_embedding() -> None:
    torch.manual_seed(0)
    walks = people([50, 51], [False, True])
    model = Gait(3, width=4, depth=1, stride=2, embedding_dim=6, mirror=True).eval()
    torch.testing.assert_close(model.embed(walks.flip(3)), model.embed(walks))


def test_the_branch_changes_no_weight_of_the_network_and_no_output_of_training() -> None:
    walks, models = people([50, 51], [False, True]), []
    for static in (0.0, 0.8):
        torch.manual_seed(0)
        models.append(Gait(3, width=4, depth=1, stride=2, embedding_dim=6, static=static).train())
    without, beside = models
    weights = beside.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in without.state_dict().items())
    assert all(map(torch.equal, without(walks), beside(walks)))
