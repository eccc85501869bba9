"""Erased rectangles: drawn once a clip, erased the same everywhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.small import small_config

from sptskm.common.imagenet import IMAGENET_MEAN
from sptskm.config import SsinClips
from sptskm.data import augment
from sptskm.data.augment import PLAIN, View
from sptskm.training.setup import Setup
from sptskm.training.world import World

CLIPS = SsinClips(frames=2, height=32, width=16)
ERASED = replace(CLIPS, erase=0.5)


def erased(view: View, frames: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return augment.erase(frames, masks, torch.tensor([view], dtype=torch.int32))


@pytest.fixture
def clip():
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(1, 2, 3, 32, 16, generator=generator, dtype=torch.float64)
    return frames, torch.rand(1, 2, 32, 16, generator=generator, dtype=torch.float64)


def test_without_erasing_nothing_more_is_drawn_and_nothing_changes(clip):
    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    assert augment.draw_erased(PLAIN, CLIPS, rng) == PLAIN
    assert rng.random() == other.random()
    frames, masks = erased(PLAIN, *clip)
    assert frames.equal(clip[0])
    assert masks.equal(clip[1])


def test_every_draw_follows_its_distribution():
    rng = np.random.default_rng(0)
    views = [augment.draw_erased(PLAIN, ERASED, rng) for _ in range(4000)]
    hit = [view for view in views if view.erased_height]
    assert len(hit) / 4000 == pytest.approx(0.5, abs=0.03)
    shares = np.array([view.erased_height * view.erased_width for view in hit]) / (32 * 16)
    assert 0.01 < shares.min() < 0.04
    assert 0.3 < shares.max() < 0.45
    assert all(view.erased_top + view.erased_height <= 32 for view in hit)
    assert all(view.erased_left + view.erased_width <= 16 for view in hit)


def test_the_rectangle_is_the_same_in_every_frame_and_mask(clip):
    view = PLAIN._replace(erased_top=3, erased_left=2, erased_height=5, erased_width=4)
    frames, masks = erased(view, *clip)
    assert torch.allclose(frames[0, :, :, 3:8, 2:6], torch.tensor(IMAGENET_MEAN).double().view(1, 3, 1, 1))
    assert masks[0, :, 3:8, 2:6].eq(0).all()
    kept = torch.ones(32, 16, dtype=torch.bool)
    kept[3:8, 2:6] = False
    assert frames[..., kept].equal(clip[0][..., kept])
    assert masks[..., kept].equal(clip[1][..., kept])


def test_the_device_shows_what_the_loader_would_have_shown(walkers, tmp_path):
    """Clips cropped by the loader and erased, and clips cropped and erased together later."""
    options = ["clips.erase=0.7", "clips.height=128", "clips.width=64"]
    setup = Setup.of(small_config("ssin", walkers, tmp_path / "run", *options), World())
    draws = next(setup.schedule.from_step(0))
    here, there = (
        setup.stream.prepare(tuple(source.training(0)[draws].inputs), torch.device("cpu"), torch.float32)
        for source in (setup.source, replace(setup.source, on_device=True))
    )
    assert here[0].equal(there[0])
    assert here[1].equal(there[1])
    plain = Setup.of(small_config("ssin", walkers, tmp_path / "run", *options[1:]), World())
    bare = plain.stream.prepare(tuple(plain.source.training(0)[draws].inputs), torch.device("cpu"), torch.float32)
    assert len(bare) == 2
    assert not here[0].equal(bare[0])
    again = setup.source.training(0)[draws[1:]].inputs
    assert again[2].equal(setup.source.training(0)[draws].inputs[2][1:]), "a rectangle follows from its draw alone"
