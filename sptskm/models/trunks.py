"""Trunks of `transformers` for SSIN's frames: DINOv2, the vision part of CLIP, ConvNeXt and ConvNeXt V2.

They are read from a folder on this machine, never from a network. `transformers` is imported here alone, and only when
a configuration names a trunk.
Legend: N images, H rows and W columns of pixels, h rows and w columns of a map, P = h*w positions, R registers,
D channels of the trunk, C channels of SSIN.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sptskm.common.errors import ConfigError, DataError
from sptskm.common.reading import read_json
from sptskm.trunkfile import KEPT, KINDS, Kind

TOGETHER = 3  # blocks of a stage of ConvNeXt that count as one layer (Liu et al. 2022)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
UNUSED = ("mask_token", "position_ids")
"""Ends of the names of entries that are for other uses of a trunk than this one."""


class Trunk(nn.Module):
    """Images (N, 3, H, W) in [0, 1] to features (N, C, h, w), which are 0 or more, as those of a ResNet.

    The features of `body`, a model of `transformers`, go through its last layer normalisation, a 1x1 convolution, batch
    normalisation and ReLU. `colours` are mean and standard deviation of the images that it was trained on.
    """

    def __init__(
        self, body: Any, size: tuple[int, int], channels: int, colours: tuple[Sequence[float], Sequence[float]]
    ) -> None:
        super().__init__()
        self.grid = grid(body.config, *size)
        self.convolves = hasattr(body.config, "depths")
        registers = getattr(body.config, "num_register_tokens", None)
        self.skipped = 1 + (registers or 0)
        self.body: nn.Module = body
        if not self.convolves:
            self.body.embeddings = Tokens(body.embeddings, self.grid, antialias=registers is not None)
        for block in chain.from_iterable(self._blocks()):
            block.recomputable = True  # type: ignore[assignment]
        width = body.config.hidden_sizes[-1] if self.convolves else body.config.hidden_size
        self.project = nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels))
        mean, std = (torch.tensor(values, dtype=torch.float32) for values in colours)
        self.image_mean = nn.Buffer(mean.view(1, 3, 1, 1), persistent=False)
        self.image_std = nn.Buffer(std.view(1, 3, 1, 1), persistent=False)

    def forward(self, x_N3HW: Tensor) -> Tensor:
        found = self.body(pixel_values=(x_N3HW - self.image_mean) / self.image_std).last_hidden_state
        if self.convolves:
            y_NDhw = self.body.layernorm(found.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[operator]
        else:
            y_NPD = found[:, self.skipped :]
            if hasattr(self.body, "post_layernorm"):  # CLIP normalises only what it pools
                y_NPD = self.body.post_layernorm(y_NPD)  # type: ignore[operator]
            y_NDhw = y_NPD.transpose(1, 2).unflatten(2, self.grid)
        return F.relu(self.project(y_NDhw))

    def layers(self) -> list[list[nn.Parameter]]:
        """Return the parameters of the body by layer, from the first to the last; its last normalisation is in none.

        The first layer makes patches. A layer of ConvNeXt is up to three blocks of a stage, with the convolution that
        halves the map before the first of them.
        """
        first = [self.body.embeddings, getattr(self.body, "pre_layrnorm", nn.Identity())]
        return [[p for module in part for p in module.parameters()] for part in (first, *self._blocks())]

    def _blocks(self) -> Iterator[Sequence[Any]]:
        """Yield the modules of each layer of the body behind its embeddings."""
        encoder: Any = self.body.encoder
        if not self.convolves:
            yield from ([block] for block in (encoder.layers if hasattr(encoder, "layers") else encoder.layer))
            return
        for stage in encoder.stages:
            for begin in range(0, len(stage.layers), TOGETHER):
                yield [*(stage.downsampling_layer if begin == 0 else ()), *stage.layers[begin : begin + TOGETHER]]


class Tokens(nn.Module):
    """Images (N, 3, H, W) to tokens (N, 1 + R + P, D): class, registers and patches, with positions.

    It replaces the embeddings of the body. Positions are resized to the map once, when the network is built, and are
    then parameters like all others.
    """

    def __init__(self, given: Any, size: tuple[int, int], antialias: bool) -> None:
        super().__init__()
        is_clip = hasattr(given, "patch_embedding")
        self.patches = given.patch_embedding if is_clip else given.patch_embeddings.projection
        first = given.class_embedding if is_clip else given.cls_token
        positions = given.position_embedding.weight if is_clip else given.position_embeddings
        self.first = nn.Parameter(first.detach().reshape(1, 1, -1).clone())
        self.positions = nn.Parameter(
            resized(positions.detach().reshape(-1, self.first.shape[2]), size, antialias)[None]
        )
        self.registers: nn.Parameter | None = getattr(given, "register_tokens", None)
        self.dropout: nn.Module = getattr(given, "dropout", nn.Identity())

    def forward(self, pixel_values: Tensor, **_others: Any) -> Tensor:
        x_NPD = self.patches(pixel_values).flatten(2).transpose(1, 2)
        N = x_NPD.shape[0]  # `len` would be a constant in an exported network
        x = torch.cat([self.first.expand(N, -1, -1), x_NPD], dim=1) + self.positions
        if self.registers is not None:
            x = torch.cat([x[:, :1], self.registers.expand(N, -1, -1), x[:, 1:]], dim=1)
        return self.dropout(x)  # type: ignore[no-any-return]


def resized(positions: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    """Resize position embeddings (1 + side*side, D) of a square to (1 + h*w, D); the first, of the class, stays."""
    side = round((len(positions) - 1) ** 0.5)
    if side * side != len(positions) - 1:
        raise ConfigError(f"model.trunk has {len(positions) - 1} positions, wanted those of a square image")
    if (side, side) == size:
        return positions.clone()
    square = positions[1:].T.reshape(1, -1, side, side)
    square = F.interpolate(square, size, mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([positions[:1], square.flatten(2)[0].T])


def grid(config: Any, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the map of a trunk, by its configuration in `transformers`, of frames of this size.

    Raises ConfigError with the nearest sizes that do unless both are multiples of its patch, or of the product of its
    strides.
    """
    if not isinstance(step := config.patch_size, int) or step < 1:
        raise ConfigError(f"model.trunk has patch_size {step!r}, wanted the pixels of a side of a square")
    step *= 2 ** (len(getattr(config, "depths", "1")) - 1)
    told = []
    for name, size in (("height", height), ("width", width)):
        if size % step:
            near = [str(x) for x in (size // step * step, -(-size // step) * step) if x]
            told.append(f"clips.{name} is {size}, wanted {' or '.join(near)}")
    if told:
        raise ConfigError(f"{', and '.join(told)}: multiples of the {step} pixels of a position of model.trunk")
    return height // step, width // step


def build_trunk(found: Mapping[str, Any], size: tuple[int, int], channels: int) -> Trunk:
    """Build a trunk for frames of this height and width by what its folder said, without its weights.

    Raises ConfigError where its architecture describes no network, or has no map of such frames.
    """
    kind, library = _kind(found), _library()
    with _described():
        config = _config(found)
        grid(config, *size)
        body = getattr(library, kind.model)(config)
    return Trunk(_inner(body), size, channels, _colours(found))


def open_trunk(folder: Path, found: Mapping[str, Any], size: tuple[int, int], channels: int) -> Trunk:
    """Build a trunk with the weights in its folder, all in float32.

    Entries of a classifier or of CLIP's text part are left out. Raises FileNotFoundError, ConfigError, and DataError
    with some of the entries that are missing, mis-shaped or not finite.
    """
    kind, library = _kind(found), _library()
    _check_files(folder)
    with _described(), torch.device("meta"):
        config = _config(found)
        grid(config, *size)
        getattr(library, kind.model)(config)
    try:
        with _quiet(library):
            body, told = getattr(library, kind.model).from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # these are told below
            )
    except Exception as error:  # a damaged file, in the words of several libraries
        raise DataError(f"weights {folder}: {_sentence(error)}, wanted whole files of safetensors") from None
    _check_entries(folder, body, told)
    return Trunk(_inner(body.float().train()), size, channels, _colours(found))


def _check_files(folder: Path) -> None:
    """Raise FileNotFoundError where there are no weights in safetensors, DataError for a list of other files."""
    if (folder / WEIGHTS[0]).is_file():
        return
    if not (index := folder / WEIGHTS[1]).is_file():
        raise FileNotFoundError(f"model.trunk is {folder}: has no {WEIGHTS[0]}, wanted weights in that format")
    files = read_json(index, dict[str, Any]).get("weight_map")
    for name in files.values() if isinstance(files, dict) else [files]:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise DataError(f"{index}: weight_map names {name!r}, wanted files of safetensors in this folder")


def _check_entries(folder: Path, body: nn.Module, told: Mapping[str, Any]) -> None:
    """Raise DataError for weights that do not fit the network that config.json describes."""
    missing = [name for name in sorted(told["missing_keys"]) if not name.endswith(UNUSED)]
    others = [name for name, *_ in sorted(told["mismatched_keys"])]
    more = [
        name for name in sorted(told["unexpected_keys"]) if name.removeprefix("vision_model.").startswith("encoder.")
    ]
    wrong = [name for name, value in body.state_dict().items() if not bool(value.isfinite().all())]
    for names, what in (
        (others, "of another shape than config.json says"),
        (missing, "missing"),
        (more, "of more layers than config.json says"),
        (wrong, "not finite"),
    ):
        if names:
            raise DataError(f"weights {folder}: {len(names)} entries are {what}, such as {', '.join(names[:3])}")


def check_trunk(folder: Path, found: Mapping[str, Any], size: tuple[int, int]) -> None:
    """Check a trunk as `open_trunk` does; without its weights where the folder is gone, as for a run that continues."""
    if folder.is_dir():
        open_trunk(folder, found, size, 1)
    else:
        build_trunk(found, size, 1)


def _library() -> Any:
    """Import `transformers` without any access to the network. Raises ConfigError where it is not installed."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        return import_module("transformers")
    except ImportError:
        raise ConfigError(
            "model.trunk is set, but transformers is not installed, wanted: pip install 'sptskm[backbones]'"
        ) from None


def _kind(found: Mapping[str, Any]) -> Kind:
    if (name := found.get("model_type")) not in KINDS:
        raise ConfigError(f"model.architecture has model_type {name!r}, wanted one of {', '.join(KINDS)}")
    return KINDS[name]


def _config(found: Mapping[str, Any]) -> Any:
    """Return the configuration of a trunk; what is not said is as `transformers` has it."""
    values = {name: found[name] for name in KEPT if name in found and name != "model_type"}
    return getattr(_library(), _kind(found).config)(**values)


def _colours(found: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    mean, std = _kind(found).scale
    return found.get("image_mean", mean), found.get("image_std", std)


def _inner(body: Any) -> nn.Module:
    """Return the network itself: earlier versions of `transformers` wrap that of CLIP."""
    return getattr(body, "vision_model", body)  # type: ignore[no-any-return]


@contextmanager
def _described() -> Iterator[None]:
    """Raise ConfigError for whatever goes wrong while a network is built by its description."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"model.trunk: its config.json describes no network: {_sentence(error)}") from None


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Hide the progress bar and the list of entries that were left out."""
    told = library.utils.logging
    level, bars = told.get_verbosity(), told.is_progress_bar_enabled()
    told.set_verbosity_error()
    told.disable_progress_bar()
    try:
        yield
    finally:
        told.set_verbosity(level)
        if bars:
            told.enable_progress_bar()
