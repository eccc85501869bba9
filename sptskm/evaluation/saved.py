"""Reader of the files that an evaluation has written: results.json and queries.csv, with checks of all values used."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from sptskm.common.errors import DataError
from sptskm.common.reading import read_json, read_text
from sptskm.common.tables import read_rows
from sptskm.config import STREAMS
from sptskm.data.derived import Made, Method, methods_in
from sptskm.evaluation import FusedDistance, Fusion, pair_weights
from sptskm.evaluation.fusion import Normalisation, Term
from sptskm.evaluation.results import QUERIES, RESULTS

log = logging.getLogger(__name__)

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
if TYPE_CHECKING:
    Ranked = str
else:
    Ranked = Literal[(*STREAMS, "fused", "reranked")]

Line = TypedDict(
    "Line",
    {
        "queries": str,
        "stream": Ranked,
        "used": Count,
        "skipped": Count,
        "mAP": Share | None,
        "rank-1": Share | None,
        "rank-5": Share | None,
        "rank-10": Share | None,
        "rank-20": Share | None,
    },
)


class Origin(TypedDict):
    """Provenance of a stream's features."""

    network: NotRequired[str]
    methods: NotRequired[dict[str, dict[str, str | int | float | bool]]]


class SavedFusion(TypedDict):
    """How streams were fused. Earlier versions wrote no weights and a distance of four constants."""

    weight: Share | None
    weights: NotRequired[dict[str, Share]]
    normalisation: Normalisation
    distance: NotRequired[dict[str, float] | tuple[Term, ...] | None]
    camera_weights: NotRequired[dict[str, Any] | None]


class _Results(TypedDict):
    protocol: str
    results: Annotated[list[Line], Field(min_length=1)]
    test_evaluations: Count
    rules: NotRequired[dict[str, str | int | float | bool]]
    test_data: NotRequired[str]
    provenance: NotRequired[dict[str, Origin]]
    settings: NotRequired[dict[str, Any]]
    configs: NotRequired[dict[str, dict[str, Any]]]


class _Fused(TypedDict):
    fusion: SavedFusion | None
    provenance: NotRequired[dict[str, Origin]]


def read_results(folder: Path) -> dict[str, Any]:
    """Read the results of a final job that are compared and summarised.

    Raises FileNotFoundError for a folder without results, and DataError for a damaged file or one of a version that did
    not write rules and test data.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted a folder that `sptskm evaluate` has written")
    found = _read(path, _Results)
    if "rules" not in found or "test_data" not in found:
        raise DataError(f"{path}: does not tell its rules and test data, as `sptskm evaluate` does now: evaluate again")
    return found


def read_fused(results: Path) -> Fusion:
    """Read the fusion that a final job has kept in its results.json; `results` is that file or its folder.

    Raises FileNotFoundError, and DataError for another file, for an evaluation of one stream, and for one that keeps no
    distance of a pair.
    """
    path = results / RESULTS if results.is_dir() else results
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted the {RESULTS} of `sptskm evaluate`")
    saved = _read(path, _Fused)
    found, origins = saved["fusion"], saved.get("provenance", {})
    if found is None:
        raise DataError(f"{path}: tells no fusion, wanted the {RESULTS} of both streams evaluated")
    networks = {stream: origin["network"] for stream, origin in origins.items() if "network" in origin}
    methods: dict[Made, Method] = {}
    for origin in origins.values():
        methods |= methods_in(origin.get("methods"))
    weight, normalisation = found.get("weight"), found["normalisation"]
    weights = found.get("weights") or pair_weights(("ssin", "smin"), weight or 0.0)
    constants = found.get("distance") or ()
    try:
        distance = FusedDistance.of_before(**constants) if isinstance(constants, dict) else FusedDistance(constants)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: fusion.distance is not that of `sptskm evaluate` ({error})") from None
    if (found.get("camera_weights") or {}).get("used"):
        log.warning("%s ranks with weights by camera; what follows uses the single weight %.2f", path, weight)
    if distance and set(networks) == set(distance.streams) == set(weights):
        return Fusion(weights, normalisation, distance, networks, methods)
    if normalisation == "rank":
        raise DataError(f"{path}: fuses by rank, which is no distance of a pair, wanted another normalisation")
    lacking = "does not say which networks it fuses" if distance else "keeps no fused distance"
    raise DataError(f"{path}: {lacking}, wanted that of `sptskm evaluate` as it is now: evaluate again")


def _read(path: Path, kind: Any) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], read_json(path, kind))
    except DataError as error:
        raise DataError(f"{error}; wanted the file as `sptskm evaluate` wrote it") from None


def read_queries(folder: Path, streams: list[str]) -> list[dict[str, str]]:
    """Read the lines of queries.csv; the AP of each stream is a number or empty.

    Raises FileNotFoundError, and DataError with the line for a file that is cut off or damaged.
    """
    path = folder / QUERIES
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; evaluate again to have it")
    rows = [(place, values) for place, values in read_rows(path)]
    names = rows[0][1] if rows else []
    wanted = ["tracklet", "pid", "clothes_changed", *(f"{s}_{what}" for s in streams for what in ("ap", "first_hit"))]
    lines: dict[str, dict[str, str]] = {}
    for place, values in rows[1:]:
        line = dict(zip(names, values, strict=False))
        if len(values) != len(names) or not _is_judgement(line, wanted) or line["tracklet"] in lines:
            raise DataError(f"{path}: is damaged in {place}, wanted the file as `sptskm evaluate` wrote it")
        lines[line["tracklet"]] = line
    if not lines or not read_text(path).endswith("\n"):
        raise DataError(f"{path}: is damaged (cut off), wanted the file as `sptskm evaluate` wrote it")
    return list(lines.values())


def _is_judgement(line: Mapping[str, str], wanted: list[str]) -> bool:
    """Return whether a line has all wanted values, with APs from 0 to 1 and first hits that are not negative."""
    try:
        aps = [float(line[name] or 0) for name in wanted if name.endswith("_ap")]
        hits = [int(line[name]) for name in wanted if name.endswith("_first_hit")]
    except (KeyError, ValueError):
        return False
    return set(wanted) <= set(line) and all(0 <= ap <= 1 for ap in aps) and min(hits) >= 0
