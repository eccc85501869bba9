"""What earlier commands left in the run folder: jobs in SLURM's queue, running training, other settings.

Nothing here imports torch; the names of files are those of sptskm.training.rundir.
"""

import fcntl
import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sptskm.common.atomic import write_text
from sptskm.common.errors import DataError
from sptskm.common.reading import read_json, read_yaml
from sptskm.config import ConfigError
from sptskm.configfile import changed_keys, flat, from_dict, in_force, to_dict
from sptskm.data import read_dataset, split_of
from sptskm.data.splits import changed_data
from sptskm.launching.plan import Plan, make_folder
from sptskm.launching.watch import ENDS, Followed
from sptskm.trunkfile import completed

FINAL = "final"
RECORD, LOCK = "submitted.json", "submitting.lock"
SHOWN = 4  # settings named in a sentence
_FLOCK = "hhqqi"  # struct flock of Linux: type, whence, start, length, pid


@dataclass(frozen=True)
class Submitted:
    """Jobs of one submission (ids by name) and their settings (by dotted names)."""

    jobs: Mapping[str, str]
    settings: Mapping[str, Any]


def submitted_settings(plan: Plan, searched: Mapping[str, Any] | None = None, retrain: bool = False) -> dict[str, Any]:
    """Return all settings that affect a plan's jobs, by dotted names, with values as JSON reads them back."""
    parts: dict[str, Any] = {config.stream: to_dict(config) for config in plan.configs} | {"final": to_dict(plan.final)}
    if searched:
        parts["search"] = {stream: repr(search) for stream, search in searched.items()} | {"retrain": retrain}
    return in_force(json.loads(json.dumps(flat(parts))))


def write_record(plan: Plan, submitted: Submitted) -> None:
    """Write the jobs and settings of a submission to a file for the next command."""
    write_text(plan.logs / RECORD, json.dumps({"jobs": submitted.jobs, "settings": submitted.settings}, indent=1))


def read_record(plan: Plan) -> Submitted | None:
    """Read the record of the last submission; None without a readable one."""
    try:
        content = read_json(plan.logs / RECORD, dict[str, dict[str, Any]])
    except (FileNotFoundError, NotADirectoryError, DataError):
        return None
    jobs = {name: str(job) for name, job in content.get("jobs", {}).items() if re.fullmatch(r"\d+(_\d+)?", str(job))}
    return Submitted(jobs, in_force(content.get("settings", {})))


