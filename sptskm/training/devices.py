"""Find the device of each rank and check that the devices fit together before the first collective could hang."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

HIDING = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that leave a process without any GPU


@dataclass(frozen=True)
class Place:
    """The host and device of a rank."""

    host: str
    device: str
    """cuda or cpu."""
    gpu: str
    """The UUID of its GPU; empty on a CPU."""
    granted: str
    """The variable that grants GPUs to a rank that finds none; empty if nothing is wrong."""


def place_of(device: torch.device) -> Place:
    """Return the host and device of this process, which computes on `device`."""
    granted = granted_by(os.environ) if device.type == "cpu" else ""
    return Place(host_name(), device.type, gpu_uuid(device), granted)


def host_name() -> str:
    """Return the scheduler's name for this node, else its host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def gpu_uuid(device: torch.device) -> str:
    """Return the UUID of a GPU; it is the same in all processes, whichever GPUs they see."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""


def granted_by(known: Mapping[str, str]) -> str:
    """Return the variable that grants GPUs to this process; empty if none does or if they are hidden on purpose.

    SLURM's own variables are trusted. CUDA_VISIBLE_DEVICES may come from the shell that submitted a job for CPUs. It
    counts only outside of SLURM, where Ray and `launch/local.py` set it, and only on a machine that has GPUs.
    """
    visible = known.get("CUDA_VISIBLE_DEVICES")
    if visible in HIDING:
        return ""
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE"):
        none = ("", "0") if name == "SLURM_GPUS_ON_NODE" else ("",)  # a count; the others list GPU numbers
        if (value := known.get(name, "")) not in none:
            return f"{name}={value}"
    if visible and "SLURM_JOB_ID" not in known and has_gpus():
        return f"CUDA_VISIBLE_DEVICES={visible}"
    return ""


def has_gpus() -> bool:
    """Return whether the machine has GPU device files, usable or not."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def misfit(places: Sequence[Place], sharing: bool = False) -> str:
    """Return why these ranks, in order, cannot compute together, in one sentence; empty if they can.

    With `sharing`, ranks may have the same GPU.
    """
    for rank, place in enumerate(places):
        if place.granted:
            return (
                f"rank {rank} was given GPUs ({place.granted} on {place.host}), but PyTorch {torch.__version__} finds "
                "none, wanted its build for GPUs and a driver that works (CUDA_VISIBLE_DEVICES= for a run on CPUs)"
            )
    with_gpu, without = (
        [rank for rank, place in enumerate(places) if (place.device == "cuda") == whether] for whether in (True, False)
    )
    if with_gpu and without:
        hosts = ", ".join(sorted({places[rank].host for rank in without}))
        return f"{_ranks(with_gpu)} with a GPU, {_ranks(without)} without one (on {hosts}), wanted all alike"
    seen: dict[tuple[str, str], int] = {}
    for rank, place in enumerate(places):
        if not sharing and place.gpu and (other := seen.setdefault((place.host, place.gpu), rank)) != rank:
            return f"ranks {other} and {rank} have the same GPU ({place.host} {place.gpu}), wanted one for each"
    return ""


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
