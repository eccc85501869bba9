"""Jobs that prepare masks and skeletons: an array of SLURM jobs, and a job that verifies the result."""

from dataclasses import dataclass, replace

from submitit.helpers import Checkpointable

from sptskm.common.console import set_up_logging
from sptskm.common.errors import DataError
from sptskm.launching.cluster import Cluster
from sptskm.launching.preparing import jobs_folder, resolved, verified
from sptskm.launching.submission import Queued, queue, queue_array
from sptskm.preparation.command import Wanted, made


@dataclass(frozen=True)
class PrepareJob(Checkpointable):
    """Job that prepares one shard; a restart continues it, whatever ended it."""

    wanted: Wanted
    shard: int

    def __call__(self) -> str:
        set_up_logging()
        text = made(self.wanted, self.shard)
        print(text)
        return text


@dataclass(frozen=True)
class VerifyJob(Checkpointable):
    """Job that checks whether the shards are complete; fails with a list of what is missing, and why."""

    wanted: Wanted

    def __call__(self) -> str:
        complete, text = verified(self.wanted)
        if not complete:
            raise DataError(text)
        print(text)
        return text


def submit(wanted: Wanted, cluster: Cluster) -> Queued:
    """Queue the shards, each with one process and at most one GPU, and a verification after all of them.

    Raises ConfigError for half precision without GPUs.
    """
    alone = replace(cluster, nodes=1, gpus_per_node=min(cluster.gpus_per_node, 1), cpu_ranks=1)
    wanted = resolved(wanted, gpus=alone.gpus_per_node > 0)
    folder, queued = jobs_folder(wanted), Queued()
    with queued.all_or_none():
        jobs = [PrepareJob(wanted, shard) for shard in range(wanted.shards)]
        for shard, job in enumerate(queue_array(folder, alone, jobs, "-".join(wanted.kinds))):
            queued.add(f"{wanted.name} {shard}", job)
        after = queued.behind("afterany")
        queued.add("verify", queue(folder, replace(alone, gpus_per_node=0), VerifyJob(wanted), "verify", after))
    return queued
