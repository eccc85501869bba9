"""Table of results for other programs: CSV for spreadsheets, LaTeX for papers."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from sptskm.evaluation.results import METRICS, in_percent, title_of

TABLE, LATEX = "results.csv", "results.tex"
_ESCAPED: Final = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)


def csv_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return one row for each ranking and set of queries; shares are 0 to 1, missing numbers are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["queries", "stream", "mAP", "mAP_low", "mAP_high", *METRICS[1:], "used", "skipped", "protocol"])
    for line in lines:
        numbers = [line["mAP"], *(line["mAP_interval"] or (None, None)), *(line[name] for name in METRICS[1:])]
        cells = ["" if number is None else repr(float(number)) for number in numbers]
        writer.writerow([line["queries"], line["stream"], *cells, line["used"], line["skipped"], line["protocol"]])
    return text.getvalue()


def latex_table(lines: Sequence[Mapping[str, Any]]) -> str:
    r"""Return a `tabular` with the rules of the package booktabs; metrics are in percent.

    Characters that mean something to LaTeX are escaped; a rule separates the sets of queries.
    """
    header = ["queries", "stream", "mAP", r"95\,\%", *METRICS[1:], "used", "skipped", "protocol"]
    parts = [
        "% needs \\usepackage{booktabs}; mAP with its 95 % interval and rank-k in percent",
        f"\\begin{{tabular}}{{ll{'r' * (len(header) - 3)}l}}",
        "\\toprule",
        _row(header),
    ]
    for _, group in groupby(lines, key=lambda line: line["queries"]):
        parts += ["\\midrule", *(_row(_cells(line)) for line in group)]
    return "\n".join([*parts, "\\bottomrule", "\\end{tabular}", ""])


def _cells(line: Mapping[str, Any]) -> list[str]:
    mAP, *ranks = in_percent(line, "--")
    interval = "--".join(f"{100 * end:.1f}" for end in line["mAP_interval"] or ()) or "--"
    counts = [str(line["used"]), str(line["skipped"])]
    names = [_escaped(line["queries"]), _escaped(title_of(line["stream"]))]
    return [*names, mAP, interval, *ranks, *counts, _escaped(line["protocol"])]


def _row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _escaped(text: str) -> str:
    """Return text as LaTeX sets it, on one line."""
    return " ".join(text.translate(_ESCAPED).split())
