"""What TensorBoard makes of a search: asked over HTTP, as a browser does."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.serving import tensorboard

from sptskm.report.search import METRIC, begin_page, write_page
from sptskm.report.tensorboard import Board
from sptskm.search import Draw, Recorder, Search, Trial, read_trials

RATE, MOVE = Draw("loguniform", (1e-3, 1.0)), Draw("choice", (True, False))
FOUND = {
    "ssin": Search(stream="ssin", space={"optim.lr": RATE}),
    "smin": Search(stream="smin", space={"optim.lr": RATE, "clips.random_move": MOVE}),
}
ENDS = ("finished", "ended early", "failed", "")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials of both streams that ended in every way, with the scores that their trainers have logged."""
    folder = tmp_path_factory.mktemp("search")
    for stream in ("ssin", "smin"):
        for number, end in enumerate(ENDS):
            place = folder / stream / f"{number:04d}"
            settings = {
                "optim.lr": 10.0**-number,
                **({"clips.random_move": number % 2 == 0} if stream == "smin" else {}),
            }
            trial = Trial(stream, number, settings, 1, str(place))
            recorder = Recorder(place)
            recorder.begin(trial)
            begin_page(trial)
            board = Board(place)
            for step in range(number + 1):
                board.scalars({METRIC: 0.1 * step + 0.01 * number}, step)
            board.close()
            begin_page(trial)  # as one that goes on after an interruption
            if end:
                recorder.end(end)
    write_page(read_trials(folder), FOUND, folder)
    return folder


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


def test_hparams_has_one_line_for_each_trial_however_it_ended_with_its_last_score(address: str) -> None:
    columns = [{"hparam": name} for name in ("optim.lr", "clips.random_move")]
    columns.append({"metric": {"tag": METRIC, "group": ""}})  # type: ignore[dict-item]
    statuses = [f"STATUS_{name}" for name in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
    question = {"colParams": columns, "allowedStatuses": statuses, "startIndex": 0, "sliceSize": 100}
    found = ask(address, "session_groups", question)["sessionGroups"]
    names = sorted(session["name"] for group in found for session in group["sessions"])
    assert names == sorted(f"{stream}/{number:04d}" for stream in ("ssin", "smin") for number in range(len(ENDS)))
    for group in found:
        number = int(group["name"][-4:]) if group["name"][-4:].isdecimal() else int(group["sessions"][0]["name"][-4:])
        assert group["hparams"]["optim.lr"] == pytest.approx(10.0**-number)
        (metric,) = [m for m in group["metricValues"] if m["name"]["tag"] == METRIC]
        assert metric["value"] == pytest.approx(0.1 * number + 0.01 * number)


def test_the_columns_are_the_settings_of_all_streams_and_the_score(address: str) -> None:
    known = ask(address, "experiment", {})
    kinds = {setting["name"]: setting["type"] for setting in known["hparamInfos"]}
    assert kinds == {"optim.lr": "DATA_TYPE_FLOAT64", "clips.random_move": "DATA_TYPE_STRING"}
    assert [metric["name"]["tag"] for metric in known["metricInfos"]] == [METRIC]


def test_a_page_can_be_written_before_the_first_trial(tmp_path: Path) -> None:
    write_page([], FOUND, tmp_path)
    assert list(tmp_path.glob("events*"))
