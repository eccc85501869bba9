"""A run learns, says what it does, and stops with a reason when it cannot go on."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from small import small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sptskm.config import Config, ConfigError
from sptskm.configfile import load
from sptskm.data.mars import read_mars
from sptskm.models import SSIN
from sptskm.training.losses import batch_hard_triplet, euclidean, identity_loss
from sptskm.training.streams import SminStream
from sptskm.training.trainer import NonFiniteLoss, channels_last, learning_rate, make_optimizer, set_training, train
from sptskm.training.world import World


@pytest.fixture(scope="module")
def finished(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One finished run of each stream."""
    runs = {stream: tmp_path_factory.mktemp("finished") / stream for stream in ("ssin", "smin")}
    for stream, run in runs.items():
        train(small_config(stream, walkers, run))
    return runs


@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_a_run_leaves_its_configuration_checkpoints_result_and_board(finished, stream):
    run = finished[stream]
    assert load(run / "config.yaml").stream == stream
    assert json.loads((run / "result.json").read_text())["finished"]
    assert (run / "best.pt").is_file()
    events = EventAccumulator(str(run)).Reload()
    scalars, pictures = set(events.Tags()["scalars"]), events.Tags()["images"]
    assert {
        "loss/total", "loss/triplet", "optim/learning rate", "optim/gradient norm", "speed/clips per s",
        "speed/data wait share", "validation/mAP", "validation/rank-1",
    } <= scalars  # fmt: skip
    assert pictures == ["training clips"]


def test_skeletons_are_trained_on_and_embedded_without_loader_processes(walkers, tmp_path, monkeypatch):
    def start(*_: object) -> None:
        raise AssertionError("a loader process was started")

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter", start)
    for stream in ("smin", "ssin"):
        config = small_config(stream, walkers, tmp_path / stream, "data.workers=1")
        with nullcontext() if stream == "smin" else pytest.raises(AssertionError, match="loader process"):
            assert train(config).finished


def test_smin_overfits_a_few_walkers(walkers, tmp_path):
    options = """train.epochs=40 train.validate_every=40 clips.random_move=false clips.frames=8 model.dropout=0
        model.width=8 sampling.identities=4 sampling.tracklets=4 loss.smoothing=0 loss.triplet=0
        optim.algorithm=adam optim.lr=0.01 optim.milestones=[] data.held_out=0.34"""
    run = tmp_path / "run"
    train(small_config("smin", walkers, run, *options.split()))
    events = EventAccumulator(str(run)).Reload()
    losses = [event.value for event in events.Scalars("loss/identity")]
    assert losses[-1] < 0.5 * losses[0]


def test_a_non_finite_loss_names_step_tracklets_and_last_good_checkpoint(walkers, tmp_path, monkeypatch):
    loss, calls = SminStream.loss, [0]

    def explode(self, output, labels, gather):
        calls[0] += 1
        terms = loss(self, output, labels, gather)
        return {name: value * torch.nan for name, value in terms.items()} if calls[0] == 6 else terms

    monkeypatch.setattr(SminStream, "loss", explode)
    run = tmp_path / "run"
    with pytest.raises(NonFiniteLoss) as failure:
        train(small_config("smin", walkers, run))
    message = str(failure.value)
    assert "at step 5 of smin" in message
    assert str(run / "checkpoint-00000004.pt") in message
    table = read_mars(walkers)
    named = message.split("tracklets of the batch: ")[1].split(";")[0].split(", ")
    assert set(named) <= set(table.keys_N[table.train])
    assert torch.load(run / "checkpoint-00000004.pt", weights_only=True)["step"] == 4


def test_the_rate_falls_at_each_milestone():
    config = load("configs/mars/ssin.yaml")
    assert [learning_rate(config, epoch) for epoch in (0, 199)] == [3e-4, 3e-4]
    assert learning_rate(config, 200) == pytest.approx(3e-5)
    assert learning_rate(config, 999) == pytest.approx(3e-8)


