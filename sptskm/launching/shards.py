"""Prepare masks and skeletons as Ray tasks, one per shard; a task that loses its worker or node is restarted."""

import sys
from typing import Any

import ray
from ray.exceptions import RayError

from sptskm.launching.preparing import resolved, verified
from sptskm.preparation.command import Wanted, made
from sptskm.training.signals import StopFlag

RETRIES = 3
POLL_SECONDS = 1.0


def make(wanted: Wanted, stop: StopFlag) -> tuple[bool, str]:
    """Prepare all shards in the connected Ray; return whether they are complete, and a text for the user.

    Raises ConfigError for half precision without GPUs.
    """
    gpus = ray.cluster_resources().get("GPU", 0) >= 1
    wanted = resolved(wanted, gpus)
    task = ray.remote(made).options(num_cpus=1, num_gpus=int(gpus), max_retries=RETRIES)
    left: dict[Any, int] = {task.remote(wanted, shard): shard for shard in range(wanted.shards)}
    while left and not stop.requested:
        done, _ = ray.wait(list(left), timeout=POLL_SECONDS)
        for call in done:
            print(f"shard {left.pop(call)}: {_said(call)}", file=sys.stderr)
    for call in left:  # finished files are kept
        ray.cancel(call, force=True)
    return verified(wanted)


def _said(call: Any) -> str:
    try:
        return str(ray.get(call))
    except RayError as error:
        return f"failed: {str(error).strip().splitlines()[-1]}"
