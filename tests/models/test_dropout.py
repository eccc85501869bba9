"""Dropout with one random bit for each number."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from sptskm.models.dropout import Dropout


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_of_the_numbers_are_doubled_and_the_others_zero_each_by_itself(layout: torch.memory_format) -> None:
    x = (torch.rand(16, 32, 20, 14) + 1).to(memory_format=layout).requires_grad_()
    out = Dropout(0.5)(x)
    assert out.is_contiguous(memory_format=layout)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(out, x * x.grad)
    kept = x.grad / 2
    assert kept.unique().tolist() == [0, 1]
    far = 5 / kept.numel() ** 0.5  # five standard deviations
    assert kept.mean().item() == pytest.approx(0.5, abs=far / 2)
    flat = (2 * kept - 1).flatten()
    byte = flat.numel() // 8  # how far apart two bits of one random byte lie
    for apart in (1, 14, 280, byte):
        assert (flat[apart:] * flat[:-apart]).mean().item() == pytest.approx(0, abs=1.1 * far)


def test_the_same_state_draws_the_same_and_the_next_call_draws_anew() -> None:
    x, drop = torch.ones(1001), Dropout(0.5)
    state = torch.get_rng_state()
    first, second = drop(x), drop(x)
    torch.set_rng_state(state)
    assert torch.equal(drop(x), first)
    assert not torch.equal(first, second)
    assert drop(torch.ones(0)).shape == (0,)


def test_other_rates_and_evaluation_are_those_of_pytorch() -> None:
    x, state = torch.randn(1000), torch.get_rng_state()
    found = Dropout(0.2)(x)
    torch.set_rng_state(state)
    assert torch.equal(found, F.dropout(x, 0.2))
    assert torch.equal(Dropout(0.5).eval()(x), x)
