"""Ranks find each other, agree, and end together."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers.small import free_port, on_ranks, small_config
from torch import nn

from sptskm.config import ConfigError
from sptskm.training.batchnorm import SyncedBatchNorm
from sptskm.training.setup import Setup
from sptskm.training.world import VARIABLES, World, first_line, is_loss, join


def test_one_process_needs_no_group():
    with join(threads=1, timeout_minutes=1) as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        x = torch.randn(3, 2)
        assert world.gather(x) is x
        assert world.sum(x).equal(x)


def test_half_set_variables_are_refused_by_name(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="MASTER_ADDR"), join(1, 1):
        pass


BATCH = np.random.default_rng(0).normal(size=(5, 3, 4, 2))


def meet(ports: list[int], walkers: Path, run: Path) -> list[Any]:
    """What one of two ranks finds in four meetings; one start of the processes serves all."""
    found = []
    for port, meeting in zip(ports, (disagree, lambda: set_up(walkers, run), normalise, exposed), strict=True):
        os.environ["MASTER_PORT"] = str(port)
        found.append(meeting())
    return found


@pytest.fixture(scope="module")
def meetings(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, Any]]:
    """What both ranks find, for each meeting."""
    ports = [free_port() for _ in range(4)]
    return list(zip(*on_ranks(2, meet, ports, walkers, tmp_path_factory.mktemp("run")), strict=True))


def exposed() -> set[str]:
    """Addresses on which this process listens, in hexadecimal."""
    with join(threads=1, timeout_minutes=1) as world:
        world.any(False)
        own = {str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
        lines = [
            line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()
        ]
        return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in own}


def test_ranks_of_one_machine_listen_where_no_other_machine_reaches_them(meetings):
    assert set().union(*meetings[3]) == {"0100007F"}


def disagree() -> str:
    with join(threads=1, timeout_minutes=1) as world:
        try:
            world.agree({"seed": 1, "the table": f"hash{world.rank}"})
        except RuntimeError as error:
            return str(error)
    return ""


def test_ranks_that_see_different_data_all_stop_and_say_so(meetings):
    for message in meetings[0]:
        assert message == "the table differs between ranks (rank 0: hash0, rank 1: hash1)"


def set_up(walkers: Path, run: Path) -> str:
    with join(threads=1, timeout_minutes=1) as world:
        config = small_config("smin", walkers, run, f"train.seed={world.rank}")
        try:
            Setup.of(config, world)
        except RuntimeError as error:
            return str(error)
    return ""


def test_ranks_with_different_configurations_all_stop_before_the_first_step(meetings):
    for message in meetings[1]:
        assert message == "train.seed differs between ranks (rank 0: 0, rank 1: 1)"


def normalise() -> tuple[np.ndarray, ...]:
    with join(threads=1, timeout_minutes=1) as world:
        bn = SyncedBatchNorm.convert(nn.BatchNorm2d(3, dtype=torch.float64), world.gather, world.sum)
        x = torch.tensor((BATCH[:1], BATCH[1:])[world.rank], requires_grad=True)
        y = bn(x)
        y.pow(3).sum().backward()
        return y.detach().numpy(), x.grad.numpy(), bn.running_var.numpy()


def test_synchronised_bn_counts_unequal_shares_as_one_batch(meetings):
    bn, x = nn.BatchNorm2d(3, dtype=torch.float64), torch.tensor(BATCH, requires_grad=True)
    y = bn(x)
    y.pow(3).sum().backward()
    found = meetings[2]
    np.testing.assert_allclose(np.concatenate([part[0] for part in found]), y.detach().numpy())
    np.testing.assert_allclose(np.concatenate([part[1] for part in found]), x.grad.numpy())
    np.testing.assert_allclose(found[0][2], bn.running_var.numpy())


FAILING = """
    import sys, time, torch
    from sptskm.training.world import join
    from sptskm.common.console import set_up_logging
    with join(threads=1, timeout_minutes=10) as world:
        set_up_logging(world.rank)
        world.sum(torch.ones(1))
        if world.rank == 1:
            raise KeyError("the first to fail")
        world.sum(torch.ones(1))  # waits for rank 1, which never comes
"""


@pytest.mark.slow
def test_an_exception_in_one_rank_ends_the_others_within_seconds_with_its_trace():
    port, began = free_port(), time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(FAILING)],
            env=os.environ
            | {"RANK": str(rank), "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert time.monotonic() - began < 60
    assert all(process.returncode != 0 for process in processes)
    for rank in (0, 2):
        first = next(line for line in errors[rank].splitlines() if "rank" in line)
        assert f"rank {rank} ends because rank 1 failed" in first, errors[rank]
        assert "KeyError: 'the first to fail'" in errors[rank]


def test_a_world_of_one_wraps_nothing():
    model = nn.Linear(2, 2)
    assert World().wrap(model, "sync") is model


NCCL = """NCCL error in: /pytorch/c10d/NCCLUtils.cpp:77, {what} (run with NCCL_DEBUG=WARN for details)
nccl{name}: {meaning}.
Last error:
{reason}
Exception raised from create at /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77"""
DUPLICATE = NCCL.format(
    what="invalid usage",
    name="InvalidUsage",
    meaning="This usually reflects invalid usage of NCCL library",
    reason="Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1b000",
)
GONE = NCCL.format(
    what="remote process exited or there was a network error",
    name="RemoteError",
    meaning="A call failed possibly due to a network error or a remote process exiting prematurely",
    reason="socketProgress: Connection closed by remote peer node7<40000>",
)


@pytest.mark.parametrize(("text", "lost"), [(DUPLICATE, False), (GONE, True)], ids=["its own fault", "a lost rank"])
def test_what_nccl_complains_of_is_a_lost_rank_or_the_runs_own_fault(text, lost):
    assert is_loss(dist.DistBackendError(text), dist.HashStore()) == lost


def test_an_error_that_another_rank_has_announced_is_no_loss():
    store = dist.HashStore()
    store.set("sptskm/failure", "rank 1 failed")
    assert not is_loss(dist.DistBackendError(GONE), store)


def test_of_nccls_errors_its_own_reason_is_told():
    first = first_line(dist.DistBackendError(GONE))
    assert first.endswith(
        "(run with NCCL_DEBUG=WARN for details): socketProgress: Connection closed by remote peer node7<40000>"
    )
    assert "\n" not in first
    assert first_line(RuntimeError("one\ntwo")) == "one"
    assert first_line(RuntimeError()) == "RuntimeError"
