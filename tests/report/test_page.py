"""The report is one file that is whole, needs no network and says what results.json says."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers.drawing import write

from sptskm.config import Final
from sptskm.configfile import to_dict
from sptskm.evaluation import PROTOCOLS, FusedDistance
from sptskm.evaluation.calibration import Calibration
from sptskm.evaluation.fusion import Term
from sptskm.evaluation.results import Results
from sptskm.report.page import FIGURES, REPORT
from sptskm.report.pictures import pictures, possible
from sptskm.report.selection import first_results, told
from sptskm.report.writing import files

Make = Callable[..., Results]
VOID = {"meta", "img", "br", "link", "hr", "input"}
HOSTILE = '<script>alert("1 & 2")</script>\t$x$\nmore'


class _Reader(HTMLParser):
    """Which tags are open, what is linked to, and all text outside of style."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.add(str(value))
            elif name in ("href", "src"):
                self.links.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def _written(results: Results, out: Path) -> _Reader:
    """Write a report and read it."""
    write(results, out)
    return _read(out)


def _read(out: Path) -> _Reader:
    content = (out / REPORT).read_text()
    assert content.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?://|url\(|@import|srcset", content)
    reader = _Reader()
    reader.feed(content)
    reader.close()
    assert not reader.open
    assert "script" not in reader.seen
    inner = {link.removeprefix("#") for link in reader.links if link.startswith("#")}
    assert inner <= reader.ids
    assert all(link.startswith(("#", "data:image/webp;base64,")) for link in reader.links)
    return reader


def test_a_reranked_result_is_shown_below_the_plain_one_which_stays_the_one_that_counts(
    make: Make, tmp_path: Path
) -> None:
    results = make(settings=Final(rerank=True))
    assert results.plain.name == "fused"
    reader = _written(results, tmp_path / "out")
    content = (tmp_path / "out" / REPORT).read_text()
    assert content.index('"name">fused</td>') < content.index('"name">reranked</td>')
    assert content.index('alt="camera pairs fused"') < content.index('alt="camera pairs reranked"')
    assert 'alt="distances reranked"' in content
    assert set(re.findall('alt="(.*?)"', content)) <= set(possible())
    assert "fused: mAP" in reader.text
    assert "Reranked: fused after k-reciprocal re-ranking (k1 20, k2 6" in reader.text
    assert "final.rerank" in reader.text
    assert 'class="last"><td class="name">all</td><td class="name">fused</td>' in content
    shown = first_results(results, results.plain, 0)
    assert list(shown[0].distances) == ["SSIN", "SMIN"], "a sum of z-scores may be negative: the rank says enough"


def test_the_report_is_whole_and_carries_the_numbers_of_results_json(written: Path) -> None:
    reader = _read(written)
    saved = json.loads((written / "results.json").read_text())
    assert len(saved["results"]) == 6
    for line in saved["results"]:
        assert f"{100 * line['mAP']:.1f}" in reader.text
        assert f"{100 * line['rank-1']:.1f}" in reader.text
    low, high = saved["results"][0]["mAP_interval"]
    assert f"{100 * low:.1f} to {100 * high:.1f}" in reader.text
    for words in (
        "mars-official",
        saved["code"]["modules"],
        saved["versions"]["torch"],
        "f" * 16,
        "s" * 16,
        "12.3 %",
        "step of the weights used",
    ):
        assert words in reader.text
    assert "-100.0 %" not in reader.text
    assert reader.ids >= {"results", "ranked", "cameras", "distances", "provenance", "glossary"}
    assert reader.seen.count("img") == len(list(written.glob("*.png")))
    assert (written / REPORT).stat().st_size < 5_000_000


def test_the_title_names_the_folder_of_the_runs_and_the_data_and_the_command_is_told(written: Path) -> None:
    content = (written / REPORT).read_text()
    assert "<h1>runs: results on data</h1>" in content
    command = json.loads((written / "results.json").read_text())["command"].split()[0]
    assert f'command</td><td class="name">{command}' in content


