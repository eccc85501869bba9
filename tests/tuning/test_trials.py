"""What a search makes of its trials: their order, a table, a page."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sptskm.report import trial_pages as report
from sptskm.tuning import Score, Search, Trial, rank_trials

FOUND = {stream: Search(epochs=4, stream=stream) for stream in ("ssin", "smin")}


def trial(stream: str, number: int, scores: list[float], end: str = "finished", **settings) -> Trial:
    """A trial with these scores after epochs 1, 2, ..., two minutes for each."""
    told = [Score(epoch, mAP, mAP, max(scores[:epoch])) for epoch, mAP in enumerate(scores, 1)]
    reason = "frame 7 is broken" if end == "failed" else ""
    seconds, ended = 120.0 * len(scores), 100.0 + number
    return Trial(stream, number, settings, 2, f"{stream}/{number}", told, end, reason, seconds, ended)  # type: ignore[arg-type]


def test_the_best_score_of_a_trial_is_that_of_the_weights_which_were_kept():
    assert trial("smin", 0, [0.1, 0.3, 0.2]).best == Score(2, 0.3, 0.3, 0.3)
    assert trial("smin", 0, []).best is None
    taken_over = [Score(1, 0.5, 0.5, 0.5), Score(2, 0.2, 0.2, 0.2), Score(3, 0.1, 0.1, 0.2)]
    assert Trial("smin", 0, {}, 1, "", taken_over).best == taken_over[1]


@pytest.fixture
def searched() -> list[Trial]:
    """Both streams; of SMIN the rate decides, and half of the trials are ended early."""
    found = [trial("ssin", 0, [0.4, 0.5], **{"loss.margin": 0.3})]
    for number in range(8):
        rate, kind = 10.0 ** -(number % 4), ["adam", "sgd"][number // 4]
        scores = [0.1 * (number % 4)] * (4 if number % 4 > 1 else 1)
        end = "finished" if len(scores) == 4 else "ended early"
        found.append(trial("smin", number, scores, end, **{"optim.lr": rate, "optim.algorithm": kind}))
    return [*found, trial("smin", 8, [], "failed", **{"optim.lr": 1.0, "optim.algorithm": "sgd"})]


def test_trials_are_ranked_by_their_best_score_and_the_earlier_of_equals_is_first(searched):
    found = rank_trials(searched, "smin")
    assert [trial.number for trial in found[:3]] == [3, 7, 2]
    assert len(found) == 8


def test_the_table_names_the_best_their_cost_and_what_failed(searched):
    lines = report.text(searched, FOUND).splitlines()
    assert lines[0].split()[0] == "ssin"
    best = next(line for line in lines if line.startswith("smin-0003")).split()
    assert best[1] == "30.0"
    assert best[-2:] == ["optim.lr=0.001", "optim.algorithm=adam"]
    assert any(line.startswith("9 trials (4 finished, 4 ended early, 1 failed): ") for line in lines)
    assert "less than all of them in full" in " ".join(lines)
    assert "smin-0008 failed: frame 7 is broken" in lines


def test_trials_of_a_stream_that_is_not_searched_now_are_left_out(searched):
    told = report.text(searched, {"smin": FOUND["smin"]})
    assert told.startswith("smin ")
    assert "ssin" not in told


def test_a_setting_that_decides_explains_the_scores_and_one_that_does_not_explains_nothing(searched):
    shares = report.importance(searched, "smin")
    assert shares["optim.lr"] > 0.8
    assert shares["optim.algorithm"] == pytest.approx(0, abs=1e-12)
    assert report.importance(searched, "ssin") == {"loss.margin": 0.0}


def test_the_page_shows_progress_cost_and_importance_once_however_often_it_is_written(searched, tmp_path):
    for _ in range(2):
        report.write_page(searched, FOUND, tmp_path)
    for stream in FOUND:
        assert len(list((tmp_path / stream).glob("events*"))) == 1
    events = EventAccumulator(str(tmp_path / "smin")).Reload()
    best = [event.value for event in events.Scalars("search/best mAP so far")]
    assert best == pytest.approx([0.0, 0.1, 0.2] + [0.3] * 6)
    assert set(events.Tags()["images"]) == {"search/importance", "search/scores by epoch"}
    assert "search/text_summary" in EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"]


def test_a_trial_is_in_hparams_before_its_first_score(tmp_path):
    report.begin_page(Trial("smin", 0, {"optim.lr": 0.1, "model.depths": [1, 1]}, 1, str(tmp_path)))
    content = EventAccumulator(str(tmp_path)).Reload().SummaryMetadata("_hparams_/session_start_info")
    assert b"optim.lr" in content.plugin_data.content
