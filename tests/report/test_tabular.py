"""The table of results as CSV and as LaTeX."""

import csv
import json
from pathlib import Path
from typing import Any

from sptskm.evaluation.tabular import csv_table, latex_table

LINE: dict[str, Any] = {
    "queries": "all", "stream": "ssin", "mAP": 0.51234, "mAP_interval": [0.454, 0.556],
    "rank-1": 0.5, "rank-5": 0.75, "rank-10": 1.0, "rank-20": 1.0,
    "used": 30, "skipped": 2, "without_positive": 0, "gallery": 90, "protocol": "mars-official",
}  # fmt: skip
EMPTY = (
    LINE
    | {"queries": "clothes changed", "mAP": None, "mAP_interval": None, "used": 0}
    | {f"rank-{k}": None for k in (1, 5, 10, 20)}
)


def test_an_evaluation_leaves_its_table_as_csv_with_the_numbers_of_results_json(written: Path) -> None:
    lines = json.loads((written / "results.json").read_text())["results"]
    with (written / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) == 6
    for row, line in zip(rows, lines, strict=True):
        for name in ("queries", "stream", "protocol"):
            assert row[name] == line[name]
        for name in ("mAP", "rank-1", "rank-5", "rank-10", "rank-20", "used", "skipped"):
            assert float(row[name]) == line[name]
        assert [float(row["mAP_low"]), float(row["mAP_high"])] == line["mAP_interval"]


def test_an_evaluation_leaves_its_table_as_latex_with_a_row_for_each_ranking_and_set_of_queries(written: Path) -> None:
    text = (written / "results.tex").read_text()
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + 6
    assert {row.count("&") for row in rows} == {10}
    assert text.count("\\midrule") == 2
    for line in json.loads((written / "results.json").read_text())["results"]:
        assert f"{100 * line['mAP']:.1f} & " in text


def test_a_latex_row_is_in_percent_and_a_number_that_is_not_there_is_a_dash() -> None:
    rows = [line for line in latex_table([LINE, EMPTY]).splitlines() if line.endswith(r"\\")]
    assert rows[1] == r"all & SSIN & 51.2 & 45.4--55.6 & 50.0 & 75.0 & 100.0 & 100.0 & 30 & 2 & mars-official \\"
    assert rows[2] == r"clothes changed & SSIN & -- & -- & -- & -- & -- & -- & 0 & 2 & mars-official \\"


def test_what_a_protocol_is_called_is_escaped_for_latex_and_stays_on_its_line() -> None:
    own = LINE | {"protocol": "100% {mine}_&\\$#~^\n<new>"}
    row = next(line for line in latex_table([own]).splitlines() if line.startswith("all"))
    assert row.endswith(
        r"& 100\% \{mine\}\_\&\textbackslash{}\$\#\textasciitilde{}\textasciicircum{} \textless{}new\textgreater{} \\"
    )


def test_in_csv_a_number_that_is_not_there_is_empty_and_a_name_with_a_comma_is_quoted() -> None:
    rows = list(csv.DictReader(csv_table([EMPTY | {"protocol": 'a, "b"'}]).splitlines()))
    assert (rows[0]["mAP"], rows[0]["mAP_low"], rows[0]["rank-20"], rows[0]["used"]) == ("", "", "", "0")
    assert rows[0]["protocol"] == 'a, "b"'
