"""The answer does not depend on the number of ranks: real gloo processes against one process, in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small import on_ranks, small_config
from helpers.steps import first_gradient, gradients_of

from sptskm.config import Config
from sptskm.configfile import apply_overrides
from sptskm.data.sampler import Draw, epoch_batches
from sptskm.training import trainer as trainers
from sptskm.training.extract import extract
from sptskm.training.losses import batch_all_triplet, batch_hard_triplet
from sptskm.training.precision import Precision
from sptskm.training.rundir import RunDir
from sptskm.training.setup import Setup
from sptskm.training.signals import StopFlag
from sptskm.training.trainer import Trainer
from sptskm.training.world import World, join

pytestmark = pytest.mark.slow  # seven processes that train

RELATIVE = 1e-5
EXACT = {
    "ssin": ["train.precision=float64", "model.dropout=0.0"],
    "smin": ["train.precision=float64", "model.dropout=0.0", "model.width=32"],
    "gait": ["train.precision=float64"],
}
STREAMS = tuple(EXACT)
RNG = np.random.default_rng(0)
EMBEDDING, LABELS = RNG.normal(size=(8, 6)), np.repeat(np.arange(4), 2)

Arrays = dict[str, np.ndarray]


def first_step(config: Config, world: World) -> Arrays:
    """Gradients, BN statistics and loss terms of the first training step."""
    trainer, terms = first_gradient(config, world)
    means, _, _ = trainer.exchange(terms)
    statistics = {n: b.numpy().copy() for n, b in trainer.network.named_buffers() if "running" in n}
    return {**gradients_of(trainer), **statistics, **{f"loss {name}": np.array(value) for name, value in means.items()}}


def whole_run(config: Config, world: World) -> Arrays:
    """Weights after training to the end."""
    trainer = Trainer(Setup.of(config, world), world, StopFlag())
    assert trainer.run().finished
    return {name: value.numpy() for name, value in trainer.network.state_dict().items()}


def validated_run(config: Config, world: World) -> Arrays:
    """The same, with the features by which it was validated last."""
    seen, embed = {}, trainers.extract

    def extract_and_keep(*arguments: Any) -> Any:
        found = embed(*arguments)
        seen["validated"] = found.features_ND
        return found

    trainers.extract = extract_and_keep
    weights = whole_run(config, world)
    trainers.extract = embed
    return {**weights, **seen}


def features(config: Config, world: World) -> Arrays:
    """Embeddings of all test tracklets by an untrained network, in float32."""
    setup = Setup.of(config, world, training=False)
    torch.manual_seed(0)
    model = setup.stream.model(3)
    found = extract(model, setup.stream, setup.source, setup.table.test, config, world)
    return {"features": found.features_ND, "valid": found.valid_N}


def triplet_gradient(world: World, mined_globally: bool) -> Arrays:
    """This rank's slice of the gradient that DDP's average leaves on the embeddings."""
    share = len(LABELS) // world.size
    mine = slice(world.rank * share, (world.rank + 1) * share)
    x = torch.tensor(EMBEDDING[mine], requires_grad=True)
    loss = batch_hard_triplet(x, torch.tensor(LABELS[mine]), 0.3, world.gather if mined_globally else lambda t: t)
    loss.backward()
    assert x.grad is not None
    mean = float(world.sum(loss.detach())) / world.size
    return {"loss": np.array(mean), "gradient": x.grad.numpy() / world.size}


def batch_all_gradient(world: World) -> Arrays:
    """The same for the batch-all loss of two parts."""
    share = len(LABELS) // world.size
    mine = slice(world.rank * share, (world.rank + 1) * share)
    x = torch.tensor(EMBEDDING[mine].reshape(share, 2, 3), requires_grad=True)
    loss = batch_all_triplet(x, torch.tensor(LABELS[mine]), 0.3, world.gather)
    loss.backward()
    assert x.grad is not None
    return {"loss": np.array(float(world.sum(loss.detach())) / world.size), "gradient": x.grad.numpy() / world.size}


def battery(configs: dict[str, Config], worker_options: list[list[str]]) -> dict[str, Arrays]:
    """Everything below, on one rank; one start of the processes serves all."""
    with join(threads=1, timeout_minutes=1) as world:
        found = {"triplet": triplet_gradient(world, mined_globally=True), "batch all": batch_all_gradient(world)}
        if world.size == 2:  # with one identity per rank it would not even have a negative
            found["triplet per rank"] = triplet_gradient(world, mined_globally=False)
        for stream, config in configs.items():
            config = apply_overrides(config, [f"run={config.run}-{world.size}"])
            found[f"first step {stream}"] = first_step(config, world)
            if world.size == 2:
                local = apply_overrides(config, [f"run={config.run}-local", "train.batch_norm=local"])
                found[f"run with local BN {stream}"] = validated_run(local, world)
            if world.size <= 2:
                found[f"run {stream}"] = whole_run(config, world)
            in_float32 = apply_overrides(config, ["train.precision=float32", *worker_options[world.size % 2]])
            found[f"features {stream}"] = features(in_float32, world)
        return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs lie."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def found(walkers: Path, folder: Path) -> dict[int, list[dict[str, Arrays]]]:
    """The battery on 1, 2 and 4 ranks, each with another batch size and number of loader workers."""
    configs = {s: small_config(s, walkers, folder / s, *EXACT[s]) for s in STREAMS}
    options = [["extract.batch=5", "data.workers=0"], ["extract.batch=1", "data.workers=2"]]
    one = [battery(configs, options)]
    return {1: one, **{world: on_ranks(world, battery, configs, options) for world in (2, 4)}}


def largest_difference(found: Arrays, expected: Arrays) -> float:
    """Largest difference of any entry, relative to the largest of all."""
    assert found.keys() == expected.keys()
    scale = max(np.abs(value).max() for value in expected.values())
    return max(float(np.abs(found[name] - value).max()) for name, value in expected.items()) / scale


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("world", [2, 4])
def test_loss_gradients_and_bn_statistics_are_those_of_one_process(found: Any, stream: str, world: int) -> None:
    expected = found[1][0][f"first step {stream}"]
    assert expected["loss triplet"] > 0
    for rank in found[world]:
        assert largest_difference(rank[f"first step {stream}"], expected) <= RELATIVE


@pytest.mark.parametrize("stream", STREAMS)
def test_a_run_on_two_ranks_ends_with_the_weights_of_one(found: Any, stream: str) -> None:
    for rank in found[2]:
        assert largest_difference(rank[f"run {stream}"], found[1][0][f"run {stream}"]) <= RELATIVE


@pytest.mark.parametrize("stream", STREAMS)
def test_bn_per_rank_is_another_network_but_one_and_the_same_on_all_ranks(found: Any, stream: str) -> None:
    ours, theirs = (
        {n: v for n, v in rank[f"run with local BN {stream}"].items() if "running" not in n and "tracked" not in n}
        for rank in found[2]
    )
    assert largest_difference(ours, theirs) == 0
    synchronised = {name: found[2][0][f"run {stream}"][name] for name in ours.keys() - {"validated"}}
    ours = {name: ours[name] for name in synchronised}
    assert largest_difference(ours, synchronised) > RELATIVE


@pytest.mark.parametrize("stream", STREAMS)
def test_with_bn_per_rank_all_ranks_validate_the_network_that_is_saved(
    found: Any, walkers: Path, folder: Path, tmp_path: Path, stream: str
) -> None:
    config = small_config(stream, walkers, tmp_path / "run", *EXACT[stream])
    setup = Setup.of(config, World())
    _, state = RunDir(folder / f"{stream}-2-local").newest()
    network = setup.network(pretrained=False).to(torch.float64)
    network.load_state_dict(state["model"])
    expected = extract(network, setup.stream, setup.source, setup.split.held_out, config, World()).features_ND
    assert np.abs(expected).max() > 0
    for rank in found[2]:
        assert np.array_equal(rank[f"run with local BN {stream}"]["validated"], expected)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("world", [2, 4])
def test_features_have_the_same_bits_for_any_ranks_batch_and_workers(found: Any, stream: str, world: int) -> None:
    expected = found[1][0][f"features {stream}"]
    assert np.abs(expected["features"]).max() > 0
    for rank in found[world]:
        assert np.array_equal(rank[f"features {stream}"]["features"], expected["features"])
        assert np.array_equal(rank[f"features {stream}"]["valid"], expected["valid"])


@pytest.mark.parametrize("loss", ["triplet", "batch all"])
@pytest.mark.parametrize("world", [2, 4])
def test_mining_is_global_even_with_one_identity_per_rank(found: Any, world: int, loss: str) -> None:
    expected = found[1][0][loss]
    assert expected["loss"] > 0
    gradient = np.concatenate([rank[loss]["gradient"] for rank in found[world]])
    np.testing.assert_allclose(gradient, expected["gradient"], rtol=1e-9, atol=1e-12)
    assert found[world][0][loss]["loss"] == pytest.approx(expected["loss"], rel=1e-12)


def test_mining_within_a_rank_is_seen_to_be_another_loss(found: Any) -> None:
    """The check above can fail."""
    expected = found[1][0]["triplet"]["gradient"]
    gradient = np.concatenate([rank["triplet per rank"]["gradient"] for rank in found[2]])
    assert np.abs(gradient - expected).max() > 0.1 * np.abs(expected).max()


def test_every_rank_count_draws_the_same_tracklets(walkers: Path, tmp_path: Path) -> None:
    config = small_config("ssin", walkers, tmp_path / "run")
    schedule = Setup.of(config, World()).schedule
    batches = epoch_batches(schedule.sampling, schedule.rows, schedule.pids, 0, config.train.seed)
    for world in (1, 2, 4):
        shares = [next(schedule._replace(rank=rank, world=world).from_step(0)) for rank in range(world)]
        assert [draw for share in shares for draw in share] == [
            Draw(int(row), 0, slot) for slot, row in enumerate(batches[0])
        ]


def test_half_precision_is_chosen_by_name() -> None:
    cpu = torch.device("cpu")
    assert Precision.of("auto", cpu).cast is None
    assert Precision.of("bfloat16", cpu).cast is torch.bfloat16
    assert Precision.of("float64", cpu).dtype is torch.float64
