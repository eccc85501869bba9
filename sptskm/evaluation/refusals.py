"""Checks before a final job that find errors before features are extracted."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sptskm.config import STREAMS, ConfigError, Final
from sptskm.data import Tracklets
from sptskm.evaluation.fusion import Weights, pair_weights
from sptskm.evaluation.protocols import Protocol, check_labels, protocol, select
from sptskm.evaluation.reranking import check_memory


def protocol_of(settings: Final) -> Protocol:
    """Return the protocol of a final job. Raises errors as `protocol`, a ConfigError with the name of the key."""
    try:
        return protocol(settings.protocol)
    except ConfigError as error:
        raise ConfigError(f"final.protocol: {error}") from None


def check_judging(settings: Final, rules: Protocol, table: Tracklets) -> None:
    """Raise ConfigError or DataError where the test tracklets cannot be evaluated with these settings under a protocol.

    The tracklets are not checked in a table that was read without its test part.
    """
    check_labels(rules, table.has_clothes)
    if not len(table.test):
        return
    queries, gallery = select(rules, table.pids_N[table.test], table.lengths[table.test], table.query)
    check_some(rules, "test", len(queries), len(gallery))
    _check_cameras(rules, table.camids_N[table.test])
    if settings.rerank:
        check_memory(len(table.test), len(table.query), gigabytes=settings.rerank_gigabytes)


def _check_cameras(rules: Protocol, camids_N: NDArray[np.int64]) -> None:
    """Raise ConfigError where one camera saw everything and a protocol leaves out the query's own camera."""
    if rules.ignore_same_camera and len(np.unique(camids_N)) == 1:
        raise ConfigError(
            f"protocol {rules.name} leaves out tracklets of the query's own person and camera, and all test tracklets "
            "are of one camera, so that no query could be found; wanted final.protocol=any-camera"
        )


def fused_streams(settings: Final, trained: Sequence[str]) -> list[str]:
    """Return the streams that the settings ask for, in the order of tables, of those that are trained.

    Raises ConfigError for one that is not.
    """
    if missing := [stream for stream in settings.streams if stream not in trained]:
        raise ConfigError(f"final.streams asks for {missing[0]}, wanted some of those trained: {', '.join(trained)}")
    return [stream for stream in STREAMS if stream in (settings.streams or trained)]


def given_weights(settings: Final, streams: Sequence[str]) -> Weights | None:
    """Return the fusion weights that the settings state for these streams; None where they are to be chosen.

    Raises ConfigError for weights of other streams, and for the share of SMIN unless there are two streams.
    """
    if settings.weights:
        if set(settings.weights) != set(streams):
            found, wanted = (", ".join(names) for names in (settings.weights, streams))
            raise ConfigError(f"final.weights are of {found}, wanted one of each stream that is fused: {wanted}")
        return {stream: settings.weights[stream] for stream in streams}
    if settings.weight is None:
        return None
    if len(streams) != 2:
        raise ConfigError(f"final.weight is of two streams and {len(streams)} are fused, wanted final.weights instead")
    return pair_weights(streams, settings.weight)


def idle_weights(settings: Final, streams: Sequence[str]) -> str:
    """Say in a sentence that weights are given and these streams are but one; empty where that is not so."""
    if len(streams) > 1 or (settings.weight is None and not settings.weights):
        return ""
    key, given = ("weights", settings.weights) if settings.weights else ("weight", settings.weight)
    return f"final.{key} is {given} and changes nothing: {STREAMS[streams[0]].title} is evaluated alone"


def must_choose(settings: Final, streams: Sequence[str]) -> bool:
    """Return whether fusing these streams takes people on whom no network trained. Raises as `given_weights`."""
    calibrated = settings.normalisation == "calibrated"
    return len(streams) > 1 and (given_weights(settings, streams) is None or calibrated)


def instead_of_people(settings: Final) -> str:
    """Say what to set where a fusion takes people on whom no network trained, and there are none."""
    if settings.weight is None and not settings.weights:
        return "set final.weight or final.folds"
    return "final.normalisation=calibrated takes them, set another one or final.folds"


def check_some(rules: Protocol, whose: str, queries: int, gallery: int) -> None:
    """Raise ConfigError where a protocol leaves no queries or no gallery rows."""
    if not queries or not gallery:
        raise ConfigError(
            f"protocol {rules.name} leaves {queries} queries and {gallery} gallery rows of the {whose} tracklets, "
            "wanted some of both"
        )
