"""Gait, a network of sets of silhouettes. Legend: B clips, T frames, H rows, W columns, P parts, D of a part."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sptskm.models import Gait

B, T, H, W = 3, 5, 64, 44


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def small(stride: int = 2, strips: tuple[int, ...] = (1, 2, 4, 8)) -> Gait:
    return Gait(7, width=4, depth=1, stride=stride, strips=strips, embedding_dim=6).eval()


def clips(frames: int = T, seed: int = 0) -> Tensor:
    return (torch.rand(B, frames, H, W, generator=torch.Generator().manual_seed(seed)) > 0.5).float()


def test_every_part_has_an_embedding_and_logits_and_the_whole_has_unit_length() -> None:
    model = small()
    output, embedding = model(clips()), model.embed(clips())
    assert output.logits.shape == (B, 15, 7)
    assert output.embeddings.shape == (B, 15, 6)
    assert embedding.shape == (B, 90) == (B, model.embedding_dim)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(B))


@pytest.mark.parametrize("stride", [1, 2])
def test_neither_the_order_of_a_sets_silhouettes_nor_a_repeated_one_matters(stride: int) -> None:
    model, clip = small(stride), clips()
    expected = model.embed(clip)
    torch.testing.assert_close(model.embed(clip.flip(1)), expected)
    torch.testing.assert_close(model.embed(torch.cat([clip, clip[:, :2]], dim=1)), expected)


def test_frames_that_are_not_valid_are_left_out_of_the_set() -> None:
    model, clip = small(), clips()
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[:, [1, 4]] = False
    torch.testing.assert_close(model.embed(clip, valid), model.embed(clip[:, [0, 2, 3]]))
    assert not torch.allclose(model.embed(clip), model.embed(clip[:, [0, 2, 3]]))


def test_a_part_sees_its_own_strip_alone() -> None:
    """With one convolution of 5 x 5 at most, what changes at the feet does not reach the strip of the head."""
    model, clip = small(strips=(1, 8)), clips()
    other = clip.clone()
    other[..., -8:, :] = 0
    one, two = model(clip).embeddings, model(other).embeddings
    assert torch.equal(one[:, 1], two[:, 1]), "the strip of the head"
    assert not torch.equal(one[:, 8], two[:, 8]), "the strip of the feet"
    assert not torch.equal(one[:, 0], two[:, 0]), "the whole"


def test_every_weight_gets_a_gradient() -> None:
    model = small().train()
    output = model(clips())
    (output.logits.square().sum() + output.embeddings.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
