"""Read the rank of this process from the variables of a scheduler and set those of torchrun. Imports no torch."""

import fcntl
import os
import re
import socket
import struct
import subprocess
from collections.abc import Mapping

from sptskm.common.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
DIGITS = 9  # of the longest number that is accepted
PER_NODE = re.compile(r"([0-9]{1,5})(?:\(x([0-9]{1,5})\))?")
SIOCGIFADDR = 0x8915
FIRST_PORT, PORTS = 20_000, 12_000  # below the ports that Linux assigns itself


def port(job: int, restarts: int) -> int:
    """Return the port where the ranks of a job meet; it changes with each restart, in case the first one is taken."""
    return FIRST_PORT + (job + 4099 * restarts) % PORTS


def set_variables(rank: int, size: int, local_rank: int, local_size: int, address: str, port: int) -> None:
    """Set the variables that tell this process its rank, and remove any that the submitting shell had set."""
    for name in VARIABLES:
        os.environ.pop(name, None)
    if size > 1:
        values = (rank, size, local_rank, local_size, address, port)
        os.environ.update(zip(VARIABLES, map(str, values), strict=True))


def number_of(name: str, least: int = 0, known: Mapping[str, str] | None = None) -> int | None:
    """Return the whole number in a variable, None if unset or empty. Raise ConfigError for anything else."""
    if not (text := (os.environ if known is None else known).get(name, "").strip()):
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > DIGITS or int(text) < least:
        raise ConfigError(f"the environment says {name}={text!r}, wanted a whole number from {least} on, or nothing")
    return int(text)


def wanted(name: str, known: Mapping[str, str] | None = None) -> str:
    """Return the value of a variable that must be set. Raises ConfigError."""
    if text := (os.environ if known is None else known).get(name, "").strip():
        return text
    raise ConfigError(f"the environment lacks {name}, wanted it as `srun` sets it for a step")


def is_main() -> bool:
    """Return whether this process is rank 0 or the only one."""
    return not number_of("RANK")


def enter_step() -> None:
    """Set the variables in a task that `srun` started; leave them alone elsewhere, also below torchrun.

    Raises ConfigError when a variable of SLURM is missing or malformed.
    """
    known = os.environ
    size = number_of("SLURM_STEP_NUM_TASKS", 1)
    if size is None or "TORCHELASTIC_RUN_ID" in known:
        return
    places = ("SLURM_PROCID", "SLURM_NODEID", "SLURM_LOCALID", "SLURM_JOB_ID")
    rank, here, local_rank, job = (number_of(name, known={name: wanted(name)}) or 0 for name in places)
    counts = tasks_per_node(wanted("SLURM_STEP_TASKS_PER_NODE"))
    if here >= len(counts) or rank >= size:
        raise ConfigError(
            f"the environment says SLURM_NODEID={here} and SLURM_PROCID={rank}, wanted one of {len(counts)} nodes and "
            f"{size} tasks"
        )
    set_variables(
        rank, size, local_rank, counts[here], first_host(known), port(job, number_of("SLURM_RESTART_COUNT") or 0)
    )


def tasks_per_node(text: str) -> list[int]:
    """Parse SLURM's notation for tasks per node: "2(x3),1" is two on each of three nodes and one on the fourth.

    Raises ConfigError for any other notation.
    """
    counts = []
    for part in text.split(","):
        found = PER_NODE.fullmatch(part)
        if found is None:
            raise ConfigError(f"the environment says SLURM_STEP_TASKS_PER_NODE={text!r}, wanted numbers as in 2(x3),1")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def first_host(known: Mapping[str, str]) -> str:
    """Return the node of rank 0; 127.0.0.1 on a single node, whose name need not resolve."""
    if wanted("SLURM_STEP_NUM_NODES", known) == "1":
        return "127.0.0.1"
    command = ["scontrol", "show", "hostnames", wanted("SLURM_STEP_NODELIST", known)]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ConfigError(f"{' '.join(command)}: {error}, wanted the nodes of this step") from None


def interface_of(address: str) -> str | None:
    """Return the network interface with the given IPv4 address, None if there is none (Linux)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(any_socket, SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # it has no address
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return None
