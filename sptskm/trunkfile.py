"""The folder of a trunk of `transformers`: what its config.json says, read without torch and without its weights.

A run keeps what was read as `model.architecture`, so that its checkpoints can be opened where the folder is not.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sptskm.common.errors import ConfigError
from sptskm.common.imagenet import IMAGENET_MEAN, IMAGENET_STD
from sptskm.common.reading import read_json, read_yaml
from sptskm.config import Config
from sptskm.sections import SsinModel

IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class Kind(NamedTuple):
    """A kind of trunk: its classes in `transformers`, and the mean and standard deviation of its images."""

    config: str
    model: str
    scale: tuple[tuple[float, ...], tuple[float, ...]]


KINDS = {
    "dinov2": Kind("Dinov2Config", "Dinov2Model", IMAGENET),
    "dinov2_with_registers": Kind("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", IMAGENET),
    "clip_vision_model": Kind("CLIPVisionConfig", "CLIPVisionModel", CLIP),
    "convnext": Kind("ConvNextConfig", "ConvNextModel", IMAGENET),
    "convnextv2": Kind("ConvNextV2Config", "ConvNextV2Model", IMAGENET),
}
"""Kinds of trunks by the `model_type` of their config.json."""
KEPT = (
    "attention_dropout", "attention_probs_dropout_prob", "depths", "drop_path_rate", "hidden_act",
    "hidden_dropout_prob", "hidden_size", "hidden_sizes", "image_size", "initializer_factor", "initializer_range",
    "intermediate_size", "layer_norm_eps", "layer_scale_init_value", "layerscale_value", "mlp_ratio", "model_type",
    "num_attention_heads", "num_channels", "num_hidden_layers", "num_register_tokens", "num_stages", "patch_size",
    "projection_dim", "qkv_bias", "use_swiglu_ffn",
)  # fmt: skip
"""What is read of a config.json; the rest says nothing about the network."""


MOST = {
    "num_hidden_layers": 1000, "depths": 1000, "num_attention_heads": 1000, "num_channels": 3, "image_size": 10_000,
    "hidden_size": 100_000, "hidden_sizes": 100_000, "intermediate_size": 1_000_000,
}  # fmt: skip
"""Largest numbers of a network that could be one; the least are 1."""


def completed(config: Config) -> Config:
    """Return the configuration with the architecture of its trunk.

    It is read in the trunk's folder; where that is gone, it is the one that the run has kept. Raises FileNotFoundError
    for a folder without a config.json, ConfigError or DataError for another kind of network.
    """
    model = config.model
    if not isinstance(model, SsinModel) or not model.trunk:
        return config
    if Path(model.trunk).is_dir() or not (found := dict(model.architecture) or _kept(config)):
        found = architecture(Path(model.trunk))
    return replace(config, model=replace(model, architecture=found))


def _kept(config: Config) -> dict[str, Any]:
    """Return the architecture in the configuration that a run has written when it began; empty if there is none."""
    path = Path(config.run, "config.yaml")
    if not config.run or not path.is_file():
        return {}
    model = read_yaml(path).get("model")
    found = model.get("architecture") if isinstance(model, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def architecture(folder: Path) -> dict[str, Any]:
    """Return what a folder says of its network: kind, sizes, and `image_mean` and `image_std` of its images.

    Raises FileNotFoundError, ConfigError or DataError naming the folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"model.trunk is {folder}: no such folder; compute nodes have no internet, copy it there first"
        )
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"model.trunk is {folder}: has no config.json, wanted a folder with config.json and model.safetensors"
        )
    values = read_json(folder / "config.json", dict[str, Any])
    if values.get("model_type") == "clip" and isinstance(part := values.get("vision_config"), dict):
        values = {**part, "model_type": "clip_vision_model"}
    if (kind := values.get("model_type")) not in KINDS:
        raise ConfigError(
            f"model.trunk is {folder}: its config.json says model_type {kind!r}, wanted one of {', '.join(KINDS)}"
        )
    found = {name: values[name] for name in KEPT if values.get(name) is not None}
    _check_numbers(folder / "config.json", found)
    images = folder / "preprocessor_config.json"
    told = read_json(images, dict[str, Any]) if images.is_file() else {}
    for name, numbers in zip(("image_mean", "image_std"), KINDS[kind].scale, strict=True):
        found[name] = told.get(name, list(numbers))
        if not _are_colours(found[name], least=0 if name == "image_std" else None):
            raise ConfigError(f"{images}: {name} is {found[name]!r}, wanted three numbers, one for each colour")
    return found


def _check_numbers(path: Path, found: Mapping[str, Any]) -> None:
    """Raise ConfigError for layers and widths that no network has, which would take forever to build."""
    for name, most in MOST.items():
        for value in given if isinstance(given := found.get(name, 1), list) else [given]:
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ConfigError(f"{path}: {name} is {found[name]!r}, wanted whole numbers from 1 to {most}")


def _are_colours(value: Any, least: float | None) -> bool:
    """Return whether a value is three numbers, all of them above `least`."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(x, int | float) and not isinstance(x, bool) and (least is None or x > least) for x in value)
    )
