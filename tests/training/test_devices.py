"""Ranks whose devices do not go together are refused, all of them and in one sentence, before they wait in vain."""

import os
from pathlib import Path

import pytest
import torch
from helpers.small import free_port, on_ranks

from sptskm.config import ConfigError
from sptskm.training import devices, world
from sptskm.training.devices import Place, granted_by, misfit
from sptskm.training.world import VARIABLES, join

GPU = Place("a7", "cuda", "GPU-1", "")


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "5", "SLURM_STEP_GPUS": "0"}, "SLURM_STEP_GPUS=0"),
        ({"SLURM_JOB_ID": "5", "SLURM_JOB_GPUS": "2,3"}, "SLURM_JOB_GPUS=2,3"),
        ({"SLURM_JOB_ID": "5", "SLURM_GPUS_ON_NODE": "4"}, "SLURM_GPUS_ON_NODE=4"),
        ({"SLURM_JOB_ID": "5", "SLURM_GPUS_ON_NODE": "0", "SLURM_JOB_GPUS": ""}, ""),
        ({"SLURM_JOB_ID": "5", "SLURM_STEP_GPUS": "0", "CUDA_VISIBLE_DEVICES": ""}, ""),
        ({"SLURM_JOB_ID": "5", "CUDA_VISIBLE_DEVICES": "7"}, ""),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1a"}, "CUDA_VISIBLE_DEVICES=GPU-1a"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ""),
    ],
    ids=["nothing", "a step", "a job", "a count", "none of them", "hidden", "a login shell's", "no SLURM", "minus one"],
)
def test_gpus_are_granted_by_slurm_or_where_there_is_no_slurm_by_cuda(monkeypatch, known, expected):
    monkeypatch.setattr(devices, "has_gpus", lambda: True)
    assert granted_by(known) == expected


def test_without_slurm_a_machine_without_gpus_grants_none(monkeypatch):
    monkeypatch.setattr(devices, "has_gpus", lambda: False)
    assert not granted_by({"CUDA_VISIBLE_DEVICES": "0"})


def test_a_lone_process_that_finds_none_of_its_gpus_is_refused(monkeypatch):
    for name in (*VARIABLES, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("SLURM_STEP_GPUS", "3")
    sentence = (
        r"rank 0 was given GPUs \(SLURM_STEP_GPUS=3 on .*\), but PyTorch .* finds none, wanted its build for GPUs"
    )
    with pytest.raises(ConfigError, match=sentence), join(1, 1):
        pass


def test_ranks_with_gpus_of_their_own_or_all_without_go_together():
    assert not misfit([GPU, Place("a7", "cuda", "GPU-2", "")])
    assert not misfit([Place("a7", "cpu", "", "")] * 2)
    assert misfit([GPU, GPU])
    assert not misfit([GPU, GPU], sharing=True)


def meet_as(ports: list[int]) -> list[str]:
    """What this rank is told in each of four meetings."""
    world.FAREWELL_SECONDS = 0.5
    rank, found = int(os.environ["RANK"]), []
    theirs = [Place("a7", "cpu", "", "SLURM_STEP_GPUS=1"), Place("a8", "cpu", "", ""), GPU, Place("a7", "cpu", "", "")]
    mine = [Place("a7", "cpu", "", ""), GPU, GPU, Place("a7", "cpu", "", "")]
    for port, places in zip(ports, zip(mine, theirs, strict=True), strict=True):
        os.environ["MASTER_PORT"] = str(port)
        world.place_of = lambda _, own=places[rank]: own
        try:
            with join(threads=1, timeout_minutes=0.5) as group:
                found.append(f"{group.sum(torch.ones(1)).item():.0f} ranks")
        except ConfigError as error:
            found.append(str(error))
    return found


def test_all_ranks_say_why_they_do_not_go_together():
    for found in on_ranks(2, meet_as, [free_port() for _ in range(4)]):
        granted, mixed, shared, alike = found
        assert granted.startswith("rank 1 was given GPUs (SLURM_STEP_GPUS=1 on a7), but PyTorch ")
        assert mixed == "rank 0 with a GPU, rank 1 without one (on a8), wanted all alike"
        assert shared == "ranks 0 and 1 have the same GPU (a7 GPU-1), wanted one for each"
        assert alike == "2 ranks"


def test_a_machine_has_gpus_when_it_shows_their_files():
    assert devices.has_gpus() == any(path.name.removeprefix("nvidia").isdigit() for path in Path("/dev").iterdir())
