"""Measure how often the rule of docs/fusion.md helps and harms, on generated embeddings of streams of known quality.

    python benchmarks/fusion_rule.py --people 12 --draws 100

A stream sees a person as a point of 24 numbers, drawn once; each camera (other clothes) moves it, and each of two
tracklets a camera has noise, louder for some people than for others. Embeddings have length 1. The quality of a stream
is the spread of the points: 0 is noise. The people who choose lie in folds of --fold people that are ranked apart, as
with `final.folds`; 30 others are ranked by what was chosen. A cell is the mean change of mAP against the stream that is
better on these 30, the share of draws in which it is more than half a point worse, the worst one, and the share in
which a fused ranking is the result.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from sptskm.evaluation import (
    PROTOCOLS,
    Distances,
    Evidence,
    Rows,
    StreamDistances,
    choose,
    evaluate,
    fuse,
    squared_distances,
)

STREAMS = {
    "strong, noise": (0.75, 0.0),
    "strong, weak": (0.75, 0.35),
    "strong, medium": (0.75, 0.55),
    "two alike": (0.6, 0.6),
    "strong, medium, weak": (0.75, 0.55, 0.35),
    "two alike, noise": (0.65, 0.65, 0.0),
    "strong, noise, noise": (0.75, 0.0, 0.0),
}
NUMBERS, CAMERAS, TRACKLETS, TESTED = 24, 4, 2, 30
PROTOCOL, STEP = PROTOCOLS["mars-standard"], 0.1
RULES = ("best weights", "the rule", "the rule with a hedge")


def main() -> None:
    """Print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--people", type=int, default=12)
    options.add_argument("--fold", type=int, default=3)
    options.add_argument("--draws", type=int, default=100)
    chosen = options.parse_args()
    print(f"| {chosen.people} people | {' | '.join(RULES)} |\n|{'---|' * (len(RULES) + 1)}")
    for number, (name, qualities) in enumerate(STREAMS.items()):
        seeds = range(chosen.draws)
        drawn = [draw(np.random.default_rng([seed, number]), qualities, chosen.people, chosen.fold) for seed in seeds]
        cells = [told(*zip(*(found[rule] for found in drawn), strict=True)) for rule in RULES]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def told(change: Sequence[float], fused: Sequence[bool]) -> str:
    """Return a cell of the table."""
    points = 100 * np.array(change)
    return f"{points.mean():+.1f}, {(points < -0.5).mean():.0%}, {points.min():+.0f}, {np.mean(fused):.0%}"


def draw(rng: np.random.Generator, qualities: Sequence[float], people: int, fold: int) -> dict[str, tuple[float, bool]]:
    """Return what each rule changes on other people, and whether its result is fused."""
    parts = [
        evidence(rng, qualities, len(pids), int(pids[0])) for pids in np.array_split(np.arange(people), people // fold)
    ]
    plain = choose(parts, PROTOCOL, ["zscore"], STEP)
    hedged = choose(parts, PROTOCOL, ["zscore"], STEP, hedge=True).offer
    test = evidence(rng, qualities, TESTED, people)
    streams = test.distances("zscore")
    alone = {name: {other: float(other == name) for other in streams} for name in streams}
    offers = {
        RULES[0]: plain.weights,
        **{
            rule: one.weights if one.name == "fused" else alone[one.name]
            for rule, one in ((RULES[1], plain.offer), (RULES[2], hedged))
        },
    }

    def mAP(weights: dict[str, float]) -> float:
        return evaluate(fuse(streams, weights), test.query, test.gallery, PROTOCOL).mAP

    best = max(mAP(weights) for weights in alone.values())
    return {rule: (mAP(weights) - best, max(weights.values()) < 1) for rule, weights in offers.items()}


def evidence(rng: np.random.Generator, qualities: Sequence[float], people: int, first: int) -> Evidence:
    """Draw the tracklets of some people, each a query and in the gallery."""
    count = CAMERAS * TRACKLETS
    person_N, camera_N = np.repeat(np.arange(people), count), np.tile(np.repeat(np.arange(CAMERAS), TRACKLETS), people)
    found = {}
    for number, quality in enumerate(qualities):
        loud_I = np.exp(rng.normal(0, 0.3, people))
        moved_ICD = 0.5 * rng.normal(size=(people, CAMERAS, NUMBERS))
        points_ID = quality * rng.normal(size=(people, NUMBERS))
        noise_ND = moved_ICD[person_N, camera_N] + rng.normal(size=(len(person_N), NUMBERS))
        features_ND = points_ID[person_N] + loud_I[person_N, None] * noise_ND
        features_ND /= np.linalg.norm(features_ND, axis=1, keepdims=True)
        valid_N = np.ones(len(features_ND), bool)
        found[str(number)] = Distances(squared_distances(features_ND, features_ND), valid_N, valid_N)
    rows, streams = Rows(first + person_N + 1, camera_N), StreamDistances(found)
    return Evidence(rows, rows, lambda _: streams)


if __name__ == "__main__":
    main()
