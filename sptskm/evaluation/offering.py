"""Which ranking is the result of a final job: the fused one, or that of the better stream.

Weights that a few people choose may be bad for others. So they are chosen again without the people of one group, for
each group in turn, and scored on the people who had no part in it. Only if these scores are better than the better
stream's, by a paired test over people, is the fused ranking the result. The better stream is a choice as well, and the
larger gamble where it is made by few people: with a hedge, fusing is the result unless that stream is shown to be
better. docs/fusion.md says how often either helps and harms.

Shape suffixes: I identities.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from sptskm.evaluation.fusion import Weights
from sptskm.evaluation.statistics import Floats, p_better
from sptskm.evaluation.weighing import Gaps

FEWEST: Final = 8
"""Identities below which fusing is not tested: the better stream is the result, or with a hedge the fused ranking."""
LEVEL: Final = 0.05
"""Largest p-value at which a ranking is shown to be better."""
GROUPS: Final = 10
"""Groups of identities, or as many as there are identities."""

FUSED: Final = "fused"


@dataclass(frozen=True)
class Offer:
    """The ranking that held-out identities recommend, and why."""

    weights: Weights
    """Of the fused ranking."""
    better: str
    """The stream with the highest mAP."""
    gain: float
    """What fusing adds to the mAP of the better stream, for people who had no part in the choice of the weights."""
    p: float | None
    """How often chance alone adds as much; None where there are too few identities."""
    identities: int
    hedged: bool = False
    """Whether fusing is the result because neither it nor the better stream is shown to be better."""

    @property
    def name(self) -> str:
        """Return the name of the ranking that is the result: "fused", or that of the better stream."""
        return FUSED if self.hedged or (self.p is not None and self.p <= LEVEL and self.gain > 0) else self.better

    def reason(self, title: str) -> str:
        """Say in a sentence which ranking is the result, and why; `title` names the better stream."""
        who = f"{self.identities} held-out identities"
        if self.p is None:
            few = f"fewer than {FEWEST} cannot choose a fusion"
            if self.hedged:
                return f"the result is fused, as a hedge: of {who}, {few} nor the better stream"
            return f"the result is {title}, the better stream of {who}: {few}"
        told = f"{100 * self.gain:+.1f} mAP against {title}, p {self.p:.2g}"
        if self.hedged:
            return f"the result is fused, as a hedge: neither it nor {title} is shown to be better on {who} ({told})"
        if self.name == FUSED:
            return f"the result is fused: better on {who} ({told})"
        return f"the result is {title}: fused is not better on {who} ({told})"


def offer(alone: Mapping[str, Floats], fused_I: Floats, weights: Weights, hedge: bool = False) -> Offer:
    """Choose between the fused ranking and that of the better stream.

    `alone` holds each stream's mean average precision of every identity (I,); fused_I that of the fused ranking, with
    weights in which the identity had no part. Every identity counts alike. With `hedge`, fusing is the result unless
    the better stream is better by the same test.
    """
    better = max(alone, key=lambda stream: alone[stream].mean())  # the first of equal ones
    change_I = fused_I - alone[better]
    found = Offer(weights, better, 0.0, None, len(change_I))
    if found.identities >= FEWEST:
        found = replace(found, gain=float(change_I.mean()), p=p_better(change_I))
    if hedge and found.name == better and weights[better] < 1 and p_better(-change_I) > LEVEL:
        found = replace(found, hedged=True)
    return found


def cross_validated(gaps: Gaps, scores: Callable[[Weights], Floats]) -> Floats:
    """Return the score of each identity (I,) with the weights that the other groups of identities choose.

    `scores` gives those of all identities with some weights. A single identity chooses for itself.
    """
    identities = gaps.gap_SI.shape[1]
    if identities < 2:
        return scores(gaps.weights())
    rng = np.random.default_rng([0, 0x0FFE])
    group_I = rng.permutation(np.arange(identities) % min(GROUPS, identities))
    found_I = np.empty(identities)
    for group in np.unique(group_I):
        own_I = group_I == group
        found_I[own_I] = scores(gaps.weights(~own_I))[own_I]
    return found_I
