"""Rows on whole runs on generated walkers: stopped and continued, on several ranks, and how long they wait for data."""

import multiprocessing
import os
import queue
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gpu_rows.step import Step, config_of
from gpu_rows.table import Table, Value
from sptskm.config import STREAMS, Config
from sptskm.synthetic import TINY, Sizes, write_dataset
from sptskm.training.checkpoints import read
from sptskm.training.logbook import Logbook
from sptskm.training.meters import Meters
from sptskm.training.rundir import RunDir
from sptskm.training.setup import Setup
from sptskm.training.signals import StopFlag
from sptskm.training.trainer import Trainer, train
from sptskm.training.world import World, join

SHORT = [
    "sampling.identities=2", "sampling.tracklets=2", "sampling.rounds=1", "data.held_out=0.4", "data.workers=0",
    "train.epochs=2", "train.validate_every=2",
]  # fmt: skip
EVERYTHING = [
    "train.precision=float16", "optim.ema=0.9", "optim.clip=1.0", "train.accumulate=2", "train.recompute=true",
    "sampling.identities=4", "clips.erase=0.5",
]  # fmt: skip
LARGER = Sizes(train_ids=16, test_ids=1, cameras=2, tracklets_per_camera=(1, 2), frames=(24, 36), distractors=0, junk=0)
RANK_SECONDS = 60


def rows(table: Table, folder: Path) -> None:
    """Add all rows on runs; data and runs go to `folder`."""
    walkers = folder / "walkers"
    write_dataset(walkers, TINY, seed=0, workers=1)
    for name, spec in STREAMS.items():
        what = f"{spec.title}: stopped after an epoch and continued, against not stopped"
        table.measure("run", what, lambda n=name: stopped(n, walkers, folder / f"{n}-stopped"))
    what = "SSIN in float16, averaged, recomputed, in parts: stopped and continued, against not stopped"
    table.measure("run", what, lambda: stopped("ssin", walkers, folder / "half", *EVERYTHING))
    titles = [spec.title for spec in STREAMS.values()]
    whats = [f"{title}: two ranks over gloo on one device, against one" for title in titles]
    table.measure("ranks", whats, lambda: ranked(walkers, folder / "gloo", 2, "gloo"), limit=90.0)
    whats = [f"{title}: ranks over NCCL, one a GPU, against one" for title in titles]
    table.measure("ranks", whats, lambda: nccl(walkers, folder / "nccl"), gpu=True, limit=90.0)
    table.measure("ranks", "a step of DDP on one rank (NCCL and SyncBatchNorm on a GPU), against without", alone)
    loader(table, folder)


def short(name: str, walkers: Path, run: Path, *overrides: str) -> Config:
    """Return a small stream on the walkers: two epochs of a few steps."""
    return config_of(name, True, f"data.root={walkers}", f"run={run}", *SHORT, *overrides)


def stopped(name: str, walkers: Path, folder: Path, *overrides: str) -> Value:
    """Return how far the weights of a stopped and continued run are from those of one that was not stopped."""
    train(short(name, walkers, folder / "whole", *overrides))
    flag = StopFlag()

    def ask(_values: Mapping[str, float]) -> None:
        flag.requested = True

    if train(short(name, walkers, folder / "parts", *overrides), flag, ask).finished:
        raise RuntimeError("the run did not stop")
    train(short(name, walkers, folder / "parts", *overrides))
    return difference(folder / "parts", folder / "whole"), "relative"


def ranked(walkers: Path, folder: Path, ranks: int, backend: str) -> list[Value]:
    """Return for each stream how far the weights are from those of one process, without dropout, in float64."""
    configs: dict[str, list[Config]] = {}
    for name, spec in STREAMS.items():
        exact = ["train.precision=float64"] + ["model.dropout=0.0"] * hasattr(spec.defaults.model, "dropout")
        configs[name] = [short(name, walkers, folder / who / name, *exact) for who in ("one", "ranks")]
        train(configs[name][0])
    together(ranks, backend, [own[1] for own in configs.values()])
    return [(difference(folder / "ranks" / name, folder / "one" / name), "relative") for name in configs]


def nccl(walkers: Path, folder: Path) -> list[Any]:
    """Do the same on all GPUs whose number divides the batch of 4."""
    ranks = max(n for n in (1, 2, 4) if n <= torch.cuda.device_count())
    return ranked(walkers, folder, ranks, "nccl") if ranks > 1 else ["one GPU alone"] * len(STREAMS)


def alone() -> Value:
    """Return the relative difference of gradients behind DDP on the one rank that a single GPU allows NCCL."""
    return together_do(1, "nccl" if torch.cuda.is_available() else "gloo", ddp_step)[0], "relative"


