"""Runs on a cluster as the tests of this folder start, disturb and compare them."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from helpers.launching import submitted_rank

EPOCHS = 12
SHIPPED = "data.workers=2"  # what users train with: SLURM signals the loader processes of a step, too
PATIENCE = 180  # seconds for something to happen on two busy cores


def options(configs: Path, cluster_file: Path, run: Path, stream: str) -> list[object]:
    """Words behind `launch/slurm.py` for a run of some seconds."""
    words = ["--stream", stream, "--config", configs, "--cluster", cluster_file, "--run", run]
    return [*words, f"train.epochs={EPOCHS}", "train.validate_every=6", SHIPPED]


def end_of(run: Path) -> dict[str, Any]:
    """Weights, step and best score of the newest checkpoint."""
    state = torch.load(max(run.glob("checkpoint-*.pt")), weights_only=True)
    return {**{f"model {k}": v for k, v in state["model"].items()}, "step": state["step"], "best": state["best_mAP"]}


def assert_same_end(run: Path, expected: Path) -> None:
    """Every bit of the final weights, and the steps and best scores."""
    found, wanted = end_of(run), end_of(expected)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        same = found[name].equal(value) if isinstance(value, torch.Tensor) else found[name] == value
        assert same, name


def until(what: str, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for a condition, or fail saying what did not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not after {seconds} s: {what}"
        time.sleep(0.1)


def until_training(run: Path) -> None:
    """The run has written its first checkpoint: it is in the middle of training then."""
    until(f"a checkpoint in {run}", lambda: list(run.glob("checkpoint-*.pt")))


def rank_of(job: str, rank: int) -> int:
    """Pid of the training process of a rank of a job."""
    return submitted_rank(rank, f"SLURM_JOB_ID={job}")


def ended(pid: int) -> bool:
    """Whether a process is gone."""
    return not Path(f"/proc/{pid}").exists()


def experiment(run: Path, stream: str) -> dict[str, dict[str, Any]]:
    """Status, settings and results of the trials of a stream by folder, as Tune itself reads them."""
    from ray import tune

    home = run / "search" / stream
    if not list(home.glob("experiment_state-*.json")):
        return {}
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)  # of trials without results
    analysis = tune.ExperimentAnalysis(str(home))
    return {
        Path(trial.path).name: {
            "status": trial.status,
            "config": trial.config,
            "tag": trial.experiment_tag,
            "results": analysis.trial_dataframes[trial.trial_id].to_dict("records"),
        }
        for trial in sorted(analysis.trials, key=lambda trial: str(trial.path))
    }


def ended_trials(run: Path) -> dict[str, list[Any]]:
    """Results of the trials of both streams that have ended well, by name; nothing of those that have not."""
    return {
        f"{stream}/{name}": trial["results"] if trial["status"] == "TERMINATED" else []
        for stream in ("ssin", "smin")
        for name, trial in experiment(run, stream).items()
    }