def test_optimizers_are_the_published_ones():
    adam = make_optimizer(load("configs/mars/ssin.yaml"), torch.nn.Linear(1, 1)).param_groups[0]
    assert (adam["lr"], adam["weight_decay"], adam["betas"]) == (3e-4, 5e-4, (0.9, 0.999))
    sgd = make_optimizer(load("configs/mars/smin.yaml"), torch.nn.Linear(1, 1)).param_groups[0]
    assert (sgd["lr"], sgd["momentum"], sgd["nesterov"], sgd["weight_decay"]) == (0.1, 0.9, True, 1e-4)


@pytest.mark.parametrize("variant", ["2d", "3d"])
def test_the_layout_for_gpus_changes_no_output(variant):
    model = SSIN(3, variant, depths=(1, 1, 1, 1), width=4, embedding_dim=8).eval()
    frames, masks = torch.rand(2, 2, 3, 64, 32), torch.rand(2, 2, 64, 32)
    before = model.embed(frames, masks)
    channels_last(model)
    assert model.img_base[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(model.embed(frames, masks), before, atol=1e-6)


def test_a_non_finite_gradient_never_reaches_the_weights(walkers, tmp_path, monkeypatch):
    """The loss may still be finite then."""
    loss, calls = SminStream.loss, [0]

    def steep(self, output, labels, gather):
        calls[0] += 1
        terms = loss(self, output, labels, gather)
        if calls[0] == 4:
            terms["total"].register_hook(lambda gradient: gradient * torch.inf)
        return terms

    monkeypatch.setattr(SminStream, "loss", steep)
    run = tmp_path / "run"
    with pytest.raises(NonFiniteLoss, match="gradient norm"):
        train(small_config("smin", walkers, run))
    for path in run.glob("*.pt"):
        state = torch.load(path, weights_only=True)["model"]
        assert all(value.isfinite().all() for value in state.values())


def test_frozen_batch_norm_keeps_its_statistics():
    bn = torch.nn.BatchNorm1d(2)
    set_training(bn, "frozen")
    bn(torch.randn(8, 2) + 5)
    assert bn.running_mean.equal(torch.zeros(2))
    assert bn.weight.requires_grad


def test_a_run_without_a_folder_is_refused():
    with pytest.raises(ConfigError, match="run is empty"):
        train(load("configs/demo/smin.yaml"))


def test_label_smoothing_is_the_published_formula():
    logits, labels = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 2, 2, 4])
    target = 0.9 * torch.nn.functional.one_hot(labels, 5) + 0.1 / 5
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    assert float(identity_loss(logits, labels, 0.1)) == pytest.approx(float(expected))


def test_batch_hard_mining_equals_a_loop_over_all_triplets():
    rng = np.random.default_rng(0)
    x, labels = torch.tensor(rng.normal(size=(12, 3))), torch.tensor(rng.integers(0, 4, 12))
    distance = euclidean(x, x)
    hinges = []
    for a in range(12):
        positive = max(float(distance[a, p]) for p in range(12) if labels[p] == labels[a])
        negative = min(float(distance[a, n]) for n in range(12) if labels[n] != labels[a])
        hinges.append(max(0.0, positive - negative + 0.3))
    assert float(batch_hard_triplet(x, labels, 0.3, World().gather)) == pytest.approx(np.mean(hinges))


def test_a_batch_of_one_identity_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="single identity"):
        batch_hard_triplet(torch.randn(4, 2), torch.zeros(4), 0.3, World().gather)


@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_recipe_files_resolve_to_the_published_recipe(stream):
    config: Config = load(f"configs/mars/{stream}.yaml")
    batch = config.sampling.identities * config.sampling.tracklets
    expected = {"ssin": (32, 1000, 0.5, 0.5), "smin": (256, 200, 0.8, 0.2)}[stream]
    assert (batch, config.train.epochs, config.loss.identity, config.loss.triplet) == expected
