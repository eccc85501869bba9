"""What a cluster grants a job: the only place that knows partitions, accounts and time limits.

None of it changes a result, so none of it is part of a run's configuration.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from sptskm.common.reading import read_yaml
from sptskm.config import ConfigError
from sptskm.configfile import apply_overrides, merge

# until the job listens to them, these signals would end it; a shell's `trap ''` is inherited
PYTHON = f"""sh -c 'trap "" USR1 USR2; exec "$0" "$@"' {quote(sys.executable)}"""


@dataclass(frozen=True)
class Cluster:
    """Resources of one job, and where it may run."""

    executor: Literal["slurm", "local"] = "slurm"
    """Who runs the jobs: the scheduler, or submitit on this machine (one node, no queue, no dependencies)."""
    nodes: int = 1
    """Of a job."""
    gpus_per_node: int = 1
    """Ranks per node; 0 runs `cpu_ranks` of them on CPUs."""
    cpu_ranks: int = 1
    """Ranks per node where no GPUs are asked for."""
    cpus_per_task: int = 4
    """Of each rank: its own process, and `data.workers` that load."""
    mem_gb: int = 32
    """Per node."""
    minutes: int = 24 * 60
    """Time limit of a job; one that needs longer is queued again and goes on."""
    partition: str = ""
    """As for sbatch; empty = the cluster's own choice."""
    account: str = ""
    """As for sbatch."""
    constraint: str = ""
    """Features of nodes, as for sbatch."""
    setup: tuple[str, ...] = ()
    """Shell lines before the job, such as `module load cuda`; their folder is the job's copy of the code."""
    warn_seconds: int = 120
    """How long before the time limit a job is asked to save and leave."""
    requeues: int = 100
    """How often a job is queued again after preemption or at its time limit."""
    at_once: int = 16
    """How many trials of a search may run at a time, of each stream."""
    retries: int = 2
    """How often a job that has lost a rank or a node is queued again."""

    def __post_init__(self) -> None:
        for ok, message in (
            (self.nodes >= 1, f"nodes is {self.nodes}, wanted at least 1"),
            (self.tasks_per_node >= 1, f"gpus_per_node or else cpu_ranks is {self.tasks_per_node}, wanted at least 1"),
            (self.nodes == 1 or self.executor == "slurm", f"nodes is {self.nodes}, wanted 1 for the local executor"),
            (
                # a job that is asked to leave before it has started ends as failed
                0 <= self.warn_seconds < 60 * self.minutes,
                f"warn_seconds is {self.warn_seconds}, wanted less than the {self.minutes} minutes of a job",
            ),
        ):
            if not ok:
                raise ConfigError(message)

    @property
    def tasks_per_node(self) -> int:
        """Ranks on each node."""
        return self.gpus_per_node or self.cpu_ranks

    @property
    def ranks(self) -> int:
        """Ranks of a job."""
        return self.nodes * self.tasks_per_node


def load_cluster(path: Path, overrides: Sequence[str] = ()) -> Cluster:
    """A cluster file; unknown keys are refused with the legal ones named."""
    if not path.is_file():
        known = ", ".join(sorted(str(p) for p in path.parent.glob("*.yaml"))) or "none there"
        raise FileNotFoundError(f"cluster file {path}: no such file (found: {known})")
    content = read_yaml(path)
    try:
        return apply_overrides(merge(Cluster(), content), overrides)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def construction(cluster: Cluster) -> dict[str, Any]:
    """Keyword arguments that submitit's AutoExecutor wants when it is made."""
    limit = {f"{cluster.executor}_max_num_timeout": cluster.requeues}
    return {**limit, "slurm_python": PYTHON} if cluster.executor == "slurm" else limit


def parameters(cluster: Cluster, name: str, folder: Path, code: Path, after: str = "") -> dict[str, Any]:
    """Keyword arguments of submitit's AutoExecutor for a job that starts `after` others ("afterok:7:8").

    It runs the copy of the code in `code`, and keeps its files in `folder`.
    """
    additional: dict[str, Any] = {"chdir": str(code), "requeue": True}
    if after:
        # without the second a job whose predecessor failed waits for ever
        additional |= {"dependency": after, "kill-on-invalid-dep": "yes"}
    slurm: dict[str, Any] = {
        "signal_delay_s": cluster.warn_seconds,
        # since SLURM 22.05 srun does not take over the CPUs that sbatch has asked for
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cluster.cpus_per_task}"],
        "setup": list(cluster.setup),
        "teardown": [
            "code=$?",
            f"[ $code = 0 ] || {quote(sys.executable)} -m launch.requeue {quote(str(folder))} {cluster.retries}",
            "exit $code",
        ],
        "additional_parameters": additional,
    }
    slurm |= {key: value for key in ("partition", "account", "constraint") if (value := getattr(cluster, key))}
    return {
        "name": name,
        "nodes": cluster.nodes,
        "tasks_per_node": cluster.tasks_per_node,
        "gpus_per_node": cluster.gpus_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "mem_gb": cluster.mem_gb,
        "timeout_min": cluster.minutes,
        **{f"slurm_{key}": value for key, value in slurm.items()},
    }
