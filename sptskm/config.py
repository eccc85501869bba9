"""Every setting of the toolkit, once, typed, with its default. Unknown keys are errors.

The defaults are the published recipe wherever it is not a bug (then the correct behaviour is the default and
the published one a named choice). YAML files in configs/ hold only what differs from them.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

StreamName = Literal["ssin", "smin"]


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the key, the value found and the value wanted."""


@dataclass(frozen=True)
class Data:
    """What is trained and validated on."""

    root: str = "data/mars"
    """Folder in the MARS layout."""
    held_out: float = 0.1
    """Share of the training identities held out for validation and the fusion weight; 0 = none."""
    split_seed: int = 0
    """Seed of that split; both streams must use the same."""
    min_length: int = 1
    """Frames a training tracklet needs (published: 30 for SSIN, 31 for SMIN)."""
    workers: int = 2
    """Loader processes per rank; 0 loads in the training process."""


@dataclass(frozen=True)
class SsinClips:
    """How SSIN cuts clips from tracklets."""

    frames: int = 4
    """Consecutive frames per clip."""
    height: int = 256
    width: int = 128
    last_window: bool = True
    """Whether the last possible window may be drawn; false is the published code, which never draws it."""


@dataclass(frozen=True)
class SminClips:
    """How SMIN cuts skeleton sequences from tracklets."""

    frames: int = 28
    """Consecutive frames per training clip, drawn at random."""
    test_frames: int = 30
    """Frames per test clip; longer tracklets are covered by several."""
    first_frames: int = 0
    """Use only that many frames from the start of a tracklet (published: 30); 0 = all."""
    normalise: bool = True
    """Root, scale and facing of every tracklet (no change to skeletons stored in that form already)."""
    random_move: bool = True
    """Rotate, scale and shift training clips, interpolated over time."""


@dataclass(frozen=True)
class SsinModel:
    """SSIN; the paper's network by default."""

    variant: Literal["2d", "3d"] = "2d"
    depths: tuple[int, ...] = (3, 4, 6, 3)
    mask_depths: tuple[int, ...] = (1, 1, 1, 1)
    width: int = 64
    embedding_dim: int = 1024
    dropout: float = 0.5
    pooling: Literal["max", "mean"] = "max"
    pretrained: str = ""
    """Local file with ImageNet weights in torchvision's layout (resnet50-19c8e357.pth); empty = none."""


@dataclass(frozen=True)
class SminModel:
    """SMIN; ST-GCN as published, on the correct skeleton graph."""

    graph: Literal["spatial", "published"] = "spatial"
    width: int = 64
    embedding_dim: int = 1024
    dropout: float = 0.5


@dataclass(frozen=True)
class SsinLoss:
    """total = identity * (image*CE + mask*CE + globl*CE) + triplet * batch-hard triplet."""

    identity: float = 0.5
    image: float = 0.4
    mask: float = 0.1
    globl: float = 0.5
    triplet: float = 0.5
    margin: float = 0.3
    smoothing: float = 0.1


@dataclass(frozen=True)
class SminLoss:
    """total = identity * CE + triplet * batch-hard triplet."""

    identity: float = 0.8
    triplet: float = 0.2
    margin: float = 0.3
    smoothing: float = 0.1


@dataclass(frozen=True)
class Optim:
    """Optimiser and step schedule."""

    algorithm: Literal["adam", "sgd"] = "adam"
    """"sgd" is with Nesterov momentum 0.9."""
    lr: float = 3e-4
    weight_decay: float = 5e-4
    milestones: tuple[int, ...] = (200, 400, 600, 800)
    """0-based epochs from which the rate is multiplied by gamma once more."""
    gamma: float = 0.1


@dataclass(frozen=True)
class Sampling:
    """The global batch: identities * tracklets clips, whatever the number of GPUs."""

    kind: Literal["identities", "shuffled"] = "identities"
    """P x K identity sampling, or a plain shuffle (published SMIN: most anchors then lack a positive)."""
    identities: int = 8
    """P."""
    tracklets: int = 4
    """K."""
    rounds: int = 1
    """Passes over all identities that make up one epoch."""


