"""What Optuna draws, whether it is interrupted or not."""

from pathlib import Path
from typing import Any

import pytest
from helpers.launching import write_configs

from launch.plan import make_plan, parser
from sptskm.search import Draw, Recorder, Search, Trial, folder_of

pytest.importorskip("optuna")
pytest.importorskip("ray")

SPACE = {"optim.lr": Draw("loguniform", (1e-3, 1e-1)), "loss.margin": Draw("choice", (0.1, 0.3, 0.5))}
SEARCH = Search(trials=14, method="optuna", stream="smin", space=SPACE)


def drawn(tmp_path: Path, name: str, *, restarted: bool) -> list[dict[str, Any]]:
    """All settings of a search whose trials reach a score that depends on them alone."""
    from launch.optuna_draws import OptunaDraws

    configs = write_configs(tmp_path / "configs", tmp_path)
    words = ["--stream", "smin", "--config", str(configs), "--run", str(tmp_path / name)]
    plan = make_plan(parser("").parse_intermixed_args(words))
    draws, found = OptunaDraws(plan, {"smin": SEARCH}), []
    while isinstance(suggested := draws.suggest(str(len(found))), dict):
        asked = suggested["trial"]
        place = folder_of(draws.home, "smin", asked["number"])
        recorder = Recorder(place)
        recorder.begin(Trial("smin", asked["number"], asked["settings"], 1, str(place)))
        score = asked["settings"]["optim.lr"] - abs(asked["settings"]["loss.margin"] - 0.3)
        recorder.add({"epoch": 1, "step": 1, "validation/mAP": score, "validation/rank-1": 0.0})
        recorder.end("finished")
        found.append(asked)
        if restarted:  # killed before it could be told how the trial has ended
            draws = OptunaDraws(plan, {"smin": SEARCH})
        else:
            draws.on_trial_complete(str(len(found) - 1))
    return found


def test_a_search_that_is_killed_after_every_trial_draws_what_an_undisturbed_one_draws(tmp_path: Path) -> None:
    undisturbed = drawn(tmp_path, "undisturbed", restarted=False)
    assert undisturbed == drawn(tmp_path, "restarted", restarted=True)
    assert [asked["number"] for asked in undisturbed] == list(range(14))
    assert len({asked["settings"]["optim.lr"] for asked in undisturbed}) == 14


def test_it_begins_with_the_configuration_as_it_is(tmp_path: Path) -> None:
    first = drawn(tmp_path, "run", restarted=False)[0]
    assert first["settings"] == {"optim.lr": 1e-2, "loss.margin": 0.3}
