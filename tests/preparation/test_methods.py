"""Which network computes masks and skeletons, where, and in which precision; and that no two of these are mixed."""

import subprocess
from pathlib import Path

import pytest
import torch
from helpers.handmade import write_files
from helpers.networks import frames_only, write_jppnet, write_posehg3d

from sptskm import cli
from sptskm.config import ConfigError
from sptskm.data import read_mars
from sptskm.data.derived import HOME, Made, read_derived, write_method
from sptskm.preparation.command import MethodName, Wanted
from sptskm.preparation.methods import device_of, method_of
from sptskm.preparation.work import Ledger, PrecisionName, precision_of

WRITERS = {"masks": write_jppnet, "skeletons": write_posehg3d}


def settings(made: Made, weights: Path, device: str, precision: PrecisionName = "auto") -> dict[str, object]:
    """What is recorded of a method; `meta` stands for a GPU, on which nothing can be computed here."""
    method: MethodName = "jppnet" if made == "masks" else "posehg3d"
    wanted = Wanted((made,), Path(), method, weights, device=device, precision=precision)
    return dict(method_of(wanted, 0).settings)


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.usefixtures("three_gpus")
def test_shards_take_the_gpus_of_a_machine_in_turn() -> None:
    for named in ("", "cuda"):
        assert [str(device_of(named, shard)) for shard in range(5)] == [
            "cuda:0",
            "cuda:1",
            "cuda:2",
            "cuda:0",
            "cuda:1",
        ]
    assert [str(device_of("cuda:1", shard)) for shard in range(3)] == ["cuda:1"] * 3
    assert str(device_of("cpu", 2)) == "cpu"


@pytest.mark.usefixtures("three_gpus")
def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--device is cuda:3, wanted one of the 3 GPUs that are seen here, or cpu"):
        device_of("cuda:3", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="--device is cuda, wanted one of the 0 GPUs"):
        device_of("cuda", 5)


def test_without_a_gpu_shards_are_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(device_of("", 4)) == "cpu"


def test_auto_is_float16_for_masks_on_a_gpu_and_else_float32() -> None:
    assert precision_of("jppnet", "auto", gpu=True) == "float16"
    assert precision_of("jppnet", "auto", gpu=False) == "float32"
    assert precision_of("posehg3d", "auto", gpu=True) == "float32"
    assert precision_of("posehg3d", "bfloat16", gpu=True) == "bfloat16"
    assert precision_of("jppnet", "float32", gpu=False) == "float32"


@pytest.mark.parametrize("made", ["masks", "skeletons"])
def test_weights_are_the_same_on_every_device_in_every_precision(made: Made, tmp_path: Path) -> None:
    weights = WRITERS[made](tmp_path)
    cpu, gpu = settings(made, weights, "cpu"), settings(made, weights, "meta", "bfloat16")
    assert (cpu["precision"], gpu["precision"]) == ("float32", "bfloat16")
    assert cpu == {**gpu, "precision": "float32"}
    assert settings(made, weights, "meta", "float32") == cpu
    assert settings(made, weights, "meta")["precision"] == {"masks": "float16", "skeletons": "float32"}[made]


def test_results_of_another_precision_are_refused_in_a_sentence_that_names_the_option(tmp_path: Path) -> None:
    data = write_files(tmp_path)
    write_method(data, "masks", {"method": "jppnet", "weights": "0a", "precision": "float16"})
    with pytest.raises(ConfigError, match=r"\(precision: float16 -> float32\); give --precision float16, or remove"):
        Ledger(data, read_mars(data), ["masks"], {"method": "jppnet", "weights": "0a", "precision": "float32"})
    with pytest.raises(
        ConfigError, match=r"\(weights: 0a -> 0b; precision: float16 -> float32\); remove them and this"
    ):
        Ledger(data, read_mars(data), ["masks"], {"method": "jppnet", "weights": "0b", "precision": "float32"})


def test_results_from_before_the_precision_was_noted_are_float32(tmp_path: Path) -> None:
    data, old = write_files(tmp_path), {"method": "jppnet", "weights": "0a"}
    write_method(data, "masks", old)
    with pytest.raises(ConfigError, match="precision: float32 -> float16"):
        Ledger(data, read_mars(data), ["masks"], {**old, "precision": "float16"})
    Ledger(data, read_mars(data), ["masks"], {**old, "precision": "float32"}).begin(0, "masks")
    assert read_derived(data).methods["masks"]["precision"] == "float32"


def test_half_precision_on_a_cpu_is_refused_before_anything_is_written(
    walkers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, weights = frames_only(walkers, tmp_path / "data"), write_posehg3d(tmp_path)
    words = ["prepare", "skeletons", "--data", str(data), "--weights", str(weights), "--device", "cpu"]
    assert cli.main([*words, "--precision", "float16"]) == cli.EXIT_BAD_INPUT
    assert "--precision is float16 and there is no GPU, wanted float32" in capsys.readouterr().err
    assert not (data / HOME).exists()


def test_every_shard_is_told_the_device_and_the_precision(
    walkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = frames_only(walkers, tmp_path / "data")
    started: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **_settings: object) -> None:
            started.append(command[3:])

        def wait(self) -> int:
            return 0

        def terminate(self) -> None:
            pass

    monkeypatch.setattr(subprocess, "Popen", Process)
    cli.main(["prepare", "masks", "--data", str(data), "--weights", "w", "--precision", "bfloat16", "--shards", "3"])
    shards = [cli._parser().parse_args(command) for command in started]
    assert [(shard.shard, shard.device, shard.precision) for shard in shards] == [(n, "", "bfloat16") for n in range(3)]
