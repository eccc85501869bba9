"""Train and evaluate on a SLURM cluster through submitit.

    python launch/slurm.py --stream both data.root=/data/mars

`both` submits SSIN and SMIN side by side and a final job that starts when both have succeeded.
`--cluster local` runs the same jobs through submitit on this machine.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch import snapshot
from launch.cluster import Cluster, construction, load_cluster, parameters
from launch.plan import Plan, check, make_plan, parser
from launch.watch import Followed, watch
from sptskm.cli import EXIT_BAD_INPUT
from sptskm.config import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit the plan of a command line, or print what would be submitted."""
    chosen = command_line().parse_intermixed_args(arguments)
    try:
        cluster = load_cluster(_cluster_file(chosen.cluster))
        if chosen.dry_run and cluster.executor == "local":
            raise ConfigError(f"--dry-run shows batch scripts, and --cluster {chosen.cluster} has none")
        if chosen.watch and (chosen.dry_run or cluster.executor == "local"):
            raise ConfigError("--watch follows jobs of SLURM, and there will be none")
        plan = make_plan(chosen)
        check(plan, cluster.ranks)
        _check_times(plan, cluster)
        if cluster.executor == "slurm" and not chosen.dry_run and shutil.which("sbatch") is None:
            raise ConfigError("no sbatch on this machine; --dry-run and --cluster local work without SLURM")
    except (ValueError, FileNotFoundError) as error:
        print(f"launch/slurm.py: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if chosen.dry_run:
        print(dry_run(plan, cluster))
        return 0
    return run_here(plan, cluster) if cluster.executor == "local" else submit(plan, cluster, chosen.watch)


def command_line() -> argparse.ArgumentParser:
    """What may be typed behind `python launch/slurm.py`."""
    options = parser("Train and evaluate on a SLURM cluster.")
    options.add_argument(
        "--cluster", default="slurm", help="a file configs/cluster/NAME.yaml, or a path; `local` needs no SLURM"
    )
    options.add_argument("--dry-run", action="store_true", help="print the batch scripts, submit nothing")
    options.add_argument("--watch", action="store_true", help="follow states and logs until the jobs have ended")
    return options


def _check_times(plan: Plan, cluster: Cluster) -> None:
    for config in plan.configs:
        if config.train.leave_seconds >= cluster.warn_seconds:
            raise ConfigError(
                f"{config.stream}: train.leave_seconds is {config.train.leave_seconds:g}, wanted less than the "
                f"{cluster.warn_seconds} s between warning and end of a job (warn_seconds of the cluster file)"
            )


def _cluster_file(name: str) -> Path:
    return Path(name) if name.endswith(".yaml") else Path("configs/cluster") / f"{name}.yaml"


def logs(plan: Plan) -> Path:
    """Where submitit keeps its scripts, pickles and each rank's output."""
    return plan.folder / "jobs"


def dry_run(plan: Plan, cluster: Cluster) -> str:
    """The batch scripts as submitit would write them; predecessors appear by name where their job ids will be."""
    from submitit import SlurmExecutor

    class Printer(SlurmExecutor):
        """Writes batch scripts on machines without SLURM as well."""

        @classmethod
        def affinity(cls) -> int:
            return 1

    names = [config.stream for config in plan.configs]
    texts = []
    for name in (*names, "final"):
        wanted = parameters(cluster, name, logs(plan), snapshot.place(logs(plan)), names if name == "final" else ())
        printer = Printer(folder=logs(plan), python=construction(cluster)["slurm_python"])
        plain = {key.removeprefix("slurm_"): value for key, value in wanted.items()}
        printer.update_parameters(**printer._convert_parameters(plain))
        texts.append(f"# --- {name} ---\n{printer._make_submission_file_text(f'<{name} job>', name)}")
    return "\n".join(texts)


def submit(plan: Plan, cluster: Cluster, follow: bool) -> int:
    """Queue the jobs, the final one behind the others, and say where to look; all of them or none."""
    from submitit.core.utils import FailedJobError

    from launch.jobs import TrainJob, final_job

    queued: dict[str, Any] = {}
    try:
        for config in plan.configs:
            queued[config.stream] = _queue(plan, cluster, TrainJob(config, cluster.requeues), config.stream)
        before = [job.job_id for job in queued.values()]
        queued["final"] = _queue(plan, cluster, final_job(plan, cluster.requeues), "final", before)
    except FailedJobError as error:  # what sbatch has said
        for job in queued.values():
            job.cancel(check=False)
        print(f"launch/slurm.py: not submitted, nothing stays queued: {_last_line(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(plan.farewell(), flush=True)
    if not follow:
        return 0
    logs = {name: [job.paths.stderr, job.paths.stdout] for name, job in queued.items()}
    return watch({name: Followed(job.job_id, logs[name]) for name, job in queued.items()})


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["sbatch failed"])[-1]


def run_here(plan: Plan, cluster: Cluster) -> int:
    """Run the jobs through submitit on this machine, whose jobs know no dependencies, and wait for them."""
    from launch.jobs import TrainJob, final_job

    training = [_queue(plan, cluster, TrainJob(config, cluster.requeues), config.stream) for config in plan.configs]
    if _failed(training):
        return 1
    final = _queue(plan, cluster, final_job(plan, cluster.requeues), "final")
    if _failed([final]):
        return 1
    print(f"{final.results()[0]}\n\n{plan.farewell()}")
    return 0


def _queue(plan: Plan, cluster: Cluster, job: Any, name: str, after: Sequence[str] = ()) -> Any:
    import submitit

    executor = submitit.AutoExecutor(logs(plan), cluster.executor, **construction(cluster))
    executor.update_parameters(**parameters(cluster, name, logs(plan), snapshot.take(logs(plan)), after))
    submitted = executor.submit(job)
    print(f"{name}: job {submitted.job_id}, log {submitted.paths.stderr}", flush=True)
    return submitted


def _failed(jobs: Sequence[Any]) -> bool:
    """Wait for all jobs; whether any failed, having said why."""
    errors = {job.job_id: error for job in jobs if (error := job.exception()) is not None}
    for job_id, error in errors.items():
        print(f"launch/slurm.py: job {job_id} failed: {error}", file=sys.stderr)
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