@dataclass(frozen=True)
class Train:
    """The loop."""

    epochs: int = 1000
    seed: int = 0
    batch_norm: Literal["sync", "local", "frozen"] = "sync"
    """Statistics over all ranks, per rank, or fixed at the loaded ones."""
    precision: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Autocast type; auto = bfloat16 on GPU, float32 on CPU."""
    compile: bool = False
    validate_every: int = 10
    """Epochs between validations on the held-out identities."""
    save_minutes: float = 10.0
    """Minutes between checkpoints within an epoch; every epoch ends with one."""
    threads: int = 1
    """CPU threads per rank; add ranks rather than threads (the last bits of results depend on threads)."""
    timeout_minutes: float = 10.0
    """How long a rank waits for the others before it gives up."""


@dataclass(frozen=True)
class Extract:
    """How a tracklet's clips become one embedding."""

    clips: int = 0
    """Clips per tracklet, drawn by a seeded generator where there are more (published: 20); 0 = all."""
    renormalise: bool = True
    """L2-normalise the mean over clips; false is the published code."""
    batch: int = 8
    """Pieces of tracklets (at most 16 clips each) read and, on a GPU, embedded together."""


@dataclass(frozen=True)
class Config:
    """One training run of one stream."""

    stream: StreamName
    clips: SsinClips | SminClips
    model: SsinModel | SminModel
    loss: SsinLoss | SminLoss
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    sampling: Sampling = field(default_factory=Sampling)
    train: Train = field(default_factory=Train)
    extract: Extract = field(default_factory=Extract)
    run: str = ""
    """Folder of this run: configuration, checkpoints, TensorBoard; a run that exists in it is continued."""

    def __post_init__(self) -> None:
        for ok, message in _rules(self):
            if not ok:
                raise ConfigError(message)


@dataclass(frozen=True)
class Final:
    """The final job: extract, fuse, report."""

    protocol: str = "mars-official"
    normalisation: Literal["zscore", "minmax"] = "zscore"
    """How the two streams' distances are made comparable."""
    weight: float | None = None
    """Share of SMIN in the fused distance; empty = chosen on the held-out identities."""
    weight_step: float = 0.05
    """Grid over which it is chosen."""


def _rules(config: Config) -> list[tuple[bool, str]]:
    data, sampling, train = config.data, config.sampling, config.train
    return [
        (0 <= data.held_out < 1, f"data.held_out is {data.held_out}, wanted 0 <= share < 1"),
        (data.workers >= 0, f"data.workers is {data.workers}, wanted 0 or more"),
        (config.clips.frames >= 1, f"clips.frames is {config.clips.frames}, wanted at least 1"),
        (
            isinstance(config.clips, SsinClips) or config.clips.test_frames >= 1,
            f"clips.test_frames is {getattr(config.clips, 'test_frames', 0)}, wanted at least 1",
        ),
        (0 <= config.model.dropout < 1, f"model.dropout is {config.model.dropout}, wanted 0 <= dropout < 1"),
        (config.extract.batch >= 1, f"extract.batch is {config.extract.batch}, wanted at least 1"),
        (sampling.tracklets >= 1, f"sampling.tracklets is {sampling.tracklets}, wanted at least 1"),
        (
            sampling.identities >= 2 or config.loss.triplet == 0,
            f"sampling.identities is {sampling.identities}; a triplet needs at least 2 identities",
        ),
        (sampling.rounds >= 1, f"sampling.rounds is {sampling.rounds}, wanted at least 1"),
        (train.epochs >= 1, f"train.epochs is {train.epochs}, wanted at least 1"),
        (train.validate_every >= 1, f"train.validate_every is {train.validate_every}, wanted 1 or more"),
        (train.threads >= 1, f"train.threads is {train.threads}, wanted at least 1"),
        (config.optim.lr > 0, f"optim.lr is {config.optim.lr}, wanted a positive rate"),
    ]


SSIN_DEFAULTS = Config("ssin", SsinClips(), SsinModel(), SsinLoss())
SMIN_DEFAULTS = Config(
    "smin",
    SminClips(),
    SminModel(),
    SminLoss(),
    optim=Optim("sgd", lr=0.1, weight_decay=1e-4, milestones=(50, 100)),
    # 64 x 4 = the published batch of 256; two rounds are about its 17 batches per epoch on MARS
    sampling=Sampling(identities=64, tracklets=4, rounds=2),
    train=Train(epochs=200, validate_every=5),
)
DEFAULTS: dict[str, Config] = {"ssin": SSIN_DEFAULTS, "smin": SMIN_DEFAULTS}

