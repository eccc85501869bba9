"""What trials leave behind, and what a search makes of it."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sptskm.report import search as report
from sptskm.search import Recorder, Search, Trial, ranked, read_trials

FOUND = {stream: Search(epochs=4, stream=stream) for stream in ("ssin", "smin")}


def record(folder: Path, stream: str, number: int, scores: list[float], end: str = "finished", **settings) -> Recorder:
    """A trial with these scores after epochs 1, 2, ..."""
    place = folder / stream / f"{number:04d}"
    recorder = Recorder(place)
    recorder.begin(Trial(stream, number, settings, 2, str(place)))
    for epoch, mAP in enumerate(scores, 1):
        recorder.add(values(epoch, mAP))
    if end:
        recorder.end(end, "frame 7 is broken" if end == "failed" else "")  # type: ignore[arg-type]
    return recorder


def values(epoch: int, mAP: float) -> dict[str, float]:
    return {"epoch": epoch, "step": 10.0 * epoch, "total": 1.0, "validation/mAP": mAP, "validation/rank-1": mAP}


def test_a_record_is_read_as_it_was_written(tmp_path):
    record(tmp_path, "smin", 3, [0.1, 0.3, 0.2], **{"optim.lr": 0.1})
    (trial,) = read_trials(tmp_path)
    assert (trial.name, trial.settings, trial.workers, trial.end) == ("smin-0003", {"optim.lr": 0.1}, 2, "finished")
    assert [(score.epoch, score.mAP, score.step) for score in trial.scores] == [
        (1, 0.1, 10),
        (2, 0.3, 20),
        (3, 0.2, 30),
    ]
    assert trial.best.epoch == 2
    assert trial.rank_hours > 0


def test_epochs_without_validation_are_no_scores(tmp_path):
    recorder = record(tmp_path, "smin", 0, [])
    assert recorder.add({"epoch": 1, "step": 3, "total": 2.0}) is None
    (trial,) = read_trials(tmp_path)
    assert (trial.scores, trial.best, trial.epochs) == ([], None, 0)


def test_what_a_kill_has_cut_off_is_passed_over_and_an_epoch_done_again_counts_once(tmp_path):
    record(tmp_path, "smin", 0, [0.1, 0.2], end="")
    scores = tmp_path / "smin" / "0000" / "scores.jsonl"
    with scores.open("a") as file:
        file.write('{"epoch": 3, "st')
    before = read_trials(tmp_path)[0]
    assert (before.epochs, before.end) == (2, "")
    scores.write_text(scores.read_text()[: -len('{"epoch": 3, "st')])
    again = Recorder(scores.parent)
    again.begin(before)
    again.add(values(2, 0.25))
    trial = read_trials(tmp_path)[0]
    assert [score.mAP for score in trial.scores] == [0.1, 0.25]
    assert trial.rank_hours > before.rank_hours


def test_a_half_written_trial_is_none(tmp_path):
    record(tmp_path, "ssin", 0, [0.1])
    (tmp_path / "ssin" / "0001").mkdir()
    (tmp_path / "ssin" / "0001" / "trial.json").write_text("{")
    assert len(read_trials(tmp_path)) == 1


@pytest.fixture
def searched(tmp_path):
    """Both streams; of SMIN the rate decides, and half of the trials are ended early."""
    record(tmp_path, "ssin", 0, [0.4, 0.5], **{"loss.margin": 0.3})
    for number in range(8):
        rate, kind = 10.0 ** -(number % 4), ["adam", "sgd"][number // 4]
        scores = [0.1 * (number % 4)] * (4 if number % 4 > 1 else 1)
        end = "finished" if len(scores) == 4 else "ended early"
        record(tmp_path, "smin", number, scores, end, **{"optim.lr": rate, "optim.algorithm": kind})
    record(tmp_path, "smin", 8, [], "failed", **{"optim.lr": 1.0, "optim.algorithm": "sgd"})
    return tmp_path


def test_trials_are_ranked_by_their_best_score_and_the_earlier_of_equals_is_first(searched):
    found = ranked(read_trials(searched), "smin")
    assert [trial.number for trial in found[:3]] == [3, 7, 2]
    assert len(found) == 8


def test_the_table_names_the_best_their_cost_and_what_failed(searched):
    lines = report.text(read_trials(searched), FOUND).splitlines()
    assert lines[0].split()[0] == "ssin"
    best = next(line for line in lines if line.startswith("smin-0003")).split()
    assert best[1] == "30.0"
    assert best[-2:] == ["optim.lr=0.001", "optim.algorithm=adam"]
    assert any(line.startswith("9 trials (4 finished, 4 ended early, 1 failed): ") for line in lines)
    assert "less than all of them in full" in " ".join(lines)
    assert "smin-0008 failed: frame 7 is broken" in lines


def test_trials_of_a_stream_that_is_not_searched_now_are_left_out(searched):
    told = report.text(read_trials(searched), {"smin": FOUND["smin"]})
    assert told.startswith("smin ")
    assert "ssin" not in told


def test_a_setting_that_decides_explains_the_scores_and_one_that_does_not_explains_nothing(searched):
    shares = report.importance(read_trials(searched), "smin")
    assert shares["optim.lr"] > 0.8
    assert shares["optim.algorithm"] == pytest.approx(0, abs=1e-12)
    assert report.importance(read_trials(searched), "ssin") == {"loss.margin": 0.0}


def test_the_page_shows_progress_cost_and_importance_once_however_often_it_is_written(searched):
    for _ in range(2):
        report.write_page(read_trials(searched), FOUND, searched)
    for stream in FOUND:
        assert len(list((searched / stream).glob("events*"))) == 1
    events = EventAccumulator(str(searched / "smin")).Reload()
    best = [event.value for event in events.Scalars("search/best mAP so far")]
    assert best == pytest.approx([0.0, 0.1, 0.2] + [0.3] * 6)
    assert set(events.Tags()["images"]) == {"search/importance", "search/scores by epoch"}
    assert "search/text_summary" in EventAccumulator(str(searched)).Reload().Tags()["tensors"]


def test_a_trial_is_in_hparams_before_its_first_score(tmp_path):
    record(tmp_path, "smin", 0, [], end="", **{"optim.lr": 0.1, "model.depths": [1, 1]})
    report.begin_page(read_trials(tmp_path)[0])
    content = EventAccumulator(str(tmp_path / "smin" / "0000")).Reload().SummaryMetadata("_hparams_/session_start_info")
    assert b"optim.lr" in content.plugin_data.content
    assert json.loads((tmp_path / "smin" / "0000" / "trial.json").read_text())["settings"]["model.depths"] == [1, 1]
