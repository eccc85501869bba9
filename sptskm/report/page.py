"""The report: one HTML file that needs nothing else, for somebody who has never seen the code.

`report.html.jinja` is its form; this module says what stands in it.
"""

import base64
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sptskm import config
from sptskm.configfile import differing, to_yaml
from sptskm.evaluation.results import METRICS, QUERIES, RESULTS, Results, in_percent, pluralize, title_of
from sptskm.evaluation.tabular import LATEX, TABLE
from sptskm.report.pictures import Picture

REPORT: Final = "report.html"
TEMPLATE: Final = "report.html.jinja"
FIGURES: Final = "figures"
"""Folder of the pictures for papers, beside the report."""

SECTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "results": ("Results", ""),
    "ranked": (
        "Ranked results",
        "Each row begins with a query. To its right are the tracklets that were found nearest to it, nearest first: "
        "three of their frames, and the skeleton of the middle one (or, for want of it, of the nearest) from the front "
        "and, fainter, from the side.",
    ),
    "disputed": (
        "Where the streams disagree",
        "Queries for which one stream is right at rank 1 and another is not.",
    ),
    "cameras": (
        "From camera to camera",
        "How well people are found again, by where the query was filmed and where the tracklet that is looked for.",
    ),
    "distances": ("Distances", "The ranking sorts by these distances."),
    "insight": ("What the networks go by", ""),
    "training": ("Training", ""),
}

GLOSSARY: Final[Mapping[str, str]] = {
    "Tracklet": "A short film of one person from one camera: a sequence of frames that show only this person.",
    "Query": "A tracklet for which the others of the same person are looked for.",
    "Gallery": "All tracklets that are searched; each query ranks them by their distance to it.",
    "Protocol": "The rules by which a ranking is judged; the same ranking gives other numbers by other rules, so that "
    "only numbers of one protocol can be compared.",
    "Average precision (AP)": "How far in front all right tracklets of a query stand: 100 % when nothing wrong stands "
    "before any of them.",
    "mAP": "The mean of the average precision over all queries that have something to be found; where the protocol "
    "says so, over all queries, and those that have nothing to be found count as 0.",
    "Rank-k": "The share of the queries that have a right tracklet among their first k results.",
    "CMC": "The curve of rank-k over k (cumulative matching characteristic).",
    "95 % interval": "Where the mAP would lie if other people of the same kind had been drawn (bootstrap over people, "
    "each with all queries); it says nothing of what another seed of the training would give.",
    "Junk": "Tracklets that are neither right nor wrong, such as bad detections; they are passed over. Tracklets of "
    "the query's person from its own camera are passed over as well where the protocol says so.",
    "Distractor": "A tracklet of somebody who is no query; it is always wrong and makes the search harder.",
}
"""Words of a report, before those for its streams."""

GLOSSARY_OF_FUSION: Final[Mapping[str, str]] = {
    "Fused": "The streams together: their distances are made comparable and added, each with its weight.",
    "Concat": "A way to make the distances comparable: the features of the streams, each of length 1, are put one "
    "behind the other. Others are z-scores, scaling to 0..1 (min-max) and ranks.",
    "Reranked": "A ranking sorted again by whether two tracklets have the same neighbours (k-reciprocal re-ranking). A "
    "query's result then depends on which other tracklets and queries there are in the test set, so that it compares "
    "only with other results of this kind; the plain ranking always stands beside it.",
    "Held-out identities": "People of the training part that no training has seen; they decide which epoch is kept and "
    "how the streams are weighed, so that the test set decides nothing.",
    "Clothes changed": "Only the queries whose right tracklets all show other clothes than the query does.",
}

BESIDE: Final = (
    f"Beside this file: {RESULTS} with all numbers, {TABLE} and {LATEX} with the table, {QUERIES} with a line for each "
    f"query, the features, the pictures as PNG and, in {FIGURES}, as PDF and SVG for a paper, and TensorBoard's files, "
    "among them a projector of the features."
)


class Section(NamedTuple):
    """A part of the report: its anchor, its title, a paragraph and its pictures."""

    key: str
    title: str
    words: str
    pictures: Sequence[Picture]


def page(results: Results, saved: Mapping[str, Any], drawn: Sequence[Picture]) -> str:
    """Return the report as HTML, pictures included. `saved` is what results.json holds."""
    sections = [
        Section(key, title, words, [picture for picture in drawn if picture.section == key])
        for key, (title, words) in SECTIONS.items()
    ]
    forms = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    forms.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return forms.get_template(TEMPLATE).render(
        title=_title(results),
        summary=_summary(results),
        results=results,
        saved=saved,
        sections=[section for section in sections if section.pictures or section.key == "results"],
        scores=_scores(results),
        notes=_notes(results),
        facts=_facts(results, saved),
        streams=_streams(results),
        differing=_differing(results, saved),
        settings=[(title_of(one.stream), to_yaml(one)) for one in results.configs],
        beside=BESIDE,
        glossary=_glossary(results),
    )


