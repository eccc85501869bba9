"""What ending trials early is worth, and what a trial in Ray costs beside the training itself.

    python benchmarks/search.py --data data/walkers --out runs/benchmark

Curves: SMIN trials on generated walkers are trained in full, through launch/tune.py. Then every rule of
sptskm/search/stopping.py is replayed on these curves, one trial after the other, in many seeded orders, until the
budget is spent; the table shows the best held-out mAP by then.

Overhead: the same short trials one after the other, through launch/tune.py and by calling the trainer in a process
that has imported all it needs; both on the same CPUs, in turn.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from sptskm.report.console import table
from sptskm.search import Search, Trial, goes_on, load_search, read_trials

ROOT = Path(__file__).parents[1]
RULES = ("none", "asha", "hyperband", "median")
SPACE = """
  optim.lr: {loguniform: [3.0e-4, 3.0e-2]}
  optim.weight_decay: {loguniform: [1.0e-6, 1.0e-3]}
  loss.triplet: {uniform: [0.1, 0.9]}
  loss.margin: {quantised: [0.1, 0.5, 0.1]}
  model.dropout: {choice: [0.0, 0.2, 0.5]}
"""
DIRECT = """
import sys, time
from sptskm.configfile import load
from sptskm.training.trainer import train
for run in sys.argv[1:]:
    start = time.time()
    train(load(run))
    print(time.time() - start, flush=True)
"""


def search_file(folder: Path, **rules: object) -> Path:
    """A search file for SMIN with these rules."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{name}: {value}\n" for name, value in rules.items())
    (folder / "search.yaml").write_text(f"{lines}smin:{SPACE}")
    return folder / "search.yaml"


def launched(file: Path, data: Path, run: Path) -> "subprocess.Popen[str]":
    """launch/tune.py on a search file, which continues what is in `run`."""
    words = ["launch/tune.py", "--stream", "smin", "--config", "configs/demo", "--search", file, "--run", run]
    command = [sys.executable, *map(str, words), f"data.root={data.resolve()}"]
    return subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def ended(process: "subprocess.Popen[str]") -> None:
    """Wait for a launcher; its last words if it fails."""
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(said)


def replayed(curves: Sequence[Trial], search: Search, budget: int) -> float:
    """The best held-out mAP when trials are trained in this order until so many epochs are spent; NaN if too few."""
    seen: list[Trial] = []
    best, left = 0.0, budget
    for number, curve in enumerate(curves):
        trial = replace(curve, number=number, scores=())
        for score in curve.scores:
            left -= search.validate_every
            if left < 0:
                return best
            trial = replace(trial, scores=[*trial.scores, score])
            best = max(best, score.mAP)
            if not goes_on(trial, seen, search):
                break
        seen.append(trial)
    return best if left == 0 else float("nan")


def compare(trials: Sequence[Trial], search: Search, orders: int) -> str:
    """The table of all rules at several budgets."""
    rows = []
    for full in (1, 2, 4, 6, 8):
        found: dict[str, list[float]] = {rule: [] for rule in RULES}
        for seed in range(orders):
            order = np.random.default_rng(seed).permutation(len(trials))
            for rule in RULES:
                score = replayed([trials[i] for i in order], replace(search, scheduler=rule), full * search.epochs)
                found[rule].append(100 * score)
        rows.append([f"{full} in full", *(_spread(scores) for scores in found.values())])
    return table([f"budget (grace of {search.grace_epochs} epochs)", "random", *RULES[1:]], rows)


def foresight(trials: Sequence[Trial]) -> str:
    """How well the order of the trials after some epochs is that of their best scores: Spearman's correlation."""
    scores_TE = np.array([[score.mAP for score in trial.scores] for trial in trials])
    told = [spearmanr(scores_E, scores_TE.max(axis=1)).statistic for scores_E in scores_TE.T]
    epochs = [score.epoch for score in trials[0].scores]
    return table(["after epoch", *map(str, epochs)], [["correlation with the best", *(f"{c:.2f}" for c in told)]])


def _spread(scores: Sequence[float]) -> str:
    """Mean and standard deviation; nothing where a rule has run out of trials in some order."""
    return f"{np.mean(scores):.1f} +- {np.std(scores):.1f}" if np.isfinite(scores).all() else "-"


def trained_directly(out: Path, data: Path, search: Path, trials: int) -> list[float]:
    """Seconds of each run when one process trains one after the other."""
    from sptskm.configfile import load, to_yaml

    rules = load_search(search)["smin"]
    files = []
    for number in range(trials):
        changes = [f"data.root={data.resolve()}", f"run={out / str(number)}", "data.test=false"]
        changes += [f"train.epochs={rules.epochs}", f"train.validate_every={rules.validate_every}"]
        files.append(out / f"{number}.yaml")
        out.mkdir(parents=True, exist_ok=True)
        files[-1].write_text(to_yaml(load(ROOT / "configs" / "demo" / "smin.yaml", changes)))
    done = subprocess.run(
        [sys.executable, "-c", DIRECT, *map(str, files)], stdout=subprocess.PIPE, text=True, check=True
    )
    return [float(line) for line in done.stdout.split()]


def overhead(out: Path, data: Path, trials: int) -> str:
    """What a trial takes in Ray and without it."""
    rules = {"trials": trials, "epochs": 3, "grace_epochs": 1, "scheduler": "none", "cpus_per_worker": os.cpu_count()}
    file = search_file(out, **rules)
    start = time.time()
    process = launched(file, data, out / "ray")
    delays = []
    assert process.stderr is not None
    for line in process.stderr:
        if " epoch " in line:
            name = line.split()[0].removeprefix("smin-")
            delays.append(time.time() - (out / "ray" / "search" / "smin" / name / "scores.jsonl").stat().st_mtime)
    ended(process)
    records = read_trials(out / "ray" / "search")
    begun = [(Path(record.folder) / "trial.json").stat().st_mtime for record in records]
    turns = [begun[i + 1] - records[i].ended for i in range(trials - 1)]
    lengths = [records[i + 1].ended - records[i].ended for i in range(trials - 1)]
    direct = trained_directly(out / "direct", data, file, trials)[1:]
    rows = [
        ["called directly, a run", f"{np.mean(direct):.2f}"],
        ["in Ray, a trial", f"{np.mean(lengths):.2f}"],
        ["of which from the end of one to the start of the next", f"{np.mean(turns):.2f}"],
        ["from the command to the start of the first trial", f"{begun[0] - start:.2f}"],
        ["from a score to the driver", f"{np.median(delays):.2f}"],
        ["ratio of a trial to a run", f"{np.mean(lengths) / np.mean(direct):.2f}"],
    ]
    return table(["seconds", ""], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/walkers"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--orders", type=int, default=200)
    options = parser.parse_args()
    out = options.out.resolve()

    print(overhead(out / f"overhead-{int(time.time())}", options.data, 6), "\n", flush=True)
    rules = {"trials": options.trials, "epochs": options.epochs, "grace_epochs": 3, "validate_every": 3}
    file = search_file(out / "curves", scheduler="none", **rules)
    ended(launched(file, options.data, out / "curves" / "run"))
    trials = [trial for trial in read_trials(out / "curves" / "run" / "search") if trial.end == "finished"]
    search = load_search(file)["smin"]
    for grace in (3, 9):
        print(compare(trials, replace(search, grace_epochs=grace), options.orders), "\n")
    print(foresight(trials), "\n")
    hours = sum(trial.rank_hours for trial in trials)
    print(f"{len(trials)} curves of {options.epochs} epochs ({60 * hours:.1f} rank minutes), {options.orders} orders")


if __name__ == "__main__":
    main()
