"""Scores of features under a protocol, for data other than those of a final job.

Legend: N tracklets, Q queries, B queries of a block, G gallery rows, D embedding.
"""

from collections.abc import Sequence

import numpy as np

from sptskm.common.errors import DataError
from sptskm.config import ConfigError, Final
from sptskm.data import Tracklets
from sptskm.evaluation import Features, Fusion, Part, aligned, check_judging, feature_blocks, part_of, protocol
from sptskm.evaluation.distances import Floats
from sptskm.evaluation.metrics import Blocks
from sptskm.evaluation.results import Ranking, Results
from sptskm.training.spread import evaluate_spread, prepared
from sptskm.training.world import World


def score(
    table: Tracklets, settings: Final, features: Sequence[Features], fused: Fusion | None, world: World
) -> Results:
    """Evaluate the test tracklets of a table by the features of one stream, or of several streams and their fusion.

    The results hold scores but no distances, which are computed over blocks of queries. Every rank makes the same call,
    ranks a share of the queries and returns the whole result. Raises ConfigError and DataError where features, data and
    protocol do not belong together.
    """
    rules = protocol(settings.protocol)
    check_judging(settings, rules, table)
    if (len(features) > 1) != (fused is not None):
        raise ConfigError("features of several streams and a fusion are wanted together, found one of them")
    streams = [_of_test(one, table) for one in features]
    test = part_of(table, table.test, table.query, rules, streams)
    ways = {one.stream: _alone(one, test, world) for one in streams}
    if fused is not None:
        ways["fused"] = _fused(fused, test, world)
    rankings = [
        Ranking(name, np.empty((len(test.query), 0)), evaluate_spread(way, test.query, test.gallery, rules, world))
        for name, way in ways.items()
    ]
    return Results(table, test, rankings, fused, [], settings, {})


def _of_test(features: Features, table: Tracklets) -> Features:
    """Select and reorder features to match the test split."""
    wanted_N = table.keys_N[table.test]
    if features.fingerprint != table.fingerprint:
        raise DataError(
            f"the {features.stream} features are not of these data (fingerprints {features.fingerprint} and "
            f"{table.fingerprint}), wanted those of `sptskm extract` on them"
        )
    if len(missing := np.setdiff1d(wanted_N, features.keys_N)):
        raise DataError(
            f"the {features.stream} features lack {len(missing)} of {len(wanted_N)} test tracklets, such as "
            f"{missing[0]}, wanted those of `sptskm extract` on all of the data"
        )
    return features.ordered(wanted_N)


def _alone(features: Features, test: Part, world: World) -> Blocks:
    """Return a function that computes one stream's distances (B, G); a tracklet without input is infinitely far."""
    query, gallery = (features.part(rows) for rows in (test.query_rows, test.gallery_rows))
    squared = feature_blocks(query.known_ND, prepared(gallery.known_ND, world))

    def block(chosen: slice) -> Floats:
        distance_BG = squared(chosen)
        distance_BG[~(query.valid_N[chosen, None] & gallery.valid_N)] = np.inf
        return distance_BG

    return block


def _fused(fused: Fusion, test: Part, world: World) -> Blocks:
    """Return a function that computes the fused distances (B, G)."""
    compared = aligned(test.features, fused.normalisation)
    apart = {name: _alone(own, test, world) for name, own in compared.items()}
    gallery = {name: own.valid_N[test.gallery_rows] for name, own in compared.items()}

    def block(chosen: slice) -> Floats:
        query = {name: own.valid_N[test.query_rows[chosen]] for name, own in compared.items()}
        return fused.distance.of({name: own(chosen) for name, own in apart.items()}, query, gallery)

    return block
