"""Writer of an evaluation's files: results.json, a line per query, features, a report and TensorBoard pages."""

import csv
import io
import json
import logging
import math
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sptskm.atomic import write_bytes, write_text
from sptskm.common.errors import DataError
from sptskm.common.reading import read_json
from sptskm.config import STREAMS
from sptskm.configfile import to_dict
from sptskm.data.derived import methods_in
from sptskm.evaluation import Reranking, Rows
from sptskm.evaluation.feature_files import write_features
from sptskm.evaluation.results import QUERIES, RANKS, RESULTS, Ranking, Results, number, title_of
from sptskm.report.colours import MADE
from sptskm.report.page import REPORT, page
from sptskm.report.pictures import Picture, pictures, possible
from sptskm.report.projector import write_projector
from sptskm.report.provenance import code_state, versions
from sptskm.report.tabular import LATEX, TABLE, csv_table, latex_table
from sptskm.report.tensorboard import Board, clear

log = logging.getLogger(__name__)


def write(results: Results, out: Path) -> None:
    """Write results.json, features, report and TensorBoard pages below `out`; count one more look at the test set."""
    out.mkdir(parents=True, exist_ok=True)
    _remove_earlier(out)
    looks = _count_look(out / "test_evaluations.json")
    labels = Rows.of(results.table, results.table.test)
    for features in results.features:
        origin = results.provenance[features.stream]
        path = out / f"features-{features.stream}.npz"
        write_features(path, features, labels, origin["network"], methods_in(origin.get("methods")))
    saved = _json(results, looks)
    write_text(out / RESULTS, json.dumps(saved, indent=1))
    write_text(out / TABLE, csv_table(results.lines()))
    write_text(out / LATEX, latex_table(results.lines()))
    write_text(out / QUERIES, _queries(results))
    drawn = pictures(results)
    for picture in drawn:
        write_bytes(out / _file(picture.name), picture.png)
    write_text(out / REPORT, page(results, saved, drawn))
    _write_board(results, drawn, out)
    log.info("report: %s", out / REPORT)


def _remove_earlier(out: Path) -> None:
    """Remove the files of an earlier evaluation here, perhaps of more streams; other files are kept."""
    features = (f"features-{stream}.npz" for stream in STREAMS)
    for name in (RESULTS, TABLE, LATEX, QUERIES, REPORT, *features, *map(_file, possible())):
        (out / name).unlink(missing_ok=True)


def _file(picture: str) -> str:
    return f"{picture.replace(' ', '-')}.png"


def _json(results: Results, looks: int) -> dict[str, Any]:
    fusion = results.fusion
    return {
        "protocol": results.protocol.name,
        "rules": dict(vars(results.protocol)),
        "test_data": results.test_data,
        "results": results.lines(),
        "cmc": {ranking.name: list(map(number, ranking.scores.cmc)) for ranking in results.rankings},
        "offered": results.offered,
        "fusion": fusion
        and {
            "weight": fusion.weight,
            "weights": dict(fusion.weights),
            "normalisation": fusion.normalisation,
            "distance": fusion.distance
            and [{"factors": dict(term.factors), "offset": term.offset} for term in fusion.distance.terms],
            "offer": fusion.offer and {**vars(fusion.offer), "weights": dict(fusion.offer.weights)},
            "odds": fusion.odds and dict(vars(fusion.odds)),
            "held_out_curve": None if fusion.curve_WS is None else fusion.curve_WS.tolist(),
        },
        "reranking": {"of": results.plain.name, **vars(Reranking())} if results.reranked else None,
        "test_evaluations": looks,
        "provenance": results.provenance,
        "settings": to_dict(results.settings),
        "configs": {config.stream: to_dict(config) for config in results.configs},
        "versions": versions(),
        "code": code_state(),
        "command": shlex.join(sys.argv),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _queries(results: Results) -> str:
    """Return CSV with a line per query: average precision, and rank of the first correct result (0 without one)."""
    table, changed_Q = results.table, results.subsets.get("clothes changed")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    judged = [f"{ranking.name}_{what}" for ranking in results.rankings for what in ("ap", "first_hit")]
    writer.writerow(["tracklet", "pid", "camera", "clothes_changed", *judged])
    for q, row in enumerate(results.query_rows.tolist()):
        scores = [(r.scores.ap_Q[q], int(r.scores.first_hit_Q[q])) for r in results.rankings]
        cells = [cell for ap, first in scores for cell in ("" if math.isnan(ap) else repr(float(ap)), first)]
        changed = "" if changed_Q is None else int(changed_Q[q])
        writer.writerow([table.keys_N[row], table.pid_name(row), table.camera_name(row), changed, *cells])
    return text.getvalue()


def _count_look(path: Path) -> int:
    """Count this evaluation of the test set; return the number of evaluations written to this folder so far."""
    try:
        dates = read_json(path, list[str])
    except FileNotFoundError:
        dates = []
    except DataError as error:
        log.warning("%s; the looks at the test set are counted from 1 again", error)
        dates = []
    dates.append(datetime.now(timezone.utc).isoformat(timespec="seconds"))
    write_text(path, json.dumps(dates, indent=1))
    return len(dates)


def _write_board(results: Results, drawn: Sequence[Picture], out: Path) -> None:
    """Write text and pictures in `out`, and the scores as one run per ranking, for comparisons and HParams."""
    for folder in (out, *(out / name for name in map(title_of, (*STREAMS, *MADE)))):
        clear(folder)
    board = Board(out)
    board.text("results/scores", "```\n" + results.text() + "\n```")
    board.text("results/CMC in percent", _cmc_table(results))
    for picture in drawn:
        board.encoded(picture.tag, picture.png, picture.image.shape[:2])
    board.close()
    for ranking in results.rankings:
        _write_scores(Board(out / title_of(ranking.name)), ranking, results)
    write_projector(results, out / "projector")


def _cmc_table(results: Results) -> str:
    """Return the CMC of all rankings as a table in Markdown: TensorBoard would smooth a curve."""
    names, shown = [title_of(ranking.name) for ranking in results.rankings], range(1, RANKS[-1] + 1)
    head = [f"| rank | {' | '.join(names)} |", f"|{'--:|' * (len(names) + 1)}"]
    curves = [ranking.scores.cmc for ranking in results.rankings]
    cells = [[f"{100 * cmc[min(k, len(cmc)) - 1]:.1f}" for cmc in curves] for k in shown]
    return "\n".join([*head, *(f"| {k} | {' | '.join(row)} |" for k, row in zip(shown, cells, strict=True))])


def _write_scores(board: Board, ranking: Ranking, results: Results) -> None:
    """Write the metrics as points."""
    for line in results.lines():
        if line["stream"] == ranking.name:
            names = ("mAP", *(f"rank-{k}" for k in RANKS))
            board.scalars({f"{line['queries']} queries/{n}": line[n] for n in names if line[n] is not None}, 0)
    board.close()
