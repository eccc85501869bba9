"""Generate walks as a depth sensor records them, and compare SMIN with nearest neighbours on the lengths of bones.

    python benchmarks/sensor.py data/sensor --seed 1
    python benchmarks/sensor.py data/sensor --seeds 41 42 43 --config configs/strong

Few people walk several times each, with normal and altered gaits. The first form writes a manifest with skeletons in
metres; the second writes one for each seed, trains SMIN on it by a recipe as it is, and prints rank-1 of normal and of
altered gaits, with the gallery of one normal walk of each person to test, beside those of the baselines.

The sensor's error has four parts: noise that drifts over frames, an offset of every joint that stays the same for one
walk (clothes, view), an offset that every walk of one kind has (arms held up and bent knees mislead the sensor alike),
and a scale that differs by a percent between walks. So bone lengths change by frame and by walk, as a sensor's do.
`noise` is a factor of all four; `change` says how far a person's gait differs from walk to walk and how much it is
altered. The defaults give bone lengths about the rank-1 that they have on recordings of 28 people (81 % and 76 %).
Legend: N walks, Q queries, G gallery, D numbers of a walk, F frames, V = 14 joints, 3 = x right, y down, z away.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sptskm.data.skeletons import EDGES
from sptskm.synthetic.walkers import Body, GaitStyle, draw_walker, on_another_day, pose

Floats = NDArray[np.float64]
KINDS = ("normal", "normal", "slow", "fast", "arms still", "limp")
RATE = 30.0
NOISE, DRIFT = 0.012, 0.6  # metres; share of a frame's error that the next one keeps
OFFSET, KIND_OFFSET, SCALE = 0.016, 0.012, 0.01
NOISE_FACTOR, CHANGE = 0.55, 2.5
DAYS = 0.06  # by which a gait differs between walks, as a share of the widths of the ranges
SCALING = ("cycle", "stride", "arm_swing")  # of a gait, which must stay positive
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


def further(gait: GaitStyle, changed: GaitStyle, factor: float) -> GaitStyle:
    """Return the gait that has moved `factor` times as far as the changed one, except in what scales."""
    pairs = {f.name: (getattr(gait, f.name), getattr(changed, f.name)) for f in fields(gait) if f.name not in SCALING}
    return replace(changed, **{name: before + (after - before) * factor for name, (before, after) in pairs.items()})


def walks(
    seed: int,
    people: int = 28,
    kinds: tuple[str, ...] = KINDS,
    noise: float = NOISE_FACTOR,
    change: float = CHANGE,
) -> Iterator[Walk]:
    """Yield all walks of `people` people; `noise` and `change` are those of the command."""
    shared = np.random.default_rng([seed, 0])
    of_kind = {kind: shared.normal(0, KIND_OFFSET, (14, 3)) for kind in sorted(set(kinds))}
    for person in range(people):
        rng = np.random.default_rng([seed, 1, person])
        walker = draw_walker(rng)
        for number, kind in enumerate(kinds):
            today = on_another_day(walker.gait, DAYS * change, rng)
            gait = further(today, altered(today, kind, rng), 1 + 0.4 * (change - 1))
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


def write(folder: Path, seed: int, people: int = 28, noise: float = NOISE_FACTOR, change: float = CHANGE) -> Path:
    """Write the walks as .npy files and a manifest in which half of the people are for test; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    tested = set(np.random.default_rng([seed, 2]).permutation(people)[: people // 2].tolist())
    path = folder / "walks.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["tracklet", "pid", "camera", "split", "skeleton", "clothes", "fps"])
        for walk in walks(seed, people, noise=noise, change=change):
            name = f"p{walk.person:02d}-{walk.number}"
            np.save(folder / f"{name}.npy", walk.skeletons_FV4.astype(np.float32))
            split, kind = split_of(walk, tested), "normal" if walk.kind == "normal" else "altered"
            table.writerow([name, f"p{walk.person:02d}", f"w{walk.number}", split, f"{name}.npy", kind, RATE])
    return path


def lengths(path: Path) -> Floats:
    """Return the median length (D,) of each bone in a file of skeletons."""
    points_FV3, (first, second) = np.load(path)[..., :3].astype(np.float64), np.array(EDGES).T
    return np.asarray(np.median(np.linalg.norm(points_FV3[:, first] - points_FV3[:, second], axis=2), axis=0))


def baselines(manifest: Path) -> dict[str, tuple[float, float]]:
    """Return rank-1 of normal and altered gaits by nearest neighbours on median lengths of bones."""
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    bones_ND = np.stack([lengths(manifest.parent / row["skeleton"]) for row in rows])
    shares_ND = bones_ND / bones_ND.sum(axis=1, keepdims=True)
    split_N = np.array([row["split"] for row in rows])
    query, gallery = (np.flatnonzero(split_N == part) for part in ("query", "gallery"))
    found = {}
    for name, values_ND in (("lengths", bones_ND), ("proportions", shares_ND)):
        training_ND = values_ND[split_N == "train"]
        standard_ND = (values_ND - training_ND.mean(axis=0)) / training_ND.std(axis=0)
        for how, features_ND in (("", values_ND), (", standardised", standard_ND)):
            distance_QG = ((features_ND[query, None] - features_ND[gallery]) ** 2).sum(axis=2)
            nearest_Q = gallery[distance_QG.argmin(axis=1)]
            hits = [rows[q]["pid"] == rows[g]["pid"] for q, g in zip(query, nearest_Q, strict=True)]
            found[f"bone {name}{how}"] = by_kind([rows[q]["clothes"] for q in query], hits)
    return found


def by_kind(kinds: Sequence[str], hits: Sequence[bool]) -> tuple[float, float]:
    """Return the shares of hits in percent among normal and among altered gaits."""
    hit_Q, normal_Q = np.array(hits, np.float64), np.array(kinds) == "normal"
    return 100 * float(hit_Q[normal_Q].mean()), 100 * float(hit_Q[~normal_Q].mean())


def smin(manifest: Path, config: Path, run: Path, overrides: Sequence[str]) -> tuple[float, float]:
    """Train SMIN by a recipe, unless the run is there, and return its rank-1 of normal and altered gaits."""
    queries = run / "final" / "queries.csv"
    if not queries.exists():
        words = ["--stream", "smin", "--config", str(config), "--run", str(run), f"data.root={manifest.absolute()}"]
        command = [sys.executable, "-m", "sptskm.cli", "local", *words, "final.protocol=torchreid", *overrides]
        subprocess.run(command, check=True, stdout=sys.stderr)
    with queries.open(newline="", encoding="utf-8") as file:
        hits = {row["tracklet"]: row["smin_first_hit"] == "1" for row in csv.DictReader(file)}
    with manifest.open(newline="", encoding="utf-8") as file:
        kinds = {row["tracklet"]: row["clothes"] for row in csv.DictReader(file)}
    return by_kind([kinds[tracklet] for tracklet in hits], list(hits.values()))


def table(found: Sequence[dict[str, tuple[float, float]]]) -> list[str]:
    """Return a table in Markdown of means and standard deviations over the seeds."""
    lines = [f"| rank-1, mean ± sd of {len(found)} seeds | normal | altered |", "|---|---|---|"]
    for name in found[0]:
        columns = zip(*(one[name] for one in found), strict=True)
        cells = [f"{mean(own):.1f} ± {stdev(own) if len(own) > 1 else 0:.1f}" for own in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Write one data set, or compare on one for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", help="compare on these")
    parser.add_argument("--people", type=int, default=28)
    parser.add_argument("--noise", type=float, default=NOISE_FACTOR)
    parser.add_argument("--change", type=float, default=CHANGE)
    parser.add_argument("--config", type=Path, default=Path("configs/strong"))
    parser.add_argument("overrides", nargs="*", help="settings for `sptskm local`")
    options = parser.parse_intermixed_args()
    difficulty = options.people, options.noise, options.change
    if options.seeds is None:
        print(write(options.folder, options.seed, *difficulty))
        return
    found = []
    for seed in options.seeds:
        manifest = write(options.folder / f"seed-{seed}", seed, *difficulty)
        own = smin(manifest, options.config, manifest.parent / "run", options.overrides)
        found.append({**baselines(manifest), "SMIN": own})
        print(seed, found[-1], flush=True)
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