def test_a_run_given_by_its_name_alone_has_the_folder_it_lies_in_as_title(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sptskm.report.writing.pictures", lambda _: [])
    monkeypatch.chdir(tmp_path)
    results = make(["ssin"])
    named = replace(results, configs=[replace(results.configs[0], run="ssin")])
    assert f"{tmp_path.name}: results on data" in _written(named, tmp_path / "final").text


def test_a_fused_distance_is_told_as_a_probability_where_held_out_pairs_have_taught_it(make: Make) -> None:
    results = make()
    assert results.fusion is not None
    distance = FusedDistance((Term({"ssin": 0.0, "smin": 2.0}, 0.5),))
    fusion = replace(results.fusion, distance=distance, odds=Calibration(2.0, 4.0))
    smin = float(results.rankings[1].distance_QG[0, 1])
    assert told(replace(results, fusion=fusion), results.plain, 0, 1) == (
        "fused: p",
        pytest.approx(1 / (1 + np.exp(4 * (2 * smin + 0.5) - 2))),
    )
    assert told(results, results.plain, 0, 1) is None, "a sum of z-scores, which may be negative"
    minmax = replace(results, fusion=replace(fusion, normalisation="minmax"))
    assert told(minmax, results.plain, 0, 1) == ("fused", float(results.plain.distance_QG[0, 1]))
    assert told(results, results.rankings[1], 0, 1) == ("SMIN", smin)


def test_where_distances_are_negative_the_report_says_what_they_are(make: Make) -> None:
    results = make()
    shifted = [replace(one, distance_QG=one.distance_QG - 100 * (one.name == "fused")) for one in results.rankings]
    captions = {one.name: one.caption for one in pictures(replace(results, rankings=shifted))}
    assert "may be negative" in captions["distances fused"]
    assert "may be negative" not in captions["distances SMIN"]


def test_nothing_that_users_have_named_becomes_markup(make: Make, tmp_path: Path) -> None:
    results = make(pid_names=dict.fromkeys(range(-1, 100), HOSTILE), camera_names=dict.fromkeys(range(9), HOSTILE))
    config = results.configs[0]
    named = [replace(config, run=HOSTILE, data=replace(config.data, root=HOSTILE)), *results.configs[1:]]
    reader = _written(replace(results, configs=named), tmp_path)
    assert '<script>alert("1 & 2")' in reader.text
    metadata = next((tmp_path / "projector").rglob("metadata.tsv")).read_text().splitlines()
    assert {line.count("\t") for line in metadata} == {3}


@pytest.mark.parametrize("stream", ["ssin", "smin"])
def test_one_stream_alone_has_a_report_without_what_needs_two(make: Make, tmp_path: Path, stream: str) -> None:
    reader = _written(make([stream]), tmp_path)
    assert {"results", "ranked", "distances"} <= reader.ids
    assert "disputed" not in reader.ids
    assert not (tmp_path / "fusion-weight.png").exists()


def test_camera_pairs_are_shown_for_the_official_protocol_only(make: Make, tmp_path: Path) -> None:
    assert "cameras" not in _written(make(["ssin"], Final(protocol="mars-standard")), tmp_path).ids


def test_with_a_single_camera_nobody_is_found_and_the_report_says_so(make: Make, tmp_path: Path) -> None:
    camids_N = 0 * make().table.camids_N + 1
    reader = _written(make(camids_N=camids_N), tmp_path)
    assert "no query had anything to be found" in reader.text
    assert not {"cameras", "ranked", "distances"} & reader.ids


@pytest.mark.usefixtures("without_drawing")
def test_a_report_without_clothes_speaks_of_all_queries_only(make: Make, tmp_path: Path) -> None:
    _written(make(["ssin"], clothes_N=0 * make().table.clothes_N - 1), tmp_path)
    saved = json.loads((tmp_path / "results.json").read_text())
    assert [line["queries"] for line in saved["results"]] == ["all"]


def test_a_second_report_replaces_the_first(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sptskm.report.writing.pictures", lambda _: [])
    results = make(["ssin"])
    _written(results, tmp_path)
    assert "2 (evaluations into this folder" in _written(results, tmp_path).text
    assert len(list((tmp_path / "projector").glob("events*"))) == 1
    assert (tmp_path / "projector" / "projector_config.pbtxt").read_text().count("tensor_path") == 1
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.usefixtures("without_drawing")
def test_what_an_evaluation_of_both_streams_has_left_is_not_beside_that_of_one(make: Make, tmp_path: Path) -> None:
    write(make(), tmp_path)
    (tmp_path / FIGURES).mkdir(exist_ok=True)
    for name in (*files(), "mine.png", "features-mine.npz"):
        (tmp_path / name).touch()
    write(make(["smin"]), tmp_path)
    assert {path.name for path in (*tmp_path.rglob("*.png"), *tmp_path.glob("figures/*"), *tmp_path.glob("*.npz"))} == {
        "mine.png",
        "features-mine.npz",
        "features-smin.npz",
    }


@pytest.mark.usefixtures("without_drawing")
def test_scores_as_points_of_an_earlier_version_are_removed_and_a_run_of_that_name_is_kept(
    make: Make, tmp_path: Path
) -> None:
    points, run = (tmp_path / name / "events.out.tfevents.1700000000.sptskm" for name in ("fused", "gait"))
    for path in (points, run, tmp_path / "gait" / "config.yaml"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    elsewhere = tmp_path / "elsewhere" / "events.out.tfevents.1700000000.sptskm"
    elsewhere.parent.mkdir()
    elsewhere.touch()
    (tmp_path / "SMIN").symlink_to(elsewhere.parent)
    write(make(), tmp_path)
    assert not points.parent.exists()
    assert run.exists()
    assert elsewhere.exists(), "a folder behind a link is left alone"


@pytest.mark.usefixtures("without_drawing")
def test_results_tell_rules_test_data_and_settings_of_the_final_job(make: Make, tmp_path: Path) -> None:
    results = make(["smin"], Final(normalisation="auto"))
    reader = _written(results, tmp_path)
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["rules"] == vars(PROTOCOLS["mars-official"])
    assert saved["test_data"] == results.test_data
    assert saved["settings"] == to_dict(Final(normalisation="auto"))
    assert "keep_queries True, keep_junk True, min_length 0, ignore_same_camera True, ap trapezoid" in reader.text


@pytest.mark.usefixtures("without_drawing")
@pytest.mark.parametrize("content", ["", "{}", '["2026-01-01"'])
def test_a_damaged_count_of_looks_begins_again_and_loses_no_evaluation(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    (tmp_path / "test_evaluations.json").write_text(content)
    write(make(["smin"]), tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["test_evaluations"] == 1
    assert f"{tmp_path}/test_evaluations.json: " in caplog.text
    assert "the looks at the test set are counted from 1 again" in caplog.text


@pytest.mark.usefixtures("without_drawing")
def test_queries_without_a_positive_that_count_as_0_are_told(make: Make, tmp_path: Path) -> None:
    rules = {**vars(PROTOCOLS["mars-standard"]), "name": "mine", "average": "all", "min_length": 5}
    path = tmp_path / "mine.yaml"
    path.write_text("".join(f"{name}: {str(value).lower()}\n" for name, value in rules.items()))
    table = make().table
    camids_N = table.camids_N.copy()
    camids_N[table.pids_N == table.pids_N[table.test[table.query[0]]]] = 1  # nobody finds this one again
    results = make(["smin"], Final(protocol=str(path)), camids_N=camids_N)
    line = results.lines()[0]
    assert line["skipped"] == 0 < line["without_positive"] < line["used"]
    told = f"queries without a positive count as 0 ({line['without_positive']} of {line['used']})"
    assert told in results.text()
    reader = _written(results, tmp_path / "out")
    assert told in reader.text
    assert "only tracklets of 5 frames or more" in reader.text
    assert "count nowhere" not in reader.text
    assert "count nowhere" in _written(make(["smin"]), tmp_path / "out").text


@pytest.mark.usefixtures("without_drawing")
def test_one_query_alone_has_no_interval(make: Make, tmp_path: Path) -> None:
    results = make(["smin"], Final(protocol="mars-standard"), query=make().table.query[:1])
    assert results.lines()[0]["mAP_interval"] is None
    assert results.text().splitlines()[2].split()[3] == "-"
    reader = _written(results, tmp_path)
    assert "over 1 query against" in reader.text
    assert "interval" not in reader.text.split("Protocol")[0]
