"""A search as arrays of jobs on a real SLURM: what is asserted are records, states and the settings found."""

import json
import os
import signal
from pathlib import Path

import yaml
from helpers.launching import launch, submitted_rank, write_configs
from helpers.nodes import Slurm, ids
from helpers.runs import until
from helpers.small import training_part

from sptskm.search import read_trials

SEARCH = """
trials: 3
epochs: 6
grace_epochs: 2
ssin:
  optim.lr: {loguniform: [1.0e-4, 1.0e-2]}
smin:
  optim.lr: {choice: [1.0e-3, 1.0e+30]}
  sampling.tracklets: {choice: [2]}
"""


def test_a_search_in_arrays_sees_no_file_of_test_and_survives_lost_ranks_and_failing_trials(
    slurm: Slurm, walkers: Path, cluster_file: Path, tmp_path: Path
) -> None:
    data, run = training_part(walkers, tmp_path / "data"), tmp_path / "run"
    (tmp_path / "search.yaml").write_text(SEARCH)
    words = ["--stream", "both", "--config", write_configs(tmp_path / "configs", data), "--cluster", cluster_file]
    words += ["--run", run, "--search", tmp_path / "search.yaml"]
    code, out, err = launch("launch/slurm.py", *words, **slurm.variables)
    assert code == 0, err
    jobs = ids(out)
    until("a first score", lambda: list(run.glob("search/ssin/*/scores.jsonl")))
    os.kill(submitted_rank(1, naming=str(run)), signal.SIGKILL)
    slurm.wait(jobs["search"], "COMPLETED")
    trials = read_trials(run / "search")
    assert len(trials) == 6
    ends = {trial.name: trial.end for trial in trials}
    assert {ends[f"ssin-{number:04d}"] for number in range(3)} <= {"finished", "ended early"}
    for trial in trials:
        failed = trial.settings["optim.lr"] > 1
        assert (trial.end == "failed") == failed, trial
        assert not failed or "is not finite" in trial.reason
        assert json.loads((Path(trial.folder) / "trial.json").read_text())["workers"] == 2
    best = max((trial for trial in trials if trial.stream == "ssin"), key=lambda trial: trial.best.mAP)
    found = yaml.safe_load((run / "winner" / "ssin.yaml").read_text())
    assert (found["optim"]["lr"], found["train"]["epochs"]) == (best.settings["optim.lr"], 6)
    assert slurm.wait(jobs["final"], "FAILED") == "FAILED", "it alone asks for the test part, which is not there"
    log = (run / "jobs" / f"{jobs['final']}_0_log.err").read_text()
    assert "test_name.txt: no such file" in log
