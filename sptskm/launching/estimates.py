"""Say before a start how long runs take and whether they fit their devices: what `--estimate` prints.

Torch is imported only where an estimate is asked for.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sptskm.config import Config, ConfigError

if TYPE_CHECKING:
    from sptskm.launching.cluster import Cluster
    from sptskm.launching.plan import Plan


def options(parser: argparse.ArgumentParser) -> None:
    """Add --estimate, and from where its hours follow."""
    parser.add_argument(
        "--estimate", action="store_true", help="print steps, hours and memory of the runs; start nothing"
    )
    parser.add_argument(
        "--rate",
        default="",
        metavar="CLIPS|RUN",
        help="with --estimate: clips a second of all ranks together, or the folder of an earlier run like this one",
    )
    parser.add_argument(
        "--measure", type=int, default=0, metavar="STEPS", help="with --estimate: measure so many steps on this machine"
    )


def check_rate(chosen: argparse.Namespace, streams: int = 1) -> None:
    """Raise ConfigError for a rate that would have no effect, or would be that of several streams."""
    if not chosen.estimate and (chosen.rate or chosen.measure):
        raise ConfigError("--rate and --measure are for estimates, wanted --estimate with them")
    if chosen.measure < 0:
        raise ConfigError(f"--measure is {chosen.measure}, wanted the number of steps")
    if streams > 1 and chosen.rate and not Path(chosen.rate).is_dir():
        raise ConfigError(
            f"--rate is {chosen.rate} for {streams} streams, wanted the folder of earlier runs of them, or one stream"
        )


def estimate_text(
    plan: "Plan", ranks: Mapping[str, int], chosen: argparse.Namespace, cluster: "Cluster | None" = None
) -> str:
    """Return the estimates of a plan's runs, in a line each and one for what does not fit.

    `cluster` says what a rank is granted; without one the runs are on this machine.
    """
    from sptskm.training.estimate import estimate

    check_rate(chosen, len(plan.configs))
    lines = []
    for config in plan.configs:
        rate = Path(chosen.rate) / config.stream
        given = str(rate) if chosen.rate and rate.is_dir() else chosen.rate
        device, granted, key = granted_memory(cluster, ranks[config.stream])
        found = estimate(config, ranks[config.stream], device, given, chosen.measure)
        lines.append(found.text(granted, key))
        if cluster and found.rate and (jobs := -(-60 * found.hours // cluster.minutes)) > 1:
            lines.append(f"{config.stream}: about {jobs:.0f} times the {cluster.minutes} minutes of a job")
    return "\n".join(lines)


def of_one(config: Config, chosen: argparse.Namespace) -> str:
    """Return the estimate of one run on one rank of this machine."""
    from sptskm.training.estimate import estimate

    check_rate(chosen)
    device, granted, key = granted_memory(None, 1)
    return estimate(config, 1, device, chosen.rate, chosen.measure).text(granted, key)


def granted_memory(cluster: "Cluster | None", ranks: int) -> tuple[str, float, str]:
    """Return the device of each of so many ranks, the GB it is granted (0 = not known) and what says so.

    `cluster` says it; without one it is this machine, whose memory all ranks on its CPU share.
    """
    if cluster is None:
        return granted_here(ranks)
    if cluster.gpus_per_node:
        return "cuda", float(cluster.gpu_gb), "gpu_gb"
    return "cpu", cluster.mem_gb / cluster.tasks_per_node, "mem_gb"


def granted_here(ranks: int) -> tuple[str, float, str]:
    """Return what `granted_memory` does, for this machine."""
    from sptskm.launching.local import visible_gpus
    from sptskm.training.estimate import gpu_memory

    if visible_gpus():
        return "cuda", gpu_memory(), "this GPU"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return "cpu", memory / ranks, "this machine" + " for each rank" * (ranks > 1)
