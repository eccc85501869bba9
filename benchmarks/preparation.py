"""Measure the cost of making masks and skeletons, and their quality on generated walkers with known truth.

    python benchmarks/preparation.py                     # BlazePose and GrabCut: speed, quality, processes
    python benchmarks/preparation.py --networks          # JPPNet and pose-hg-3d as well: speed alone, random weights

BlazePose's weights come from the cache (`sptskm weights blazepose`). One thread computes, as in `sptskm prepare`, which
has a process for each core. Joints are judged after the best similarity transform (PA-MPJPE: mean distance in mm at a
stature of 1.7 m; PCK: share of joints within 150 mm).
"""

import argparse
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sptskm.common.console import table as text_table
from sptskm.config import ConfigError
from sptskm.data import bilevel
from sptskm.data.skeletons import EDGE_TOTAL, EDGES
from sptskm.models import JPPNet, PoseHG3D
from sptskm.preparation.blazepose import Runtime, find_person, open_network
from sptskm.preparation.grabcut import body_prior, person_mask
from sptskm.preparation.parsing import FAST, PUBLISHED, parse_frames, place_model
from sptskm.preparation.pose import estimate_skeletons
from sptskm.preparation.weights_cache import blazepose_weights
from sptskm.synthetic import DEMO
from sptskm.synthetic.casting import cast
from sptskm.synthetic.filming import film
from sptskm.synthetic.scenes import build_camera

MARS_FRAMES = 1_191_003
SIZE = (256, 128)
HEIGHTS = (256, 128, 64, 48)
STATURE_MM, NEAR_MM = 1700.0, 150.0
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Sample = tuple[Bytes, Bytes, Floats, Floats]
"""Frame (blue first), true mask, true joints (14, 3) in metres, joints of the generator's simulated estimator."""


def drawn(count: int, seed: int) -> list[Sample]:
    """Film `count` training walkers and take a frame of each."""
    rng, found = np.random.default_rng(seed), []
    roles = cast(DEMO, "train", seed)
    for number in rng.choice(len(roles), count, replace=count > len(roles)):
        role = roles[int(number)]
        footage = film(role.walker, role.outfit, build_camera(role.camid, seed), 8, "none", rng)
        frame = cv2.imdecode(np.frombuffer(footage.frames[4], np.uint8), cv2.IMREAD_COLOR)
        mask = bilevel.decode(footage.masks[4])
        if mask is not None and not np.isnan(footage.skeletons[4]).any():
            found.append((np.asarray(frame, np.uint8), mask, footage.joints[4], footage.skeletons[4, :, :3]))
    return found


def overlap(mask_HW: Bytes, true_HW: Bytes) -> float:
    """Return the intersection over union."""
    both, either = (mask_HW > 0) & (true_HW > 0), (mask_HW > 0) | (true_HW > 0)
    return float(both.sum() / max(either.sum(), 1))


def distances_mm(found_V3: Floats, true_V3: Floats) -> Floats:
    """Return how far (V,) joints lie from the true ones after the best similarity transform, at STATURE_MM."""
    ends = np.array(EDGES)
    stature = np.linalg.norm(true_V3[ends[:, 0]] - true_V3[ends[:, 1]], axis=1).sum() / EDGE_TOTAL
    found, true = found_V3 - found_V3.mean(axis=0), true_V3 - true_V3.mean(axis=0)
    u, spread, vt = np.linalg.svd(found.T @ true)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    scale = (spread * sign).sum() / (found**2).sum()
    aligned = scale * found @ (u * sign) @ vt
    return np.asarray(np.linalg.norm(aligned - true, axis=1) * STATURE_MM / stature)


def quality(samples: list[Sample], network: Runtime) -> str:
    """Compare masks and joints with the true ones."""
    persons = [find_person(network, frame) for frame, *_ in samples]
    found = [(person, true) for person, (_, _, true, _) in zip(persons, samples, strict=True)]
    seen = [(person.skeleton_V4[:, :3], true) for person, true in found if not np.isnan(person.skeleton_V4).any()]
    masks = {
        "the prior of GrabCut": [body_prior(*mask.shape) for _, mask, *_ in samples],
        "GrabCut": [person_mask(np.ascontiguousarray(frame)) for frame, *_ in samples],
        "BlazePose": [person.mask_HW for person in persons],
    }
    simulated = [(estimated, true) for _, _, true, estimated in samples]
    rows = [[name, *_overlaps(own, samples), "-", "-"] for name, own in masks.items()]
    rows[-1][3:] = _errors(seen)
    rows.append(["simulated estimator", "-", "-", *_errors(simulated)])
    head = [f"{len(samples)} frames, {len(seen)} with a skeleton", "IoU mean", "median", "PA-MPJPE mm", "PCK"]
    by_height = ", ".join(f"{height}: {_at_height(samples, network, height):.3f}" for height in HEIGHTS)
    return f"{text_table(head, rows)}\nBlazePose's mean IoU by rows of the crop: {by_height}"


