"""Optimisers, schedules, averaged weights, batches in parts and activations computed twice."""

from functools import partial
from math import cos, pi
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.small import on_ranks, small_config
from torch import nn

from sptskm.common.errors import ConfigError
from sptskm.config import SSIN_DEFAULTS, Config
from sptskm.configfile import apply_overrides
from sptskm.models import SMIN, SSIN
from sptskm.models.recomputing import recompute
from sptskm.training.averaging import Average
from sptskm.training.batchnorm import SyncedBatchNorm
from sptskm.training.optimisers import clip_gradient, learning_rate, make_optimizer
from sptskm.training.passes import Passes
from sptskm.training.precision import Precision
from sptskm.training.rundir import RunDir
from sptskm.training.setup import Setup, check_parts
from sptskm.training.signals import StopFlag
from sptskm.training.takeover import take_over
from sptskm.training.trainer import Trainer, train
from sptskm.training.world import World, join

EXACT = ["train.precision=float64", "model.dropout=0.0"]
ALL = ["optim.algorithm=adamw", "optim.schedule=cosine", "optim.warmup=1", "optim.clip=0.1", "optim.ema=0.9"]
SWITCHES = ["model.imagenet=true", "model.last_stride=1", "model.spatial_pooling=gem", "clips.erase=0.5"]
IN_PARTS = ["train.accumulate=2", "train.recompute=true"]
Arrays = dict[str, np.ndarray]


def optim(*overrides: str) -> Config:
    return apply_overrides(SSIN_DEFAULTS, [f"optim.{override}" for override in overrides])


def test_the_cosine_begins_at_the_rate_and_ends_near_zero():
    config = apply_overrides(optim("schedule=cosine", "lr=0.4"), ["train.epochs=10"])
    rates = [learning_rate(config, epoch) for epoch in range(10)]
    assert rates == pytest.approx([0.2 * (1 + cos(pi * epoch / 10)) for epoch in range(10)])
    assert rates[0] == 0.4
    assert 0 < rates[-1] < 0.01


