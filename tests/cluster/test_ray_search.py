"""A search in a real Ray: killed, continued, and what it has found; asserted are records and settings."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from helpers.launching import end, processes_naming, start, write_configs
from helpers.runs import until

from sptskm.search import Trial, read_trials

SEARCH = """
trials: 3
epochs: 4
grace_epochs: 1
workers: 2
method: {method}
ssin:
  optim.lr: {{choice: [1.0e-3, 1.0e-2]}}
smin:
  optim.lr: {{choice: [1.0e-3, 1.0e+30]}}
"""


POPULATION = """
scheduler: pbt
trials: 3
epochs: 6
grace_epochs: 2
validate_every: 2
smin:
  optim.lr: {loguniform: [1.0e-3, 1.0e-1]}
  optim.weight_decay: {loguniform: [1.0e-6, 1.0e-3]}
"""


def begun(run: Path) -> dict[str, Trial]:
    return {trial.name: trial for trial in read_trials(run / "search")}


@pytest.mark.parametrize("method", ["grid", "optuna"])
def test_a_killed_search_is_continued_by_the_same_command_and_what_it_finds_is_trained_and_evaluated(
    walkers: Path, tmp_path: Path, method: str
) -> None:
    run = tmp_path / "run"
    (tmp_path / "search.yaml").write_text(SEARCH.format(method=method))
    streams = ["--stream", "both"] if method == "grid" else ["--stream", "smin"]
    words = ["launch/tune.py", *streams, "--config", write_configs(tmp_path / "configs", walkers), "--run", run]
    words += ["--search", tmp_path / "search.yaml", *(["--retrain"] if method == "grid" else [])]
    launcher = start(*words)
    until("a trial that has ended", lambda: any(trial.end for trial in begun(run).values()))
    launcher.kill()
    end(launcher)
    until("the end of its workers", lambda: not [line for line in processes_naming("ray::") if str(run) in line])
    before = begun(run)
    code, out, err = end(start(*words))
    assert code == 0, err
    after = begun(run)
    assert len(after) == (4 if method == "grid" else 3)
    for name, trial in before.items():
        assert after[name].settings == trial.settings
        if trial.end in ("finished", "ended early"):
            assert after[name] == trial, "kept as it was"
    for trial in after.values():
        assert trial.end == "failed" if trial.settings["optim.lr"] > 1 else trial.end in ("finished", "ended early")
        assert trial.workers == 2
    found = yaml.safe_load((run / "winner" / "smin.yaml").read_text())
    assert (found["optim"]["lr"], found["train"]["epochs"]) == (1e-3, 4)
    assert "all" in out, "the final table"
    assert (run / "retrained" / "ssin" / "result.json").exists() == (method == "grid")
    shutil.rmtree(run)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, for those who may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a disk that can be filled wants a user who may mount one")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_said_and_the_same_command_continues_once_there_is_room(
    walkers: Path, tmp_path: Path, small_disk: Path
) -> None:
    run, rules = small_disk / "run", "trials: 3\nepochs: 10\nscheduler: none\n"
    (tmp_path / "search.yaml").write_text(f"{rules}smin:\n  loss.margin: {{uniform: [0, 1]}}\n")
    words = ["launch/tune.py", "--stream", "smin", "--config", write_configs(tmp_path / "configs", walkers)]
    words += ["--search", tmp_path / "search.yaml", "--run", run]
    launcher = start(*words)
    until("a score", lambda: list(run.glob("search/smin/*/scores.jsonl")))
    with suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))
    code, _, err = end(launcher)
    assert code == 1, err
    assert "No space left on device" in err
    assert "Traceback" not in err, err
    (small_disk / "ballast").unlink()
    code, _, err = end(start(*words))
    assert code == 0, err
    assert [(trial.end, trial.epochs) for trial in begun(run).values()] == [("finished", 10)] * 3


def test_trials_that_want_half_a_gpu_share_one(walkers: Path, tmp_path: Path) -> None:
    rules = "trials: 2\nepochs: 2\ngrace_epochs: 1\ngpus_per_worker: 0.5\n"
    (tmp_path / "search.yaml").write_text(f"{rules}smin:\n  loss.margin: {{uniform: [0, 1]}}\n")
    words = ["launch/tune.py", "--stream", "smin", "--config", write_configs(tmp_path / "configs", walkers)]
    words += ["--search", tmp_path / "search.yaml", "--run", tmp_path / "run"]
    code, _, err = end(start(*words, CUDA_VISIBLE_DEVICES="0"))  # which Ray believes
    assert code == 0, err
    first, second = read_trials(tmp_path / "run" / "search")
    begun = {trial.number: (Path(trial.folder) / "trial.json").stat().st_mtime for trial in (first, second)}
    assert begun[1] < first.ended
    assert begun[0] < second.ended


def test_a_population_that_was_killed_between_and_in_generations_ends_as_if_nothing_had_happened(
    walkers: Path, tmp_path: Path
) -> None:
    (tmp_path / "search.yaml").write_text(POPULATION)
    words = ["launch/tune.py", "--stream", "smin", "--config", write_configs(tmp_path / "configs", walkers)]
    words += ["--search", tmp_path / "search.yaml", "--run"]
    run = tmp_path / "killed"
    exchanged = run / "search" / "smin" / "generation-01.json"
    for event in (exchanged.exists, lambda: any(trial.epochs == 4 for trial in begun(run).values())):
        launcher = start(*words, run)
        until("its moment", event)
        launcher.kill()
        end(launcher)
        until("the end of its workers", lambda: not [line for line in processes_naming("ray::") if str(run) in line])
    for folder in (run, tmp_path / "undisturbed"):
        code, _, err = end(start(*words, folder))
        assert code == 0, err
    found, wanted = begun(run), begun(tmp_path / "undisturbed")
    assert len(found) == 3
    for name, trial in found.items():
        assert (trial.end, trial.settings) == ("finished", wanted[name].settings)
        assert [(s.epoch, s.mAP, s.loss) for s in trial.scores] == [
            (s.epoch, s.mAP, s.loss) for s in wanted[name].scores
        ]
    (heir,) = json.loads(exchanged.with_name("generation-02.json").read_text())["successions"]
    config = yaml.safe_load((run / "search" / "smin" / f"{heir['number']:04d}" / "config.yaml").read_text())
    assert config["optim"]["weight_decay"] == pytest.approx(heir["settings"]["optim.weight_decay"])
