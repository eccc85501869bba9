"""The weight rule under which the numbers of the original code were computed, and where to find them."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sptskm.models.jppnet import JPPNet, tf_names

SHARED = Path(os.environ.get("SPTSKM_SHARED", Path(__file__).parents[3] / "shared"))

needs_shared = pytest.mark.skipif(
    not (SHARED / "oracles").is_dir(), reason=f"the original code's numbers are not at {SHARED}"
)

GAINS = (
    (r"^(img_base|mask_base)\.\d+\.\d+\.conv3\.weight$", 0.25),
    (r"^(conv|glob)_layer[12]\.layers\.[01]\.conv2\.weight$", 0.25),
    (r"^(st_gcn_networks\.\d+\.)?tcn\.2\.weight$", 0.5),
)
ATTENTION_GAIN = {"2d": r"^attenblock[012]\.[fg]\.weight$", "3d": r"^attenblock[012]\.[fgh]\.weight$"}


def oracle(name: str) -> dict[str, np.ndarray]:
    with np.load(SHARED / "oracles" / name) as arrays:
        return dict(arrays)


def weights_by_rule(shapes: dict[str, tuple[int, ...]], gains: Iterable[tuple[str, float]] = ()) -> dict[str, Tensor]:
    """Every entry from its original name alone (PCG64 seeded by the name's crc32)."""
    return {
        name: torch.from_numpy(np.asarray(_value(name, shape, shapes, tuple(gains)))) for name, shape in shapes.items()
    }


def fill(module: nn.Module, gains: Iterable[tuple[str, float]] = ()) -> nn.Module:
    """Give a module whose names are the original ones the rule's weights; constants keep theirs."""
    shapes = {n: tuple(v.shape) for n, v in module.state_dict().items() if n != "A"}
    module.load_state_dict({**module.state_dict(), **weights_by_rule(shapes, gains)})
    return module.eval()


def _value(name, shape, names, gains):
    noise = np.random.Generator(np.random.PCG64(crc32(name.encode()))).standard_normal(shape, dtype=np.float32)
    parent, _, leaf = name.rpartition(".")
    is_bn = f"{parent}.running_mean" in names
    f32 = np.float32
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_var":
        return f32(1) + f32(0.1) * np.abs(noise)
    if leaf == "running_mean" or (is_bn and leaf == "bias"):
        return f32(0.1) * noise
    if "edge_importance" in name or is_bn:
        return f32(1) + f32(0.1) * noise
    if leaf == "gamma":
        return f32(4) + noise
    if leaf == "bias":
        return f32(0.05) * noise
    gain = next((g for pattern, g in gains if re.match(pattern, name)), 1.0)
    return f32(gain * np.sqrt(2 / np.prod(shape[1:]))) * noise


JPPNET_GAINS = ((r"^res[2-5][a-z]\d*_branch2c/weights$", 0.25), (r"^conv1/weights$", 0.01))


def tf_weights_by_rule(
    shapes: dict[str, tuple[int, ...]], gains: Iterable[tuple[str, float]] = JPPNET_GAINS
) -> dict[str, np.ndarray]:
    """TensorFlow's variables (kernels HWIO) from their original names alone."""
    return {name: _tf_value(name, shape, tuple(gains)) for name, shape in shapes.items()}


def _tf_value(name, shape, gains):
    noise = np.random.Generator(np.random.PCG64(crc32(name.encode()))).standard_normal(shape, dtype=np.float32)
    leaf = name.rpartition("/")[2]
    f32 = np.float32
    if leaf in ("gamma", "moving_variance"):
        return f32(1) + f32(0.1) * (noise if leaf == "gamma" else np.abs(noise))
    if leaf in ("beta", "moving_mean"):
        return f32(0.1) * noise
    if leaf in ("biases", "b"):
        return f32(0.05) * noise
    gain = next((g for pattern, g in gains if re.match(pattern, name)), 1.0)
    return f32(gain * np.sqrt(2 / np.prod(shape[:-1]))) * noise


def jppnet_by_rule(*sizes: Any, **options: Any) -> JPPNet:
    """A JPPNet of any size with the rule's weights, made without initialising it first."""
    with torch.device("meta"):
        model = JPPNet(*sizes, **options)
    names, state = tf_names(model), {}
    for ours, value in model.state_dict().items():
        kernel = value.ndim == 4
        shape = tuple(value.shape[axis] for axis in (2, 3, 1, 0)) if kernel else tuple(value.shape)
        values = torch.from_numpy(tf_weights_by_rule({names[ours]: shape})[names[ours]])
        state[ours] = values.permute(3, 2, 0, 1).contiguous() if kernel else values
    model.load_state_dict(state, assign=True)
    return model.eval()
