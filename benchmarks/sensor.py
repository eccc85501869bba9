"""Generate walks as a depth sensor records them: few people, several walks each, normal and altered gaits, metres.

The sensor's error has four parts: noise that drifts over frames, an offset of every joint that stays the same for one
walk (clothes, view), an offset that every walk of one kind has (arms held up and bent knees mislead the sensor alike),
and a scale that differs by a percent between walks. So bone lengths change by frame and by walk, as a sensor's do.
Legend: F frames, V = 14 joints, 3 = x right, y down, z away.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sptskm.synthetic.walkers import Body, GaitStyle, draw_walker, on_another_day, pose

Floats = NDArray[np.float64]
KINDS = ("normal", "normal", "slow", "fast", "arms still", "limp")
RATE = 30.0
NOISE, DRIFT = 0.012, 0.6  # metres; share of a frame's error that the next one keeps
OFFSET, KIND_OFFSET, SCALE = 0.016, 0.012, 0.01
DIFFICULTY = np.array([1.0, 0.7, 0.9, 1.2, 1.6, 0.9, 1.2, 1.6, 1.1, 1.1, 1.5, 1.1, 1.1, 1.5])


class Walk(NamedTuple):
    """A recorded walk: number of the person, of the walk and its kind, and skeletons (F, 14, 4) in metres."""

    person: int
    number: int
    kind: str
    skeletons_FV4: Floats


def altered(gait: GaitStyle, kind: str, rng: np.random.Generator) -> GaitStyle:
    """Return a person's gait walked in another way; each person alters it by another amount."""
    much = rng.uniform(0.7, 1.3)
    if kind == "slow":
        return replace(gait, cycle=gait.cycle * (1 + 0.35 * much), stride=gait.stride * (1 - 0.25 * much))
    if kind == "fast":
        changed = replace(gait, cycle=gait.cycle * (1 - 0.2 * much), stride=gait.stride * (1 + 0.2 * much))
        return replace(changed, arm_swing=gait.arm_swing * (1 + 0.3 * much), elbow=gait.elbow + 0.4 * much)
    if kind == "arms still":
        return replace(gait, arm_swing=0.05, elbow=gait.elbow + 0.9 * much, arm_offset=gait.arm_offset + 0.2 * much)
    if kind == "limp":
        one_side = rng.choice([-1, 1]) * 0.3 * much
        return replace(gait, leg_asymmetry=gait.leg_asymmetry + one_side, sway=gait.sway + 0.06 * much)
    return gait


def walks(seed: int, people: int = 28, kinds: tuple[str, ...] = KINDS, noise: float = 1.0) -> Iterator[Walk]:
    """Yield all walks of `people` people; `noise` is a factor of all errors of the sensor."""
    shared = np.random.default_rng([seed, 0])
    of_kind = {kind: shared.normal(0, KIND_OFFSET, (14, 3)) for kind in sorted(set(kinds))}
    for person in range(people):
        rng = np.random.default_rng([seed, 1, person])
        walker = draw_walker(rng)
        for number, kind in enumerate(kinds):
            gait = altered(on_another_day(walker.gait, 0.06, rng), kind, rng)
            yield Walk(person, number, kind, _recorded(walker.body, gait, of_kind[kind], noise, rng))


def _recorded(body: Body, gait: GaitStyle, kind_V3: Floats, noise: float, rng: np.random.Generator) -> Floats:
    frames = int(rng.integers(70, 130))
    phase_F = rng.uniform(0, 2 * np.pi) + 2 * np.pi / gait.cycle * np.cumsum(1 + rng.normal(0, 0.03, frames))
    points = pose(body, gait, phase_F)[:, :14]
    error = rng.normal(0, NOISE, points.shape)
    for frame in range(1, frames):
        error[frame] = DRIFT * error[frame - 1] + np.sqrt(1 - DRIFT**2) * error[frame]
    error = (error + rng.normal(0, OFFSET, (14, 3)) + kind_V3) * DIFFICULTY[:, None]
    points = (points + noise * error) * (1 + noise * rng.normal(0, SCALE))
    turn = rng.uniform(-0.5, 0.5)
    x, y, z = np.moveaxis(points, 2, 0)
    points = np.stack([x * np.cos(turn) + z * np.sin(turn), y, z * np.cos(turn) - x * np.sin(turn)], axis=2)
    points += np.array([0.0, 0.0, 3.0]) + np.linspace(0, -1.5, frames)[:, None, None] * [0.0, 0.0, 1.0]
    return np.concatenate([points, np.ones((frames, 14, 1))], axis=2)


def split_of(walk: Walk, tested: set[int]) -> str:
    """Return train, or for people to test gallery (their first walk) or query."""
    return "train" if walk.person not in tested else "gallery" if walk.number == 0 else "query"


def write(folder: Path, seed: int, people: int = 28, noise: float = 1.0) -> Path:
    """Write the walks as .npy files and a manifest in which half of the people are for test; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    tested = set(np.random.default_rng([seed, 2]).permutation(people)[: people // 2].tolist())
    path = folder / "walks.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["tracklet", "pid", "camera", "split", "skeleton", "clothes", "fps"])
        for walk in walks(seed, people, noise=noise):
            name = f"p{walk.person:02d}-{walk.number}"
            np.save(folder / f"{name}.npy", walk.skeletons_FV4.astype(np.float32))
            split, kind = split_of(walk, tested), "normal" if walk.kind == "normal" else "altered"
            table.writerow([name, f"p{walk.person:02d}", f"w{walk.number}", split, f"{name}.npy", kind, RATE])
    return path


def main() -> None:
    """Write one data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--people", type=int, default=28)
    parser.add_argument("--noise", type=float, default=1.0)
    options = parser.parse_args()
    print(write(options.folder, options.seed, options.people, options.noise))


if __name__ == "__main__":
    main()