def test_warm_up_rises_evenly_and_the_cosine_begins_behind_it():
    config = apply_overrides(optim("schedule=cosine", "lr=1", "warmup=4"), ["train.epochs=12"])
    assert [learning_rate(config, epoch) for epoch in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert learning_rate(config, 8) == pytest.approx(0.5)
    steps = optim("lr=1", "warmup=2", "milestones=[1,3]")
    assert [learning_rate(steps, epoch) for epoch in range(4)] == pytest.approx([0.5, 0.1, 0.1, 0.01])


def test_adamw_spares_biases_and_normalisation_and_every_other_weight_decays():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2, bias=False))
    optimizer = make_optimizer(optim("algorithm=adamw", "lr=0.5", "weight_decay=0.1"), network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer.step()
    kept = {name: torch.equal(p, before[name]) for name, p in network.named_parameters()}
    assert kept == {"0.weight": False, "0.bias": True, "1.weight": True, "1.bias": True, "2.weight": False}
    assert torch.allclose(network[2].weight, before["2.weight"] * (1 - 0.5 * 0.1))


def test_a_long_gradient_is_scaled_down_and_a_short_one_stays():
    layer = nn.Linear(3, 1, bias=False)
    for length, clipped in ((5.0, 2.0), (1.0, 1.0)):
        layer.weight.grad = torch.tensor([[0.0, 0.6, 0.8]]) * length
        clip_gradient(layer, length, 2.0)
        assert layer.weight.grad.norm().item() == pytest.approx(clipped)
        clip_gradient(layer, length, 0.0)
        assert layer.weight.grad.norm().item() == pytest.approx(clipped), "0 is no limit"


def test_the_average_follows_its_formula_for_weights_and_statistics():
    network = nn.BatchNorm1d(1)
    average = Average(network, decay=0.2)
    expected = 1.0
    for step, weight in enumerate((3.0, 5.0, -1.0)):
        nn.init.constant_(network.weight, weight)
        network.running_mean.fill_(weight)
        network.num_batches_tracked.fill_(step)
        decay = min(0.2, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
        average.update(network, step)
        assert average.network.weight.item() == pytest.approx(expected)
    mean = (0.1 * 0 + 0.9 * 3) * (2 / 11) + 5 * (9 / 11)
    assert average.network.running_mean.item() == pytest.approx(mean * 0.2 - 0.8)
    assert average.network.num_batches_tracked.item() == 2
    assert Average(network, 0.0).network is network


def trained_with(walkers, run, *overrides):
    assert train(small_config("smin", walkers, run, "train.epochs=2", *overrides)).finished
    return RunDir(run)


def test_averaged_weights_are_validated_kept_and_used_and_the_trained_ones_go_on(walkers, tmp_path):
    plain = trained_with(walkers, tmp_path / "plain")
    folder = trained_with(walkers, tmp_path / "ema", "optim.ema=0.99")
    state, before = folder.newest()[1], plain.newest()[1]
    assert all(torch.equal(value, before["model"][name]) for name, value in state["model"].items()), "same training"
    kept = folder.trained()["model"]
    assert any(not torch.equal(value, state["model"][name]) for name, value in kept.items())
    folder.best.unlink()
    used = folder.trained()["model"]  # as after a run with nobody held out
    assert all(torch.equal(value, state["average"][name]) for name, value in used.items())


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_a_run_with_every_ingredient_continues_bit_by_bit(walkers, tmp_path, stream):
    options = ["model.dropout=0.5", "train.save_steps=1", *ALL, *IN_PARTS, *(SWITCHES if stream == "ssin" else [])]
    whole = small_config(stream, walkers, tmp_path / "whole", *options)
    train(whole)
    config = small_config(stream, walkers, tmp_path / "stopped", *options)
    stop = StopFlag()
    trainer = Trainer(Setup.of(config, World()), World(), stop)
    stop.requested = True
    assert not trainer.run().finished
    train(config)
    found, expected = (RunDir(tmp_path / name).newest()[1] for name in ("stopped", "whole"))
    for part in ("model", "average"):
        assert all(torch.equal(value, expected[part][name]) for name, value in found[part].items()), part


def test_the_last_weights_are_kept_where_few_people_are_held_out(walkers, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", logger="sptskm")
    scores = iter([0.9, 0.2, 0.9, 0.2])
    monkeypatch.setattr(Trainer, "validate", lambda _: SimpleNamespace(mAP=next(scores), rank=lambda _: 0.5))
    for run, number, kept in (("few", 3, 0.2), ("many", 2, 0.9)):
        state = trained_with(walkers, tmp_path / run, f"train.best_from={number}").trained()
        assert state["best_mAP"] == kept
    assert (
        "smin keeps its last weights and no best epoch: 2 identities are held out, train.best_from is 3" in caplog.text
    )
    assert caplog.text.count("keeps its last weights") == 1


def gradients_in(parts: int, frozen: bool) -> tuple[Arrays, Arrays]:
    """Gradients and buffers of a small SSIN after a loss that couples the whole batch."""
    torch.manual_seed(0)
    network = SSIN(3, depths=(1, 1, 1, 1), width=4, embedding_dim=8, dropout=0.0).double()
    network.train(not frozen)
    torch.manual_seed(1)
    inputs = torch.rand(5, 2, 3, 32, 32).double(), torch.rand(5, 2, 32, 32).double()
    passes = Passes(network, network, Precision(torch.device("cpu")).autocast, parts)
    output = passes.outputs(inputs, lambda _: None)
    assert len(output.embedding) == 5
    (torch.cdist(output.embedding, output.embedding).max() + output.logits.glob.square().mean()).backward()
    passes.backward()
    gradients = {n: p.grad.numpy() for n, p in network.named_parameters() if p.grad is not None}
    return gradients, {n: b.numpy() for n, b in network.named_buffers()}


def test_a_batch_in_parts_has_the_gradient_of_the_whole_also_where_clips_are_compared():
    whole, _ = gradients_in(1, frozen=True)
    for parts in (2, 5):
        found, _ = gradients_in(parts, frozen=True)
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-12, err_msg=name)


def test_in_parts_the_statistics_count_every_part_once():
    _, buffers = gradients_in(2, frozen=False)
    assert buffers["img_base.1.num_batches_tracked"] == 2


def test_a_part_of_one_clip_is_refused_in_a_sentence():
    config = apply_overrides(SSIN_DEFAULTS, ["train.accumulate=9"])
    with pytest.raises(ConfigError, match=r"train.accumulate is 9, wanted at most 8: a rank's batch has 16 clips"):
        check_parts(config, ranks=2)
    check_parts(apply_overrides(config, ["train.accumulate=8"]), ranks=2)


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("make", [partial(SSIN, 3, depths=(1, 2, 1, 1)), partial(SMIN, 3)])
def test_activations_computed_twice_change_neither_gradient_nor_statistics(make, synced):
    found = []
    for twice in (False, True):
        torch.manual_seed(0)
        network = make(width=4, embedding_dim=8, dropout=0.5)
        if synced:
            SyncedBatchNorm.convert(network, lambda x: x, lambda x: x)
        if twice:
            recompute(network)
        torch.manual_seed(1)
        images = torch.rand(2, 2, 3, 32, 32), torch.rand(2, 2, 32, 32)
        output = network(*(images if isinstance(network, SSIN) else (torch.rand(2, 4, 8, 14),)))
        sum(leaf.square().sum() for leaf in torch.utils._pytree.tree_leaves(output)).backward()
        gradients = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
        found.append({**gradients, **{n: b.clone() for n, b in network.named_buffers()}})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_recomputing_keeps_less_between_the_passes():
    sizes = []
    for twice in (False, True):
        network = SSIN(3, depths=(1, 1, 1, 1), width=4, embedding_dim=8)
        if twice:
            recompute(network)
        kept = [0]

        def pack(x: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept[0] += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            network(torch.rand(2, 2, 3, 64, 32), torch.rand(2, 2, 64, 32))
        sizes.append(kept[0])
    assert sizes[1] < 0.7 * sizes[0]


def test_a_cosine_run_does_not_continue_with_another_end(walkers, tmp_path):
    trained_with(walkers, tmp_path / "run", "optim.schedule=cosine")
    longer = small_config("smin", walkers, tmp_path / "run", "optim.schedule=cosine", "train.epochs=3")
    with pytest.raises(ConfigError, match=r"train.epochs: 2 -> 3, on which a cosine schedule depends"):
        train(longer)


def test_a_run_that_takes_over_keeps_biases_free_of_decay(walkers, tmp_path):
    trained_with(walkers, tmp_path / "donor", "optim.algorithm=adamw")
    options = ["optim.algorithm=adamw", "optim.weight_decay=0.125"]
    config = small_config("smin", walkers, tmp_path / "taker", "train.epochs=2", *options)
    take_over(tmp_path / "donor", config)
    groups = RunDir(tmp_path / "taker").newest()[1]["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.125, 0.0]


def run_on_ranks(configs: list[Config]) -> list[Arrays]:
    """Averaged weights of whole runs."""
    found = []
    with join(threads=1, timeout_minutes=1) as world:
        for config in configs:
            config = apply_overrides(config, [f"run={config.run}-{world.size}"])
            trainer = Trainer(Setup.of(config, world), world, StopFlag())
            assert trainer.run().finished
            found.append({name: value.numpy() for name, value in trainer.average.network.state_dict().items()})
    return found


@pytest.mark.slow
def test_two_ranks_with_every_ingredient_end_where_one_does(walkers, tmp_path):
    """Batches in parts keep their statistics frozen here: a part of one rank holds other clips than one of two."""
    options = [*EXACT, *ALL, *SWITCHES]
    configs = [small_config("ssin", walkers, tmp_path / "synced", *options, "train.recompute=true")]
    configs.append(
        small_config(
            "ssin",
            walkers,
            tmp_path / "parts",
            *options,
            "train.batch_norm=frozen",
            "train.accumulate=2",
            "sampling.tracklets=4",
        )
    )
    (one,) = on_ranks(1, run_on_ranks, configs)
    for rank in on_ranks(2, run_on_ranks, configs):
        for found, expected in zip(rank, one, strict=True):
            scale = max(np.abs(value).max() for value in expected.values())
            assert max(np.abs(found[n] - expected[n]).max() for n in expected) <= 1e-5 * scale
