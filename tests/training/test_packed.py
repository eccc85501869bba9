"""Training does not notice whether its data are files, a pack, or copies of a pack."""

import time
from pathlib import Path

import pytest
import torch
from helpers.small import small_config

from sptskm.cli import main
from sptskm.config import Final
from sptskm.data import read_dataset
from sptskm.data.packs.writing import pack
from sptskm.final import final
from sptskm.training.checkpoints import State
from sptskm.training.rundir import RunDir
from sptskm.training.trainer import train


@pytest.fixture(scope="module")
def packed(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "pack"
    pack(read_dataset(walkers), out, 100, workers=1)
    return out


def end_of(run: Path) -> State:
    """The newest checkpoint of a run."""
    found = RunDir(run).newest()
    assert found is not None
    return found[1]


def trained_on(root: Path, run: Path, stream: str, *overrides: str) -> State:
    """How a run on the data in `root` ends."""
    assert train(small_config(stream, root, run, *overrides)).finished
    return end_of(run)


def assert_same(a: State, b: State) -> None:
    assert a["step"] == b["step"] > 0
    assert a["best_mAP"] == b["best_mAP"]
    assert a["provenance"] == b["provenance"]
    for name, value in a["model"].items():
        assert torch.equal(value, b["model"][name]), name


@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_a_pack_and_its_copies_give_the_weights_that_files_give(
    stream: str, trained: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    from_files = end_of(trained[stream])
    assert_same(from_files, trained_on(packed, tmp_path / "packed", stream, "data.workers=1"))
    assert_same(from_files, trained_on(packed, tmp_path / "staged", stream, f"data.stage={disk}"))
    wanted = len(list(packed.glob("train-*.zip"))) if stream == "ssin" else 0
    until = time.monotonic() + 30  # copying goes on beside training and may end after it
    while len(list(disk.rglob("train-*.zip"))) < wanted and time.monotonic() < until:
        time.sleep(0.05)
    assert len(list(disk.rglob("train-*.zip"))) == wanted


def test_a_run_on_files_goes_on_from_the_pack(
    walkers: Path, trained: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    trained_on(walkers, tmp_path / "run", "ssin", "train.epochs=1")
    assert_same(end_of(trained["ssin"]), trained_on(packed, tmp_path / "run", "ssin"))


@pytest.mark.usefixtures("without_drawing")
def test_the_final_job_finds_the_same_from_files_and_pack(
    walkers: Path, trained: dict[str, Path], packed: Path, tmp_path: Path
) -> None:
    found = [
        final([trained["ssin"]], tmp_path / name, Final(), [f"data.root={root}", f"data.stage={stage}"])
        for name, root, stage in (("a", walkers, "none"), ("b", packed, tmp_path / "disk"))
    ]
    scores = [results.rankings[0].scores.mAP for results in found if results is not None]
    assert scores[0] == scores[1] > 0


@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_a_manifest_of_the_same_data_gives_the_same_weights(
    stream: str, walkers: Path, trained: dict[str, Path], tmp_path: Path
) -> None:
    manifest = tmp_path / "walkers.jsonl"
    assert main(["import", "mars", str(walkers), str(manifest)]) == 0
    from_files, from_manifest = end_of(trained[stream]), trained_on(manifest, tmp_path / "run", stream)
    assert from_files["best_mAP"] == from_manifest["best_mAP"]
    for name, value in from_files["model"].items():
        assert torch.equal(value, from_manifest["model"][name]), name
