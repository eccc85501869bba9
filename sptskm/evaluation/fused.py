"""The fused distance that a final job has kept, for comparing other tracklets in the same way."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sptskm.common.errors import DataError
from sptskm.data.derived import Made, Method, methods_in
from sptskm.evaluation import FusedDistance, Weights, pair_weights
from sptskm.evaluation.fusion import Term
from sptskm.evaluation.saved import SavedTerm, read_fusion

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fused:
    """How a final job fused the streams, and the resulting distance of a pair."""

    weights: Weights
    normalisation: str
    distance: FusedDistance
    networks: Mapping[str, str]
    """Hashes of the weights of the streams' networks, for whose features the distance was fitted."""
    methods: Mapping[Made, Method] = field(default_factory=dict)
    """Methods that made the masks and skeletons on which the fusion was chosen, where known."""

    def check(self, stream: str, network: str, whose: str) -> None:
        """Raise DataError where a stream or its network is not one that was fused."""
        if stream not in self.networks:
            raise DataError(f"{whose} is of {stream}, wanted one of {', '.join(self.networks)} as fused")
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
    weight, normalisation = found.get("weight"), found["normalisation"]
    weights = found.get("weights") or pair_weights(("ssin", "smin"), weight or 0.0)
    try:
        distance = _distance(found.get("distance"))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: fusion.distance is not that of `sptskm evaluate` ({error})") from None
    if (found.get("camera_weights") or {}).get("used"):
        log.warning("%s ranks with weights by camera; what follows uses the single weight %.2f", path, weight)
    if distance and set(networks) == set(distance.streams) == set(weights):
        return Fused(weights, normalisation, distance, networks, methods)
    if normalisation == "rank":
        raise DataError(f"{path}: fuses by rank, which is no distance of a pair, wanted another normalisation")
    lacking = "does not say which networks it fuses" if distance else "keeps no fused distance"
    raise DataError(f"{path}: {lacking}, wanted that of `sptskm evaluate` as it is now: evaluate again")


def _distance(saved: dict[str, float] | list[SavedTerm] | None) -> FusedDistance | None:
    """Return the distance that results.json holds; four constants are those of an earlier version."""
    if isinstance(saved, dict):
        return FusedDistance.of_before(**saved)
    return FusedDistance(tuple(Term(**term) for term in saved)) if saved else None