def queued(plan: Plan, submitted: Submitted) -> dict[str, str]:
    """Return the state of each job that is still queued or running, by name.

    Clusters reuse job numbers, so only a job that works in this plan's folder counts. A final job does not count if a
    job that it waits for has failed, as SLURM is about to cancel it. Raises ConfigError when the scheduler does not
    answer.
    """
    if not submitted.jobs or shutil.which("squeue") is None:
        return {}
    ids = ",".join(submitted.jobs.values())
    command = ["squeue", "-h", "-t", "all", "-j", ids, "-o", "%i|%T|%r|%Z"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode and "Invalid job id" not in asked.stderr:
        said = (asked.stderr.strip().splitlines() or ["squeue failed"])[-1]
        raise ConfigError(f"{plan.folder}: whether its jobs {ids} are queued is unknown ({said}), try again")
    lines = [line.split("|", 3) for line in asked.stdout.splitlines() if line.count("|") >= 3]
    known = {job: (state, why) for job, state, why, folder in lines if Path(folder).is_relative_to(plan.logs)}
    states = {name: known[job] for name, job in submitted.jobs.items() if job in known}
    trained = [state for name, (state, _) in states.items() if name != FINAL]
    failed = any(state in ENDS and state != "COMPLETED" for state in trained)
    doomed = {
        name for name, (_, why) in states.items() if why == "DependencyNeverSatisfied" or (name == FINAL and failed)
    }
    return {name: state for name, (state, _) in states.items() if state not in ENDS and name not in doomed}


def refuse_other_settings(
    plan: Plan, submitted: Submitted, states: Mapping[str, str], settings: Mapping[str, Any]
) -> None:
    """Raise ConfigError if a plan's settings differ from those of the jobs queued for the same folder."""
    if changed := differences(submitted.settings, settings):
        jobs = ", ".join(f"{name} {submitted.jobs[name]} {state.lower()}" for name, state in states.items())
        ids = " ".join(submitted.jobs[name] for name in states)
        raise ConfigError(
            f"{plan.folder}: has jobs in the queue ({jobs}) with other settings ({_some(changed)}); "
            f"wanted the same ones, another --run, or `scancel {ids}` before"
        )


def refuse_queued(plan: Plan) -> None:
    """Raise ConfigError if SLURM has jobs for the folder of a plan that is to run outside of SLURM."""
    before = read_record(plan)
    if before and (states := queued(plan, before)):
        ids = " ".join(before.jobs[name] for name in states)
        raise ConfigError(
            f"{plan.folder}: jobs {ids} of SLURM are queued for it, wanted another --run, or none of them"
        )


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List the settings that differ, as `name: before -> after`.

    A part (a stream, `final`, `search`) that only one side has counts as one difference.
    """
    parts = [{name.partition(".")[0] for name in settings} for settings in (before, after)]
    found = [
        f"{part}: {_whether(part in parts[0])} -> {_whether(part in parts[1])}" for part in sorted(parts[0] ^ parts[1])
    ]
    for name in sorted({*before, *after}):
        if name.partition(".")[0] in parts[0] & parts[1] and before.get(name) != after.get(name):
            found.append(f"{name}: {before.get(name)!r} -> {after.get(name)!r}")
    return found


def _whether(there: bool) -> str:
    return "asked for" if there else "not asked for"


def _some(changed: list[str]) -> str:
    more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return "; ".join(changed[:SHOWN]) + more


def refuse_other_runs(plan: Plan, known: Container[str] = ()) -> None:
    """Raise ConfigError if a folder of the plan is in use for training, or holds a run of other settings or data.

    Runs in `known` are skipped: jobs with the same settings train them. Raises errors as `read_dataset`.
    """
    table_of = cache(read_dataset)
    for name, config in plan.runs.items():
        if name in known:
            continue
        folder = Path(config.run)
        if (pid := training_in(folder)) is not None:
            who = f"process {pid}" if pid > 0 else "another process"
            raise ConfigError(f"{folder}: {who} is training in this folder; wait for it, or choose another --run")
        before, data = _trained_with(folder)
        changed = [] if before is None else changed_keys(before, to_dict(completed(config)))
        if data is not None and not changed:
            table = table_of(config.data.root, config.data.test)
            now = split_of(table, config.data).data_of(table)
            changed = changed_data(data, now) if now.keys() <= data.keys() else []  # else a file that is not the run's
        if changed:
            raise ConfigError(
                f"{folder}: holds another run ({_some(changed)}); choose another --run, or delete it to start afresh"
            )


def _trained_with(folder: Path) -> tuple[dict[str, Any] | None, dict[str, str] | None]:
    """Return the configuration of the run in a folder, and the hashes of its data.

    Either is None without a checkpoint, or if it cannot be read, as of a run of an earlier version: then the run itself
    decides.
    """
    settings = data = None
    if any(folder.glob("checkpoint-*.pt")):
        with suppress(ValueError, OSError):
            settings = to_dict(from_dict(read_yaml(folder / "config.yaml")))
        with suppress(ValueError, OSError):
            data = read_json(folder / "data.json", dict[str, str])
    return settings, data


def training_in(folder: Path) -> int | None:
    """Return the pid of the process that holds a run's lock, without touching the lock.

    It is 0 or less for a process on another machine, and None when nobody holds the lock.
    """
    try:
        with (folder / "lock").open("rb") as file:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except OSError:  # no lock file, or a file system without locks
        return None
    return None if kind == fcntl.F_UNLCK else int(pid)


def finished(plan: Plan, submitted: Submitted | None) -> bool:
    """Return whether an earlier submission has trained and evaluated exactly this plan."""
    results = plan.out / "results.json"
    if submitted is None or differences(submitted.settings, submitted_settings(plan)):
        return False
    ends = [Path(config.run) / "result.json" for config in plan.runs.values()]
    return all(path.is_file() for path in (results, *ends)) and all(
        results.stat().st_mtime >= end.stat().st_mtime for end in ends
    )


def followed(plan: Plan, job: str) -> Followed:
    """Return a job of an earlier submission as one to watch."""
    return Followed(job, [plan.logs / f"{job}_0_log.err", plan.logs / f"{job}_0_log.out"])


@contextmanager
def alone(plan: Plan) -> Iterator[None]:
    """Hold the submission lock of the plan's folder inside the block.

    Raises ConfigError when another command is submitting.
    """
    make_folder(plan.logs)
    with (plan.logs / LOCK).open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ConfigError(f"{plan.folder}: another command is submitting into it, wanted one at a time") from None
        except OSError:  # this file system has no locks
            pass
        yield
