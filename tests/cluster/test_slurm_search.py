"""A search as one job of a real SLURM: what is asserted are states, Tune's records and the settings found."""

from pathlib import Path

import pytest
import yaml
from helpers.launching import processes_with, write_configs
from helpers.nodes import Slurm
from helpers.runs import ended_trials, experiment, until

pytest.importorskip("ray")

SEARCH = """
trials: 2
epochs: 4
grace_epochs: 2
ssin:
  loss.margin: {uniform: [0, 1]}
smin:
  loss.margin: {uniform: [0, 1]}
"""


@pytest.mark.slow
def test_a_search_over_both_streams_is_one_job_on_two_nodes_that_is_preempted_and_goes_on(
    slurm: Slurm, walkers: Path, cluster_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (tmp_path / "search.yaml").write_text(SEARCH)
    words = ["--stream", "both", "--config", write_configs(tmp_path / "configs", walkers), "--run", run]
    jobs = slurm.launch(*words, "--cluster", cluster_file, "--search", tmp_path / "search.yaml")
    assert list(jobs) == ["search"]
    until("a trial that has ended", lambda: any(ended_trials(run).values()))
    before = {name: results for name, results in ended_trials(run).items() if results}
    slurm.wait(slurm.occupy(seconds=1), "COMPLETED")
    slurm.wait_once_requeued(jobs["search"])
    after = ended_trials(run)
    assert len(after) == 4
    assert all(after.values())
    assert before.items() <= after.items(), "what had ended was not done again"
    found = yaml.safe_load((run / "winner" / "smin.yaml").read_text())
    assert found["loss"]["margin"] in [trial["config"]["loss.margin"] for trial in experiment(run, "smin").values()]
    assert (run / "final" / "results.json").is_file()
    until("no process of the job", lambda: not processes_with(f"SLURM_JOB_ID={jobs['search']}"))
