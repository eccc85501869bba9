"""What a stream goes by: SSIN's attention as it is computed, and the joint on which a made-up network depends."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small import small_config
from torch import nn

from sptskm.data.skeletons import JOINTS
from sptskm.evaluation import Features
from sptskm.training.explain import explain
from sptskm.training.setup import Setup
from sptskm.training.world import join

ANKLE = JOINTS.index("left ankle")


class AnkleOnly(nn.Module):
    """Compares people by the height of one joint."""

    def embed(self, skeletons: Any, *_: Any) -> Any:
        height = skeletons[:, 1, :, ANKLE].mean(dim=1, keepdim=True)
        return torch.cat([height, torch.ones_like(height)], dim=1)


def features(setup: Setup, width: int) -> Features:
    keys_N = setup.table.keys_N[setup.table.test]
    vectors_ND = np.random.default_rng(0).normal(size=(len(keys_N), width)).astype(np.float32)
    return Features(vectors_ND, keys_N, np.ones(len(keys_N), bool), setup.table.fingerprint, "smin")


@pytest.mark.parametrize("variant", ["2d", "3d"])
def test_attention_averages_to_an_even_spread_and_changes_nothing(walkers: Path, variant: str) -> None:
    config = small_config("ssin", walkers, Path("run"), f"model.variant={variant}", "clips.height=128")
    with join(1, 1) as world:
        setup = Setup.of(config, world, training=False)
        model = setup.stream.model(len(setup.split.classes)).eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        found = explain(model, setup, features(setup, 8), world)
    assert found.joints is None
    assert len(found.attention) == 4
    for one in found.attention:
        assert one.frames_T3HW.shape[0] == one.attention_Thw.shape[0] == one.masks_THW.shape[0] == 2
        assert one.attention_Thw.mean() == pytest.approx(1, abs=1e-4)
        assert one.attention_Thw.shape[1:] == (4, 1)
        assert one.strength == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.attenblock0._forward_hooks  # type: ignore[union-attr]


def test_only_the_joint_that_a_network_looks_at_matters_to_it(walkers: Path) -> None:
    with join(1, 1) as world:
        setup = Setup.of(small_config("smin", walkers, Path("run")), world, training=False)
        found = explain(AnkleOnly(), setup, features(setup, 2), world).joints
    assert found is not None
    assert found.tracklets > 1
    others = np.arange(len(JOINTS)) != ANKLE
    assert not found.change_V[others].any()
    assert abs(found.change_V[ANKLE]) > 1e-3
    assert np.isfinite(found.skeleton_V4).all()


def test_without_a_query_there_is_nothing_to_explain(walkers: Path) -> None:
    with join(1, 1) as world:
        setup = Setup.of(small_config("smin", walkers, Path("run")), world, training=False)
        object.__setattr__(setup.table, "query", setup.table.query[:0])
        found = explain(AnkleOnly(), setup, features(setup, 2), world)
    assert found.joints is None
    assert not found.attention
