"""Where this process stands among the tasks of a scheduler, as the variables that torchrun would set. No torch."""

import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Mapping

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SIOCGIFADDR = 0x8915
FIRST_PORT, PORTS = 20_000, 12_000  # below those that Linux hands out by itself


def port(job: int, restarts: int) -> int:
    """Where the ranks of a job meet: its own, and another one each time it starts, should the first be taken."""
    return FIRST_PORT + (job + 4099 * restarts) % PORTS


def set_variables(rank: int, size: int, local_rank: int, local_size: int, address: str, port: int) -> None:
    """Say who this process is; whatever the submitting shell had set is gone."""
    for name in VARIABLES:
        os.environ.pop(name, None)
    if size > 1:
        values = (rank, size, local_rank, local_size, address, port)
        os.environ.update(zip(VARIABLES, map(str, values), strict=True))


def is_main() -> bool:
    """Whether this process is rank 0, or alone."""
    return os.environ.get("RANK", "0") == "0"


def enter_step() -> None:
    """In a task that `srun` has started, set the variables; elsewhere, and below torchrun, leave them alone."""
    known = os.environ
    if "SLURM_STEP_NUM_TASKS" not in known or "TORCHELASTIC_RUN_ID" in known:
        return
    size, here = int(known["SLURM_STEP_NUM_TASKS"]), int(known["SLURM_NODEID"])
    set_variables(
        int(known["SLURM_PROCID"]),
        size,
        int(known["SLURM_LOCALID"]),
        tasks_per_node(known["SLURM_STEP_TASKS_PER_NODE"])[here],
        first_host(known),
        port(int(known["SLURM_JOB_ID"]), int(known.get("SLURM_RESTART_COUNT", 0))),
    )


def tasks_per_node(text: str) -> list[int]:
    """SLURM's way of writing tasks per node: "2(x3),1" is two on each of three nodes and one on the fourth."""
    counts = []
    for part in text.split(","):
        count, _, times = part.rstrip(")").partition("(x")
        counts += [int(count)] * int(times or 1)
    return counts


def first_host(known: Mapping[str, str]) -> str:
    """The node of rank 0; the machine itself where there is only one, whose own name need not resolve."""
    if known["SLURM_STEP_NUM_NODES"] == "1":
        return "127.0.0.1"
    listed = subprocess.run(
        ["scontrol", "show", "hostnames", known["SLURM_STEP_NODELIST"]], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()[0]


def interface_of(address: str) -> str | None:
    """The network interface that has an IPv4 address, if one has (Linux)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(any_socket, SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # it has no address
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return None
