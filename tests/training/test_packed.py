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
from sptskm.training.rundir import RunDir, State
from sptskm.training.trainer import train


@pytest.fixture(scope="module")
def packed(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "pack"
    pack(read_dataset(walkers), out, 100, workers=1)
    return out


def trained(run: Path, stream: str, root: Path, *overrides: str) -> State:
    assert train(small_config(stream, root, run, *overrides)).finished
    found = RunDir(run).newest()
    assert found is not None
    return found[1]


def assert_same(a: State, b: State) -> None:
    assert a["step"] == b["step"] > 0
    assert a["best_mAP"] == b["best_mAP"]
    assert a["provenance"] == b["provenance"]
    for name, value in a["model"].items():
        assert torch.equal(value, b["model"][name]), name


@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_a_pack_and_its_copies_give_the_weights_that_files_give(
    stream: str, walkers: Path, packed: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    from_files = trained(tmp_path / "files", stream, walkers)
    assert_same(from_files, trained(tmp_path / "packed", stream, packed, "data.workers=1"))
    assert_same(from_files, trained(tmp_path / "staged", stream, packed, f"data.stage={disk}"))
    wanted = len(list(packed.glob("train-*.zip"))) if stream == "ssin" else 0
    until = time.monotonic() + 30  # copying goes on beside training and may end after it
    while len(list(disk.rglob("train-*.zip"))) < wanted and time.monotonic() < until:
        time.sleep(0.05)
    assert len(list(disk.rglob("train-*.zip"))) == wanted


def test_a_run_on_files_goes_on_from_the_pack(walkers: Path, packed: Path, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", "ssin", walkers)
    trained(tmp_path / "run", "ssin", walkers, "train.epochs=1")
    assert_same(whole, trained(tmp_path / "run", "ssin", packed))


def test_the_final_job_finds_the_same_from_files_and_pack(walkers: Path, packed: Path, tmp_path: Path) -> None:
    trained(tmp_path / "ssin", "ssin", walkers)
    found = [
        final([tmp_path / "ssin"], tmp_path / name, Final(), [f"data.root={root}", f"data.stage={stage}"])
        for name, root, stage in (("a", walkers, "none"), ("b", packed, tmp_path / "disk"))
    ]
    scores = [results.rankings[0].scores.mAP for results in found if results is not None]
    assert scores[0] == scores[1] > 0


@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_a_manifest_of_the_same_data_gives_the_same_weights(stream: str, walkers: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "walkers.jsonl"
    assert main(["import", "mars", str(walkers), str(manifest)]) == 0
    from_files, from_manifest = (
        trained(tmp_path / name, stream, root) for name, root in (("files", walkers), ("manifest", manifest))
    )
    assert from_files["best_mAP"] == from_manifest["best_mAP"]
    for name, value in from_files["model"].items():
        assert torch.equal(value, from_manifest["model"][name]), name
