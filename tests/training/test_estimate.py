"""What a run takes is estimated before it is started."""

import pytest
import torch
from helpers.small import small_config

from sptskm.config import STREAMS, ConfigError
from sptskm.configfile import apply_overrides
from sptskm.models.recomputing import recompute
from sptskm.training.estimate import Estimate, duration, estimate, inputs_of, kept, memory, rate_of
from sptskm.training.streams import stream_of


def bytes_kept(config, clips: int) -> int:
    """Bytes that a real forward pass keeps, inputs included."""
    stream = stream_of(config)
    network = stream.model(4)
    inputs = inputs_of(stream, config, clips)
    found = [x.nbytes for x in inputs]
    with kept(found, list(network.parameters())):
        network.train()(*inputs)
    return sum(found)


@pytest.mark.parametrize("stream", STREAMS)
def test_activations_are_those_that_a_real_step_keeps(stream, walkers, tmp_path):
    config = small_config(stream, walkers, tmp_path)
    _, found = memory(config, 4, 4, 1, "cpu")
    assert found == pytest.approx(bytes_kept(config, 4), rel=0.01)
    _, twice = memory(config, 4, 8, 1, "cpu")
    assert twice == pytest.approx(2 * found, rel=0.1)


def test_the_state_is_weights_gradients_and_moments(walkers, tmp_path):
    config = small_config("ssin", walkers, tmp_path)
    network = stream_of(config).model(4)
    weights = sum(value.nbytes for value in network.state_dict().values())
    trained = sum(p.nbytes for p in network.parameters() if p.requires_grad)
    assert memory(config, 4, 4, 1, "cpu")[0] == weights + 3 * trained
    assert memory(config, 4, 4, 2, "cpu")[0] == weights + 4 * trained, "a copy of the gradient to exchange"


def test_half_precision_recomputing_and_parts_need_less(walkers, tmp_path):
    config = small_config("ssin", walkers, tmp_path)
    plain = memory(config, 4, 8, 1, "cpu")[1]
    assert memory(config, 4, 8, 1, "cuda")[1] < plain, "bfloat16 is what a GPU would use"
    for override in ("train.recompute=true", "train.accumulate=2"):
        assert memory(apply_overrides(config, [override]), 4, 8, 1, "cpu")[1] < plain, override
    network = stream_of(config).model(4)
    recompute(network)
    assert any("forward" in vars(block) for block in network.modules()), "by which recomputed blocks are found"


def test_steps_hours_and_what_does_not_fit_are_told(walkers, tmp_path):
    config = small_config("smin", walkers, tmp_path, "sampling.rounds=3")
    found = estimate(config, 2, "cuda", rate="8")
    assert (found.per_epoch, found.steps, found.clips) == (6, 12, 4), "4 people in batches of 2, three times"
    assert found.hours == pytest.approx(12 * 4 / 8 / 3600)
    assert "6 steps x 2 epochs = 12 steps of 4 clips on 2 ranks" in found.text()
    assert "fits the 80 GB of gpu_gb" in found.text(80, "gpu_gb")
    assert "does NOT fit the 0.5 GB of gpu_gb" in found.text(0.5, "gpu_gb")
    assert "no hours without a rate" in estimate(config, 1, "cpu").text()
    assert "about 0 minutes at 8 clips/s" in found.text()
    assert found.text(0.0, "gpu_gb").endswith("whether that fits is not known without gpu_gb")


def test_the_clips_that_would_fit_follow_from_what_one_takes():
    one = Estimate("ssin", 10, 3, 64, 2, state=10.0, activations=8.0, device="cuda")
    assert one.largest(one.memory) == one.own == 32
    assert one.largest(1.0 + 1.1 * (10 + 16)) == 64
    assert one.largest(5.0) == 0
    assert "fits the 80 GB of gpu_gb, and about 247 clips a rank would" in one.text(80, "gpu_gb")
    assert "fits the 140 GB of gpu_gb, and 8 times as many clips would" in one.text(140, "gpu_gb")


@pytest.mark.parametrize(
    ("hours", "told"), [(0.4, "24 minutes"), (1.99, "119 minutes"), (2, "2.0 hours"), (75, "75 hours")]
)
def test_times_are_told_in_minutes_or_hours(hours, told):
    assert duration(hours) == told


def test_a_rate_measured_on_a_cpu_is_not_called_that_of_a_gpu(walkers, tmp_path, monkeypatch):
    config = small_config("smin", walkers, tmp_path / "run")
    monkeypatch.setattr("sptskm.training.estimate.measured", lambda *_: 0.5)
    assert estimate(config, 1, "cpu", measure=2).source == "2 steps of a rank on this CPU without data"
    elsewhere = estimate(config, 2, "cuda", measure=2).source
    assert elsewhere == "2 steps of a rank on this CPU without data, times 2, not on a GPU of the cluster"


def test_a_rate_is_a_number_or_comes_from_an_earlier_run(trained, tmp_path):
    assert rate_of("120.5") == (120.5, "as given")
    rate, source = rate_of(str(trained["smin"]))
    assert rate > 0
    assert source == f"{trained['smin'] / 'metrics.csv'}, 2 epochs"
    (tmp_path / "other.csv").write_text("epoch\n1\n")
    for wrong, sentence in (
        ("0", "wanted a positive number"),
        (str(tmp_path / "other.csv"), "has no column of numbers"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            rate_of(wrong)
    with pytest.raises(OSError, match="nowhere"):
        rate_of(str(tmp_path / "nowhere"))


def test_steps_are_measured_on_this_machine(walkers, tmp_path):
    found = estimate(small_config("ssin", walkers, tmp_path), 1, "cpu", measure=1)
    assert found.rate > 0
    assert "1 steps of a rank on this" in found.source
    assert torch.is_grad_enabled()
