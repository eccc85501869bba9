"""Writer of what an evaluation looks like: the report with its pictures, and TensorBoard pages."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sptskm.common.atomic import write_bytes, write_error, write_text
from sptskm.common.errors import ConfigError
from sptskm.common.paths import exists
from sptskm.config import STREAMS
from sptskm.evaluation.results import RANKS, Ranking, Results, title_of
from sptskm.report.colours import MADE
from sptskm.report.page import FIGURES, REPORT, page
from sptskm.report.pictures import Picture, file_of, pictures, possible
from sptskm.report.projector import write_projector
from sptskm.report.tensorboard import Board, clear

log = logging.getLogger(__name__)


def check_figures(out: Path) -> None:
    """Raise ConfigError where something else is in the place of the folder of figures, or it cannot be written."""
    folder = out / FIGURES
    if exists(folder) and (why := write_error(folder / REPORT)):
        raise ConfigError(f"{folder}: {why}, wanted a folder for the figures")


def write_report(results: Results, saved: Mapping[str, Any], out: Path) -> None:
    """Write report, pictures and TensorBoard pages below `out`; `saved` is what results.json holds.

    Pictures of an earlier evaluation here, perhaps of more streams, are removed; other files are kept.
    """
    for name in (REPORT, *files()):
        (out / name).unlink(missing_ok=True)
    drawn = pictures(results)
    for picture in drawn:
        write_bytes(out / f"{picture.file}.png", picture.png)
    write_text(out / REPORT, page(results, saved, drawn))
    _write_board(results, drawn, out)
    log.info("report: %s", out / REPORT)
    (out / FIGURES).mkdir(exist_ok=True)
    for picture in drawn:
        for ending, content in picture.paper.items():
            write_bytes(out / FIGURES / f"{picture.file}.{ending}", content)


def files() -> list[str]:
    """Return the names of all files of pictures that an evaluation may leave, those for papers in a folder."""
    names = [file_of(picture) for picture in possible()]
    return [f"{name}.png" for name in names] + [f"{FIGURES}/{name}.{kind}" for name in names for kind in ("pdf", "svg")]


def _write_board(results: Results, drawn: Sequence[Picture], out: Path) -> None:
    """Write text and pictures in `out`, and the scores as one run per ranking, for comparisons and HParams."""
    for folder in (out, *(out / name for name in map(title_of, (*STREAMS, *MADE)))):
        clear(folder)
    board = Board(out)
    board.text("results/scores", "```\n" + results.text() + "\n```")
    board.text("results/CMC in percent", _cmc_table(results))
    for picture in drawn:
        board.encoded(picture.tag, picture.for_board, picture.image.shape[:2])
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
