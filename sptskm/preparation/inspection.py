"""Run `sptskm check --quality`: a table of measures, and the worst frames as pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.common.atomic import write_bytes
from sptskm.common.console import progress
from sptskm.common.console import table as text_table
from sptskm.common.errors import DataError
from sptskm.config import ConfigError
from sptskm.data import Tracklets
from sptskm.data.dataset import is_manifest
from sptskm.data.files import read_skeletons
from sptskm.data.manifest import read_entries, write_entries
from sptskm.data.tracklets import Modality
from sptskm.preparation.quality import SUMMARY, USABLE_SHARE, Quality, is_bad, measure, quality_summary, worst
from sptskm.report.quality_pictures import normalisation_sheet, sheet
from sptskm.report.tensorboard import Board

SHOWN_BAD = 10  # tracklets that a line names
SHOWN = 3  # tracklets whose skeletons are shown before and after normalisation


@dataclass(frozen=True)
class Kept:
    """A manifest, and the path for a copy without the bad tracklets."""

    manifest: Path
    out: Path

    def __post_init__(self) -> None:
        if not is_manifest(self.manifest):
            raise ConfigError(f"--drop-bad wants a manifest, found {self.manifest}; `sptskm import` writes one")
        if self.out.absolute().parent != self.manifest.absolute().parent or not is_manifest(self.out):
            raise ConfigError(f"--drop-bad is {self.out}, wanted a manifest in the folder of {self.manifest}")
        if self.out.absolute() == self.manifest.absolute():
            raise ConfigError(f"--drop-bad is {self.out}, the manifest itself, wanted another name")

    def write(self, found: Sequence[Quality]) -> str:
        """Write the lines of all tracklets that are not bad; return a sentence with the counts."""
        bad = {quality.key: quality for quality in found if is_bad(quality)}
        entries = read_entries(self.manifest)
        kept = [entry for entry in entries if entry.tracklet not in bad]
        if not kept:
            raise DataError(f"{self.manifest}: every tracklet is bad, wanted some to keep")
        write_entries(self.out, kept)
        frames = sum(max(len(values) for values in quality.values.values()) for quality in bad.values())
        named = ", ".join(sorted(bad)[:SHOWN_BAD]) or "none"
        return (
            f"{self.out}: {len(kept)} of {len(entries)} tracklets; {len(bad)} with {frames} frames left out, as less "
            f"than {USABLE_SHARE:.0%} of their frames are of use: {named}"
        )


def inspect(table: Tracklets, out: Path, tracklets: int, kept: Kept | None) -> str:
    """Measure all tracklets, or a random draw; write pictures to `out` (PNG, TensorBoard), return a table.

    With `kept` also write a manifest without the bad ones. Raises ConfigError if `kept` and a draw are both requested.
    """
    if kept is not None and tracklets:
        raise ConfigError("--drop-bad with --tracklets, wanted all tracklets to be measured")
    rows = np.arange(len(table))
    if 0 < tracklets < len(table):
        rows = np.sort(np.random.default_rng(0).choice(len(table), tracklets, replace=False))
    made = [modality for modality in get_args(Modality) if table.has(modality)]  # SMIN, for one, needs no masks
    found = measure(
        table, rows, made or get_args(Modality), progress=lambda items: progress(items, "quality", total=len(rows))
    )
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
    lines = [text_table(SUMMARY, quality_summary(found)), said] + ([] if kept is None else [kept.write(found)])
    return "\n".join(lines)


def _some_skeletons(table: Tracklets, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Read the raw skeletons (F, 14, 4) of the first tracklets that have any, by name."""
    shown: dict[str, NDArray[np.float64]] = {}
    for row in rows.tolist():
        skeletons = read_skeletons(table, row, range(table.lengths[row]), strict=False).astype(np.float64)
        if not np.isnan(skeletons).any(axis=(1, 2)).all():
            shown[str(table.keys_N[row])] = skeletons
        if len(shown) == SHOWN:
            break
    return shown
