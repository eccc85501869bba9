"""Build the methods that make masks and skeletons; read the networks' weights and place them on a device."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sptskm.config import ConfigError
from sptskm.data.derived import Made
from sptskm.models import open_jppnet, open_posehg3d
from sptskm.preparation.blazepose import find_person, open_network
from sptskm.preparation.command import Wanted
from sptskm.preparation.formats import write_mask, write_skeleton
from sptskm.preparation.grabcut import person_mask
from sptskm.preparation.parsing import FAST, PUBLISHED, mask_of, parse_frames, place_model
from sptskm.preparation.pose import estimate_skeletons
from sptskm.preparation.weights_cache import SHA256, blazepose_weights
from sptskm.preparation.work import Maker, PrecisionName, precision_of

Bytes = NDArray[np.uint8]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Around = Sequence[Bytes | None]
Computed = Iterator[dict[Made, NDArray[Any]]]


def method_of(wanted: Wanted, shard: int) -> Maker:
    """Return the method that makes a shard's masks and skeletons.

    Raises ConfigError without weights, for a missing GPU and for half precision without a GPU, and the errors of
    reading weights.
    """
    if wanted.method == "grabcut":
        return Maker({"masks": write_mask}, _grabcut, {"method": "grabcut"})
    if wanted.method == "blazepose":
        return _blazepose(wanted.kinds, wanted.engine, wanted.precision)
    if wanted.weights is None:
        raise ConfigError(f"{wanted.method} is a network, and its --weights are missing")
    device = device_of(wanted.device, shard)
    precision = precision_of(wanted.method, wanted.precision, gpu=device.type != "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)  # the last bits depend on it, and shards use the other cores better
    if wanted.method == "jppnet":
        return _parsing(wanted.weights, wanted.fast, device, precision)
    return _pose(wanted.weights, wanted.flip, device, precision)


def device_of(named: str, shard: int) -> torch.device:
    """Return the named device, else a GPU (each shard takes the next one), else the CPU.

    Raises ConfigError for a GPU that does not exist.
    """
    device = torch.device(named or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count()
    index = shard % max(count, 1) if device.index is None else device.index
    if index >= count:
        raise ConfigError(f"--device is {named}, wanted one of the {count} GPUs that are seen here, or cpu")
    return torch.device("cuda", index)


def _grabcut(frames_NHW3: Bytes, _around: Around) -> Computed:
    for frame in frames_NHW3:
        yield {"masks": person_mask(frame)}


def _blazepose(kinds: tuple[Made, ...], engine: str, precision: PrecisionName) -> Maker:
    """Return BlazePose, which always computes on a CPU in float32."""
    if precision not in ("auto", "float32"):
        raise ConfigError(f"--precision is {precision} with blazepose, which computes in float32 on a CPU")
    network = open_network(blazepose_weights(), engine)
    settings = {"method": "blazepose", "weights": SHA256[:16], "precision": "float32", "engine": engine}
    writers: dict[Made, Callable[[Path, NDArray[Any]], None]] = {"masks": write_mask, "skeletons": write_skeleton}

    def compute(frames_NHW3: Bytes, around: Around) -> Computed:
        for frame, square in zip(frames_NHW3, around, strict=True):
            square = None if square is None else np.ascontiguousarray(square)
            person = find_person(network, np.ascontiguousarray(frame), square)
            yield {"masks": person.mask_HW, "skeletons": person.skeleton_V4}

    return Maker({made: writers[made] for made in kinds}, compute, settings, looks_around=True)


def _parsing(weights: Path, fast: bool, device: torch.device, precision: PrecisionName) -> Maker:
    network, views = open_jppnet(weights), FAST if fast else PUBLISHED
    settings = {"method": "jppnet", "weights": digest_weights(network), "fast": fast, "precision": precision}
    model = place_model(network, device, DTYPES[precision]).eval()

    def compute(frames_NHW3: Bytes, _around: Around) -> Computed:
        for mask in mask_of(parse_frames(frames_NHW3, model, views)):
            yield {"masks": mask}

    return Maker({"masks": write_mask}, compute, settings)


def _pose(weights: Path, flip: bool, device: torch.device, precision: PrecisionName) -> Maker:
    network = open_posehg3d(weights)
    settings = {"method": "pose-hg-3d", "weights": digest_weights(network), "flip": flip, "precision": precision}
    model = place_model(network, device, DTYPES[precision]).eval()

    def compute(frames_NHW3: Bytes, _around: Around) -> Computed:
        for skeleton in estimate_skeletons(frames_NHW3, model, flip=flip):
            yield {"skeletons": skeleton}

    return Maker({"skeletons": write_skeleton}, compute, settings)


def digest_weights(model: torch.nn.Module) -> str:
    """Hash all weights, before they are rounded for a device; the file they came from does not matter."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(value.float().cpu().contiguous().numpy().data)
    return found.hexdigest()[:16]
