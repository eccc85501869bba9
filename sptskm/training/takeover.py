"""A run that goes on from where another one is: between the generations of a population."""

from sptskm.common.paths import exists
from sptskm.config import Config
from sptskm.configfile import to_dict, to_yaml
from sptskm.training.checkpoints import State, read
from sptskm.training.rundir import RunDir


def take_over(donor: str, config: Config) -> None:
    """Let the run of `config` continue from the newest checkpoint of another one, with its own settings.

    Doing it twice does no harm. Raises FileNotFoundError when the other run has no readable checkpoint.
    """
    theirs, mine = RunDir(donor), RunDir(config.run)
    found = theirs.newest()
    if found is None:
        raise FileNotFoundError(f"{donor}: no readable checkpoint to go on from")
    state = found[1]
    mine.write(mine.checkpoint(state["step"]), _own(state, config))
    for old in mine.checkpoints():
        if old != mine.checkpoint(state["step"]):
            old.unlink()  # of another line
    if exists(theirs.best):
        mine.write(mine.best, {**read(theirs.best), "config": to_dict(config)})
    mine.write_text(mine.config, to_yaml(config))


def _own(state: State, config: Config) -> State:
    """The state with another configuration; the rate is set at every epoch, the decay lies in the optimizer."""
    for group in state["optimizer"]["param_groups"]:
        group["weight_decay"] = config.optim.weight_decay
    return {**state, "config": to_dict(config)}
