"""The ways in which masks and skeletons are made, with the networks' weights read and placed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sptskm.config import ConfigError
from sptskm.models import open_jppnet, open_posehg3d
from sptskm.preparation.command import Wanted
from sptskm.preparation.formats import write_mask, write_skeleton
from sptskm.preparation.grabcut import person_mask
from sptskm.preparation.parsing import FAST, PUBLISHED, mask_of, parse_frames, place
from sptskm.preparation.pose import estimate_skeletons
from sptskm.preparation.work import Method, Precision, precision_of

Bytes = NDArray[np.uint8]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WHERE = {
    "masks": "the LIP_JPPNet project publishes its checkpoint as model.ckpt-205632: give --weights PREFIX, "
    "or --grabcut to try without weights",
    "skeletons": "the pytorch-pose-hg-3d project publishes them as fusion_3d_var.pth: give --weights FILE",
}


def method_of(wanted: Wanted, shard: int) -> Method:
    """How a shard's masks or skeletons are made.

    Raises ConfigError without weights, for a GPU that is not there and for half precision without one, and what
    reading weights raises.
    """
    made, weights = wanted.made, wanted.weights
    if made == "masks" and wanted.grabcut:
        return Method(made, _grabcut, write_mask, {"method": "grabcut"})
    if weights is None:
        raise ConfigError(f"{made} are made by a network, and --weights is missing; {WHERE[made]}")
    device = device_of(wanted.device, shard)
    precision = precision_of(made, wanted.precision, gpu=device.type != "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)  # the last bits depend on it, and shards use the other cores better
    if made == "masks":
        return _parsing(weights, wanted.fast, device, precision)
    return _pose(weights, wanted.flip, device, precision)


def device_of(named: str, shard: int) -> torch.device:
    """The device that was named, else one of the GPUs, of which each shard takes the next, else the CPU.

    Raises ConfigError for a GPU that is not there.
    """
    device = torch.device(named or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count()
    index = shard % max(count, 1) if device.index is None else device.index
    if index >= count:
        raise ConfigError(f"--device is {named}, wanted one of the {count} GPUs that are seen here, or cpu")
    return torch.device("cuda", index)


def _grabcut(frames_NHW3: Bytes) -> Iterator[Bytes]:
    yield from (person_mask(frame) for frame in frames_NHW3)


def _parsing(weights: Path, fast: bool, device: torch.device, precision: Precision) -> Method:
    network, views = open_jppnet(weights), FAST if fast else PUBLISHED
    settings = {"method": "jppnet", "weights": digest(network), "fast": fast, "precision": precision}
    model = place(network, device, DTYPES[precision]).eval()
    return Method("masks", lambda frames: mask_of(parse_frames(frames, model, views)), write_mask, settings)


def _pose(weights: Path, flip: bool, device: torch.device, precision: Precision) -> Method:
    network = open_posehg3d(weights)
    settings = {"method": "pose-hg-3d", "weights": digest(network), "flip": flip, "precision": precision}
    model = place(network, device, DTYPES[precision]).eval()
    return Method("skeletons", lambda frames: estimate_skeletons(frames, model, flip=flip), write_skeleton, settings)


def digest(model: torch.nn.Module) -> str:
    """Short hash of all weights, whatever file they were read from; taken before these are rounded for a device."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(value.float().cpu().contiguous().numpy().data)
    return found.hexdigest()[:16]
