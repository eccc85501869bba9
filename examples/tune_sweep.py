"""Sweep a learning rate by Ray Tune, as a user of Ray Tune writes it; `sptskm tune` does this and more by itself."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from sptskm import load_config, train


def trainable(settings: dict[str, Any], out: Path, fixed: Sequence[str]) -> None:
    """Train SMIN with the settings of a trial, and report the held-out mAP of every validation."""
    varied = [f"{key}={value}" for key, value in settings.items()]
    config = load_config("demo/smin", f"run={out / tune.get_context().get_trial_id()}", *fixed, *varied)
    train(config, report=lambda values: tune.report({"mAP": values["validation/mAP"]}))


def main(data: Path, out: Path, *overrides: str, trials: int = 4) -> tune.ResultGrid:
    """Run the sweep and return its results."""
    out = out.absolute()
    fixed = [f"data.root={data.absolute()}", "train.epochs=8", "train.validate_every=1", *overrides]
    tuner = tune.Tuner(
        tune.with_resources(partial(trainable, out=out, fixed=fixed), {"cpu": 1}),
        param_space={"optim.lr": tune.loguniform(3e-4, 1e-2), "loss.triplet": tune.uniform(0.1, 0.6)},
        tune_config=tune.TuneConfig(metric="mAP", mode="max", num_samples=trials),
        run_config=tune.RunConfig(name="sweep", storage_path=str(out)),
    )
    return tuner.fit()


if __name__ == "__main__":
    best = main(Path(sys.argv[1]), Path(sys.argv[2])).get_best_result()
    print(best.config, best.metrics["mAP"])
