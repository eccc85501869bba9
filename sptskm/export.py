"""Export of trained streams and their fusion as ONNX files, for programs without PyTorch.

Batch norm runs in evaluation mode and dropout is off. Batch size and clip length are free; the frame height and width
of SSIN are those of its run. A network file computes the embedding of one clip: a tracklet's embedding is the mean over
its clips, scaled to length 1 again.
Legend: B clips, T frames, C channels, V = 14 joints, Q queries, G gallery rows, D embedding.
"""

import importlib.util
import json
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sptskm.common.atomic import check_output, partial_of
from sptskm.config import PAIR, ConfigError
from sptskm.evaluation import Fusion, pair_weight
from sptskm.evaluation.saved import read_fused
from sptskm.extraction import Network, load_network
from sptskm.training.streams import stream_of

OPSET = 18
Names = Mapping[str, Mapping[int, str]]
"""Inputs in order, with the names of their free axes."""


class Embedding(nn.Module):
    """Module whose forward pass is the embedding that a stream's network computes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network.embed(*inputs)  # type: ignore[operator]


def distance_inputs(streams: Sequence[str]) -> Names:
    """Return the inputs of a fused distance: the features of each stream and whether tracklets have its input.

    SSIN beside SMIN alone is taken to have input for all, as ever, so that there is one `valid` for each side.
    """
    flags = ["valid"] if tuple(streams) == PAIR else [f"valid_{stream}" for stream in streams]
    sides = {"query": "queries", "gallery": "gallery"}
    return {f"{name}_{side}": {0: axis} for side, axis in sides.items() for name in (*streams, *flags)}


class PairDistance(nn.Module):
    """Module that computes fused distances (Q, G) from inputs as `distance_inputs` says.

    It is `sptskm.evaluation.FusedDistance` with its constants, applied to features (Q, D) and (G, D). With "concat" the
    features are first scaled to length 1.
    """

    def __init__(self, fused: Fusion) -> None:
        super().__init__()
        self.fused, self.unit = fused.distance, fused.normalisation == "concat"

    def forward(self, *inputs: Tensor) -> Tensor:
        names, half = self.fused.streams, len(inputs) // 2
        query, gallery = inputs[:half], inputs[half:]
        apart = {name: self._squared(query[place], gallery[place]) for place, name in enumerate(names)}
        flags = [
            own[:, None] & other[None] for own, other in zip(query[len(names) :], gallery[len(names) :], strict=True)
        ]
        if names == PAIR:
            flags = [torch.ones_like(flags[0]), *flags]
        both = dict(zip(names, flags, strict=True))
        found_QG = torch.full_like(apart[names[0]], torch.inf)
        for term in self.fused.terms:
            own = [both[name] if name in term.factors else ~both[name] for name in names]
            found_QG = torch.where(reduce(operator.and_, own), term.of(apart), found_QG)
        return found_QG

    def _squared(self, query_QD: Tensor, gallery_GD: Tensor) -> Tensor:
        query_QD, gallery_GD = query_QD.double(), gallery_GD.double()
        if self.unit:
            query_QD, gallery_GD = F.normalize(query_QD, dim=1), F.normalize(gallery_GD, dim=1)
        squares_QG = query_QD.square().sum(1)[:, None] + gallery_GD.square().sum(1)[None]
        return (squares_QG - 2 * query_QD @ gallery_GD.T).clamp(min=0)


def export(runs: Sequence[Path], out: Path, fusion: Path | None = None) -> list[Path]:
    """Write the network of one run to `out`, or those of several streams, and with `fusion` also the fused distance.

    `fusion` is the path of a final job's results. Several files are named like `out` with the stream, or -fused.
    Returns the paths written. Raises ConfigError unless the runs are of different streams and all packages are
    installed, DataError for results of other networks, and errors as `load_network` and `read_fused`.
    """
    _check(runs, out, fusion)
    fused = None if fusion is None else read_fused(fusion)
    networks = {folder: load_network(folder) for folder in dict.fromkeys(runs)}
    streams = [network.config.stream for network in networks.values()]
    if len(set(streams)) < len(runs):
        found = " and ".join(networks[folder].config.stream for folder in runs)
        raise ConfigError(f"the runs are {found}, wanted one of each stream")
    if fused is not None:
        if missing := [stream for stream in fused.distance.streams if stream not in streams]:
            raise ConfigError(
                f"--fusion is of {', '.join(fused.distance.streams)}, wanted the run of {missing[0]} as well"
            )
        for folder, network in networks.items():
            fused.check(network.config.stream, network.fingerprint, f"{folder}")
    written = []
    for network in networks.values():
        path = out if len(runs) == 1 else _beside(out, network.config.stream)
        export_network(network, path)
        written.append(path)
    if fused is not None:
        written.append(_beside(out, "fused"))
        lengths = {str(own.config.stream): int(own.model.embedding_dim) for own in networks.values()}  # type: ignore[arg-type]
        export_distance(fused, lengths, written[-1])
    return written


def _check(runs: Sequence[Path], out: Path, fusion: Path | None) -> None:
    """Raise an error for everything that can be checked before a network is read."""
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"export needs {missing[0]}, which is not installed: pip install 'sptskm[onnx]'")
    check_output(out, ".onnx")
    if fusion is not None and len(runs) < 2:
        raise ConfigError("--fusion was given but one run, wanted the runs of all streams that it fuses")


def _beside(out: Path, name: str) -> Path:
    return out.with_name(f"{out.stem}-{name}.onnx")


def export_network(network: Network, path: Path) -> None:
    """Write one stream's network, which computes L2-normalised embeddings (B, D) of its stream's `inputs`.

    Inputs of SSIN: frames (B, T, 3, H, W) and masks (B, T, H, W) in [0, 1]. Inputs of SMIN: skeletons (B, 4, T, V) and
    a mask of valid frames (B, T).
    """
    inputs = stream_of(network.config).inputs()
    names = {one.name: one.free for one in inputs}
    about = {
        "stream": network.config.stream,
        "step": str(network.step),
        "run": Path(network.config.run).absolute().name,
    }
    _write(Embedding(network.model.float().eval()), [one.example for one in inputs], names, path, about)


def export_distance(fused: Fusion, lengths: Mapping[str, int], path: Path) -> None:
    """Write the fused distance for features of these lengths by stream; see PairDistance."""
    names, flags = fused.distance.streams, 1 if fused.distance.streams == PAIR else len(lengths)
    inputs: list[Tensor] = []
    for rows in (3, 5):
        inputs += [torch.rand(rows, lengths[name]) for name in names]
        inputs += [torch.rand(rows) > 0.1 for _ in range(flags)]
    share = pair_weight(fused.weights)
    told = json.dumps(dict(fused.weights)) if share is None else str(share)
    about = {"weight": told, "normalisation": fused.normalisation}
    _write(PairDistance(fused), inputs, distance_inputs(names), path, about, "distance")


def _write(
    graph: nn.Module, inputs: Sequence[Tensor], names: Names, path: Path, about: Mapping[str, str], output: str = ""
) -> None:
    free = {name: torch.export.Dim(name, min=1) for axes in names.values() for name in axes.values()}
    shapes = tuple({axis: free[name] for axis, name in axes.items()} for axes in names.values())
    options: dict[str, Any] = {"input_names": list(names), "output_names": [output or "embedding"]}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.eval(),
            tuple(inputs),
            dynamo=True,
            dynamic_shapes=(shapes,),  # of *inputs
            opset_version=OPSET,
            verbose=False,
            **options,
        )
    assert program is not None
    program.model.metadata_props.update({f"sptskm.{name}": value for name, value in about.items()})
    with partial_of(path) as partial:
        program.save(partial, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's messages about optional packages and its own code."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
