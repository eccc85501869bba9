"""What TensorBoard makes of a search: asked over HTTP, as a browser does."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.serving import tensorboard

from sptskm.report.tensorboard import Board
from sptskm.report.trial_pages import METRIC, begin_page, write_page
from sptskm.tuning import Distribution, Score, Search, Trial, rank_trials

RATE, MOVE = Distribution("loguniform", (1e-3, 1.0)), Distribution("choice", (True, False))
FOUND = {
    "ssin": Search(stream="ssin", space={"optim.lr": RATE}),
    "smin": Search(stream="smin", space={"optim.lr": RATE, "clips.random_move": MOVE}),
}
ENDS = ("finished", "ended early", "failed", "")


SCORES = {0: [0.3], 1: [0.1, 0.5, 0.2], 2: [0.4, 0.1], 3: [0.2]}
"""By number: the last one of a trial need not be its best."""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials of both streams that ended in every way, with the scores that their trainers have logged."""
    folder = tmp_path_factory.mktemp("search")
    write_page(trials(folder), FOUND, folder)
    for trial in trials(folder):
        begin_page(trial)
        board = Board(Path(trial.folder))
        for score in trial.scores:
            board.scalars({"validation/mAP": score.mAP, "validation/best mAP": score.best}, score.epoch)
        board.close()
        begin_page(trial)  # as one that goes on after an interruption
    return folder


def trials(folder: Path) -> list[Trial]:
    found = []
    for stream in FOUND:
        for number, end in enumerate(ENDS):
            settings = {"optim.lr": 10.0**-number}
            settings |= {"clips.random_move": number % 2 == 0} if stream == "smin" else {}
            reached = SCORES[number]
            scores = [Score(epoch, mAP, mAP, max(reached[:epoch])) for epoch, mAP in enumerate(reached, 1)]
            place = folder / stream / f"{number:04d}" / "run"
            found.append(Trial(stream, number, settings, 1, str(place), scores, end))  # type: ignore[arg-type]
    return found


@pytest.fixture(scope="module")
def address(searched: Path) -> Iterator[str]:
    with tensorboard(searched) as found:
        yield found


def ask(address: str, what: str, question: dict[str, Any]) -> Any:
    body = json.dumps(question).encode()
    request = urllib.request.Request(
        f"{address}/data/plugin/hparams/{what}", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def sessions(address: str, **order: str) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = [{"hparam": name} for name in ("optim.lr", "clips.random_move")]
    columns.append({"metric": {"tag": METRIC, "group": ""}, **order})
    statuses = [f"STATUS_{name}" for name in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
    question = {"colParams": columns, "allowedStatuses": statuses, "startIndex": 0, "sliceSize": 100}
    return ask(address, "session_groups", question)["sessionGroups"]


def test_hparams_has_one_line_for_each_trial_however_it_ended_with_its_best_score(address: str) -> None:
    found = {group["sessions"][0]["name"]: group for group in sessions(address)}
    assert set(found) == {f"{stream}/{number:04d}/run" for stream in FOUND for number in range(len(ENDS))}
    for name, group in found.items():
        number = int(name.split("/")[1])
        assert group["hparams"]["optim.lr"] == pytest.approx(10.0**-number)
        (metric,) = [m for m in group["metricValues"] if m["name"]["tag"] == METRIC]
        assert metric["value"] == pytest.approx(max(SCORES[number]))


def test_hparams_sorts_the_trials_as_the_table_does(address: str, searched: Path) -> None:
    names = [group["sessions"][0]["name"] for group in sessions(address, order="ORDER_DESC")]
    for stream in FOUND:
        wanted = [f"{stream}/{trial.number:04d}/run" for trial in rank_trials(trials(searched), stream)]
        assert [name for name in names if name.startswith(stream)] == wanted


def test_the_columns_are_the_settings_of_all_streams_and_the_score(address: str) -> None:
    known = ask(address, "experiment", {})
    kinds = {setting["name"]: setting["type"] for setting in known["hparamInfos"]}
    assert kinds == {"optim.lr": "DATA_TYPE_FLOAT64", "clips.random_move": "DATA_TYPE_STRING"}
    assert [metric["name"]["tag"] for metric in known["metricInfos"]] == [METRIC]


def test_a_page_can_be_written_before_the_first_trial(tmp_path: Path) -> None:
    write_page([], FOUND, tmp_path)
    assert list(tmp_path.glob("events*"))
