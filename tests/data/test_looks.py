"""Colours, grey and erased rectangles: drawn once a clip, painted the same everywhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.small import small_config

from sptskm.config import SsinClips
from sptskm.data import augment
from sptskm.data.augment import PLAIN, UNIT, View
from sptskm.training.setup import Setup
from sptskm.training.world import World

CLIPS = SsinClips(frames=2, height=32, width=16)
LOOKS = replace(CLIPS, erase=0.5, jitter=0.3, grey=0.2)


def painted(view: View, frames: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return augment.paint(frames, masks, torch.tensor([view], dtype=torch.int32))


@pytest.fixture
def clip():
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(1, 2, 3, 32, 16, generator=generator, dtype=torch.float64)
    return frames, torch.rand(1, 2, 32, 16, generator=generator, dtype=torch.float64)


def test_without_looks_nothing_more_is_drawn_and_nothing_changes(clip):
    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    assert augment.draw_look(PLAIN, CLIPS, rng) == PLAIN
    assert rng.random() == other.random()
    frames, masks = painted(PLAIN, *clip)
    assert frames.equal(clip[0])
    assert masks.equal(clip[1])


def test_every_draw_follows_its_distribution():
    rng = np.random.default_rng(0)
    views = [augment.draw_look(PLAIN, LOOKS, rng) for _ in range(4000)]
    erased = [view for view in views if view.erased_height]
    assert len(erased) / 4000 == pytest.approx(0.5, abs=0.03)
    assert np.mean([view.grey for view in views]) == pytest.approx(0.2, abs=0.03)
    for name in ("brightness", "contrast", "saturation"):
        factors = np.array([getattr(view, name) for view in views]) / UNIT
        assert 0.7 <= factors.min() < 0.71
        assert 1.29 < factors.max() <= 1.301
    shares = np.array([view.erased_height * view.erased_width for view in erased]) / (32 * 16)
    assert 0.01 < shares.min() < 0.04
    assert 0.3 < shares.max() < 0.45
    assert all(view.erased_top + view.erased_height <= 32 for view in erased)
    assert all(view.erased_left + view.erased_width <= 16 for view in erased)


def test_the_rectangle_is_the_same_in_every_frame_and_mask(clip):
    view = PLAIN._replace(erased_top=3, erased_left=2, erased_height=5, erased_width=4)
    frames, masks = painted(view, *clip)
    assert torch.allclose(frames[0, :, :, 3:8, 2:6], torch.tensor(augment.IMAGENET_MEAN).double().view(1, 3, 1, 1))
    assert masks[0, :, 3:8, 2:6].eq(0).all()
    kept = torch.ones(32, 16, dtype=torch.bool)
    kept[3:8, 2:6] = False
    assert frames[..., kept].equal(clip[0][..., kept])
    assert masks[..., kept].equal(clip[1][..., kept])


def test_colours_are_blends_within_bounds(clip):
    x = clip[0]
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(1, 1, 3, 1, 1)
    grey = (x * weights).sum(2, keepdim=True)
    for name, other in (("brightness", torch.zeros(())), ("contrast", grey.mean()), ("saturation", grey)):
        for factor in (UNIT // 2, 3 * UNIT // 2):
            found, masks = painted(PLAIN._replace(**{name: factor}), *clip)
            expected = (factor / UNIT * x + (1 - factor / UNIT) * other).clamp(0, 1)
            assert torch.allclose(found, expected), name
            assert masks.equal(clip[1])
    found, _ = painted(PLAIN._replace(grey=1), *clip)
    assert torch.allclose(found, grey.expand_as(x))


def test_the_device_paints_what_the_loader_would_have_shown(walkers, tmp_path):
    """Clips cropped by the loader and painted, and clips cropped and painted together later."""
    options = ["clips.erase=0.7", "clips.jitter=0.3", "clips.grey=0.3", "clips.height=128", "clips.width=64"]
    setup = Setup.of(small_config("ssin", walkers, tmp_path / "run", *options), World())
    draws = next(setup.schedule.from_step(0))
    here, there = (
        setup.stream.prepare(tuple(source.training(0)[draws].inputs), torch.device("cpu"), torch.float32)
        for source in (setup.source, replace(setup.source, on_device=True))
    )
    assert here[0].equal(there[0])
    assert here[1].equal(there[1])
    plain = Setup.of(small_config("ssin", walkers, tmp_path / "run", *options[3:]), World())
    bare = plain.stream.prepare(tuple(plain.source.training(0)[draws].inputs), torch.device("cpu"), torch.float32)
    assert len(bare) == 2
    assert not here[0].equal(bare[0])
    again = setup.source.training(0)[draws[1:]].inputs
    assert again[2].equal(setup.source.training(0)[draws].inputs[2][1:]), "a look follows from its draw alone"
