"""Embeddings of all tracklets of any data set by a trained stream; the training data are not opened.

Legend: N tracklets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sptskm.common.atomic import check_output
from sptskm.config import Config, ConfigError
from sptskm.configfile import apply_overrides, flat, from_dict, to_dict
from sptskm.data import Tracklets, read_dataset
from sptskm.data.clips import FileSource
from sptskm.data.derived import Made, Method, methods_in, warn_of_methods
from sptskm.data.manifest import UNSAID
from sptskm.data.packs.staging import stage
from sptskm.evaluation import Features, Rows
from sptskm.evaluation.feature_files import write_features
from sptskm.provenance import packages
from sptskm.training.extract import extract
from sptskm.training.precision import Precision
from sptskm.training.rundir import RunDir, fingerprint
from sptskm.training.setup import methods_of
from sptskm.training.signals import StopFlag
from sptskm.training.streams import stream_of
from sptskm.training.world import World, join


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network on the CPU, with the configuration of its run."""

    config: Config
    model: nn.Module
    step: int
    fingerprint: str
    """Hash of its weights."""
    methods: Mapping[Made, Method] = field(default_factory=dict)
    """Methods that made the masks or skeletons it was trained on, where known."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What its checkpoint says of it: `provenance`, `best_mAP`, `version` and `command`."""


def load_network(run: Path, overrides: Sequence[str] = ()) -> Network:
    """Load the network of a run from its best checkpoint, or from the newest where no identities were held out.

    The run may have been moved since.
    Raises FileNotFoundError for a folder without a readable checkpoint, ConfigError where weights and configuration do
    not fit each other.
    """
    state = RunDir(run).trained()
    try:
        trained = from_dict(state["config"])
    except ConfigError as error:
        raise ConfigError(f"{run}: {error}") from None
    config = replace(apply_overrides(trained, overrides), run=str(run))
    # the pretrained weights that training began with may be long gone
    stream = stream_of(config)
    classifier = state["model"].get(stream.classifier)
    is_one = isinstance(classifier, Tensor) and classifier.ndim > 0
    network = stream.model(max(1, len(classifier)) if is_one else 1, pretrained=False)
    load_weights(network, state["model"], run)
    methods = methods_in(state.get("methods"))
    if not isinstance(step := state.get("step"), int):
        raise ConfigError(f"{run}: the step of its weights is {step!r}, wanted a whole number")
    record = {key: state.get(key) for key in ("provenance", "best_mAP", "version", "command")}
    return Network(config, network.eval(), step, fingerprint(state["model"]), methods, record)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], run: Path) -> None:
    """Load the weights of a run into a network.

    Raises ConfigError where the weights do not fit this network.
    """
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if strange := [name for name, value in weights.items() if not isinstance(value, Tensor)]:
        raise ConfigError(f"{run}: {strange[0]} is a {type(weights[strange[0]]).__name__}, wanted a tensor of weights")
    for name, value in weights.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise ConfigError(f"{run}: {name} is a sparse, quantised, complex or empty tensor, wanted real numbers")
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in [*own, *found]:
        if own.get(name) != found.get(name):
            raise ConfigError(
                f"{run}: the weights do not fit the network that the configuration describes: {name} is "
                f"{found.get(name, 'missing')}, wanted {own.get(name, 'none')}"
            )
    model.load_state_dict(weights)


def extract_run(
    run: Path, data: Path, out: Path, overrides: Sequence[str] = (), stop: StopFlag | None = None
) -> Features | None:
    """Embed every tracklet of `data` (MARS layout, pack or manifest) and write the file `out`.

    Every rank makes the same call; rank 0 returns the features. Lines of a manifest need no pid, camera or split;
    without a pid a tracklet is junk of pid -1. `overrides` apply to the run's configuration. Raises FileNotFoundError
    for a run without weights, ConfigError for a file that cannot be written, DataError for data that cannot be read,
    and Stopped when a rank's `stop` was set before all features were extracted.
    """
    check_output(out, ".npz")
    network = load_network(run, overrides)
    network = replace(network, config=replace(network.config, data=replace(network.config.data, root=str(data))))
    with join(network.config.train.threads, network.config.train.timeout_minutes) as world:
        table, features, methods = _embed(network, data, world, stop)
        if not world.is_main:
            return None
        warn_of_methods(str(run), network.methods, str(data), methods)
        write_features(out, features, _labels(table), network.fingerprint, methods)
    return features


def _labels(table: Tracklets) -> Rows:
    """Return the labels of all rows; an unknown camera is -1."""
    labels = Rows.of(table, np.arange(len(table)))
    unsaid = [camera for camera, name in table.camera_names.items() if name == UNSAID]
    return replace(labels, camids=np.where(np.isin(labels.camids, unsaid), -1, labels.camids))


def _embed(
    network: Network, data: Path, world: World, stop: StopFlag | None
) -> tuple[Tracklets, Features, dict[Made, Method]]:
    config = network.config
    table = read_dataset(data, labelled=False)
    settings: dict[str, Any] = {"table": table.fingerprint, "step": network.step}
    world.agree({**packages(), **settings, **flat(to_dict(config))})
    rows = np.arange(len(table))
    stream, precision = stream_of(config), Precision.of(config.train.precision, world.device)
    source = stream.source(table, rows, precision)
    if isinstance(source, FileSource):
        stage(table, config.data.stage, rows)
    model = network.model.to(world.device, precision.dtype)
    found = extract(model, stream, source, rows, config, world, stop)
    features = Features(found.features_ND, table.keys_N, found.valid_N, table.fingerprint, config.stream)
    return table, features, methods_of(config.stream, table, source)
