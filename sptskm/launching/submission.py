"""Submit jobs to SLURM's queue: all jobs of a plan, or none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sptskm.config import ConfigError
from sptskm.launching import snapshot
from sptskm.launching.cluster import PYTHON, Cluster, parameters
from sptskm.launching.watch import Followed


def queue(folder: Path, cluster: Cluster, job: Any, name: str, after: str = "") -> Any:
    """Submit one job that waits for `after`, with its files in `folder`, and print the path of its log."""
    submitted = _executor(folder, cluster, name, after).submit(job)
    print(f"{name}: job {submitted.job_id}, log {submitted.paths.stderr}", flush=True)
    return submitted


def queue_array(folder: Path, cluster: Cluster, jobs: Sequence[Any], name: str) -> list[Any]:
    """Submit jobs as one array, of which at most `at_once` run at a time."""
    executor = _executor(folder, cluster, name, array=True)
    executor.update_parameters(slurm_array_parallelism=cluster.at_once)
    with executor.batch():
        submitted = [executor.submit(job) for job in jobs]
    array = submitted[0].job_id.partition("_")[0]
    print(f"{name}: jobs {array}_0 to {array}_{len(jobs) - 1}, logs in {folder}", flush=True)
    return submitted


def _executor(folder: Path, cluster: Cluster, name: str, after: str = "", array: bool = False) -> Any:
    import submitit

    wanted = parameters(cluster, name, folder, snapshot.place(folder), after, array)
    snapshot.take(folder)
    executor = submitit.AutoExecutor(folder, "slurm", slurm_max_num_timeout=cluster.requeues, slurm_python=PYTHON)
    executor.update_parameters(**wanted)
    return executor


@dataclass
class Queued:
    """Jobs that were submitted together, by name."""

    jobs: dict[str, Any] = field(default_factory=dict)
    earlier: dict[str, Followed] = field(default_factory=dict)
    """Jobs of an earlier command that are still queued and take the place of new ones."""

    def add(self, name: str, job: Any) -> None:
        """Add a job."""
        self.jobs[name] = job

    def behind(self, condition: str, *names: str) -> str:
        """Return SLURM's dependency for a job that waits for the named jobs, or for all so far."""
        ids = self.ids()
        return f"{condition}:" + ":".join(ids[name].partition("_")[0] for name in names or ids)

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Cancel all jobs queued in the block when one is refused; raise ConfigError with sbatch's message."""
        from submitit.core.utils import FailedJobError

        try:
            yield
        except FailedJobError as error:
            for job in self.jobs.values():
                job.cancel(check=False)
            said = (str(error).strip().splitlines() or ["sbatch failed"])[-1]
            raise ConfigError(f"not submitted, nothing stays queued: {said}") from None

    def followed(self) -> dict[str, Followed]:
        """Return all jobs as jobs to watch, by name."""
        new = {name: Followed(job.job_id, [job.paths.stderr, job.paths.stdout]) for name, job in self.jobs.items()}
        return {**self.earlier, **new}

    def ids(self) -> dict[str, str]:
        """Return the ids of all jobs by name."""
        earlier = {name: job.job for name, job in self.earlier.items()}
        return earlier | {name: job.job_id for name, job in self.jobs.items()}
