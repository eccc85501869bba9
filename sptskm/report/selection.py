"""Selection of the queries that a report shows, and of the results shown for each.

Legend: Q queries, G gallery rows.
"""

from collections import Counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sptskm.evaluation import not_ranked
from sptskm.evaluation.protocols import Integers
from sptskm.evaluation.results import Ranking, Results, title_of
from sptskm.report.ranked import RESULTS_SHOWN, Outcome, Ranked, Result

EACH: Final = 3  # queries of each kind
DISPUTED: Final = 2  # queries of each way to disagree
ASIDE: Final = 2  # results of a query that are shown though they are not ranked


def first_results(results: Results, ranking: Ranking, q: int) -> list[Result]:
    """Return a query's nearest tracklets without the query itself; at most two of them are rows that are not ranked."""
    left_out_G = not_ranked(results.test.query, q, results.test.gallery, results.test.protocol)
    itself_G = left_out_G & (results.gallery_rows == results.query_rows[q])
    others = [one for one in results.rankings if one is not ranking and one.name != "reranked"]
    found: list[Result] = []
    rank = aside = 0
    for g in np.argsort(ranking.distance_QG[q], kind="stable").tolist():
        if itself_G[g] or (left_out_G[g] and aside == ASIDE):
            continue
        rank, aside = (rank, aside + 1) if left_out_G[g] else (rank + 1, aside)
        right = results.test.gallery.pids[g] == results.test.query.pids[q]
        distances = dict(pair for one in (ranking, *others) if (pair := told(results, one, q, g)))
        outcome: Outcome = "junk" if left_out_G[g] else "right" if right else "wrong"
        found.append(Result(int(results.gallery_rows[g]), outcome, 0 if left_out_G[g] else rank, distances))
        if len(found) == RESULTS_SHOWN:
            break
    return found


def told(results: Results, ranking: Ranking, q: int, g: int) -> tuple[str, float] | None:
    """Return the name and value by which a picture tells a distance.

    A sum of z-scores has no unit and may be negative, so that the probability of one person (at even odds) is told
    where held-out pairs have taught it, and else nothing: the rank says enough.
    """
    name, fusion = title_of(ranking.name), results.fusion
    if ranking.name != "fused" or fusion is None or fusion.normalisation != "zscore":
        return name, float(ranking.distance_QG[q, g])
    if fusion.odds and fusion.distance:
        alone = {one.name: float(one.distance_QG[q, g]) for one in results.rankings if one.name in fusion.weights}
        known = {stream: distance for stream, distance in alone.items() if np.isfinite(distance)}
        for term in fusion.distance.terms:
            if set(term.factors) == set(known):
                return f"{name}: p", float(fusion.odds.probability(np.array(term.of(known))))
    return None


def ranked(results: Results, ranking: Ranking, q: int) -> Ranked:
    """Return a query with its results and remarks, for one row of a picture."""
    ap, first = float(ranking.scores.ap_Q[q]), int(ranking.scores.first_hit_Q[q])
    remarks = [f"by {title_of(ranking.name)}: AP {100 * ap:.0f} %", f"first right: rank {first}"]
    return Ranked(int(results.query_rows[q]), remarks, first_results(results, ranking, q))


def typical(ranking: Ranking, pids_Q: Integers) -> dict[str, list[int]]:
    """Select queries with the highest, median and lowest average precision: up to three of each, none twice.

    Each kind is taken from its own third of the list, with as many different persons as possible.
    """
    used = np.flatnonzero(ranking.scores.first_hit_Q > 0)
    by_ap = used[np.argsort(-ranking.scores.ap_Q[used], kind="stable")]
    third = -(-len(by_ap) // 3)
    best, middle, worst = by_ap[:third], by_ap[third : max(third, len(by_ap) - third)], by_ap[third:][-third:]
    from_middle = np.argsort(np.abs(np.arange(len(middle)) - len(middle) // 2), kind="stable")
    kinds = {"best": best, "median": middle[from_middle], "worst": worst[::-1]}
    found = {kind: _various(queries, pids_Q) for kind, queries in kinds.items()}
    return {kind: sorted(chosen, key=by_ap.tolist().index) for kind, chosen in found.items() if chosen}


def _various(queries: NDArray[np.int64], pids_Q: Integers) -> list[int]:
    """Select queries of as many different persons as possible: second queries come after everybody's first."""
    seen: Counter[int] = Counter()
    order = []
    for place, q in enumerate(queries.tolist()):
        order.append((seen[int(pids_Q[q])], place, q))
        seen[int(pids_Q[q])] += 1
    return [q for *_, q in sorted(order)[:EACH]]


def disputed(right: Ranking, wrong: Ranking) -> list[int]:
    """Select up to two queries that one ranking gets right at rank 1 and the other does not, largest gap first."""
    hits: list[NDArray[np.int64]] = [ranking.scores.first_hit_Q for ranking in (right, wrong)]
    apart = np.flatnonzero((hits[0] == 1) & (hits[1] > 1))
    gap = right.scores.ap_Q[apart] - wrong.scores.ap_Q[apart]
    return apart[np.argsort(-gap, kind="stable")][:DISPUTED].tolist()  # type: ignore[no-any-return]
