"""Which ranking is the result of a final job: the fused one, or that of the better stream.

Weights that a few people choose are a lottery ticket: the best on them may be worse than a stream alone on others. So
the weights are shrunk toward the better stream, by the rule of the standard error (Breiman et al., Classification and
Regression Trees, 1984, section 3.4.3, with half an error): of all weights whose mAP is within SLACK standard errors of
the highest, those that give the better stream most. The same choice is then made without the people of one group, for
each group in turn, and scored on the people who had no part in it. Only if these scores are better than the better
stream's, by a paired test over people, is the fused ranking the result. docs/fusion.md says how often that helps and
harms.

Shape suffixes: W weights, Q queries, I their identities.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.evaluation.fusion import Weights
from sptskm.evaluation.statistics import Floats, Labels, by_identity, p_better

FEWEST: Final = 8
"""Identities below which nothing is chosen: the better stream is the result."""
LEVEL: Final = 0.05
"""Largest p-value at which the fused ranking is the result."""
SLACK: Final = 0.5
"""Standard errors that a mAP may be below the highest."""
GROUPS: Final = 10
"""Groups of identities, or as many as there are identities."""
SAME: Final = 1e-12

FUSED: Final = "fused"


@dataclass(frozen=True)
class Offer:
    """The ranking that held-out identities recommend, and why."""

    weights: Weights
    """Of the fused ranking, shrunk toward the better stream."""
    better: str
    """The stream with the highest mAP."""
    gain: float
    """What fusing adds to the mAP of the better stream, for people who had no part in the choice of the weights."""
    p: float | None
    """How often chance alone adds as much; None where there are too few identities."""
    identities: int
    hedged: bool = False
    """Whether fusing is the result because neither it nor the better stream is known to be better."""

    @property
    def name(self) -> str:
        """Return the name of the ranking that is the result: "fused", or that of the better stream."""
        return FUSED if self.hedged or (self.p is not None and self.p <= LEVEL and self.gain > 0) else self.better

    def reason(self, title: str) -> str:
        """Say in a sentence which ranking is the result, and why; `title` names the better stream."""
        if self.hedged:
            return (
                f"the result is fused: no stream is shown to be better than the others on {self.identities} held-out "
                "identities, nor fusing, which is the hedge"
            )
        if self.p is None:
            return (
                f"the result is {title}, the better stream of {self.identities} held-out identities: fewer than "
                f"{FEWEST} cannot choose a fusion"
            )
        told = f"{100 * self.gain:+.1f} mAP against {title}, p {self.p:.2g}"
        if self.name == FUSED:
            return f"the result is fused: better on {self.identities} held-out identities ({told})"
        return f"the result is {title}: fused is not better on {self.identities} held-out identities ({told})"


def offer(precision_WQ: Floats, pids_Q: Labels, grid: Sequence[Weights], hedge: bool = False, seed: int = 0) -> Offer:
    """Choose between the fused ranking and that of the better stream.

    precision_WQ: average precision of every query at every weighting of the grid, NaN for skipped queries. The grid
    holds each stream alone. Every identity counts alike, however many queries it has. With `hedge`, fusing with the
    weights of the highest mAP is the result where the better stream is not better than each other one by the same test.
    `seed` draws the groups. Raises DataError when no query counts, and when a stream alone is not in the grid.
    """
    counted_Q = ~np.isnan(precision_WQ[0])
    if not counted_Q.any():
        raise DataError("no held-out query has a positive; fusion weights cannot be chosen")
    means_WI = _by_identity(precision_WQ[:, counted_Q], pids_Q[counted_Q])
    alone = {stream: _alone(grid, stream) for stream in grid[0]}
    better = max(alone, key=lambda stream: means_WI[alone[stream]].mean())  # the first of equal ones
    share_W = np.array([weights[better] for weights in grid])
    found = Offer(grid[_shrunk(means_WI, share_W)], better, 0.0, None, means_WI.shape[1])
    if found.identities >= FEWEST:
        change_I = _cross_validated(means_WI, share_W, seed) - means_WI[alone[better]]
        found = replace(found, gain=float(change_I.mean()), p=p_better(change_I, seed))
    ahead = [means_WI[alone[better]] - means_WI[place] for stream, place in alone.items() if stream != better]
    if hedge and found.name == better and any(p_better(ahead_I, seed) > LEVEL for ahead_I in ahead):
        found = replace(found, weights=grid[int(means_WI.mean(axis=1).argmax())], hedged=True)
    return found


def _alone(grid: Sequence[Weights], stream: str) -> int:
    """Return the place of a stream alone in the grid."""
    for place, weights in enumerate(grid):
        if weights[stream] == max(weights.values()) == 1.0:
            return place
    raise DataError(f"the grid of fusion weights lacks {stream} alone")


def _by_identity(precision_WQ: Floats, pids_Q: Labels) -> Floats:
    """Return the mean over the queries of each identity (W, I)."""
    return np.stack([np.divide(*by_identity(precision_Q, pids_Q)) for precision_Q in precision_WQ])


def _shrunk(means_WI: Floats, share_W: NDArray[np.float64]) -> int:
    """Return the place of the weights that give the better stream most, among those hardly below the best."""
    mean_W, identities = means_WI.mean(axis=1), means_WI.shape[1]
    below_WI = means_WI[mean_W.argmax()] - means_WI
    error_W = below_WI.std(axis=1, ddof=1) / np.sqrt(identities) if identities > 1 else np.zeros(len(mean_W))
    near_W = below_WI.mean(axis=1) <= SLACK * error_W + SAME
    most = share_W[near_W].max()
    candidates: list[int] = np.flatnonzero(near_W & (share_W >= most - SAME)).tolist()
    return max(candidates, key=lambda place: float(mean_W[place]))


def _cross_validated(means_WI: Floats, share_W: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return the score of each identity (I,) with the weights that the other groups choose."""
    identities = means_WI.shape[1]
    rng = np.random.default_rng([seed, 0x0FFE])
    group_I = rng.permutation(np.arange(identities) % min(GROUPS, identities))
    found_I = np.empty(identities)
    for group in np.unique(group_I):
        own_I = group_I == group
        found_I[own_I] = means_WI[_shrunk(means_WI[:, ~own_I], share_W), own_I]
    return found_I
