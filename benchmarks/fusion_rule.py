"""Measure how often the rule of docs/fusion.md helps and harms, on generated embeddings of streams of known quality.

    python benchmarks/fusion_rule.py --people 12 --draws 100

A stream sees a person as a point of 24 numbers, drawn once; each camera (other clothes) moves it, and each of two
tracklets a camera has noise, louder for some people than for others. Embeddings have length 1. The quality of a stream
is the spread of the points: 0 is noise. The people who choose lie in folds that are ranked apart, as with
`final.folds`. The networks of the folds trained on fewer people than those that are used: their quality is that of the
stream times a share that is drawn once for each stream, from --weakest to 1, and up to a tenth more or less in each
fold. 30 others are ranked by what was chosen. A cell is the mean change of mAP against the stream that is better on
these 30, the share of draws in which it is more than half a point worse, the worst one, and the share in which a fused
ranking is the result.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from sptskm.evaluation import PROTOCOLS, Features, Part, Rows, Weights, choose, evaluate, fuse

STREAMS = {
    "strong, noise": (0.75, 0.0),
    "strong, weak": (0.75, 0.35),
    "strong, medium": (0.75, 0.55),
    "two alike": (0.6, 0.6),
    "strong, medium, weak": (0.75, 0.55, 0.35),
    "two alike, noise": (0.65, 0.65, 0.0),
    "strong, noise, noise": (0.75, 0.0, 0.0),
    "strong, weak, weak": (0.75, 0.35, 0.35),
    "three alike": (0.5, 0.5, 0.5),
}
NUMBERS, CAMERAS, TRACKLETS, TESTED = 24, 4, 2, 30
PROTOCOL = PROTOCOLS["mars-standard"]
RULES = ("better stream", "fused", "the rule", "the rule with a hedge")


def main() -> None:
    """Print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--people", type=int, default=12)
    options.add_argument("--folds", type=int, default=4)
    options.add_argument("--weakest", type=float, default=0.5)
    options.add_argument("--draws", type=int, default=100)
    chosen = options.parse_args()
    print(f"| {chosen.people} people | {' | '.join(RULES)} |\n|{'---|' * (len(RULES) + 1)}")
    for number, (name, qualities) in enumerate(STREAMS.items()):
        seeds = range(chosen.draws)
        drawn = [draw(np.random.default_rng([seed, number]), qualities, chosen) for seed in seeds]
        cells = [told(*zip(*(found[rule] for found in drawn), strict=True)) for rule in RULES]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def told(change: Sequence[float], fused: Sequence[bool]) -> str:
    """Return a cell of the table."""
    points = 100 * np.array(change)
    return f"{points.mean():+.1f}, {(points < -0.5).mean():.0%}, {points.min():+.0f}, {np.mean(fused):.0%}"


def draw(
    rng: np.random.Generator, qualities: Sequence[float], chosen: argparse.Namespace
) -> dict[str, tuple[float, bool]]:
    """Return what each rule changes on other people, and whether its result is fused."""
    share = rng.uniform(chosen.weakest, 1, len(qualities))
    parts = []
    for pids in np.array_split(np.arange(chosen.people), chosen.folds):
        own = np.minimum(share * rng.uniform(0.9, 1.1, len(qualities)), 1) * qualities
        parts.append(evidence(rng, own, len(pids), int(pids[0])))
    plain, hedged = (choose(parts, ["zscore"], step=1, hedge=hedge).offer for hedge in (False, True))
    test = evidence(rng, qualities, TESTED, chosen.people)
    streams = test.distances("zscore")
    alone = {name: {other: float(other == name) for other in streams} for name in streams}
    offers = {RULES[0]: alone[plain.better], RULES[1]: plain.weights}
    for rule, one in ((RULES[2], plain), (RULES[3], hedged)):
        offers[rule] = one.weights if one.name == "fused" else alone[one.name]

    def mAP(weights: Weights) -> float:
        return evaluate(fuse(streams, weights), test.query, test.gallery, PROTOCOL).mAP

    best = max(mAP(weights) for weights in alone.values())
    return {rule: (mAP(weights) - best, max(weights.values()) < 1) for rule, weights in offers.items()}


def evidence(rng: np.random.Generator, qualities: Sequence[float], people: int, first: int) -> Part:
    """Draw the tracklets of some people, each a query and in the gallery."""
    count = CAMERAS * TRACKLETS
    person_N, camera_N = np.repeat(np.arange(people), count), np.tile(np.repeat(np.arange(CAMERAS), TRACKLETS), people)
    found, rows = [], np.arange(len(person_N))
    for number, quality in enumerate(qualities):
        loud_I = np.exp(rng.normal(0, 0.3, people))
        moved_ICD = 0.5 * rng.normal(size=(people, CAMERAS, NUMBERS))
        points_ID = quality * rng.normal(size=(people, NUMBERS))
        noise_ND = moved_ICD[person_N, camera_N] + rng.normal(size=(len(person_N), NUMBERS))
        features_ND = points_ID[person_N] + loud_I[person_N, None] * noise_ND
        features_ND /= np.linalg.norm(features_ND, axis=1, keepdims=True)
        known_N = np.ones(len(rows), bool)
        found.append(Features(features_ND.astype(np.float32), rows.astype(str), known_N, "", str(number)))
    labels = Rows(first + person_N + 1, camera_N)
    return Part(rows, rows, labels, labels, PROTOCOL, found)


if __name__ == "__main__":
    main()