# What a resumed run may change: nothing that has shaped the weights so far.
FREE_ON_RESUME = frozenset(
    {
        "run", "data.root", "data.workers", "train.epochs", "train.validate_every", "train.save_minutes",
        "train.timeout_minutes", "train.compile", "extract.batch",
    }
)  # fmt: skip


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file with `section.key=value` overrides applied.

    Raises FileNotFoundError, or ConfigError naming the file and the key.
    """
    path = Path(path)
    values = _read_yaml(path)
    stream = values.pop("stream", None)
    if stream not in DEFAULTS:
        raise ConfigError(f"{path}: stream is {stream!r}, wanted one of {sorted(DEFAULTS)}")
    return apply_overrides(_named(path, DEFAULTS[stream], values), overrides)


def load_final(path: str | Path, overrides: Sequence[str] = ()) -> Final:
    """The final job's settings; a missing file means the defaults."""
    path = Path(path)
    values = _read_yaml(path) if path.exists() else {}
    return apply_overrides(_named(path, Final(), values), overrides)


def _named(path: Path, defaults: Any, values: Mapping[str, Any]) -> Any:
    try:
        return merge(defaults, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"configuration {path}: no such file")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({error})") from None
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{path}: wanted `section: {{key: value}}`, found a {type(content).__name__}")
    return content or {}


def apply_overrides(config: Any, overrides: Sequence[str]) -> Any:
    """`config` with `a.b=value` strings applied; values are read as YAML."""
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r}: wanted section.key=value")
        value = _yaml_value(override, text)
        for part in reversed(dotted.split(".")):
            value = {part: value}
        config = merge(config, value)
    return config


def _yaml_value(override: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"override {override!r}: the value is not valid YAML") from None


def merge(section: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """A copy of a section with some values replaced; unknown keys and wrong types raise ConfigError."""
    hints = {key: hint for key, hint in get_type_hints(type(section)).items() if key != "stream"}
    changes: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in hints:
            raise ConfigError(_unknown(name, key, hints))
        current = getattr(section, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{name} is a section, wanted {name}.key=value, found {value!r}")
            changes[key] = merge(current, value, f"{name}.")
        else:
            changes[key] = _coerce(value, hints[key], name)
    return dataclasses.replace(section, **changes)


def _unknown(name: str, key: str, hints: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(key), hints, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown key {name}{hint} (legal here: {', '.join(sorted(hints))})"


def _coerce(value: Any, hint: Any, name: str) -> Any:
    """`value` as the type of `hint`, or ConfigError. YAML reads 1e-4 as a string, so numbers may be text."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value in args:
            return value
        raise ConfigError(f"{name} is {value!r}, wanted one of {', '.join(map(str, args))}")
    if origin in (Union, types.UnionType):
        return None if value is None else _coerce(value, args[0], name)
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_coerce(item, args[0], name) for item in items)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return value
    if hint in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if math.isfinite(number) and (hint is float or number == int(number)):
            return hint(number)
    raise ConfigError(f"{name} is {value!r}, wanted {hint.__name__}")


def to_dict(config: Config | Final) -> dict[str, Any]:
    """The complete configuration as plain lists, numbers and strings (what YAML and checkpoints hold)."""
    return {
        key: {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()} if isinstance(value, dict) else value
        for key, value in dataclasses.asdict(config).items()
    }


def from_dict(values: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict` for a training configuration."""
    rest = {key: value for key, value in values.items() if key != "stream"}
    return merge(DEFAULTS[values["stream"]], rest)


def to_yaml(config: Config | Final) -> str:
    """The complete configuration as YAML text that `load` reads back."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Dotted names of settings that differ between two `to_dict` results and may not differ on resume."""
    old, new = _flat(before), _flat(after)
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return [f"{n}: {old.get(n)!r} -> {new.get(n)!r}" for n in names if n not in FREE_ON_RESUME]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat.update(_flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
    return flat
