"""Feature files: plain arrays with keys and labels, in one format for the final job and for extraction.

Legend: N tracklets, D embedding.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.arrays import ArraySpec, read_npz
from sptskm.common.atomic import partial_of
from sptskm.common.errors import DataError
from sptskm.common.reading import parsed_json
from sptskm.config import STREAMS
from sptskm.data.derived import Made, Method, methods_in
from sptskm.data.tracklets import JUNK_PID
from sptskm.evaluation.features import Features
from sptskm.evaluation.metrics import Rows

ARRAYS = {
    "features": ArraySpec("f", ("N", "D")),
    "keys": ArraySpec("U", ("N",)),
    "valid": ArraySpec("b", ("N",)),
    "pids": ArraySpec("iu", ("N",)),
    "camids": ArraySpec("iu", ("N",)),
    "clothes": ArraySpec("iu", ("N",)),
    "fingerprint": ArraySpec("U"),
    "stream": ArraySpec("U"),
    "network": ArraySpec("U"),
}
METHODS = "methods"  # as JSON; files of before, and of masks and skeletons that somebody brought, have none


@dataclass(frozen=True, eq=False)
class Labelled:
    """Features (N, D) with the labels of their tracklets, row by row; all pids are -1 where no identity is known."""

    features: Features
    labels: Rows
    network: str
    """Hash of the weights of the network that computed the features."""
    methods: Mapping[Made, Method] = field(default_factory=dict)
    """Methods that made the masks or skeletons used as input, where known."""

    @property
    def keys(self) -> NDArray[np.str_]:
        """Return the keys of the tracklets with input."""
        return self.features.keys_N[self.features.valid_N]


def write_features(
    path: Path, features: Features, labels: Rows, network: str, methods: Mapping[Made, Method] | None = None
) -> None:
    """Write a .npz file that loads without pickle; the file appears complete or not at all."""
    clothes = np.full(len(labels), -1) if labels.clothes is None else labels.clothes
    with partial_of(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            features=features.features_ND,
            keys=features.keys_N,
            valid=features.valid_N,
            pids=labels.pids,
            camids=labels.camids,
            clothes=clothes,
            fingerprint=np.array(features.fingerprint),
            stream=np.array(features.stream),
            network=np.array(network),
            **({METHODS: np.array(json.dumps(methods))} if methods else {}),  # type: ignore[arg-type]  # more arrays
        )


def read_features(path: Path) -> Labelled:
    """Read a file written by `sptskm extract` or `sptskm evaluate`; clothes are None where no outfit is known.

    Raises FileNotFoundError, and DataError for a file of another format, a repeated tracklet or a valid row that is not
    finite.
    """
    wanted = "wanted one that `sptskm extract` or `sptskm evaluate` wrote"
    if not path.is_file():
        raise FileNotFoundError(f"features {path}: no such file, {wanted}")
    try:
        found = read_npz(path, ARRAYS, {METHODS: ArraySpec("U")})
    except DataError as error:
        again = ": extract again" if "lacks the array network" in str(error) else ""
        raise DataError(f"features {error}, {wanted}{again}") from None
    return _labelled(path, found)


def _labelled(path: Path, found: dict[str, NDArray[Any]]) -> Labelled:
    try:
        features = Features(
            found["features"], found["keys"], found["valid"], str(found["fingerprint"]), str(found["stream"])
        )
        known = bool((found["clothes"] >= 0).any())
        labels = Rows(found["pids"], found["camids"], found["clothes"] if known else None)
    except (ValueError, TypeError) as error:
        raise DataError(f"features {path}: {error}") from None
    if features.stream not in STREAMS:
        raise DataError(f"features {path}: stream is {features.stream!r}, wanted {' or '.join(STREAMS)}")
    if len(labels) and labels.pids.min() < JUNK_PID:
        raise DataError(f"features {path}: hold the identity {labels.pids.min()}, wanted {JUNK_PID} or more")
    if not features.features_ND.shape[1]:
        raise DataError(f"features {path}: are of no numbers each, wanted some")
    keys = features.keys_N.tolist()
    if len(set(keys)) < len(keys):
        repeated = next(key for key, count in Counter(keys).items() if count > 1)
        raise DataError(f"features {path}: hold the tracklet {repeated} more than once, wanted each once")
    broken_N = features.valid_N & ~np.isfinite(features.features_ND).all(axis=1)
    if broken_N.any():
        raise DataError(f"features {path}: not finite for {features.keys_N[broken_N][0]}, wanted numbers")
    return Labelled(features, labels, str(found["network"]), _methods(path, found))


def _methods(path: Path, found: dict[str, NDArray[Any]]) -> dict[Made, Method]:
    """Return the methods recorded in a feature file; empty for an older file without them."""
    if METHODS not in found:
        return {}
    return methods_in(parsed_json(str(found[METHODS]), f"features {path}: {METHODS}", dict[str, Any]))
