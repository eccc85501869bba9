"""Runs in real Rays: a cluster of two nodes, Rays beside each other, and one inside SLURM. Asserted are final weights."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import ROOT, end, processes_naming, start, write_configs
from small import on_ranks, small_config

EPOCHS = 6
BIN = Path(sys.executable).parent
DEADLINE = 90  # seconds for anything to begin; only a hanging Ray meets it
# a dead node is seen in a second instead of sixteen
WATCHFUL = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "2",
    "RAY_health_check_initial_delay_ms": "0",
}


class Cluster:
    """A running Ray whose nodes are processes of this machine: a head without CPUs, and nodes with one CPU each."""

    def __init__(self, nodes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets want short paths
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.nodes: list[subprocess.Popen[bytes]] = []
        options = ["--port=0", f"--temp-dir={self.folder}", "--include-dashboard=false", "--disable-usage-stats"]
        self._start(0, "--head", *options)
        wait_for(self.folder / "ray_current_cluster")
        self.address = (self.folder / "ray_current_cluster").read_text()
        for _ in range(nodes):
            self.add()

    def _start(self, cpus: int, *options: str) -> None:
        number = len(self.nodes)
        common = [f"--num-cpus={cpus}", "--num-gpus=0", "--object-store-memory=100000000", "--block"]
        with (self.folder / f"node-{number}.log").open("wb") as log:
            node = subprocess.Popen(
                [BIN / "ray", "start", *options, *common],
                env={**os.environ, **self.token, **WATCHFUL},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.nodes.append(node)

    def add(self) -> None:
        """A further node."""
        self._start(1, f"--address={self.address}")

    def kill(self, node: int) -> None:
        """Let a node vanish with all that runs on it."""
        for pid in [self.nodes[node].pid, *descendants(self.nodes[node].pid)]:
            os.kill(pid, signal.SIGKILL)
        self.nodes[node].wait()

    def launcher(self, *arguments: object) -> subprocess.Popen[str]:
        words = ["--address", self.address, "--workers", 2]
        return start("launch/tune.py", *words, *arguments, variables=self.token)
