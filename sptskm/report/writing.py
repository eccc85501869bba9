"""Writer of what an evaluation looks like: the report with its pictures, and TensorBoard pages."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sptskm.common.atomic import write_bytes, write_error, write_text
from sptskm.common.console import table
from sptskm.common.errors import ConfigError
from sptskm.common.paths import exists
from sptskm.config import STREAMS
from sptskm.evaluation.results import RANKS, Results, title_of
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
    """Write the pictures, and single values as tables: a chart of one point says nothing."""
    clear(out)
    for folder in _folders_of_points(out):
        shutil.rmtree(folder)
    board = Board(out)
    # in letters of one width, as TensorBoard breaks the words of Markdown's tables
    scores, notes = results.text().removesuffix(results.caption()), results.caption().split("\n")
    board.text("results/scores", "\n".join([f"```\n{scores}```", "", *(f"- {note}" for note in notes)]))
    board.text("results/CMC in percent", f"```\n{_cmc_table(results)}\n```")
    for picture in drawn:
        board.encoded(picture.tag, picture.for_board, picture.image.shape[:2])
    board.close()
    write_projector(results, out / "projector")


def _folders_of_points(out: Path) -> list[Path]:
    """Return the folders in which earlier versions wrote the scores of a ranking, and nothing else."""
    found = [out / name for name in map(title_of, (*STREAMS, *MADE))]
    found = [one for one in found if one.is_dir() and not one.is_symlink()]  # a link leads to somebody else's
    return [one for one in found if all(path.name.startswith("events.out.tfevents.") for path in one.iterdir())]


def _cmc_table(results: Results) -> str:
    """Return the CMC of all rankings as a table: TensorBoard would smooth a curve."""
    names, curves = zip(*((title_of(ranking.name), ranking.scores.cmc) for ranking in results.rankings), strict=True)
    shown = range(1, RANKS[-1] + 1)
    rows = [[k, *(f"{100 * cmc[min(k, len(cmc)) - 1]:.1f}" for cmc in curves)] for k in shown]
    return table(["rank", *names], rows)
