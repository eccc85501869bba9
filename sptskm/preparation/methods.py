"""The ways in which masks and skeletons are made, with the networks' weights read and placed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sptskm.config import ConfigError
from sptskm.models import open_jppnet, open_posehg3d
from sptskm.preparation.formats import write_mask, write_skeleton
from sptskm.preparation.grabcut import person_mask
from sptskm.preparation.parsing import FAST, PUBLISHED, mask_of, parse_frames, place
from sptskm.preparation.pose import estimate_skeletons
from sptskm.preparation.work import Made, Method

Bytes = NDArray[np.uint8]

WHERE = {
    "masks": "the LIP_JPPNet project publishes its checkpoint as model.ckpt-205632: give --weights PREFIX, "
    "or --grabcut to try without weights",
    "skeletons": "the pytorch-pose-hg-3d project publishes them as fusion_3d_var.pth: give --weights FILE",
}


def method_of(
    made: Made, weights: Path | None, *, grabcut: bool = False, fast: bool = False, flip: bool = False, device: str = ""
) -> Method:
    """How masks or skeletons are made. Raises ConfigError without weights, and what reading these raises."""
    if made == "masks" and grabcut:
        return Method(made, _grabcut, write_mask, {"method": "grabcut"})
    if weights is None:
        raise ConfigError(f"{made} are made by a network, and --weights is missing; {WHERE[made]}")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.type == "cpu":
        torch.set_num_threads(1)  # the last bits depend on it, and shards use the other cores better
    return _parsing(weights, fast, where) if made == "masks" else _pose(weights, flip, where)


def _grabcut(frames_NHW3: Bytes) -> Iterator[Bytes]:
    yield from (person_mask(frame) for frame in frames_NHW3)


def _parsing(weights: Path, fast: bool, device: torch.device) -> Method:
    model = place(open_jppnet(weights), device, torch.float16 if device.type == "cuda" else torch.float32).eval()
    views = FAST if fast else PUBLISHED
    settings: dict[str, Any] = {"method": "jppnet", "weights": digest(model), "fast": fast}
    return Method("masks", lambda frames: mask_of(parse_frames(frames, model, views)), write_mask, settings)


def _pose(weights: Path, flip: bool, device: torch.device) -> Method:
    model = open_posehg3d(weights).to(device).eval()
    settings: dict[str, Any] = {"method": "pose-hg-3d", "weights": digest(model), "flip": flip}
    return Method("skeletons", lambda frames: estimate_skeletons(frames, model, flip=flip), write_skeleton, settings)


def digest(model: torch.nn.Module) -> str:
    """Short hash of all weights, whatever file they were read from."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(value.float().cpu().contiguous().numpy().data)
    return found.hexdigest()[:16]
