"""Train and evaluate on a SLURM cluster through submitit.

    sptskm slurm --stream both data.root=/data/mars

`both` submits SSIN and SMIN side by side and a final job that starts when both have succeeded, `all` does so with all
streams.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sptskm.common.endings import is_ours
from sptskm.config import STREAMS, ConfigError
from sptskm.configfile import CHECKOUT, find_file
from sptskm.launching import earlier, estimates, prepare_jobs, preparing, searches, snapshot
from sptskm.launching.cluster import PYTHON, Cluster, check_folder, load_cluster, overriding, parameters
from sptskm.launching.plan import Plan, check, make_plan, parser, refused
from sptskm.launching.submission import Queued, queue
from sptskm.launching.watch import Followed, watch
from sptskm.provenance import tell_jobs


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit the plan of a command line, or print what would be submitted."""
    if preparing.is_asked_for(arguments):
        return prepare(arguments)
    chosen = command_line().parse_intermixed_args(arguments)
    try:
        cluster = _cluster(chosen)
        if chosen.watch and chosen.dry_run:
            raise ConfigError("--watch follows jobs of SLURM, and there will be none")
        plan = make_plan(chosen)
        estimates.check_rate(chosen, len(plan.configs))
        searched = searched_by(plan, chosen)
        ranks = dict.fromkeys(STREAMS, cluster.ranks) | {name: one.workers for name, one in searched.items()}
        check(searches.without_test_split(plan) if searched else plan, ranks)
        _check_times(plan, cluster)
        check_folder(plan.logs)
        if chosen.estimate:
            print(estimates.estimate_text(plan, ranks, chosen, cluster))
            return 0
        if chosen.dry_run:
            print(dry_run(plan, cluster))
            return 0
        _check_scheduler("--dry-run and `sptskm local` work")
        tell_jobs()
        queued = into_queue(plan, cluster, searched, chosen.retrain)
    except (ValueError, OSError) as error:
        if not is_ours(error):
            raise
        return refused("slurm", error)
    print(plan.tensorboard_command(), flush=True)
    return watch(queued.followed()) if chosen.watch and queued.ids() else 0


def prepare_command_line() -> argparse.ArgumentParser:
    """Return the parser of `sptskm slurm --prepare`."""
    options = preparing.command_line()
    _cluster_options(options)
    options.add_argument("--watch", action="store_true", help="follow states and logs until the jobs have ended")
    return options


def prepare(arguments: Sequence[str] | None) -> int:
    """Submit the jobs that prepare masks or skeletons."""
    chosen = prepare_command_line().parse_args(arguments)
    try:
        cluster = _cluster(chosen)
        wanted = preparing.wanted_of(chosen)
        preparing.check_method_weights(wanted)
        _check_scheduler("`sptskm prepare` works")
        queued = prepare_jobs.submit(wanted, cluster)
    except (ValueError, OSError) as error:
        if not is_ours(error):
            raise
        return refused("slurm", error)
    return watch(queued.followed()) if chosen.watch else 0


def searched_by(plan: Plan, chosen: argparse.Namespace) -> searches.Searches:
    """Return the hyper-parameter searches that a command line asks for; none without --search."""
    if chosen.search is None:
        if chosen.retrain:
            raise ConfigError("--retrain trains what a search has found, wanted --search FILE with it")
        return {}
    if chosen.dry_run:
        raise ConfigError("--search submits a job to SLURM, which --dry-run does not")
    return searches.load_searches(plan, chosen.search)


