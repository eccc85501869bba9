"""Configurations small enough for tests, and processes that form a real gloo group."""

import multiprocessing
import os
import re
import shutil
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sptskm.config import STREAMS, Config
from sptskm.configfile import apply_overrides

COMMON = [
    "data.workers=0",
    "data.held_out=0.4",
    "sampling.identities=2",
    "sampling.tracklets=2",
    "sampling.rounds=2",
    "model.width=4",
    "model.embedding_dim=8",
    "train.epochs=2",
    "train.validate_every=1",
]
OWN = {
    "ssin": [
        "clips.frames=2",
        "clips.height=64",
        "clips.width=32",
        "model.depths=[1,1,1,1]",
        "optim.lr=1e-3",
        "optim.milestones=[1]",
    ],
    "gait": ["clips.frames=3", "clips.test_frames=8", "model.stride=2", "model.strips=[1,2]", "optim.milestones=[1]"],
    "smin": ["clips.frames=6", "clips.test_frames=8", "optim.lr=1e-2", "optim.milestones=[1]"],
}


def small_config(stream: str, root: Path, run: Path, *overrides: str) -> Config:
    """A stream on the tiny walkers: two epochs of a few steps of 2 x 2 clips."""
    return apply_overrides(
        STREAMS[stream].defaults, [f"data.root={root}", f"run={run}", *COMMON, *OWN[stream], *overrides]
    )


def training_part(walkers: Path, root: Path) -> Path:
    """A copy of the walkers without any file of the test part."""
    return Path(
        shutil.copytree(walkers, root, ignore=lambda _, names: [n for n in names if re.search("test|query", n)])
    )


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def on_ranks(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returns in each of `world` processes that see torchrun's variables.

    An exception of any rank is raised here with that rank's traceback.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    port = free_port()
    processes = [
        context.Process(target=_enter, args=(results, rank, world, port, function, arguments)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=300) for _ in processes)
    for process in processes:
        process.join(30)
    failed = [text for ok, text in found.values() if not ok]
    assert not failed, failed[0]
    return [found[rank][1] for rank in range(world)]


def _enter(results: Any, rank: int, world: int, port: int, function: Callable[..., Any], arguments: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        results.put((rank, (True, function(*arguments))))
    except BaseException:
        results.put((rank, (False, traceback.format_exc())))
