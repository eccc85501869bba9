"""Evaluation protocols: which rows form the gallery, which are ignored, how AP is computed.

The same features give numbers many points apart under different protocols, so a result always carries its protocol.
Users name a protocol, or give the path of a YAML file that states its name and every rule. A command looks it up once
and hands on the rules, so that a file that is edited meanwhile does not mix rules.

Shape suffixes: N test rows, Q queries.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sptskm.common.reading import read_yaml
from sptskm.common.settings import settings
from sptskm.config import ConfigError
from sptskm.configfile import named
from sptskm.data.tracklets import JUNK_PID

Integers = NDArray[np.integer[Any]]

ENDINGS: Final = (".yaml", ".yml")


@settings
class Protocol:
    """The rules of one evaluation."""

    name: str
    """What stands beside every number."""
    keep_queries: bool
    """Whether query tracklets are also gallery rows."""
    keep_junk: bool
    """Whether rows of pid -1 stay in the gallery table (no protocol ranks them)."""
    min_length: Annotated[int, Field(ge=0)]
    """Shortest query or gallery tracklet, in frames."""
    ignore_same_camera: bool
    """Whether rows of the query's own identity and camera are left out of its ranking."""
    ap: Literal["trapezoid", "precision"]
    """Average precision as in the official MARS code, or the mean of precisions at hits."""
    clothes: Literal["any", "other", "same"] = "any"
    """Which rows of the query's own identity are ranked: those in any clothes, in other clothes than the query's, or in
    the same. With an unknown label, clothes are neither other nor the same."""
    average: Literal["found", "all"] = "found"
    """The queries in the means: those with a positive in the gallery, or all, where one without a positive has an
    average precision of 0 and no hit."""


PROTOCOLS: Final[Mapping[str, Protocol]] = {
    rules.name: rules
    for rules in (
        Protocol("mars-official", True, True, 0, True, "trapezoid"),
        Protocol("mars-standard", True, False, 0, True, "precision"),
        Protocol("torchreid", False, False, 0, True, "precision"),
        Protocol("sptskm-ssin", False, False, 30, True, "precision"),
        # The published SMIN code wants more than 30 frames and ignores cameras altogether.
        Protocol("sptskm-smin", False, False, 31, False, "precision"),
        # For data of one camera, where all others would leave no positive.
        Protocol("any-camera", False, False, 0, False, "precision"),
        # The three settings of Simple-CCReID (Gu et al., CVPR 2022) for CCVID.
        Protocol("ccvid-general", False, False, 0, True, "precision"),
        Protocol("ccvid-clothes-changing", False, False, 0, True, "precision", "other"),
        Protocol("ccvid-same-clothes", False, False, 0, True, "precision", "same"),
    )
}

OFFICIAL: Final = PROTOCOLS["mars-official"]


def protocol(name: str) -> Protocol:
    """Return the protocol of this name, or read it where the name is a path that ends in .yaml or .yml.

    Raises ConfigError with the legal names for an unknown name, and errors as `read_protocol`.
    """
    if name.endswith(ENDINGS):
        return read_protocol(Path(name))
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name!r}; legal names are {', '.join(PROTOCOLS)}, or a path to a .yaml")
    return PROTOCOLS[name]


def read_protocol(path: Path) -> Protocol:
    """Read a custom protocol: a YAML file with a value for every field of `Protocol`, its name included.

    Raises FileNotFoundError, and ConfigError for a missing or unknown field, a value of the wrong type, and a name that
    is empty or already taken.
    """
    values = read_yaml(path)
    # None of these is a default: what a file leaves out is refused.
    rules = named(path, Protocol("", False, False, 0, False, "precision"), values)
    if missing := [field.name for field in fields(Protocol) if field.name not in values]:
        raise ConfigError(f"{path}: lacks {', '.join(missing)}; a protocol states every rule, and its name")
    if not rules.name.strip() or rules.name in PROTOCOLS or rules.name.endswith(ENDINGS):
        raise ConfigError(f"{path}: name is {rules.name!r}, wanted a name that no other protocol has")
    if rules.keep_queries and not rules.ignore_same_camera and rules.clothes != "other":
        raise ConfigError(
            f"{path}: keep_queries is true and ignore_same_camera false, so that every query would find itself, wanted "
            "one of them changed"
        )
    return rules


def check_labels(protocol: Protocol, has_clothes: bool) -> None:
    """Raise ConfigError when a protocol needs clothes labels that the data set does not have."""
    if protocol.clothes != "any" and not has_clothes:
        raise ConfigError(f"protocol {protocol.name} asks who wears what, and the data set has no clothes labels")


def select(
    protocol: Protocol, pids_N: Integers, lengths_N: Integers, query_rows_Q: Integers
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Select the query and gallery rows of a protocol, as 0-based row numbers of the test table.

    pids_N and lengths_N (frames) describe all test tracklets, query_rows_Q gives the rows of the queries. Queries keep
    their order, gallery rows are ascending. Raises ConfigError for arrays of different length, and for query rows that
    are not integers, repeat or lie outside the table.
    """
    pids, lengths = np.asarray(pids_N), np.asarray(lengths_N)
    if pids.ndim != 1 or pids.shape != lengths.shape:
        raise ConfigError(f"pids and lengths must be 1-D and equally long, found {pids.shape}, {lengths.shape}")
    queries = _checked_rows(np.asarray(query_rows_Q), len(pids))
    long_enough = lengths >= protocol.min_length
    in_gallery = long_enough.copy()
    if not protocol.keep_queries:
        in_gallery[queries] = False
    if not protocol.keep_junk:
        in_gallery &= pids != JUNK_PID
    return queries[long_enough[queries]], np.flatnonzero(in_gallery).astype(np.int64)


def _checked_rows(rows_Q: NDArray[Any], total: int) -> NDArray[np.int64]:
    if rows_Q.ndim != 1 or rows_Q.dtype.kind not in "iu":
        raise ConfigError(f"query rows must be a 1-D integer array, found {rows_Q.dtype} {rows_Q.shape}")
    rows = rows_Q.astype(np.int64)
    outside = rows[(rows < 0) | (rows >= total)]
    if outside.size:
        raise ConfigError(f"query row {outside[0]} is outside the test table, rows 0 to {total - 1} (0-based)")
    if len(np.unique(rows)) != len(rows):
        raise ConfigError("query rows repeat; every query tracklet is named once")
    return rows
