"""Train and evaluate on a SLURM cluster through submitit.

    python launch/slurm.py --stream both data.root=/data/mars

`both` submits SSIN and SMIN side by side and a final job that starts when both have succeeded.
`--cluster local` runs the same jobs through submitit on this machine.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.cluster import Cluster, load_cluster, parameters
from launch.plan import Plan, make_plan, parser

EXIT_BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit the plan of a command line, or print what would be submitted."""
    options = parser("Train and evaluate on a SLURM cluster.")
    options.add_argument(
        "--cluster", default="slurm", help="a file configs/cluster/NAME.yaml, or a path; `local` needs no SLURM"
    )
    options.add_argument("--dry-run", action="store_true", help="print the batch scripts, submit nothing")
    chosen = options.parse_args(arguments)
    try:
        plan = make_plan(chosen)
        cluster = load_cluster(_cluster_file(chosen.cluster))
    except (ValueError, FileNotFoundError) as error:
        print(f"launch/slurm.py: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if chosen.dry_run:
        print(dry_run(plan, cluster))
        return 0
    return submit(plan, cluster, local=chosen.cluster == "local")


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
        wanted = parameters(cluster, name, names if name == "final" else ())
        wanted.pop("slurm_max_num_timeout")  # not part of the script
        printer = Printer(folder=logs(plan))
        plain = {key.removeprefix("slurm_"): value for key, value in wanted.items()}
        printer.update_parameters(**printer._convert_parameters(plain))
        texts.append(f"# --- {name} ---\n{printer._make_submission_file_text(f'<{name} job>', name)}")
    return "\n".join(texts)


def submit(plan: Plan, cluster: Cluster, local: bool) -> int:
    """Queue the jobs and say where to look; locally, wait for them."""
    import submitit

    from launch.jobs import TrainJob, final_job

    def queue(job: Any, name: str, after: Sequence[str] = ()) -> Any:
        executor = submitit.AutoExecutor(folder=logs(plan), cluster="local" if local else "slurm")
        executor.update_parameters(**parameters(cluster, name, after))
        submitted = executor.submit(job)
        print(f"{name}: job {submitted.job_id}, log {submitted.paths.stdout}", flush=True)
        return submitted

    training = [queue(TrainJob(config), config.stream) for config in plan.configs]
    if local:
        for job in training:
            job.results()  # submitit's local jobs know no dependencies
    final = queue(final_job(plan), "final", () if local else [job.job_id for job in training])
    if local:
        print(final.results()[0])
    print(plan.farewell())
    return 0


if __name__ == "__main__":
    sys.exit(main())