def _submit_search(plan: Plan, cluster: Cluster, searched: searches.Searches, retrain: bool) -> Queued:
    from sptskm.launching import ray_jobs

    return ray_jobs.submit(plan, cluster, searched, retrain)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of `sptskm slurm`."""
    options = parser("Train and evaluate on a SLURM cluster.", preparing.USAGE.format("slurm"))
    _cluster_options(options)
    options.add_argument("--dry-run", action="store_true", help="print the batch scripts, submit nothing")
    estimates.options(options)
    options.add_argument("--watch", action="store_true", help="follow states and logs until the jobs have ended")
    searches.options(options)
    return options


def _cluster_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("--cluster", default="slurm", help="a file configs/cluster/NAME.yaml, or a path")
    for key, what in (("partition", "where jobs run"), ("minutes", "time limit of a job"), ("nodes", "nodes of a job")):
        options.add_argument(f"--{key}", metavar=key.upper(), help=f"{what}, instead of what the cluster file says")


def _cluster(chosen: argparse.Namespace) -> Cluster:
    """Read the cluster file of a command line and apply the command line's own values.

    Prints a note if environment variables override both.
    """
    given = {key: value for key in ("partition", "minutes", "nodes") if (value := getattr(chosen, key)) is not None}
    cluster = load_cluster(_cluster_file(chosen.cluster), [f"{key}={value}" for key, value in given.items()])
    if note := overriding():
        print(note, file=sys.stderr)
    return cluster


def _check_scheduler(otherwise: str) -> None:
    if shutil.which("sbatch") is None:
        raise ConfigError(f"no sbatch on this machine; {otherwise} without SLURM")


def _check_times(plan: Plan, cluster: Cluster) -> None:
    for config in plan.configs:
        if config.train.leave_seconds >= cluster.warn_seconds:
            raise ConfigError(
                f"{config.stream}: train.leave_seconds is {config.train.leave_seconds:g}, wanted less than the "
                f"{cluster.warn_seconds} s between warning and end of a job (warn_seconds of the cluster file)"
            )


def _cluster_file(name: str) -> Path:
    """Find a cluster file by its path, or by its name in configs/cluster, here or in the checkout."""
    if name.endswith((".yaml", ".yml")):
        return find_file(Path(name))
    try:
        return find_file(Path("configs/cluster") / f"{name}.yaml")
    except FileNotFoundError as error:
        known = ", ".join(sorted(path.stem for path in (CHECKOUT / "configs/cluster").glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"cluster file {error}; known names: {known}") from None


def dry_run(plan: Plan, cluster: Cluster) -> str:
    """Return the batch scripts that submitit would write, with names in place of the ids of earlier jobs."""
    from submitit import SlurmExecutor

    class Printer(SlurmExecutor):
        """Executor that makes batch scripts on machines without SLURM as well."""

        @classmethod
        def affinity(cls) -> int:
            return 1

    names = [*plan.runs]
    texts = []
    for name in (*names, "final"):
        after = f"afterok:{':'.join(names)}" if name == "final" else ""
        granted = cluster.for_final() if name == "final" else cluster
        wanted = parameters(granted, name, plan.logs, snapshot.place(plan.logs), after)
        printer = Printer(folder=plan.logs, python=PYTHON)
        plain = {key.removeprefix("slurm_"): value for key, value in wanted.items()}
        printer.update_parameters(**printer._convert_parameters(plain))
        texts.append(f"# --- {name} ---\n{printer._make_submission_file_text(f'<{name} job>', name)}")
    return "\n".join(texts)


def into_queue(plan: Plan, cluster: Cluster, searched: searches.Searches, retrain: bool) -> Queued:
    """Submit a plan unless an earlier command has done so, and return the jobs that are queued now.

    Prints what an earlier command has already queued or finished. Raises ConfigError when the folder has jobs or runs
    with other settings.
    """
    settings = earlier.submitted_settings(plan, searched, retrain)
    with earlier.alone(plan):
        before = earlier.read_record(plan)
        states = earlier.queued(plan, before) if before else {}
        kept = {}
        if before and states:
            earlier.refuse_other_settings(plan, before, states, settings)
            kept = {name: earlier.followed(plan, before.jobs[name]) for name in states}
            for name, job in kept.items():
                print(f"{name}: job {job.job} of an earlier command is {states[name].lower()}, log {job.logs[0]}")
            if searched or "final" in kept:
                return Queued(earlier=kept)
        if not searched:
            earlier.refuse_other_runs(plan, kept)
            if earlier.finished(plan, before):
                print(f"finished by an earlier command with these settings; the results are in {plan.out}")
                return Queued()
        queued = _submit_search(plan, cluster, searched, retrain) if searched else submit(plan, cluster, kept)
        earlier.write_record(plan, earlier.Submitted(queued.ids(), settings))
    return queued


def submit(plan: Plan, cluster: Cluster, kept: Mapping[str, Followed]) -> Queued:
    """Queue the final job after the training jobs, except those that an earlier command has queued."""
    from sptskm.launching.jobs import TrainJob, final_job

    queued = Queued(earlier={**kept})
    with queued.all_or_none():
        for name, config in plan.runs.items():
            if name not in kept:
                queued.add(name, queue(plan.logs, cluster, TrainJob(config, cluster.requeues), name))
        after = queued.behind("afterok")
        own = cluster.for_final()
        queued.add("final", queue(plan.logs, own, final_job(plan, own.requeues), "final", after))
    return queued
