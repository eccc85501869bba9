"""Connect the ranks of a run. This is the only module that calls torch.distributed.

With one process every collective is the identity, so there is one code path. Nothing here depends on the launcher:
an existing process group (of Ray Train, say) is used; complete torchrun-style variables (torchrun, submitit, our
actors in Ray) start one; no variables mean a single process; anything in between is an error.
"""

import faulthandler
import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from sptskm.common.endings import Stopped, Unreachable
from sptskm.config import ConfigError
from sptskm.training.allocation import number_of
from sptskm.training.batchnorm import SyncedBatchNorm
from sptskm.training.devices import Place, misfit, place_of
from sptskm.training.memory import keep_freed_memory

log = logging.getLogger(__name__)

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LAST_PORT = 65_535
LOOPBACK = ("127.0.0.1", "localhost")
LOOPBACK_INTERFACE = "lo"
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
FAILURE_KEY = "sptskm/failure"
PLACE_KEY = "sptskm/place"  # / rank
WATCH_SECONDS = 1.0
FAREWELL_SECONDS = 5 * WATCH_SECONDS  # a failing rank waits so that the others can read its reason
# in messages of a backend about its own fault: no other rank caused it, and a restart repeats it
OWN_FAULTS = ("invalid usage", "invalid argument", "Duplicate GPU", "out of memory")


@dataclass(frozen=True)
class World:
    """Rank of this process and the collectives of all ranks."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Return whether this rank writes files."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Return this rank's GPU among the visible ones (all of a node, or only its own), or the CPU."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        visible = torch.cuda.device_count()
        if 1 < visible <= self.local_rank:
            raise ConfigError(
                f"rank {self.rank} is number {self.local_rank} on its node, but only {visible} GPUs are visible there "
                f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}), wanted one for each rank"
            )
        return torch.device("cuda", self.local_rank if visible > 1 else 0)

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over ranks as a new tensor, without gradient."""
        total = tensor.detach().clone()
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true on any rank."""
        if self.size == 1:  # without waiting for a GPU
            return flag
        return bool(self.sum(torch.tensor(int(flag), device=self.device)))

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate the rows of all ranks in rank order, (B, ...) to (W*B, ...); gradients return to their ranks.

        The backward pass sums the gradients of all ranks' losses for these rows. With DDP's average over ranks, the
        mean over local rows of a loss on gathered rows therefore has the gradient of one process.
        """
        return tensor if self.size == 1 else _Gather.apply(tensor, self.rank, self.size)

    def share(self, value: Any) -> Any:
        """Return rank 0's value of a plain object on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def share_buffers(self, model: nn.Module) -> None:
        """Copy rank 0's buffers to every rank, such as the statistics of batch normalisation per rank."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def agree(self, values: Mapping[str, Any]) -> None:
        """Raise RuntimeError on every rank when a value differs between ranks, naming it and its value on each rank."""
        everyone = self.collect(dict(values))
        for what in sorted({name for own in everyone for name in own}):
            found = [own.get(what, "not there") for own in everyone]
            if any(value != found[0] for value in found):
                differ = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(found))
                raise RuntimeError(f"{what} differs between ranks ({differ})")

    def collect(self, value: Any) -> list[Any]:
        """Return a plain object of every rank, in rank order, on every rank."""
        everyone: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(everyone, value)
        return everyone

    def wrap(self, model: nn.Module, batch_norm: str) -> nn.Module:
        """Wrap the model for training on all ranks, with BN over all ranks, per rank (rank 0's is kept) or frozen."""
        if self.size == 1:
            return model
        if batch_norm == "sync":
            model = self._synchronised(model)
        # 1 x 1 convolutions: only strides of dimensions of size one differ, which is harmless
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        # Every forward in training begins with rank 0's buffers. Without device ids inputs stay where they are: SMIN
        # asks on the host which frames are valid.
        return DistributedDataParallel(model)

    def _synchronised(self, model: nn.Module) -> nn.Module:
        if self.device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return SyncedBatchNorm.convert(model, self.gather, self.sum)


@contextmanager
def join(threads: int, timeout_minutes: float, backend: str = "") -> Iterator[World]:
    """Join the ranks that this process was started with, and leave them at the end of the block.

    They talk through `backend`, by default NCCL on GPUs and gloo on CPUs. Through gloo ranks may also share a GPU.
    Raises ConfigError on every rank when their devices do not fit together. When a rank raises an exception, all other
    ranks print its trace and end within seconds. When a rank vanishes, the collectives notice it after
    `timeout_minutes` at the latest, and the other ranks raise Unreachable.
    """
    with suppress(OSError):  # a notebook's stderr is not a file
        faulthandler.enable()
    if not torch.cuda.is_available():
        torch.set_num_threads(threads)
        keep_freed_memory()
    if dist.is_initialized():  # its creator will also destroy it
        yield World(dist.get_rank(), dist.get_world_size(), _local(dist.get_rank()))
        return
    present = [name for name in VARIABLES if os.environ.get(name, "").strip()]  # an empty RANK= counts as unset
    if not present:
        world = World()
        if reason := misfit([place_of(world.device)]):
            raise ConfigError(reason)
        yield world
        return
    if missing := [name for name in VARIABLES if name not in present]:
        raise ConfigError(f"{', '.join(present)} set but {', '.join(missing)} not: wanted all (torchrun) or none")
    yield from _joined(timedelta(minutes=timeout_minutes), backend)


def _joined(timeout: timedelta, backend: str) -> Iterator[World]:
    size, rank, port = number_of("WORLD_SIZE", 1) or 1, number_of("RANK") or 0, number_of("MASTER_PORT", 1) or 1
    if rank >= size or port > LAST_PORT:
        raise ConfigError(
            f"the environment says RANK={rank}, WORLD_SIZE={size} and MASTER_PORT={port}, wanted a rank below the size "
            f"and a port up to {LAST_PORT}"
        )
    world = World(rank, size, _local(rank))
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    with _own_interface():
        yield from _met(world, timeout, backend)