def _overlaps(masks: Iterable[Bytes], samples: list[Sample]) -> list[str]:
    values = [overlap(mask, true) for mask, (_, true, *_) in zip(masks, samples, strict=True)]
    return [f"{np.mean(values):.3f}", f"{np.median(values):.3f}"]


def _errors(pairs: Iterable[tuple[NDArray[Any], Floats]]) -> list[str]:
    values = np.concatenate([distances_mm(found.astype(np.float64), true) for found, true in pairs])
    return [f"{values.mean():.0f}", f"{(values < NEAR_MM).mean():.3f}"]


def _at_height(samples: list[Sample], network: Runtime, height: int) -> float:
    values = []
    for frame, mask, *_ in samples:
        size = round(frame.shape[1] * height / len(frame)), height
        small = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
        found = cv2.resize(find_person(network, small).mask_HW, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
        values.append(overlap(np.where(found > 127, 255, 0).astype(np.uint8), mask))
    return float(np.mean(values))


def seconds(work: Callable[[Bytes], object], frames_NHW3: Bytes, device: torch.device) -> float:
    """Return the seconds per frame, after one frame that does not count."""
    work(frames_NHW3[:1])
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work(frames_NHW3)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(frames_NHW3)


def speed(frames_NHW3: Bytes, works: dict[str, Callable[[Bytes], object]], device: torch.device) -> str:
    """Time each way on the same frames."""
    rows = []
    for name, work in works.items():
        each = seconds(work, frames_NHW3, device)
        rows.append([name, f"{1 / each:.1f}", f"{1000 * each:.0f}", f"{each * MARS_FRAMES / 3600:.0f}"])
    return text_table([f"{SIZE[0]} x {SIZE[1]} frames on {device}", "frames/s", "ms/frame", "hours for MARS"], rows)


def _both(frames_NHW3: Bytes, network: Runtime) -> None:
    for frame in frames_NHW3:
        find_person(network, frame)


def _with_engine(engine: str, file: Path, frames_NHW3: Bytes) -> float:
    """Return this process's seconds for all frames."""
    network = open_network(file, engine)
    _both(frames_NHW3[:1], network)
    start = time.perf_counter()
    _both(frames_NHW3, network)
    return time.perf_counter() - start


def scaling(engine: str, file: Path, frames_NHW3: Bytes, most: int) -> str:
    """Return frames per second of 1, 2, ... processes at once."""
    rates = {}
    for count in (c for c in (1, 2, 4, 8, 16) if c <= most):
        with ProcessPoolExecutor(count) as pool:
            spent = list(pool.map(partial(_with_engine, engine, file), [frames_NHW3] * count))
        rates[count] = count * len(frames_NHW3) / max(spent)
    return f"{engine}: " + ", ".join(f"{n} processes {rate:.0f} frames/s" for n, rate in rates.items())


def engines(file: Path) -> dict[str, Runtime]:
    """Open the network in each engine that is installed."""
    found = {}
    for engine in ("opencv", "litert"):
        try:
            found[engine] = open_network(file, engine)
        except ConfigError as error:
            print(error)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=150, help="judged (default: %(default)s)")
    parser.add_argument("--timed", type=int, default=64, help="frames that are timed (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="tried at most (default: %(default)s)")
    parser.add_argument("--networks", action="store_true", help="JPPNet and pose-hg-3d: seconds a frame on a CPU")
    parser.add_argument("--published", action="store_true", help="JPPNet as published: half a minute a frame")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of --networks")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)
    file, device, cpu = blazepose_weights(), torch.device(options.device), torch.device("cpu")
    networks, samples = engines(file), drawn(options.frames, options.seed)
    frames = np.stack([cv2.resize(frame, SIZE[::-1]) for frame, *_ in samples[: options.timed]])
    works: dict[str, Callable[[Bytes], object]] = {
        f"masks and skeletons by BlazePose, {engine}": partial(_both, network=network)
        for engine, network in networks.items()
    }
    works["masks by GrabCut"] = lambda some: [person_mask(frame) for frame in some]
    print(speed(frames, works, cpu), flush=True)
    for engine in networks:
        print(scaling(engine, file, frames, options.processes), flush=True)
    print(quality(samples, networks["opencv"]), flush=True)
    if options.networks or options.published:
        print(speed(frames[:8], _networks(device, options.published), device))


def _networks(device: torch.device, published: bool) -> dict[str, Callable[[Bytes], object]]:
    """Return the published networks at full size with random weights, which cost the same."""
    parsing = place_model(JPPNet(), device, torch.float16 if device.type == "cuda" else torch.float32).eval()
    pose = PoseHG3D().to(device).eval()
    works: dict[str, Callable[[Bytes], object]] = {
        "masks by JPPNet, one scale": lambda some: parse_frames(some, parsing, FAST),
        "skeletons by pose-hg-3d": lambda some: estimate_skeletons(some, pose),
        "the same, mirrored as well": lambda some: estimate_skeletons(some, pose, flip=True),
    }
    if published:
        works = {"masks by JPPNet as published": lambda some: parse_frames(some, parsing, PUBLISHED), **works}
    return works


if __name__ == "__main__":
    main()
