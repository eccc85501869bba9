"""Parts of a data set that are ranked: queries and gallery among test tracklets, or among people held out of training.

Shape suffixes: N tracklets of a part, Q queries, G gallery rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sptskm.config import ConfigError
from sptskm.data import Split, Tracklets
from sptskm.evaluation.distances import stream_distances
from sptskm.evaluation.features import Features, aligned
from sptskm.evaluation.fusion import Distances, Normalisation, StreamDistances
from sptskm.evaluation.metrics import JudgedRows, Rows
from sptskm.evaluation.protocols import Protocol, select
from sptskm.evaluation.refusals import check_some

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """Query and gallery rows of a protocol among the tracklets of a part, and the features of each stream.

    Row numbers count within the part.
    """

    query_rows: Ints
    gallery_rows: Ints
    query: Rows
    gallery: Rows
    protocol: Protocol
    features: Sequence[Features]

    def alone(self, features: Features) -> NDArray[np.float64]:
        """Compute the squared Euclidean distances (Q, G) of one stream; a tracklet without input is infinitely far."""
        query, gallery = (features.features_ND[rows] for rows in (self.query_rows, self.gallery_rows))
        valid = (features.valid_N[rows] for rows in (self.query_rows, self.gallery_rows))
        return stream_distances(query, gallery, *valid)

    def distances(self, kind: Normalisation) -> StreamDistances:
        """Compute the distances of all streams; for "concat" the features are first scaled to length 1.

        Raises errors as `align` and StreamDistances.
        """
        sides = self.query_rows, self.gallery_rows
        return StreamDistances(
            {
                name: Distances(self.alone(own), *(own.valid_N[rows] for rows in sides))
                for name, own in aligned(self.features, kind).items()
            }
        )

    def asked_as(self, test: "Part") -> "Part":
        """Leave only queries and gallery rows of cameras that have some in the test part.

        Who is to be found in other clothes, or from one camera to another, is then what the choice is made for. Returns
        the part as it is where no query of it would have a positive left.
        """
        query_Q, gallery_G = (
            np.isin(own.camids, theirs.camids)
            for own, theirs in ((self.query, test.query), (self.gallery, test.gallery))
        )
        part = replace(
            self,
            query_rows=self.query_rows[query_Q],
            gallery_rows=self.gallery_rows[gallery_G],
            query=self.query.part(query_Q),
            gallery=self.gallery.part(gallery_G),
        )
        return part if part.has_positives else self

    @property
    def has_positives(self) -> bool:
        """Return whether some query has a positive."""
        judged = JudgedRows(self.query, self.gallery, self.protocol)
        return any(judged.relevant(q)[0].size for q in range(len(self.query)))


def part_of(table: Tracklets, rows: Ints, query: Ints, rules: Protocol, features: Sequence[Features]) -> Part:
    """Return the part of these rows of a table, of which `query` numbers the queries, under a protocol.

    `features` hold the rows of the part, by stream in order. Raises ConfigError where the protocol leaves no queries or
    no gallery.
    """
    query_rows, gallery_rows = select(rules, table.pids_N[rows], table.lengths[rows], query)
    whose = "test" if len(rows) and rows[0] >= table.num_train else "held-out"
    check_some(rules, whose, len(query_rows), len(gallery_rows))
    labels = Rows.of(table, rows)
    return Part(query_rows, gallery_rows, labels.part(query_rows), labels.part(gallery_rows), rules, features)


def check_choosing(rules: Protocol, table: Tracklets, split: Split) -> None:
    """Raise ConfigError where the held-out tracklets cannot choose a fusion weight under a protocol."""
    part = part_of(table, split.held_out, split.query, rules, [])
    if not part.has_positives:
        raise ConfigError(
            f"protocol {rules.name} leaves none of the {len(part.query)} held-out queries a positive to choose the "
            "fusion weight on, wanted another protocol, or the final job's weight set"
        )


def everybody(table: Tracklets, rows: Ints, rules: Protocol, features: Sequence[Features]) -> Part:
    """Return the part in which every tracklet of these rows is a query and in the gallery, as far as a protocol allows.

    A protocol that ranks tracklets of the query's own camera would find the query itself, so that there every second
    tracklet is a query and the others are the gallery. Raises errors as `part_of`.
    """
    if not rules.ignore_same_camera:
        return part_of(table, rows, np.arange(0, len(rows), 2), rules, features)
    chosen = np.flatnonzero(table.lengths[rows] >= rules.min_length)
    check_some(rules, "left-out", len(chosen), len(chosen))
    labels = Rows.of(table, rows[chosen])
    return Part(chosen, chosen, labels, labels, rules, features)
