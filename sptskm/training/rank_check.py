"""Inspect the ranks of an allocation before training: print each of them and test whether they can communicate."""

import os
import socket
import time
from dataclasses import dataclass

import torch

from sptskm.common.console import table
from sptskm.training.allocation import interface_of, number_of
from sptskm.training.devices import gpu_uuid, host_name
from sptskm.training.world import World, join

TIMEOUT_MINUTES = 1.0
REPEATS = 5  # of the collective; the first one opens connections


@dataclass(frozen=True)
class Rank:
    """Facts that a rank knows about itself."""

    rank: int
    local_rank: int
    host: str
    device: str
    interface: str
    cpus: int


def inspect_ranks() -> str:
    """Meet the other ranks, do an all-reduce and return a table of all ranks on rank 0, empty text on the others.

    Raises Unreachable when they do not meet, ConfigError when their devices do not fit together, RuntimeError when a
    sum is wrong.
    """
    with join(threads=1, timeout_minutes=TIMEOUT_MINUTES) as world:
        ranks = world.collect(_me(world))
        milliseconds = _time_all_reduce(world)
    if not world.is_main:
        return ""
    header = ["rank", "local", "host", "device", "interface", "CPUs"]
    lines = [[r.rank, r.local_rank, r.host, r.device, r.interface, r.cpus] for r in ranks]
    return f"{table(header, lines)}\nall-reduce over {world.size} ranks: {milliseconds:.1f} ms"


def _me(world: World) -> Rank:
    return Rank(world.rank, world.local_rank, host_name(), _device(world), _interface(), len(os.sched_getaffinity(0)))


def _device(world: World) -> str:
    if world.device.type == "cpu":
        return "cpu"
    return f"{world.device} {torch.cuda.get_device_name(world.device)} {gpu_uuid(world.device)}"


def _interface() -> str:
    """Return name and address of the network interface that leads to rank 0."""
    target = os.environ.get("MASTER_ADDR") or "127.0.0.1", number_of("MASTER_PORT", 1) or 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(target)  # sends nothing: only looks up the route
        address = probe.getsockname()[0]
    return f"{interface_of(address) or ''} {address}".strip()


def _time_all_reduce(world: World) -> float:
    """Return the time of the fastest of a few all-reduces, in milliseconds."""
    one, seconds = torch.ones(1, device=world.device), []
    for _ in range(REPEATS):
        began = time.perf_counter()
        total = world.sum(one).item()
        seconds.append(time.perf_counter() - began)
        if total != world.size:
            raise RuntimeError(f"the sum of a one from each of {world.size} ranks is {total}")
    return 1000 * min(seconds)