def _met(world: World, timeout: timedelta, backend: str) -> Iterator[World]:
    store = _meet(world, timeout, backend)
    end_watch = _watch(store.clone(), world)
    try:
        yield world
    except Stopped:
        dist.destroy_process_group()
        raise
    except Exception as error:
        if is_loss(error, store):
            raise Unreachable(f"rank {world.rank} has lost another rank: {first_line(error)}") from error
        _announce(store, world)
        raise
    finally:
        end_watch()
    dist.destroy_process_group()


def _meet(world: World, timeout: timedelta, backend: str) -> Any:
    """Connect all ranks and return their store; refuse ranks that cannot compute together before they would hang."""
    with _reaching(world):
        store = _store(world, timeout)
        places = _introduced(store, world)
    if reason := misfit(places, sharing=backend == "gloo"):
        if world.is_main:  # the store may live in this process
            time.sleep(FAREWELL_SECONDS)
        raise ConfigError(reason)
    backend = backend or ("nccl" if world.device.type == "cuda" else "gloo")
    with _reaching(world):
        dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=timeout)
    return store


def _local(rank: int) -> int:
    """Return the number of this rank on its node; its global rank if LOCAL_RANK is not set."""
    found = number_of("LOCAL_RANK")
    return rank if found is None else found


def _store(world: World, timeout: timedelta) -> Any:
    """Open the store for messages between ranks. Ranks on one machine use one that no other machine can reach."""
    address, port = os.environ["MASTER_ADDR"], number_of("MASTER_PORT") or 0
    if address not in LOOPBACK or "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun has its own store
        store, _, _ = next(rendezvous("env://", timeout=timeout))
        return store
    listening = socket.create_server((LOOPBACK[0], port)).detach() if world.is_main else None
    return TCPStore(LOOPBACK[0], port, world.size, world.is_main, timeout, master_listen_fd=listening)


@contextmanager
def _own_interface() -> Iterator[None]:
    """Restrict ranks on one machine to its loopback interface, unless the user has named an interface."""
    names = [name for name in INTERFACES if name not in os.environ] if os.environ["MASTER_ADDR"] in LOOPBACK else []
    os.environ.update(dict.fromkeys(names, LOOPBACK_INTERFACE))
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)


@contextmanager
def _reaching(world: World) -> Iterator[None]:
    """Raise Unreachable for errors caused by a missing rank."""
    try:
        yield
    except (dist.DistError, RuntimeError, OSError) as error:
        if _is_own_fault(error):
            raise
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        others = f"rank {world.rank} does not meet the other {world.size - 1} at {where}"
        raise Unreachable(f"{others}: {first_line(error)}") from error


def _introduced(store: Any, world: World) -> list[Place]:
    """Return the device of every rank without a collective, which ranks on NCCL and gloo could not do together."""
    store.set(f"{PLACE_KEY}/{world.rank}", json.dumps(asdict(place_of(world.device))))
    texts = store.multi_get([f"{PLACE_KEY}/{rank}" for rank in range(world.size)])  # waits for them
    return [Place(**json.loads(text)) for text in texts]


def _is_own_fault(error: Exception) -> bool:
    return any(fault in str(error) for fault in OWN_FAULTS)


def is_loss(error: Exception, store: Any) -> bool:
    """Return whether a collective failed because a rank vanished; a rank with its own fault announces it first."""
    if _is_own_fault(error) or (not isinstance(error, dist.DistError) and "gloo" not in str(error).lower()):
        return False
    try:
        return not store.check([FAILURE_KEY])
    except Exception:  # the store vanished with rank 0
        return True


def first_line(error: Exception) -> str:
    """Return an error of torch.distributed without its C++ trace, with NCCL's own reason from the later lines."""
    first, *rest = str(error).strip().splitlines() or [type(error).__name__]
    _, told, reason = "\n".join(rest).partition("Last error:")
    return f"{first}: {reason.strip().splitlines()[0]}" if told and reason.strip() else first


def _announce(store: Any, world: World) -> None:
    """Tell the other ranks why this one ends, and give them time to read it.

    If another rank failed first, this rank's error is a consequence, and `_watch` ends this rank with the cause.
    """
    with suppress(Exception):  # without a store nobody can be told; the error is raised anyway
        if not store.check([FAILURE_KEY]):
            store.set(FAILURE_KEY, f"rank {world.rank} failed:\n{traceback.format_exc()}")
        time.sleep(FAREWELL_SECONDS)


def _watch(store: Any, world: World) -> Callable[[], None]:
    """Start a thread that ends this process when another rank has announced a failure, even in a blocked collective.

    The returned function stops the thread, so that it is not inside the store when the interpreter exits.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_SECONDS):
            try:
                failed = store.check([FAILURE_KEY])
            except Exception:  # the store vanished with rank 0; the collectives will fail
                return
            if failed and not done.is_set():
                reason = store.get(FAILURE_KEY).decode()
                if not reason.startswith(f"rank {world.rank} "):
                    log.error("rank %d ends because %s", world.rank, reason)
                    sys.stderr.flush()
                    if world.is_main:  # the store may live in this process
                        time.sleep(FAREWELL_SECONDS)
                    os._exit(1)

    thread = threading.Thread(target=watch, daemon=True, name="failure-watch")
    thread.start()

    def end() -> None:
        done.set()
        thread.join(FAREWELL_SECONDS)

    return end


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.rows = rank, len(tensor)
        parts = [torch.empty_like(tensor) for _ in range(size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows], None, None
