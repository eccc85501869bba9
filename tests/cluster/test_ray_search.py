"""A search in a real Ray: killed, continued, and what it has found; asserted are Tune's records and settings."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.launching import end, processes_naming, start, write_configs
from helpers.runs import experiment, until
from helpers.small import training_part

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
trials: 4
epochs: 4
grace_epochs: 1
smin:
  optim.lr: {loguniform: [1.0e-3, 1.0e-1]}
  optim.weight_decay: {loguniform: [1.0e-6, 1.0e-3]}
"""


def killed(words: list[object], moment: Any) -> None:
    """Start a search and kill its command at a moment; its workers end with it."""
    launcher = start(*words)
    until("its moment", lambda: launcher.poll() is not None or moment())
    assert launcher.poll() is None, end(launcher)
    launcher.kill()
    end(launcher)
    run = str(words[words.index("--run") + 1])
    until("the end of its workers", lambda: not [line for line in processes_naming("ray::") if run in line])


@pytest.mark.parametrize("method", ["grid", "optuna"])
def test_a_killed_search_is_continued_by_the_same_command_and_what_it_finds_is_trained_and_evaluated(
    walkers: Path, tmp_path: Path, method: str
) -> None:
    run = tmp_path / "run"
    (tmp_path / "search.yaml").write_text(SEARCH.format(method=method))
    streams = ["ssin", "smin"] if method == "grid" else ["smin"]
    words: list[object] = ["launch/tune.py", "--stream", "both" if method == "grid" else "smin"]
    words += ["--config", write_configs(tmp_path / "configs", walkers), "--run", run]
    words += ["--search", tmp_path / "search.yaml", *(["--retrain"] if method == "grid" else [])]
    killed(words, lambda: any(t["status"] == "TERMINATED" for s in streams for t in experiment(run, s).values()))
    before = {stream: experiment(run, stream) for stream in streams}
    code, out, err = end(start(*words))
    assert code == 0, err
    assert f"smin: {2 if method == 'grid' else 3} of {2 if method == 'grid' else 3} trials ended" in err
    for stream in streams:
        after = experiment(run, stream)
        assert sorted(after) == ["0000", "0001", "0002"][: 2 if method == "grid" else 3]
        for name, trial in before[stream].items():
            assert after[name]["config"] == trial["config"]
            if trial["status"] == "TERMINATED":
                assert after[name] == trial, "kept as it was"
        for trial in after.values():
            failing = trial["config"]["optim.lr"] > 1
            assert trial["status"] == ("ERROR" if failing else "TERMINATED")
            epochs = [result["epoch"] for result in trial["results"]]
            assert epochs == [1, 2, 3, 4][: len(epochs)], "no epoch is missing or there twice"
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
    until("a score", lambda: list(run.glob("search/smin/*/checkpoint_*")))
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
    trials = experiment(run, "smin").values()
    assert [(trial["status"], trial["results"][-1]["epoch"]) for trial in trials] == [("TERMINATED", 10)] * 3


def test_trials_that_want_half_a_gpu_share_one_and_no_file_of_test_is_opened(walkers: Path, tmp_path: Path) -> None:
    data = training_part(walkers, tmp_path / "data")
    rules = "trials: 2\nepochs: 2\ngrace_epochs: 1\ngpus_per_worker: 0.5\n"
    (tmp_path / "search.yaml").write_text(f"{rules}smin:\n  loss.margin: {{uniform: [0, 1]}}\n")
    words = ["launch/tune.py", "--stream", "smin", "--config", write_configs(tmp_path / "configs", data)]
    words += ["--search", tmp_path / "search.yaml", "--run", tmp_path / "run"]
    code, _, err = end(start(*words, CUDA_VISIBLE_DEVICES="0"))  # which Ray believes
    assert code == 1, err
    assert "test_name.txt: no such file" in err, "the final job alone asks for the test part, which is not there"
    first, second = experiment(tmp_path / "run", "smin").values()
    assert (first["config"]["loss.margin"], first["status"], second["status"]) == (0.3, "TERMINATED", "TERMINATED")
    ends = [trial["results"][-1] for trial in (first, second)]
    spans = [(end["timestamp"] - end["time_total_s"], end["timestamp"]) for end in ends]
    assert max(begin for begin, _ in spans) <= min(last for _, last in spans), "side by side"


def test_a_population_that_was_killed_goes_on_and_its_worst_takes_over_from_its_best(
    walkers: Path, tmp_path: Path
) -> None:
    (tmp_path / "search.yaml").write_text(POPULATION)
    run = tmp_path / "run"
    words: list[object] = ["launch/tune.py", "--stream", "smin", "--config"]
    words += [write_configs(tmp_path / "configs", walkers), "--search", tmp_path / "search.yaml", "--run", run]
    killed(words, (run / "search" / "smin" / "pbt_global.txt").exists)
    code, _, err = end(start(*words))
    assert code == 0, err
    found = experiment(run, "smin")
    assert [(trial["status"], trial["results"][-1]["epoch"]) for trial in found.values()] == [("TERMINATED", 4)] * 4
    for name, trial in found.items():
        config = yaml.safe_load((run / "search" / "smin" / name / "run" / "config.yaml").read_text())
        assert config["optim"]["weight_decay"] == pytest.approx(trial["config"]["optim.weight_decay"])
    assert any("@perturbed" in trial["tag"] for trial in found.values())