def ddp_step() -> float:
    """Do a step with and without DDP (on a GPU with SyncBatchNorm); return the relative difference of gradients."""
    with join(1, 1.0) as joined:
        world = replace(joined, size=2)  # else nothing is sent: sums over a group of one change nothing
        step = Step(config_of("ssin", True, "train.precision=float32", "model.dropout=0.0"), 4, world.device)
        step()
        wanted = [p.grad for p in step.network.parameters() if p.grad is not None]
        step = replace(step)  # with the same first weights
        step.forward = world.wrap(step.network, "sync" if world.device.type == "cuda" else "local")
        step()
        found = [p.grad for p in step.network.parameters() if p.grad is not None]
        total = world.sum(torch.ones(1, device=world.device))
    lengths = [torch.stack([x.norm() for x in own]).norm() for own in (wanted, torch._foreach_sub(found, wanted))]
    return float(lengths[1] / lengths[0] + (total - 1).abs())


def difference(run: Path, reference: Path) -> float:
    """Return the relative difference of the newest weights of two runs."""
    found, wanted = (read(RunDir(folder).checkpoints()[0])["model"] for folder in (run, reference))
    pairs = [(found[name].double(), wanted[name].double()) for name in wanted if wanted[name].is_floating_point()]
    return float(sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs)) ** 0.5


def together(ranks: int, backend: str, configs: list[Config]) -> None:
    """Train on several ranks."""
    together_do(ranks, backend, train_all, backend, configs)


def train_all(backend: str, configs: list[Config]) -> None:
    """Train one configuration after the other as a rank among others."""
    with join(1, 2.0, backend):
        for config in configs:
            train(config)


def together_do(ranks: int, backend: str, work: Callable[..., Any], *given: Any) -> list[Any]:
    """Return what `work(*given)` returns on each rank, a process of its own; RuntimeError says what fails."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(ranks):
        # through gloo all ranks have the first GPU
        numbers = {"RANK": rank, "LOCAL_RANK": 0 if backend == "gloo" else rank, "WORLD_SIZE": ranks}
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment |= {name: str(number) for name, number in numbers.items()}
        processes.append(context.Process(target=_rank, args=(told, environment, work, given)))
        processes[-1].start()
    answers: dict[int, tuple[str, Any]] = {}
    until = time.monotonic() + RANK_SECONDS
    try:
        while len(answers) < ranks and time.monotonic() < until and not any(text for text, _ in answers.values()):
            ended = not any(process.is_alive() for process in processes)  # before the look, so that none is missed
            try:
                rank, answer = told.get(timeout=1)
                answers[rank] = answer
            except queue.Empty:
                if ended:
                    break
    finally:
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.kill()
    if wrong := [text for text, _ in answers.values() if text]:
        raise RuntimeError(wrong[0])
    if silent := [f"{rank} (exit status {processes[rank].exitcode})" for rank in range(ranks) if rank not in answers]:
        raise RuntimeError(f"no answer from rank {', '.join(silent)} within {RANK_SECONDS} s")
    return [answers[rank][1] for rank in range(ranks)]


def _rank(told: Any, environment: dict[str, str], work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    os.environ |= environment
    rank = int(environment["RANK"])
    try:
        told.put((rank, ("", work(*given))))
    except BaseException:
        told.put((rank, (traceback.format_exc().strip().splitlines()[-1], None)))


def loader(table: Table, folder: Path) -> None:
    """Add clips/s and the share of waiting of the real loop on larger walkers, with augmentation here and there."""
    walkers = folder / "larger"
    if not table.small:
        write_dataset(walkers, LARGER, seed=0)
    cores = len(os.sched_getaffinity(0))
    workers = 0 if table.small or cores < 4 else min(8, cores - 2)
    for where, on_device in (("on the device", True), ("in the loader", False)):
        whats = [f"SSIN, {workers} loaders, augmentation {where}{more}" for more in ("", ": waiting")]
        data = folder / "walkers" if table.small else walkers
        table.measure("loader", whats, lambda w=workers, o=on_device, d=data: looped(table, d, folder, w, o))


def looped(table: Table, walkers: Path, folder: Path, workers: int, on_device: bool) -> list[Value]:
    """Return the clips/s of the training loop and the share of its time in which it waits for data."""
    few = SHORT if table.small else ["train.epochs=1000", "data.held_out=0"]
    if not table.small and not table.on_gpu:
        few += ["sampling.identities=2", "sampling.tracklets=2"]  # seconds a step instead of a minute
    run = f"run={folder / f'loop-{on_device}'}"
    config = config_of("ssin", table.small, *few, f"data.root={walkers}", f"data.workers={workers}", run)
    trainer = Trainer(Setup.of(config, World()), World(), StopFlag())
    object.__setattr__(trainer.setup.source, "on_device", on_device)
    steps = (1, 2) if table.small else (5, 30) if table.on_gpu else (1, 2)
    meters = Meters(sum(steps), config.optim.lr)
    trainer.logbook = Logbook(config, trainer.folder.path, 0, 0, ranks=1, writes=True)
    trainer.model.train()
    batches = trainer.setup.batches(0, table.on_gpu)
    try:
        for step in range(sum(steps)):
            if step == steps[0]:
                meters = Meters(sum(steps), config.optim.lr)
            with meters.waiting():
                batch = next(batches)
            trainer.train_step(batch, meters)
    finally:
        batches.close()
        trainer.logbook.close(False)
    speed, waiting = meters.epoch.speed()
    return [(speed, "clips/s"), (100 * waiting, "% of the time")]