def _title(results: Results) -> str:
    folders = sorted({Path(one.run).absolute().parent.name for one in results.configs} - {""})
    data = sorted({Path(one.data.root).name for one in results.configs} - {""})
    return f"{', '.join(folders) or 'Person re-identification'}: results on {', '.join(data) or 'test data'}"


def _summary(results: Results) -> str:
    """Say the number that counts most in a sentence."""
    name = title_of(results.offered)
    line = next(line for line in results.lines() if line["stream"] == results.offered)
    if line["mAP"] is None:
        return f"{name}: no query had anything to be found."
    ends = " to ".join(f"{100 * end:.1f}" for end in line["mAP_interval"] or ())
    interval = f" (95 % interval {ends})" if ends else ""
    return (
        f"{name}: mAP {100 * line['mAP']:.1f} %{interval}, rank-1 {100 * line['rank-1']:.1f} %, "
        f"over {pluralize(line['used'], 'query', 'queries')} against {line['gallery']} tracklets."
    )


def _scores(results: Results) -> tuple[list[str], list[list[object]], int, list[int]]:
    """Return the table of results.text(), in percent: header, rows, number of columns of text, and marked rows."""
    header = ["queries", "stream", "mAP (%)", "95 % interval", *(f"{name} (%)" for name in METRICS[1:])]
    rows: list[list[object]] = []
    for line in results.lines():
        mAP, *ranks = in_percent(line)
        interval = " to ".join(f"{100 * end:.1f}" for end in line["mAP_interval"] or ()) or "-"
        rows.append([line["queries"], title_of(line["stream"]), mAP, interval, *ranks, line["used"], line["skipped"]])
    offered = [row for row, line in enumerate(results.lines()) if line["stream"] == results.offered]
    marked = offered if len(results.rankings) > 1 else []
    return [*header, "used", "skipped"], rows, 2, marked


def _notes(results: Results) -> list[str]:
    """Return the protocol and what else belongs to the table, a sentence each."""
    notes = [f"{part[:1].upper()}{part[1:]}." for part in results.caption().split("\n")]
    skipped = "Skipped queries have nothing to be found in the gallery and count nowhere."
    return [*notes, skipped] if results.test.protocol.average == "found" else notes


def _facts(results: Results, saved: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return what the evaluation itself came from."""
    return [
        ("evaluated", saved["date"]),
        ("command", saved["command"]),
        ("looks at the test set", f"{saved['test_evaluations']} (evaluations into this folder, this one included)"),
        ("versions", ", ".join(f"{name} {version}" for name, version in saved["versions"].items())),
        ("code", ", ".join(f"{name} {value}" for name, value in saved["code"].items())),
        ("rules of the protocol", ", ".join(f"{name} {value}" for name, value in saved["rules"].items())),
        ("data", f"fingerprint of the test and training tracklets {results.table.fingerprint}"),
    ]


def _differing(results: Results, saved: Mapping[str, Any]) -> list[list[tuple[str, object, object]]]:
    """Return the settings that differ from the defaults, by stream and for the final job: name, value and default."""
    found = [
        [(f"{stream}.{key}", value, default) for key, (value, default) in differing(chosen).items()]
        for stream, chosen in saved["configs"].items()
    ]
    told = [(key, getattr(results.settings, key), default) for key, default in vars(config.Final()).items()]
    found.append([(f"final.{key}", value, default) for key, value, default in told if value != default])
    return [rows for rows in found if rows]


def _streams(results: Results) -> tuple[list[str], list[list[object]]]:
    """Return the header and rows of a table with a column for each trained stream."""
    rows: list[list[object]] = []
    names = {
        "fingerprint": "fingerprint of the training data",
        "split": "hash of the split",
        "classes": "hash of the classes",
        "step": "step of the weights used",
        "finished": "training has finished",
        "held_out_mAP": "held-out mAP",
        "version": "sptskm that trained it",
        "command": "command of the training",
        "seconds": "time of training (h:mm:ss)",
        "ranks": "ranks of the training",
    }
    for key, words in names.items():
        found = [results.provenance[one.stream].get(key, "-") for one in results.configs]
        if key == "held_out_mAP":  # below 0 where nobody was held out
            found = [f"{100 * value:.1f} %" if value != "-" and value >= 0 else "-" for value in found]
        if key == "seconds":
            found = [value if value == "-" else str(timedelta(seconds=value)) for value in found]
        if key == "finished":
            found = [{True: "yes", False: "no: these are the weights so far"}.get(value, "-") for value in found]
        if any(value != "-" for value in found):  # earlier versions kept less
            rows.append([words, *found])
    rows.append(["seed of the training", *(one.train.seed for one in results.configs)])
    rows.append(["seed of the split", *(one.data.split_seed for one in results.configs)])
    rows.append(["data set", *(one.data.root for one in results.configs)])
    rows.append(["run", *(one.run for one in results.configs)])
    return ["", *(title_of(one.stream) for one in results.configs)], rows


def _glossary(results: Results) -> list[tuple[str, str]]:
    streams = {spec.title: spec.about for spec in (config.STREAMS[one.stream] for one in results.configs)}
    return list({**GLOSSARY, **streams, **GLOSSARY_OF_FUSION}.items())
