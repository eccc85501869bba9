"""Compare training recipes ingredient by ingredient on people held out from the training part.

    python benchmarks/recipes.py --stream ssin --config configs/demo/ssin.yaml --data data/walkers --out found.jsonl

Each row of recipes.yaml changes the base recipe (the file and the settings behind the options). Every row is trained
with the seeds 0, 1, 2: seed n has weights, batches and split of its own and takes the n-th of the data sets given. The
last weights are scored, so that nothing is chosen on the people who score; test files are never read. Differences to
the base are paired by seed. Results are appended to the file, which is also read: what it has is not run again, so that
several processes can share the rows. Time is processor time of a step, with its clips.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, stdev

from sptskm.common.reading import read_yaml
from sptskm.config import Config
from sptskm.configfile import apply_overrides, load
from sptskm.data.clips import TrainItem
from sptskm.evaluation import PROTOCOLS, Rows, evaluate, stream_distances
from sptskm.training.extract import extract
from sptskm.training.meters import Meters
from sptskm.training.setup import Setup
from sptskm.training.signals import StopFlag
from sptskm.training.trainer import Trainer
from sptskm.training.world import World

ROWS = Path(__file__).with_name("recipes.yaml")
RULES = {"mAP": PROTOCOLS["mars-official"], "changed": PROTOCOLS["ccvid-clothes-changing"]}
HEADER = "| ingredient | mAP | to base | mAP, other clothes | to base | step, s | seeds |"
RULE = "|---|---|---|---|---|---|---|"
BASE = "base"

Found = dict[tuple[str, int], dict[str, float]]


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stream", required=True)
    parser.add_argument("--config", type=Path, required=True, help="base recipe")
    parser.add_argument("--data", nargs="+", required=True, help="data sets, for one seed after the other")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", help="default: all of recipes.yaml")
    parser.add_argument("--out", type=Path, required=True, help="results, one JSON line each")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    args = parser.parse_intermixed_args()
    rows = read_yaml(ROWS)[args.stream]
    wanted = [(name, seed) for seed in range(args.seeds) for name in args.rows or rows]
    for name, seed in wanted:
        if (name, seed) in results(args.out):
            continue
        own = [f"data.root={args.data[seed % len(args.data)]}", f"data.split_seed={seed}", f"train.seed={seed}"]
        found = score(load(args.config, [*args.overrides, *rows[name], *own]))
        with args.out.open("a") as file:
            print(json.dumps({"row": name, "seed": seed, **found}), file=file)
    print("\n".join([HEADER, RULE, *lines(results(args.out), args.rows or rows)]))


def results(path: Path) -> Found:
    """Read the results so far by row and seed."""
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(one["row"], one["seed"]): one for one in found}


def score(config: Config) -> dict[str, float]:
    """Train a run without validations and score its last weights on the held-out people, in percent."""
    with tempfile.TemporaryDirectory() as folder:
        own = [f"run={folder}", "data.test=false", "data.workers=0", "train.save_minutes=1e6"]
        config, world = apply_overrides(config, own), World()
        trainer = Timed(Setup.of(config, world), world)
        trainer.run()
    split, data = trainer.setup.split, trainer.setup.table
    network, source = trainer.average.network, trainer.setup.source
    found = extract(network, trainer.setup.stream, source, split.held_out, config, world)
    features, valid, query = found.features_ND, found.valid_N, split.query
    distance_QG = stream_distances(features[query], features, valid[query], valid)
    labels = Rows.of(data, split.held_out[query]), Rows.of(data, split.held_out)
    scores = {
        name: 100 * evaluate(distance_QG, *labels, protocol).mAP
        for name, protocol in RULES.items()
        if name == "mAP" or data.has_clothes
    }
    return {**scores, "step": median(b - a for a, b in pairwise(trainer.times)), "steps": trainer.step}


class Timed(Trainer):
    """A trainer that notes the processor time at the end of each step; it neither validates nor saves."""

    def __init__(self, setup: Setup, world: World) -> None:
        super().__init__(setup, world, StopFlag())
        self.times: list[float] = []

    def train_step(self, batch: TrainItem, meters: Meters) -> bool:
        """Do a step and note the time."""
        stop = super().train_step(batch, meters)
        self.times.append(time.process_time())
        return stop

    def end_epoch(self, epoch: int, meters: Meters) -> None:
        """Count the epoch."""
        del meters
        self.epochs_done = epoch + 1


def lines(found: Found, names: Iterable[str]) -> list[str]:
    """Return a line of Markdown for each row with results."""
    found_lines = []
    for name in names:
        seeds = [seed for row, seed in found if row == name]
        if not seeds:
            continue
        own = [found[name, seed] for seed in seeds]
        cells = [name]
        for score in (score for score in RULES if score in own[0]):
            pairs = [(found[name, n][score], found[BASE, n][score]) for n in seeds if (BASE, n) in found]
            cells.append(spread([one[score] for one in own]))
            cells.append(spread([ours - base for ours, base in pairs], "+.1f") if name != BASE and pairs else "")
        cells += [f"{mean(one['step'] for one in own):.3f}", str(len(seeds))]
        found_lines.append("| " + " | ".join(cells) + " |")
    return found_lines


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Format the mean and the standard deviation."""
    return f"{mean(values):{form}} ± {stdev(values) if len(values) > 1 else 0:.1f}"


if __name__ == "__main__":
    main()
