"""Hand checkpoints to Ray Tune, and continue from those it returns."""

import os
import shutil
from pathlib import Path

from sptskm.common.paths import exists
from sptskm.config import Config
from sptskm.configfile import to_dict, to_yaml
from sptskm.report.tensorboard import clear
from sptskm.training.checkpoints import State, read
from sptskm.training.optimisers import set_decay
from sptskm.training.rundir import RunDir
from sptskm.trunkfile import completed

ASIDE = "aside"  # in the folder of a run


def put_aside(config: Config) -> Path:
    """Link the newest checkpoint and the best weights of a run into a new folder, which others may delete."""
    run = RunDir(config.run)
    newest = run.checkpoints()[0]
    aside = run.path / ASIDE / newest.stem
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for path in (newest, run.best):
        if path.exists():
            try:
                os.link(path, aside / path.name)
            except OSError:  # a file system without links
                shutil.copyfile(path, aside / path.name)
    return aside


def take_over(donor: Path, config: Config) -> None:
    """Let the run of `config` continue from the checkpoint of another run with its own settings, as PBT does.

    Its best score starts anew; calling this twice does no harm. Raises FileNotFoundError when `donor` has no
    checkpoint, and DataError for a broken one.
    """
    _replace(donor, config, best=False)
    clear(Path(config.run))  # curves of the earlier settings


def rewind(donor: Path | None, config: Config, epoch: int) -> None:
    """Set the run of `config` back to its last reported score, after `epoch` epochs.

    A killed search may know less than the run has done: an unreported score is validated again. `donor` is the
    checkpoint that was reported with that score; without one the run starts from scratch.
    """
    mine = RunDir(config.run)
    newest = mine.newest(set_aside=True)
    done = newest[1]["epochs_done"] if newest else 0
    every, last = config.train.validate_every, config.train.epochs
    unreported = [later for later in range(epoch + 1, done + 1) if later % every == 0 or later == last]
    if newest is not None and not unreported:
        return
    if donor is not None:
        _replace(donor, config, best=True)
    else:
        for path in (*mine.checkpoints(), mine.best, mine.result):
            path.unlink(missing_ok=True)


def _replace(donor: Path, config: Config, best: bool) -> None:
    config, theirs, mine = completed(config), RunDir(donor), RunDir(config.run)
    found = theirs.newest()
    if found is None:
        raise FileNotFoundError(f"{donor}: no readable checkpoint to go on from")
    state = found[1] if best else {**found[1], "best_mAP": -1.0}
    mine.write(mine.checkpoint(state["step"]), _own(state, config))
    for old in (*mine.checkpoints(), mine.best, mine.result):
        if old != mine.checkpoint(state["step"]):
            old.unlink(missing_ok=True)  # of the replaced run
    if best and exists(theirs.best):
        mine.write(mine.best, read(theirs.best))
    mine.write_text(mine.config, to_yaml(config))


def _own(state: State, config: Config) -> State:
    """Return the state with another configuration. The rate is set at every epoch, the decay is in the optimizer."""
    for group in state["optimizer"]["param_groups"]:
        set_decay(group, config.optim.weight_decay)
    return {**state, "config": to_dict(config)}
