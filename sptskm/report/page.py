"""The report: one HTML file that needs nothing else, for somebody who has never seen the code."""

import base64
from collections.abc import Mapping, Sequence
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Any, Final

from sptskm import config
from sptskm.configfile import flat, to_dict, to_yaml
from sptskm.evaluation.results import QUERIES, RANKS, RESULTS, Results, pluralize, title_of
from sptskm.evaluation.tabular import LATEX, TABLE
from sptskm.report.pictures import Picture

REPORT: Final = "report.html"

STYLE: Final = """
:root { color-scheme: light dark; --ink: #263238; --soft: #5b6870; --line: #cfd6db; --pale: #f1f4f5; --back: #fff;
  --link: #1f64be; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ec; --soft: #a5b1b8; --line: #3b464d; --pale: #232b30;
  --back: #161b1e; --link: #7fb2f5; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 3.2rem; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header, main { padding: 0 1rem; }
h1, summary { overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 1rem 0 .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .4rem; }
nav { position: sticky; top: 0; background: var(--back); border-bottom: 1px solid var(--line); padding: .5rem 1rem;
  z-index: 1; }
nav ul { margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem;
  list-style: none; }
a { color: var(--link); } p { max-width: 75ch; margin: .4rem 0; } .soft, figcaption { color: var(--soft); }
header p, .soft p { max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
td.name, th.name { text-align: left; min-width: 5rem; overflow-wrap: anywhere; }
.results th, .results td { white-space: nowrap; padding: .25rem .6rem; }
tr.last td { background: var(--pale); font-weight: 600; }
figure { margin: .8rem 0; } figcaption { max-width: 95ch; font-size: .9rem; }
figure img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 4px;
  display: block; }
figure.frames div { overflow-x: auto; } figure.frames img { min-width: 1000px; }
figure.chart img { max-width: min(100%, 960px); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 540px), 1fr)); gap: 0 1rem; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--link); }
pre { background: var(--pale); padding: .6rem; overflow-x: auto; font-size: .85rem; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; max-width: 75ch; }
@media print { nav { position: static; } figure { break-inside: avoid; } }
"""

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


def page(results: Results, saved: Mapping[str, Any], drawn: Sequence[Picture]) -> str:
    """Return the report as HTML, pictures included. `saved` is what results.json holds."""
    sections = {key: _section(key, [one for one in drawn if one.section == key], results) for key in SECTIONS}
    sections |= {"provenance": _provenance(results, saved), "glossary": _glossary(results)}
    titles = {key: title for key, (title, _) in SECTIONS.items()} | {"provenance": "Provenance", "glossary": "Glossary"}
    links = "".join(f'<li><a href="#{key}">{titles[key]}</a></li>' for key, body in sections.items() if body)
    body = "\n".join(
        f'<section id="{key}">\n<h2>{titles[key]}</h2>\n{body}\n</section>' for key, body in sections.items() if body
    )
    folders = sorted({Path(one.run).parent.name for one in results.configs} - {""})
    data = sorted({Path(one.data.root).name for one in results.configs} - {""})
    title = escape(f"{', '.join(folders) or 'Person re-identification'}: results on {', '.join(data) or 'test data'}")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{title}</h1>\n{_summary(results, saved)}\n</header>\n"
        f"<nav><ul>{links}</ul></nav>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _summary(results: Results, saved: Mapping[str, Any]) -> str:
    """Say the number that counts most in a sentence with its protocol."""
    name = results.offered
    line = next(line for line in results.lines() if line["stream"] == name)
    if line["mAP"] is None:
        found = "no query had anything to be found"
    else:
        ends = " to ".join(f"{100 * end:.1f}" for end in line["mAP_interval"] or ())
        interval = f" (95 % interval {ends})" if ends else ""
        found = (
            f"mAP {100 * line['mAP']:.1f} %{interval}, rank-1 {100 * line['rank-1']:.1f} %, "
            f"over {pluralize(line['used'], 'query', 'queries')} against {line['gallery']} tracklets"
        )
    protocol, when = escape(line["protocol"]), escape(str(saved["date"]))
    return (
        f'<p><strong>{title_of(name)}: {found}.</strong> <span class="soft">Protocol {protocol}; {when}. '
        'Words are explained in the <a href="#glossary">glossary</a>.</span></p>'
    )


def _section(key: str, drawn: Sequence[Picture], results: Results) -> str:
    """Return text and pictures of a section, of several of one kind the first open; empty where there is nothing."""
    _, words = SECTIONS[key]
    parts = [f"<p>{words}</p>"] if words else []
    if key == "results":
        parts += [_table(results), f'<div class="pair">{"".join(map(_figure, drawn))}</div>']
    elif not drawn:
        return ""
    elif key in ("cameras", "distances") and len(drawn) > 1:
        names = ", ".join(one.name.split()[-1] for one in drawn[1:])
        more = f"<details>\n<summary>The same of {names}</summary>\n{''.join(map(_figure, drawn[1:]))}</details>"
        parts += [_figure(drawn[0]), more]
    else:
        parts += map(_figure, drawn)
    return "\n".join(parts)


