"""`sptskm check --quality`: a table of measures, and the worst frames as pictures."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.atomic import write_bytes
from sptskm.data import Tracklets
from sptskm.data.files import read_skeletons
from sptskm.preparation.quality import SUMMARY, measure, summary, worst
from sptskm.report.console import progress
from sptskm.report.console import table as text_table
from sptskm.report.quality import normalisation_sheet, sheet
from sptskm.report.tensorboard import Board

SHOWN = 3  # tracklets whose skeletons are shown before and after normalisation


def inspect(table: Tracklets, out: Path, tracklets: int = 0, seed: int = 0) -> str:
    """Measure all tracklets, or so many drawn by a seed, and write pictures to `out` (PNG and TensorBoard): a table."""
    rows = np.arange(len(table))
    if 0 < tracklets < len(table):
        rows = np.sort(np.random.default_rng(seed).choice(len(table), tracklets, replace=False))
    found = measure(table, rows, progress=lambda items: progress(items, "quality", total=len(rows)))
    pictures = {"worst frames": sheet(table, {str(name): frames for name, frames in worst(found).items()})}
    if shown := _some_skeletons(table, rows):
        pictures["skeletons before and after normalisation"] = normalisation_sheet(shown)
    out.mkdir(parents=True, exist_ok=True)
    board = Board(out)
    for name, picture in pictures.items():
        write_bytes(out / f"{name.replace(' ', '-')}.png", cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
        board.picture(f"quality/{name}", picture, 0)
    board.close()
    said = f"{len(rows)} of {len(table)} tracklets measured; pictures in {out}"
    return f"{text_table(SUMMARY, summary(found))}\n{said}"


def _some_skeletons(table: Tracklets, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """The raw skeletons (F, 14, 4) of the first tracklets that have any, by name."""
    shown: dict[str, NDArray[np.float64]] = {}
    for row in rows.tolist():
        skeletons = read_skeletons(table, row, range(table.lengths[row]), strict=False).astype(np.float64)
        if not np.isnan(skeletons).any(axis=(1, 2)).all():
            shown[str(table.keys_N[row])] = skeletons
        if len(shown) == SHOWN:
            break
    return shown
