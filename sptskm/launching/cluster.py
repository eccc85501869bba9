"""Resources of SLURM jobs: the only module that knows partitions, accounts and time limits.

They never change a result, so they are not part of a run's configuration.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

from pydantic import Field

from sptskm.common.endings import one_line
from sptskm.common.paths import control_in
from sptskm.common.reading import read_yaml
from sptskm.common.settings import refuse, said_by, settings
from sptskm.config import ConfigError
from sptskm.configfile import apply_overrides, merge

# these signals would kill the job before it has installed its handlers; a shell's `trap ''` is inherited
PYTHON = f"""sh -c 'trap "" USR1 USR2; exec "$0" "$@"' {quote(sys.executable)}"""

RETRY = "sptskm.launching.requeue"


# options of sbatch that follow from a key of the cluster file, or that the launcher needs for itself
OWN = {
    "nodes": "nodes", "gpus-per-node": "gpus_per_node", "gpus": "gpus_per_node", "gpus-per-task": "gpus_per_node",
    "ntasks": "gpus_per_node or cpu_ranks", "ntasks-per-node": "gpus_per_node or cpu_ranks",
    "ntasks-per-gpu": "gpus_per_node or cpu_ranks", "cpus-per-task": "cpus_per_task", "cpus-per-gpu": "cpus_per_task",
    "mem": "mem_gb", "mem-per-cpu": "mem_gb", "mem-per-gpu": "mem_gb", "time": "minutes", "time-min": "minutes",
    "partition": "partition", "account": "account", "constraint": "constraint", "signal": "warn_seconds",
    "requeue": "requeues", "no-requeue": "requeues", "array": "at_once",
}  # fmt: skip
RESERVED = frozenset(
    {
        "job-name", "output", "error", "input", "open-mode", "chdir", "dependency", "kill-on-invalid-dep", "clusters",
        "wrap", "wait", "parsable", "quiet", "verbose", "test-only", "help", "usage", "version", "export-file",
    }
)  # fmt: skip
# variables of srun that sbatch passes on from the submitting shell instead of setting them for the job
SRUN_READS = frozenset(
    f"SLURM_{name}"
    for name in (
        "CLUSTERS", "CPU_BIND", "CPU_FREQ_REQ", "DISTRIBUTION", "EXCLUSIVE", "GPU_BIND", "GPU_FREQ", "GPUS_PER_TASK",
        "HINT", "KILL_BAD_EXIT", "MEM_BIND", "MEM_PER_GPU", "NETWORK", "NO_KILL", "OVERLAP", "THREADS_PER_CORE",
        "TIMELIMIT", "UNBUFFEREDIO", "WAIT",
    )
)  # fmt: skip
MOST = 10_000_000  # of every number: minutes of 19 years
From0 = Annotated[int, Field(ge=0, le=MOST)]
From1 = Annotated[int, Field(ge=1, le=MOST)]
FOR_TRAINING_ALONE = ("final", "at_once")


@settings
class Cluster:
    """Resources of one job and where it may run: the keys of a cluster file."""

    nodes: From1 = 1
    """Nodes of a job."""
    gpus_per_node: From0 = 1
    """Ranks per node; 0 runs `cpu_ranks` of them on CPUs."""
    cpu_ranks: From0 = 1
    """Ranks per node when `gpus_per_node` is 0."""
    cpus_per_task: From1 = 4
    """CPUs of each rank, for its own process and `data.workers` loader processes."""
    mem_gb: From0 = 32
    """Memory per node in GB."""
    minutes: From1 = 24 * 60
    """Time limit of a job; a job that needs longer is requeued and continues."""
    partition: str = ""
    """Partition, as for sbatch; empty = the cluster's default."""
    account: str = ""
    """Account, as for sbatch; empty = the cluster's default."""
    constraint: str = ""
    """Required features of nodes, as for sbatch."""
    setup: tuple[str, ...] = ()
    """Shell lines before the job, such as `module load cuda`; they run in the job's copy of the code."""
    warn_seconds: From0 = 120
    """Seconds before the time limit at which a job is asked to save and leave."""
    requeues: From0 = 100
    """How often a job is requeued after preemption or at its time limit."""
    at_once: From1 = 16
    """How many shards of `--prepare` may run at a time."""
    retries: From0 = 2
    """How often a job that has lost a rank or a node is requeued."""
    sbatch: dict[str, Any] = field(default_factory=dict)
    """Further options of sbatch by their long names, such as `qos: long`, `exclude: "n[3-5]"`, `exclusive: true`."""
    final: dict[str, Any] = field(default_factory=dict)
    """Different values of these keys for the final job; by default it has one rank on one node, with a share of the
    node's memory."""
    gpu_gb: From0 = 0
    """Memory of one GPU in GB, with which --estimate compares what a rank needs; 0 = not known."""

    def __post_init__(self) -> None:
        refuse(self._conflicts())
        if self.final:
            self.for_final()

    def _conflicts(self) -> Iterator[str]:
        """Yield a sentence for each text that no batch script can hold, and for settings that do not fit together."""
        for key, value in vars(self).items():
            for text in [value] if isinstance(value, str) else value if isinstance(value, tuple) else ():
                yield from control_characters(key, text.replace("\t", " ") if key == "setup" else text)
        for option, value in self.sbatch.items():
            yield from _wrong_option(option, value)
        if self.tasks_per_node < 1:
            yield f"gpus_per_node or else cpu_ranks is {self.tasks_per_node}, wanted at least 1"
        if self.warn_seconds >= 60 * self.minutes:  # a job that is asked to leave before it has started ends as failed
            yield f"warn_seconds is {self.warn_seconds}, wanted less than the {self.minutes} minutes of a job"

    def for_final(self) -> "Cluster":
        """Return the resources of the final job.

        Raises ConfigError for an impossible `final` section.
        """
        if wrong := [key for key in FOR_TRAINING_ALONE if key in self.final]:
            raise ConfigError(f"final.{wrong[0]} is given, wanted it for all jobs, outside `final`")
        share = replace(
            self,
            nodes=1,
            gpus_per_node=min(self.gpus_per_node, 1),
            cpu_ranks=1,
            mem_gb=-(-self.mem_gb // self.tasks_per_node),
            final={},
        )
        return merge(share, self.final, "final.")

    @property
    def tasks_per_node(self) -> int:
        """Return the number of ranks on each node."""
        return self.gpus_per_node or self.cpu_ranks

    @property
    def ranks(self) -> int:
        """Return the number of ranks of a job."""
        return self.nodes * self.tasks_per_node


def control_characters(what: str, text: str) -> Iterator[str]:
    """Yield a sentence if a text would not stay on its line of a batch script or of a terminal."""
    if control_in(text) or len(text.splitlines()) > 1:
        yield f"{what} is {text!r}, wanted it without line breaks and other control characters"


def check_folder(folder: Path) -> None:
    """Raise ConfigError for a folder of jobs whose path cannot be written in a batch script."""
    refuse(control_characters("the folder of the jobs", str(folder)))
    if tag := re.search("%[jtAa]", str(folder)):
        raise ConfigError(
            f"the folder of the jobs is {folder}, wanted it without {tag[0]}, which is for numbers of jobs"
        )


def _wrong_option(option: str, value: Any) -> Iterator[str]:
    """Yield a sentence for an impossible option of sbatch, and for one that the launcher sets itself."""
    if not re.fullmatch(r"[a-z][a-z0-9]+(-[a-z0-9]+)*", option):
        hint = option.strip("-").replace("_", "-").lower()
        yield f"sbatch: {option!r} is no long name of an option, wanted one as in `{hint}: value`"
    elif option in OWN:
        yield f"sbatch: {option} follows from a key of the cluster file, wanted {OWN[option]} instead"
    elif option in RESERVED:
        yield f"sbatch: {option} is set by the launcher itself, wanted a file without it"
    elif value is False or not isinstance(value, str | int | float):
        yield f"sbatch: {option} is {value!r}, wanted text (in quotes), a number, or true for an option without value"
    elif value == "":
        yield f"sbatch: {option} is empty, wanted a value, or true for an option without one"
    yield from control_characters(f"sbatch: {option}", str(value))


def overriding(environment: Mapping[str, str] = os.environ) -> str:
    """Return one line that names the environment variables which override the cluster file; empty if none does."""
    found = [f"{name}={value}" for name, value in sorted(environment.items()) if value and _overrides(name)]
    text = f"note: the environment overrides the cluster file with {', '.join(found)}" if found else ""
    return one_line(text)  # a variable may hold anything


def _overrides(name: str) -> bool:
    """Return whether sbatch, or srun in the job, reads one of its options from this variable."""
    return (name.startswith("SBATCH_") and name != "SBATCH_EXPORT_FILE") or name in SRUN_READS


def load_cluster(path: Path, overrides: Sequence[str] = ()) -> Cluster:
    """Read a cluster file and apply `key=value` overrides.

    Raises FileNotFoundError with the cluster files that exist, ConfigError with the legal keys for an unknown one.
    """
    if not path.is_file():
        known = ", ".join(sorted(str(p) for p in path.parent.glob("*.yaml"))) or "none there"
        raise FileNotFoundError(f"cluster file {path}: no such file (found: {known})")
    content = read_yaml(path)
    with said_by(path):
        return apply_overrides(merge(Cluster(), content), overrides)


def parameters(
    cluster: Cluster, name: str, folder: Path, code: Path, after: str = "", array: bool = False
) -> dict[str, Any]:
    """Return submitit's keyword arguments for a job that starts `after` others ("afterok:7:8").

    The job runs the copy of the code in `code` and keeps its files in `folder`. Raises ConfigError for a folder that
    cannot be written in a batch script.
    """
    check_folder(folder)
    refuse([*control_characters("the name of a job", name), *control_characters("python", PYTHON)])
    additional: dict[str, Any] = {**cluster.sbatch, "chdir": str(code), "requeue": True}
    if after:
        # without kill-on-invalid-dep a job waits for ever when the job before it has failed
        additional |= {"dependency": after, "kill-on-invalid-dep": "yes"}
    logs: list[str] = []
    if "%" in str(folder):  # SLURM reads % in the names of logs as a placeholder
        log = f"{str(folder).replace('%', '%%')}/{'%A_%a' if array else '%j'}"
        additional |= {"output": f"{log}_0_log.out", "error": f"{log}_0_log.err"}
        logs = ["--output", f"{log}_%t_log.out", "--error", f"{log}_%t_log.err"]
    slurm: dict[str, Any] = {
        "signal_delay_s": cluster.warn_seconds,
        # since SLURM 22.05 srun no longer inherits --cpus-per-task from sbatch
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cluster.cpus_per_task}", *logs],
        "setup": list(cluster.setup),
        "teardown": [
            "code=$?",
            f"[ $code = 0 ] || {quote(sys.executable)} -m {RETRY} {quote(str(folder))} {cluster.retries}",
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
