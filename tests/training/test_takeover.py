"""Checkpoints in the hands of Ray Tune."""

from dataclasses import replace
from pathlib import Path

import pytest

from sptskm.config import STREAMS, Config
from sptskm.configfile import to_dict
from sptskm.training.rundir import RunDir
from sptskm.training.takeover import put_aside, rewind, take_over

PER_EPOCH = 10


def config_of(folder: Path, decay: float = 0.1) -> Config:
    """A run of 6 epochs that is validated every second one."""
    config = STREAMS["smin"].defaults
    config = replace(config, run=str(folder), optim=replace(config.optim, weight_decay=decay))
    return replace(config, train=replace(config.train, epochs=6, validate_every=2))


def trained(config: Config, *epochs: int) -> RunDir:
    """A run that has been saved after these epochs, the first of which was the best."""
    run = RunDir(config.run)
    for done in epochs:
        group = {"weight_decay": config.optim.weight_decay}
        state = {"step": PER_EPOCH * done, "epochs_done": done, "best_mAP": 0.5, "config": to_dict(config)}
        run.write(run.checkpoint(state["step"]), {**state, "optimizer": {"param_groups": [group]}})
        if done == epochs[0]:
            run.write(run.best, {"step": state["step"]})
    return run


def epochs_in(run: RunDir) -> list[int]:
    return [int(path.stem[-8:]) // PER_EPOCH for path in run.checkpoints()]


def test_what_is_put_aside_is_the_newest_checkpoint_with_the_best_weights_and_may_be_deleted(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    run = trained(config, 2, 4)
    for _ in range(2):
        aside = put_aside(config)
    assert sorted(path.name for path in aside.iterdir()) == ["best.pt", "checkpoint-00000040.pt"]
    for path in aside.iterdir():
        path.unlink()
    assert epochs_in(run) == [4, 2]


@pytest.mark.parametrize(("reported", "kept"), [(4, [5, 4, 2]), (5, [5, 4, 2])])
def test_a_run_that_has_done_no_more_than_was_reported_stays_as_it_is(
    tmp_path: Path, reported: int, kept: list[int]
) -> None:
    run = trained(config_of(tmp_path), 2, 4, 5)
    rewind(None, config_of(tmp_path), reported)
    assert epochs_in(run) == kept


def test_a_run_whose_last_scores_nobody_heard_goes_back_to_the_one_that_was(tmp_path: Path) -> None:
    config = config_of(tmp_path / "run")
    run = trained(config, 2)
    aside = put_aside(config)
    trained(config, 4, 6)
    (tmp_path / "run" / "result.json").write_text("{}")
    rewind(aside, config, epoch=2)
    assert epochs_in(run) == [2]
    newest = run.newest()
    assert newest is not None
    assert newest[1]["best_mAP"] == 0.5
    assert not run.result.exists()


def test_a_run_of_which_nothing_was_reported_begins_anew(tmp_path: Path) -> None:
    run = trained(config_of(tmp_path), 2)
    rewind(None, config_of(tmp_path), epoch=0)
    assert epochs_in(run) == []
    assert not run.best.exists()


def test_who_takes_over_goes_on_from_another_run_with_settings_and_a_best_score_of_its_own(tmp_path: Path) -> None:
    donor, mine = config_of(tmp_path / "donor"), config_of(tmp_path / "mine", decay=0.3)
    trained(donor, 4)
    run = trained(config_of(tmp_path / "mine", decay=0.2), 2)
    for _ in range(2):
        take_over(put_aside(donor), mine)
    newest = run.newest()
    assert newest is not None
    assert epochs_in(run) == [4]
    assert newest[1]["config"] == to_dict(mine)
    assert newest[1]["optimizer"]["param_groups"][0]["weight_decay"] == 0.3
    assert newest[1]["best_mAP"] < 0
    assert not run.best.exists()
    with pytest.raises(FileNotFoundError, match="no readable checkpoint"):
        take_over(tmp_path / "nowhere", mine)
