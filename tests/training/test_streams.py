"""What a stream hands to its network, which never has to ask the device for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small import small_config

from sptskm.config import Config
from sptskm.data.skeleton_clips import SkeletonSource
from sptskm.models import stgcn
from sptskm.training.rundir import RunDir
from sptskm.training.setup import Setup
from sptskm.training.streams import Stream
from sptskm.training.trainer import train
from sptskm.training.world import World

META = torch.device("meta")  # has no values: whatever would make the host wait for one on a GPU raises


def on_a_device(config: Config) -> tuple[Stream, SkeletonSource, Setup]:
    """SMIN's clips with the skeletons there."""
    setup = Setup.of(config, World())
    assert isinstance(setup.source, SkeletonSource)
    return setup.stream, replace(setup.source, store=setup.source.store.to(META, torch.float32)), setup


@pytest.mark.parametrize("frames", [6, 60])
def test_a_training_step_of_smin_never_waits_for_the_device(walkers: Path, tmp_path: Path, frames: int) -> None:
    config = small_config("smin", walkers, tmp_path, f"clips.frames={frames}", "clips.random_move=true")
    stream, source, setup = on_a_device(config)
    batch = next(source.batches(setup.schedule, 0))
    inputs = stream.prepare(batch.inputs, META, torch.float32)
    assert len(inputs) == 1 + (frames == 60), "with gaps where clips are longer than tracklets"
    network = stream.model(3).to(META).train()
    output = network(*inputs)
    (output.logits.square().sum() + output.embedding.sum()).backward()
    assert all(p.grad is not None and p.grad.is_meta for p in network.parameters())


def test_smin_embeds_clips_with_gaps_without_waiting_for_the_device(walkers: Path, tmp_path: Path) -> None:
    stream, source, setup = on_a_device(small_config("smin", walkers, tmp_path, "clips.test_frames=60"))
    row = int(setup.split.train[0])
    inputs = stream.prepare(source.read(row, source.all_clips(row)), META, torch.float32)
    assert len(inputs) == 2
    with torch.inference_mode():
        assert stream.model(3).to(META).eval().embed(*inputs).is_meta  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_compiled_training_has_the_bits_of_training(
    walkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    """By a compiler that only traces; with gaps in every batch and another number of frames in each."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compiler(model, backend="eager"))
    monkeypatch.setattr(stgcn, "BLOCKS", ((1, 1), (2, 2), (4, 2)))  # in a third of the time
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    weights = {}
    options = ["data.held_out=0", "train.epochs=1", *(["clips.frames=40"] if stream == "smin" else [])]
    for compiled in ("false", "true"):
        run = tmp_path / compiled
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            assert train(small_config(stream, walkers, run, *options, f"train.compile={compiled}")).finished
        found = RunDir(run).newest()
        assert found is not None
        weights[compiled] = found[1]["model"]
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
    assert breaks <= (3 if stream == "smin" else 0), torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    for name, value in weights["false"].items():
        assert torch.equal(value, weights["true"][name]), name


@pytest.mark.parametrize("single", [True, False])
def test_a_static_branch_that_cannot_learn_what_to_trust_is_told(
    walkers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, single: bool
) -> None:
    setup = Setup.of(small_config("smin", walkers, tmp_path, "model.static=0.5", "clips.scale=auto"), World())
    rows = setup.schedule.rows
    pids = np.arange(len(rows)) if single else setup.schedule.pids
    setup.stream.fit(setup.stream.model(3), setup.source, rows, pids)
    assert ("has one tracklet, so that model.static cannot learn" in caplog.text) == single
