"""A run learns, says what it does, and stops with a reason when it cannot go on."""

import itertools
import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.small import small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sptskm.common.errors import DataError
from sptskm.config import Config, ConfigError
from sptskm.configfile import load
from sptskm.data.mars import read_mars
from sptskm.models import SSIN
from sptskm.streams.smin import SminStream
from sptskm.training.extract import channels_last
from sptskm.training.logbook import Logbook
from sptskm.training.losses import batch_all_triplet, batch_hard_triplet, euclidean, identity_loss
from sptskm.training.meters import Meters
from sptskm.training.optimisers import learning_rate, make_optimizer
from sptskm.training.precision import Precision
from sptskm.training.rundir import RunDir
from sptskm.training.setup import Setup
from sptskm.training.signals import StopFlag
from sptskm.training.trainer import (
    NonFiniteLoss,
    Trainer,
    set_training,
    train,
)
from sptskm.training.world import World


@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_a_run_leaves_its_configuration_checkpoints_result_and_board(trained, stream):
    run = trained[stream]
    assert load(run / "config.yaml").stream == stream
    assert json.loads((run / "result.json").read_text())["finished"]
    assert (run / "best.pt").is_file()
    events = EventAccumulator(str(run)).Reload()
    scalars, pictures = set(events.Tags()["scalars"]), events.Tags()["images"]
    assert {
        "loss/total", "loss/triplet", "optim/learning rate", "optim/gradient norm", "speed/clips per s",
        "speed/data wait share", "progress/epoch",
        "progress/hours left", "progress/memory GiB", "validation/mAP", "validation/rank-1", "validation/best mAP",
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


@pytest.mark.slow
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


def test_the_fused_optimizer_takes_the_steps_of_the_plain_one():
    layers = [torch.nn.Linear(20, 10), torch.nn.Linear(20, 10)]
    layers[1].load_state_dict(layers[0].state_dict())
    fused = make_optimizer(load("configs/mars/ssin.yaml"), layers[0])
    plain = torch.optim.Adam(layers[1].parameters(), lr=3e-4, weight_decay=5e-4)
    for seed in range(20):
        x = torch.randn(8, 20, generator=torch.Generator().manual_seed(seed))
        for layer, optimizer in zip(layers, (fused, plain), strict=True):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
    assert fused.param_groups[0]["fused"]
    torch.testing.assert_close(layers[0].weight, layers[1].weight, rtol=1e-5, atol=1e-6)


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


def test_float16_that_overflows_at_every_scale_is_an_end_and_not_a_run_without_steps(walkers, tmp_path, monkeypatch):
    loss = SminStream.loss

    def steep(self, output, labels, gather):
        terms = loss(self, output, labels, gather)
        terms["total"].register_hook(lambda gradient: gradient * torch.inf)
        return terms

    monkeypatch.setattr(SminStream, "loss", steep)
    monkeypatch.setattr(Precision, "scaler", lambda _: torch.amp.GradScaler("cpu", init_scale=4.0))
    config = small_config("smin", walkers, tmp_path / "run", "train.precision=float16")
    with pytest.raises(NonFiniteLoss, match=r"'loss scale': 0.5} at step 2 of smin .* wanted train.precision=bfloat16"):
        train(config)


def test_automatic_precision_and_tf32_follow_the_gpu(monkeypatch):
    gpu, backends = torch.device("cuda"), torch.backends
    monkeypatch.setattr(backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert str(Precision.of("auto", gpu)) == "float16"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert str(Precision.of("auto", gpu)) == "bfloat16"
    for name, tf32 in (("float32", False), ("bfloat16", True), ("float64", True)):
        assert str(Precision.of(name, gpu)) == name
        assert (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32) == (tf32, False)
    assert str(Precision.of("auto", torch.device("cpu"))) == "float32"


def test_ranks_must_agree_on_device_and_numbers(walkers, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(World, "agree", lambda _, values: seen.update(values))
    Setup.of(small_config("smin", walkers, tmp_path / "run"), World())
    assert (seen["device"], seen["precision"]) == ("cpu", "float32")


def test_a_run_says_where_and_in_which_numbers_it_trains(walkers, tmp_path, caplog):
    caplog.set_level("INFO", logger="sptskm")
    train(small_config("smin", walkers, tmp_path / "run", "train.epochs=1"))
    assert caplog.text.count("smin trains on CPU in float32") == 1


def test_an_epoch_is_saved_before_a_validation_at_the_end_and_else_where_it_costs_little(
    walkers, tmp_path, monkeypatch
):
    """A save takes a second here, and an epoch eight."""
    clock, saved = [0.0], []
    save, check = RunDir.save, Setup.check_negatives

    def slow(self, state, step):
        save(self, state, step)
        clock[0] += 1
        saved.append((step, state["epochs_done"]))

    def long(self, epoch):
        clock[0] += 8
        check(self, epoch)

    monkeypatch.setattr(RunDir, "save", slow)
    monkeypatch.setattr(Setup, "check_negatives", long)
    monkeypatch.setattr("sptskm.training.trainer.time", SimpleNamespace(monotonic=lambda: clock[0]))
    config = small_config("smin", walkers, tmp_path / "run", "train.epochs=8", "train.validate_every=4")
    steps = train(config).step // 8
    assert saved == [(epoch * steps, done) for epoch, done in [(1, 1), (4, 3), (7, 7), (8, 7), (8, 8)]]


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


def test_the_batch_all_loss_equals_a_loop_over_all_triplets():
    x, labels = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) // 2
    means = []
    for part in x.unbind(1):
        hinges = [
            float((part[a] - part[p]).norm() - (part[a] - part[n]).norm()) + 0.3
            for a, p, n in itertools.product(range(6), repeat=3)
            if labels[a] == labels[p] != labels[n]
        ]
        means.append(np.mean([hinge for hinge in hinges if hinge > 0]))
    assert float(batch_all_triplet(x, labels, 0.3, World().gather)) == pytest.approx(np.mean(means), rel=1e-4)
    assert float(batch_all_triplet(x, torch.zeros(6), 0.3, World().gather)) == 0


@pytest.mark.parametrize("overrides", ["", "loss.triplet=0", "sampling.kind=identities"])
def test_a_batch_of_one_identity_is_refused_in_a_sentence_where_it_matters(walkers, tmp_path, overrides):
    config = small_config("smin", walkers, tmp_path / "run", "sampling.kind=shuffled", *overrides.split())
    setup = Setup.of(config, World())
    one = setup.schedule.rows[setup.schedule.pids == setup.schedule.pids[0]]
    rows = np.concatenate([one] * 2)
    setup = replace(setup, schedule=setup.schedule._replace(rows=rows, pids=setup.table.pids_N[rows]))
    refused = pytest.raises(ValueError, match="single identity")
    with refused if not overrides else nullcontext():
        setup.check_negatives(0)


def test_a_run_is_refused_before_a_batch_of_one_identity(walkers, tmp_path, monkeypatch):
    monkeypatch.setattr(Setup, "check_negatives", lambda _, epoch: pytest.fail(f"looked at epoch {epoch}"))
    with pytest.raises(pytest.fail.Exception, match="looked at epoch 0"):
        train(small_config("smin", walkers, tmp_path / "run"))


def test_without_a_negative_the_loss_is_zero_and_no_gradient_is_nan():
    x = torch.randn(4, 2, requires_grad=True)
    loss = batch_hard_triplet(x, torch.zeros(4), 0.3, World().gather)
    loss.backward()
    assert loss.item() == 0
    assert x.grad.equal(torch.zeros(4, 2))


def test_the_loss_looks_at_no_value_so_that_no_gpu_is_waited_for():
    """Tensors without values refuse to be looked at."""
    x, labels = torch.empty(4, 2, device="meta"), torch.empty(4, device="meta")
    assert batch_hard_triplet(x, labels, 0.3, World().gather).shape == ()
    with pytest.raises(RuntimeError):
        bool(labels.any())


def test_a_step_looks_once_at_what_the_device_has_computed(walkers, tmp_path, monkeypatch):
    config = small_config("ssin", walkers, tmp_path / "run", "optim.algorithm=sgd")
    trainer = Trainer(Setup.of(config, World()), World(), StopFlag())
    trainer.logbook = Logbook(config, tmp_path, 0, 0, 1, writes=False)
    batch, looks, tolist = next(trainer.setup.batches(0, pinned=False)), [], torch.Tensor.tolist
    with monkeypatch.context() as hooked:
        hooked.setattr(torch.Tensor, "tolist", lambda self: looks.append(self.shape) or tolist(self))
        for name in ("__bool__", "__float__", "item"):
            hooked.setattr(torch.Tensor, name, lambda *_: pytest.fail("a second look"))
        trainer.train_step(batch, Meters(1, 1e-3))
    assert looks == [(7,)], "five terms, the flag and the norm"


@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_recipe_files_resolve_to_the_published_recipe(stream):
    config: Config = load(f"configs/mars/{stream}.yaml")
    batch = config.sampling.identities * config.sampling.tracklets
    expected = {"ssin": (32, 1000, 0.5, 0.5), "smin": (256, 200, 0.8, 0.2)}[stream]
    assert (batch, config.train.epochs, config.loss.identity, config.loss.triplet) == expected


def test_a_learning_rate_that_ends_in_no_number_is_a_sentence_and_no_traceback(walkers, tmp_path):
    with pytest.raises(DataError, match=r"is not finite; tracklets of the batch: .*; last good checkpoint: none yet"):
        train(small_config("smin", walkers, tmp_path / "run", "loss.margin=1e30", "loss.triplet=1e30"))


@pytest.mark.parametrize("wrong", [{"optimizer": {}}, {"provenance": {}}, {"step": "two"}])
def test_a_checkpoint_that_does_not_fit_its_run_is_a_sentence(wrong, walkers, tmp_path):
    config = small_config("smin", walkers, tmp_path / "run", "train.epochs=1")
    train(config)
    newest = RunDir(tmp_path / "run").checkpoints()[0]
    torch.save({**torch.load(newest, weights_only=True), **wrong}, newest)
    with pytest.raises((ConfigError, DataError), match=f"^{tmp_path / 'run'}.*(does not fit|another run|wanted)"):
        train(small_config("smin", walkers, tmp_path / "run", "train.epochs=2"))
