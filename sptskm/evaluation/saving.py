"""Writer of an evaluation's numbers: results.json, its table as CSV and LaTeX, a line per query, and the features."""

import csv
import io
import json
import logging
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sptskm.common.atomic import write_text
from sptskm.common.errors import DataError
from sptskm.common.reading import read_json
from sptskm.config import STREAMS
from sptskm.configfile import to_dict
from sptskm.data.derived import methods_in
from sptskm.evaluation import Reranking, Rows
from sptskm.evaluation.feature_files import write_features
from sptskm.evaluation.results import QUERIES, RESULTS, Results, number
from sptskm.evaluation.tabular import LATEX, TABLE, csv_table, latex_table

log = logging.getLogger(__name__)


def write_results(results: Results, out: Path, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Write all numbers below `out`, count one more look at the test set, and return what results.json holds.

    `origin` is how the results were made, as `sptskm.provenance.origin` returns it. Features of an earlier evaluation
    here, perhaps of more streams, are removed.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in (RESULTS, TABLE, LATEX, QUERIES, *(f"features-{stream}.npz" for stream in STREAMS)):
        (out / name).unlink(missing_ok=True)
    looks = _count_look(out / "test_evaluations.json")
    labels = Rows.of(results.table, results.table.test)
    for features in results.test.features:
        trained = results.provenance[features.stream]
        path = out / f"features-{features.stream}.npz"
        write_features(path, features, labels, trained["network"], methods_in(trained.get("methods")))
    saved = {**_json(results, looks), **origin}
    write_text(out / RESULTS, json.dumps(saved, indent=1))
    write_text(out / TABLE, csv_table(results.lines()))
    write_text(out / LATEX, latex_table(results.lines()))
    write_text(out / QUERIES, _queries(results))
    return saved


def _json(results: Results, looks: int) -> dict[str, Any]:
    fusion = results.fusion
    return {
        "protocol": results.test.protocol.name,
        "rules": dict(vars(results.test.protocol)),
        "test_data": results.test_data,
        "results": results.lines(),
        "cmc": {ranking.name: list(map(number, ranking.scores.cmc)) for ranking in results.rankings},
        "offered": results.offered,
        "fusion": fusion
        and {
            "weight": fusion.weight,
            "weights": dict(fusion.weights),
            "normalisation": fusion.normalisation,
            "changed_clothes": fusion.changed_clothes,
            "distance": [{"factors": dict(term.factors), "offset": term.offset} for term in fusion.distance.terms]
            or None,
            "offer": fusion.offer and {**vars(fusion.offer), "weights": dict(fusion.offer.weights)},
            "odds": fusion.odds and dict(vars(fusion.odds)),
            "held_out_curve": None if fusion.curve_WS is None else fusion.curve_WS.tolist(),
        },
        "reranking": {"of": results.plain.name, **vars(Reranking())} if results.reranked else None,
        "test_evaluations": looks,
        "provenance": results.provenance,
        "settings": to_dict(results.settings),
        "configs": {config.stream: to_dict(config) for config in results.configs},
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
