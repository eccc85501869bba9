"""Statistics of a protocol on a data set, from the labels alone: no network is trained and no distance is computed.

Shape suffixes: N test rows, Q queries, P rows of a query's identity.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sptskm.data.tracklets import DISTRACTOR_PID, JUNK_PID
from sptskm.evaluation.metrics import JudgedRows, Rows
from sptskm.evaluation.protocols import Integers, Protocol, select

FOUND: Final = ""

Table = tuple[Sequence[str], Sequence[Sequence[object]]]
"""Header and rows."""


@dataclass(frozen=True, eq=False)
class Explained:
    """The queries and the gallery of a protocol, with the reason for every query without a positive."""

    protocol: Protocol
    query: Rows
    gallery: Rows
    too_short: int
    """Number of queries that are shorter than the protocol's minimum length."""
    positives_Q: NDArray[np.int64]
    """Number of ranked gallery rows with the identity of each query."""
    why_Q: Sequence[str]
    """Reason why a query has no positive; empty for a query with positives."""

    @property
    def skipped(self) -> Counter[str]:
        """Count the queries without a positive by reason."""
        return Counter(why for why in self.why_Q if why != FOUND)

    def counts(self) -> Table:
        """Return the table of all counts, one per line."""
        pids, some = self.gallery.pids, self.positives_Q[self.positives_Q > 0]
        without = "of these 0 for lack of a positive" if self.protocol.average == "all" else "skipped"
        lines: list[tuple[str, object]] = [
            ("queries", len(self.query)),
            ("too short for the protocol", self.too_short),
            ("averaged over", len(self.query) if self.protocol.average == "all" else len(some)),
            (without, len(self.query) - len(some)),
            *((f"  {why}", count) for why, count in self.skipped.most_common()),
            ("gallery rows", len(pids)),
            ("  junk, never ranked", np.count_nonzero(pids == JUNK_PID)),
            ("  distractors", np.count_nonzero(pids == DISTRACTOR_PID)),
            ("  identities", len(np.unique(pids[pids > DISTRACTOR_PID]))),
        ]
        if some.size:
            spread = {"least": some.min(), "median": np.median(some), "mean": some.mean(), "most": some.max()}
            lines += [(f"positives per query, {which}", f"{value:.4g}") for which, value in spread.items()]
        return (self.protocol.name, "count"), lines

    def cameras(self) -> Table:
        """Return the table of counts for each camera."""
        rows = []
        for camera in np.unique(np.concatenate([self.query.camids, self.gallery.camids])).tolist():
            own_Q, here_G = self.query.camids == camera, self.gallery.camids == camera
            found = self.positives_Q[own_Q & (self.positives_Q > 0)]
            mean = f"{found.mean():.1f}" if found.size else "-"
            junk = np.count_nonzero(here_G & (self.gallery.pids == JUNK_PID))
            distractors = np.count_nonzero(here_G & (self.gallery.pids == DISTRACTOR_PID))
            queries = int(own_Q.sum())
            rows.append([camera, queries, queries - found.size, mean, int(here_G.sum()), junk, distractors])
        return ("camera", "queries", "without positive", "positives", "gallery", "junk", "distractors"), rows


def explain_protocol(protocol: Protocol, table: Rows, lengths_N: Integers, query_rows_Q: Integers) -> Explained:
    """Apply a protocol to the test tracklets and count what it keeps.

    `table` holds the labels (N,), `lengths_N` the frames (N,), `query_rows_Q` the rows that are queries (Q,). Raises
    ConfigError as `select`, and for a protocol that needs clothes labels when there are none.
    """
    queries, rows = select(protocol, table.pids, lengths_N, query_rows_Q)
    query, gallery = table.part(queries), table.part(rows)
    judged = JudgedRows(query, gallery, protocol)
    positives, reasons = [], []
    for number, row in enumerate(queries.tolist()):
        ranked_P, left_out_P = judged.relevant(number)
        positives.append(len(ranked_P))
        others_P = left_out_P[rows[left_out_P] != row]
        reasons.append(FOUND if len(ranked_P) else _why(protocol, query, gallery, number, others_P))
    too_short = len(query_rows_Q) - len(queries)
    return Explained(protocol, query, gallery, too_short, np.array(positives, np.int64), reasons)


def _why(protocol: Protocol, query: Rows, gallery: Rows, number: int, others_P: NDArray[np.int64]) -> str:
    """Return the reason why no gallery row of the query's identity is ranked.

    others_P: its rows without the query itself.
    """
    if query.pids[number] == JUNK_PID:
        return "the query is junk itself"
    if protocol.ignore_same_camera and others_P.size:
        others_P = others_P[gallery.camids[others_P] != query.camids[number]]
        if not others_P.size:
            return "its identity only in its own camera"
    if not others_P.size:
        return "its identity not in the gallery"
    assert query.clothes is not None, "what else could leave them out"
    assert gallery.clothes is not None
    worn = gallery.clothes[others_P]
    if query.clothes[number] < 0 or (worn < 0).any():
        return "clothes unknown"
    return f"its identity only in {'the same' if protocol.clothes == 'other' else 'other'} clothes"