def _figure(picture: Picture) -> str:
    source = f"data:image/webp;base64,{base64.b64encode(picture.webp).decode()}"
    kind = "chart" if picture.is_chart else "frames"  # frames scroll on a narrow screen, or nothing could be read
    height, width = picture.image.shape[:2]
    size = f'width="{width}" height="{height}"'
    return (
        f'<figure class="{kind}">\n<div><img src="{source}" {size} alt="{escape(picture.name)}"></div>\n'
        f"<figcaption>{escape(picture.caption)}</figcaption>\n</figure>\n"
    )


def _table(results: Results) -> str:
    """Return the table of results.text(), in percent, and below it the protocol in a sentence."""
    metrics = ("mAP", *(f"rank-{k}" for k in RANKS))
    header = ["queries", "stream", "mAP (%)", "95 % interval", *(f"{name} (%)" for name in metrics[1:])]
    rows = []
    for line in results.lines():
        mAP, *ranks = ("-" if line[name] is None else f"{100 * line[name]:.1f}" for name in metrics)
        interval = " to ".join(f"{100 * end:.1f}" for end in line["mAP_interval"] or ()) or "-"
        cells = [line["queries"], title_of(line["stream"]), mAP, interval, *ranks, line["used"], line["skipped"]]
        rows.append([*cells, line["gallery"], line["protocol"]])
    header += ["used", "skipped", "gallery", "protocol"]
    last = [row[1] == title_of(results.offered) and len(results.rankings) > 1 for row in rows]
    notes = "".join(f"<p>{escape(part[:1].upper() + part[1:])}.</p>" for part in results.caption().split("\n"))
    if results.protocol.average == "found":
        notes += "<p>Skipped queries have nothing to be found in the gallery and count nowhere.</p>"
    return f'<div class="results">{_rows(header, rows, 2, last)}</div>\n<div class="soft">{notes}</div>'


def _rows(
    header: Sequence[str], rows: Sequence[Sequence[object]], names: int, marked: Sequence[bool] | None = None
) -> str:
    """Return a table whose first columns are text."""

    def line(tag: str, cells: Sequence[object]) -> str:
        classes = [' class="name"' if column < names else "" for column in range(len(cells))]
        return "".join(f"<{tag}{c}>{escape(str(cell))}</{tag}>" for c, cell in zip(classes, cells, strict=True))

    marks = {True: ' class="last"', False: ""}
    body = "\n".join(
        f"<tr{marks[mark]}>{line('td', row)}</tr>"
        for row, mark in zip(rows, marked or [False] * len(rows), strict=True)
    )
    head = f"<thead><tr>{line('th', header)}</tr></thead>\n" if header else ""
    return f'<div class="scroll"><table>\n{head}<tbody>\n{body}\n</tbody></table></div>'


def _provenance(results: Results, saved: Mapping[str, Any]) -> str:
    """Return all that is needed to get the same numbers again."""
    facts: dict[str, object] = {
        "evaluated": saved["date"],
        "command": saved["command"],
        "looks at the test set": f"{saved['test_evaluations']} (evaluations into this folder, this one included)",
        "versions": ", ".join(f"{name} {version}" for name, version in saved["versions"].items()),
        "code": ", ".join(f"{name} {value}" for name, value in saved["code"].items()),
        "rules": ", ".join(f"{name} {value}" for name, value in saved["rules"].items()),
        "data": f"fingerprint of the test and training tracklets {results.table.fingerprint}",
    }
    parts = [_rows([], list(facts.items()), 2), "<p>The trained streams:</p>", _streams(results)]
    defaults = vars(config.Final())
    differing = []
    for stream, found in saved["configs"].items():
        default = flat(to_dict(config.STREAMS[stream].defaults))
        told = {key: value for key, value in flat(found).items() if key != "run"}
        # a section that is empty by default, such as model.architecture, has no keys there
        differing += [(f"{stream}.{key}", v, default.get(key, "")) for key, v in told.items() if v != default.get(key)]
    differing += [
        (f"final.{key}", value, defaults[key])
        for key, value in vars(results.settings).items()
        if value != defaults[key]
    ]
    if differing:
        parts += [
            "<p>Settings that differ from the defaults:</p>",
            _rows(["setting", "value", "default"], differing, 3),
        ]
    for one in results.configs:
        text = f"<pre>{escape(to_yaml(one))}</pre>"
        parts.append(f"<details>\n<summary>All settings of {title_of(one.stream)}</summary>\n{text}\n</details>")
    parts.append(
        f"<p>Beside this file: {RESULTS} with all numbers, {TABLE} and {LATEX} with the table, {QUERIES} with a "
        "line for each query, the features, the pictures as PNG, and TensorBoard's files, among them a projector of "
        "the features.</p>"
    )
    return "\n".join(parts)


def _streams(results: Results) -> str:
    """Return a table with a column for each trained stream."""
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
        rows.append([words, *found])
    rows.append(["seed of the training", *(one.train.seed for one in results.configs)])
    rows.append(["seed of the split", *(one.data.split_seed for one in results.configs)])
    rows.append(["data set", *(one.data.root for one in results.configs)])
    rows.append(["run", *(one.run for one in results.configs)])
    return _rows(["", *(title_of(one.stream) for one in results.configs)], rows, 3)


def _glossary(results: Results) -> str:
    specs = [config.STREAMS[one.stream] for one in results.configs]
    words = {**GLOSSARY, **{spec.title: spec.about for spec in specs}, **GLOSSARY_OF_FUSION}
    entries = "\n".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in words.items())
    return f"<dl>\n{entries}\n</dl>"
