"""The fused distance that a final job has kept, for comparing other tracklets in the same way."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sptskm.data import DataError
from sptskm.data.derived import Made, Method, methods_in
from sptskm.evaluation import FusedDistance
from sptskm.report.saved import read_fusion

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fused:
    """How a final job fused the streams, and the resulting distance of a pair."""

    weight: float
    """Of SMIN."""
    normalisation: str
    distance: FusedDistance
    networks: Mapping[str, str]
    """Hashes of the weights of ssin and smin, for whose features the distance was fitted."""
    methods: Mapping[Made, Method] = field(default_factory=dict)
    """Methods that made the masks and skeletons on which the fusion was chosen, where known."""

    def check(self, stream: str, network: str, whose: str) -> None:
        """Raise DataError where a stream's weights differ from those that were fused."""
        if network != self.networks[stream]:
            raise DataError(f"{whose} is of network {network} of {stream}, wanted {self.networks[stream]} as fused")


def read_fused(results: Path) -> Fused:
    """Read the fusion that a final job has kept in its results.json; `results` is that file or its folder.

    Raises FileNotFoundError, and DataError for another file, for an evaluation of one stream, and for one that keeps no
    distance of a pair.
    """
    path, found, origins = read_fusion(results)
    networks = {stream: origin["network"] for stream, origin in origins.items() if "network" in origin}
    methods: dict[Made, Method] = {}
    for origin in origins.values():
        methods |= methods_in(origin.get("methods"))
    weight, normalisation, constants = found["weight"], found["normalisation"], found.get("distance")
    try:
        distance = constants and FusedDistance(**constants)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: fusion.distance is not that of `sptskm evaluate` ({error})") from None
    if (found.get("camera_weights") or {}).get("used"):
        log.warning("%s ranks with weights by camera; what follows uses the single weight %.2f", path, weight)
    if distance and set(networks) == {"ssin", "smin"}:
        return Fused(weight, normalisation, distance, networks, methods)
    if normalisation == "rank":
        raise DataError(f"{path}: fuses by rank, which is no distance of a pair, wanted another normalisation")
    lacking = "does not say which networks it fuses" if distance else "keeps no fused distance"
    raise DataError(f"{path}: {lacking}, wanted that of `sptskm evaluate` as it is now: evaluate again")
