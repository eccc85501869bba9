"""The functions that the commands call, for notebooks, scripts and trainables of Ray Tune.

They work in one process and on several ranks; then every rank makes the same call, and rank 0 gets the result.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sptskm.common.errors import DataError
from sptskm.config import Config, ConfigError, Final
from sptskm.configfile import find_file, load, merge
from sptskm.evaluation import Features
from sptskm.evaluation.results import Results
from sptskm.evaluation.saved import read_fused
from sptskm.extraction import Network, extract_run, load_network
from sptskm.final import final
from sptskm.nearest import read_set
from sptskm.nearest import search as nearest
from sptskm.training.trainer import NonFiniteLoss, Outcome, train

__all__ = [
    "Config",
    "ConfigError",
    "DataError",
    "Features",
    "Neighbour",
    "Network",
    "NonFiniteLoss",
    "Outcome",
    "Results",
    "evaluate",
    "extract",
    "load_config",
    "load_model",
    "search",
    "train",
]


class Neighbour(NamedTuple):
    """A tracklet that was found, and its distance to the query."""

    tracklet: str
    distance: float


def load_config(file: str | Path, *overrides: str) -> Config:
    """Read the configuration of a training run.

    `file` is a YAML file, or its name below `configs/` such as "demo/ssin". Each override is "section.key=value", as in
    "train.epochs=50". Raises FileNotFoundError, or ConfigError that names file, key, value and what is wanted.
    """
    path = Path(file)
    return load(find_file(path if path.suffix else path.with_suffix(".yaml")), overrides)


def extract(run: str | Path, data: str | Path, out: str | Path, *overrides: str) -> Features | None:
    """Embed every tracklet of a data set by a trained run, write the features to `out` (.npz) and return them.

    `data` is a folder in the layout of MARS, a pack or a manifest; labels are not needed. Raises FileNotFoundError,
    ConfigError and DataError.
    """
    return extract_run(Path(run), Path(data), Path(out), overrides)


def evaluate(
    runs: Sequence[str | Path],
    out: str | Path,
    settings: Final | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> Results | None:
    """Evaluate trained runs and their fusion on the test part, and write the report and all results to a folder.

    `settings` are those of the final job, such as {"protocol": "torchreid"}; `overrides` apply to the runs'
    configurations. `results.text()` is the table, `results.lines()` its numbers. Raises FileNotFoundError, ConfigError
    and DataError.
    """
    chosen = settings if isinstance(settings, Final) else merge(Final(), dict(settings or {}))
    return final(runs, out, chosen, overrides)


def search(
    gallery: str | Path | Sequence[str | Path],
    query: str,
    top: int = 10,
    *,
    fusion: str | Path | None = None,
    other_cameras: bool = False,
) -> list[Neighbour]:
    """Return the gallery tracklets that are nearest to one of them, nearest first.

    `gallery` is a file that `extract` wrote, or one for each stream; several are fused as the results of a final job in
    the folder `fusion` say. `query` is the name of a tracklet of the gallery. Distances of one stream are squared
    Euclidean distances of unit embeddings, 0 to 4. `other_cameras` leaves out the query's own camera. Raises
    FileNotFoundError, ConfigError and DataError.
    """
    files = [gallery] if isinstance(gallery, str | Path) else gallery
    fused = None if fusion is None else read_fused(Path(fusion))
    found = nearest(read_set([Path(file) for file in files]), str(query), top, fused, other_cameras=other_cameras)
    keys_N = found.gallery.features.keys_N
    pairs = zip(found.rows_QK[0].tolist(), found.distances_QK[0].tolist(), strict=True)
    return [Neighbour(str(keys_N[row]), distance) for row, distance in pairs if row >= 0]


def load_model(run: str | Path) -> Network:
    """Load a trained run: `.model` is its `nn.Module` in evaluation mode on the CPU, `.config` its configuration.

    Raises FileNotFoundError for a folder without a readable checkpoint, and ConfigError where the weights do not fit
    the configuration.
    """
    return load_network(Path(run))
