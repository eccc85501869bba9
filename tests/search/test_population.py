"""Who takes over from whom between generations, and with which settings."""

import numpy as np
import pytest

from sptskm.config import DEFAULTS
from sptskm.search import Draw, Score, Search, Trial, read_trial, successions
from sptskm.search.population import vary
from sptskm.search.records import Recorder

SPACE = {
    "optim.lr": Draw("loguniform", (1e-4, 1e-1)),
    "loss.margin": Draw("quantised", (0.1, 0.5, 0.1)),
    "model.dropout": Draw("choice", (0.0, 0.2, 0.5)),
    "clips.random_move": Draw("choice", (True, False)),
    "optim.weight_decay": Draw("loguniform", (1e-6, 1e-3), {"clips.random_move": (True,)}),
}
SEARCH = Search(trials=6, scheduler="pbt", reduction=3, stream="smin", space=SPACE)


def member(number: int, mAP: float | None, end: str = "paused") -> Trial:
    scores = [] if mAP is None else [Score(4, 40, mAP, mAP, 0.0, 1.0)]
    return Trial("smin", number, SEARCH.drawn(DEFAULTS["smin"])[number], 1, "", scores, end)  # type: ignore[arg-type]


def test_the_worst_third_takes_over_from_the_best_third():
    found = successions([member(number, mAP) for number, mAP in enumerate([0.3, 0.9, 0.1, 0.5, 0.2, 0.8])], SEARCH)
    assert {one.number for one in found} == {2, 4}
    assert {one.donor for one in found} <= {1, 5}


def test_what_has_failed_takes_over_first_and_never_gives():
    members = [member(0, 0.3), member(1, 0.9, "failed"), *(member(number, 0.5) for number in range(2, 6))]
    assert [one.number for one in successions(members, SEARCH)] == [0, 1]
    assert {one.donor for one in successions(members, SEARCH)} <= {2, 3}
    assert successions([member(number, None, "failed") for number in range(3)], SEARCH) == []
    lone = successions([member(0, 0.1), member(1, None, "failed")], SEARCH)
    assert [(one.number, one.donor) for one in lone] == [(1, 0)]


def test_it_depends_on_records_and_seed_alone():
    members = [member(number, number / 10) for number in range(6)]
    assert successions(members, SEARCH) == successions(members[::-1], SEARCH)
    other = Search(**{**vars(SEARCH), "seed": 1})
    assert successions(members, SEARCH) != successions(members, other)


def test_settings_vary_within_their_ranges_and_mostly_nearby():
    start = {"optim.lr": 0.01, "loss.margin": 0.3, "model.dropout": 0.2, "clips.random_move": True}
    start |= {"optim.weight_decay": 1e-4}
    varied = [vary(start, SPACE, np.random.default_rng(seed)) for seed in range(200)]
    near = [settings["optim.lr"] for settings in varied]
    assert 0.6 < np.mean([min(abs(rate - 0.008), abs(rate - 0.012)) < 1e-9 for rate in near]) < 0.9
    assert all(1e-4 <= rate <= 1e-1 for rate in near)
    assert {round(settings["loss.margin"], 6) for settings in varied} <= {0.1, 0.2, 0.3, 0.4, 0.5}
    assert {settings["model.dropout"] for settings in varied} == {0.0, 0.2, 0.5}
    for settings in varied:
        assert ("optim.weight_decay" in settings) == settings["clips.random_move"]


def test_who_takes_over_has_the_scores_of_the_other_and_what_oneself_has_cost(tmp_path):
    for number, mAP in enumerate((0.1, 0.7)):
        recorder = Recorder(tmp_path / str(number))
        recorder.begin(Trial("smin", number, {"optim.lr": 0.1 * (number + 1)}, 1, str(recorder.folder)))
        for epoch in (1, 2):
            values = {"epoch": epoch, "step": epoch, "validation/mAP": mAP, "validation/rank-1": mAP}
            recorder.add(values)
        recorder.end("paused")
    mine, donor = (read_trial(tmp_path / str(number)) for number in range(2))
    assert mine is not None
    assert donor is not None
    for _ in range(2):
        Recorder(mine.folder).inherit(Trial("smin", 0, {"optim.lr": 0.3}, 1, mine.folder, mine.scores), donor)
    after = read_trial(mine.folder)
    assert after is not None
    assert (after.settings, after.end) == ({"optim.lr": 0.3}, "")
    assert [score.mAP for score in after.scores] == [0.7, 0.7]
    assert after.rank_hours == pytest.approx(mine.rank_hours)
