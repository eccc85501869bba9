"""Training SSIN with a small trunk of `transformers`: rates by layer, stopping, going on without its folder."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.networks import write_trunk
from helpers.small import on_ranks, small_config
from helpers.steps import first_gradient, gradients_of

from sptskm.common.errors import ConfigError
from sptskm.config import SSIN_DEFAULTS, Config, Final
from sptskm.configfile import apply_overrides
from sptskm.extraction import load_network
from sptskm.final import final
from sptskm.launching.earlier import refuse_other_runs
from sptskm.models.resnet import ResNet
from sptskm.training.estimate import memory
from sptskm.training.optimisers import make_optimizer, set_rate
from sptskm.training.rundir import RunDir
from sptskm.training.signals import StopFlag
from sptskm.training.streams import stream_of
from sptskm.training.takeover import take_over
from sptskm.training.trainer import train
from sptskm.training.world import World, join

pytest.importorskip("transformers", reason="the extra backbones is not installed")

ALL = [
    "train.epochs=1",
    "optim.algorithm=adamw",
    "optim.layer_decay=0.5",
    "optim.ema=0.9",
    "optim.clip=0.1",
    "train.recompute=true",
]


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "dinov2"
    write_trunk(folder)
    return folder


def config_of(root: Path, run: Path, trunk: Path, *overrides: str) -> Config:
    return small_config("ssin", root, run, f"model.trunk={trunk}", *overrides)


def stopped(config: Config) -> bool:
    """Train for one step, as a stop is asked for during it."""
    stop = StopFlag()
    stop.requested = True
    return not train(config, stop).finished


def rates(config: Config, epoch_rate: float) -> dict[str, float]:
    """The learning rate of each parameter by name."""
    network = stream_of(config).model(3)
    optimizer = make_optimizer(config, network)
    set_rate(optimizer, epoch_rate, config.optim.layer_decay)
    found = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    return {name: found[id(p)] for name, p in network.named_parameters()}


@pytest.mark.parametrize("algorithm", ["adam", "adamw", "sgd"])
def test_each_layer_of_the_trunk_has_a_share_of_the_rate_of_the_next_one(trunk, algorithm):
    """The trunk has patches and two blocks."""
    found = rates(config_of(Path(), Path(), trunk, "optim.layer_decay=0.5", f"optim.algorithm={algorithm}"), 0.8)
    expected = {"embeddings": 0.1, "encoder.layer.0": 0.2, "encoder.layer.1": 0.4, "layernorm": 0.8}
    for name, rate in found.items():
        body = name.removeprefix("img_base.body.")
        wanted = next((rate for part, rate in expected.items() if body.startswith(part)), 0.8) if body != name else 0.8
        assert rate == pytest.approx(wanted), name
    assert set(rates(config_of(Path(), Path(), trunk), 0.8).values()) == {0.8}, "1 is one rate"


def test_a_step_moves_the_weights_of_a_layer_by_its_rate(trunk):
    config = config_of(Path(), Path(), trunk, "optim.layer_decay=0.5", "optim.algorithm=sgd", "optim.weight_decay=0")
    network = stream_of(config).model(3).double()
    optimizer = make_optimizer(config, network)
    set_rate(optimizer, 0.1, 0.5)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    moved = {name: (before[name] - p.detach()).unique() for name, p in network.named_parameters()}
    for name, rate in (
        ("img_base.body.embeddings.positions", 0.1 / 8),
        ("img_base.body.encoder.layer.1.norm1.weight", 0.1 / 2),
        ("img_base.body.layernorm.weight", 0.1),
        ("img_base.project.0.weight", 0.1),
        ("mask_base.0.weight", 0.1),
    ):
        torch.testing.assert_close(moved[name], torch.full_like(moved[name], 1.9 * rate))  # Nesterov's first step


def test_weights_of_the_trunk_are_those_of_its_folder_and_masks_take_a_resnets(trunk, tmp_path):
    torch.manual_seed(5)
    entries = ResNet((1, 1, 1, 1), 4).state_dict()
    torch.save(entries, tmp_path / "resnet.pth")
    model = stream_of(config_of(Path(), Path(), trunk, f"model.pretrained={tmp_path / 'resnet.pth'}")).model(3)
    torch.testing.assert_close(model.mask_base[0].weight.data, entries["conv1.weight"])
    written = write_trunk(tmp_path / "again")
    torch.testing.assert_close(model.img_base.body.layernorm.weight, written.layernorm.weight)


@pytest.mark.usefixtures("without_drawing")
def test_a_run_goes_on_with_the_same_bits_and_is_evaluated_after_the_folder_of_its_trunk_is_gone(
    walkers, trunk, tmp_path
):
    assert train(config_of(walkers, tmp_path / "whole", trunk, *ALL)).finished
    lent = shutil.copytree(trunk, tmp_path / "lent")
    config = config_of(walkers, tmp_path / "run", lent, *ALL)
    assert stopped(config)
    shutil.rmtree(lent)
    refuse_other_runs(SimpleNamespace(runs={"ssin": config}))  # as a launcher asks before it starts
    assert train(config).finished
    whole, found = (RunDir(tmp_path / name).newest()[1] for name in ("whole", "run"))
    assert all(torch.equal(value, found["model"][name]) for name, value in whole["model"].items())
    assert all(torch.equal(value, found["average"][name]) for name, value in whole["average"].items())
    network = load_network(tmp_path / "run")
    assert network.config.model.architecture["num_hidden_layers"] == 2
    frames, masks = torch.rand(2, 2, 3, 64, 32), torch.rand(2, 2, 64, 32)
    assert network.model.embed(frames, masks).shape == (2, network.model.embedding_dim)
    assert final([tmp_path / "run"], tmp_path / "out", Final(protocol="torchreid")) is not None
    assert "ssin.model.architecture.hidden_size" in (tmp_path / "out/report.html").read_text()
    with pytest.raises(FileNotFoundError, match="lent: no such folder"):
        train(config_of(walkers, tmp_path / "new", lent))


def test_a_run_does_not_continue_with_a_trunk_of_another_architecture(walkers, trunk, tmp_path):
    assert stopped(config_of(walkers, tmp_path / "run", trunk))
    write_trunk(tmp_path / "deeper", num_hidden_layers=3)
    with pytest.raises(ConfigError, match=r"model\.architecture\.num_hidden_layers: 2 -> 3"):
        train(config_of(walkers, tmp_path / "run", tmp_path / "deeper"))


def test_a_trial_of_a_search_takes_over_a_run_with_the_architecture(walkers, trunk, tmp_path):
    assert stopped(config_of(walkers, tmp_path / "donor", trunk, "optim.layer_decay=0.5"))
    config = config_of(walkers, tmp_path / "taker", trunk, "optim.layer_decay=0.9", "train.epochs=1")
    take_over(tmp_path / "donor", config)
    assert train(config).finished
    groups = RunDir(tmp_path / "taker").newest()[1]["optimizer"]["param_groups"]
    depths = {group.get("depth", 0): group["lr"] / groups[-1]["lr"] for group in groups}
    assert depths == pytest.approx({depth: 0.9**depth for depth in range(4)}), "by the taker's own decay"


@pytest.mark.parametrize("kind", ["dinov2", "convnext"])
def test_the_memory_of_a_step_is_estimated(kind, tmp_path):
    write_trunk(tmp_path, kind, drop_path_rate=0.1)
    small, large = (memory(config_of(Path(), Path(), tmp_path), 3, clips, 1, "cpu") for clips in (2, 4))
    assert small[0] == large[0] > 0
    assert 0 < small[1] < large[1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.layer_decay=0.5", "optim.layer_decay is 0.5, wanted 1 without model.trunk"),
        ("model.architecture={hidden_size: 8}", "architecture is given without trunk, wanted the folder of a trunk"),
    ],
)
def test_what_belongs_to_a_trunk_is_refused_without_one(override, message):
    with pytest.raises(ConfigError, match=message):
        apply_overrides(SSIN_DEFAULTS, [override])


def gradients(config: Config, world: World) -> dict[str, np.ndarray]:
    """The gradient of the first step."""
    trainer, _ = first_gradient(config, world)
    return gradients_of(trainer)


def on_rank(config: Config) -> Any:
    with join(1, 1) as world:
        return gradients(config, world)


@pytest.mark.slow  # starts two processes
def test_two_ranks_have_the_gradient_of_one(walkers, trunk, tmp_path):
    config = config_of(walkers, tmp_path / "run", trunk, "train.precision=float64", "model.dropout=0")
    alone = gradients(config, World())
    shutil.rmtree(tmp_path / "run")
    first, second = on_ranks(2, on_rank, config)
    assert alone.keys() == first.keys()
    for name, gradient in alone.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], gradient, rtol=1e-5, atol=1e-9, err_msg=name)
