"""Trained streams and their fusion as ONNX files, for programs without PyTorch.

Batch norm is as in evaluation, dropout off; batch and length are free, the height and width of SSIN's frames are those
of its run. The files hold one clip's embedding: a tracklet's is the mean over its clips, scaled to length 1 again.
Legend: B clips, T frames, C channels, V = 14 joints, Q queries, G gallery rows, D embedding.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from sptskm.atomic import partial_of
from sptskm.config import ConfigError
from sptskm.data import DataError
from sptskm.evaluation import Normalisation
from sptskm.extraction import Network, load_network
from sptskm.models import stgcn

OPSET = 18
Names = Mapping[str, Mapping[int, str]]
"""Inputs in order, with the names of their free axes."""

SSIN_INPUTS: Names = {"frames": {0: "batch", 1: "length"}, "masks": {0: "batch", 1: "length"}}
SMIN_INPUTS: Names = {"skeletons": {0: "batch", 2: "length"}, "valid": {0: "batch", 1: "length"}}
DISTANCE_INPUTS: Names = {
    "ssin_query": {0: "queries"},
    "smin_query": {0: "queries"},
    "valid_query": {0: "queries"},
    "ssin_gallery": {0: "gallery"},
    "smin_gallery": {0: "gallery"},
    "valid_gallery": {0: "gallery"},
}


class Embedding(nn.Module):
    """What a stream's network computes for comparison, as a forward pass."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.network.embed(first, second)  # type: ignore[operator]


class FusedDistance(nn.Module):
    """Features of both streams to fused distances (Q, G), as `sptskm.evaluation.fuse` computes them.

    As there, the constants of the normalisation come from the distances of the queries and the gallery at hand, so
    that the file needs no others. At least one query and one gallery row must have a skeleton.
    """

    def __init__(self, weight: float, normalisation: Normalisation) -> None:
        super().__init__()
        if not 0 <= weight <= 1 or normalisation not in get_args(Normalisation):
            raise ConfigError(f"fusion has {normalisation} and weight {weight}, wanted zscore or minmax and 0..1")
        self.normalisation = normalisation
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float64))

    weight: Tensor

    def forward(
        self,
        ssin_query_QD: Tensor,
        smin_query_QD: Tensor,
        valid_query_Q: Tensor,
        ssin_gallery_GD: Tensor,
        smin_gallery_GD: Tensor,
        valid_gallery_G: Tensor,
    ) -> Tensor:
        both_QG = valid_query_Q[:, None] & valid_gallery_G[None]
        ssin_QG = self._normalised(_squared(ssin_query_QD, ssin_gallery_GD), both_QG)
        smin_QG = self._normalised(_squared(smin_query_QD, smin_gallery_GD), both_QG)
        fused_QG = (1 - self.weight) * ssin_QG + self.weight * smin_QG
        (mean, std), (ssin_mean, ssin_std) = _moments(fused_QG, both_QG), _moments(ssin_QG, both_QG)
        return torch.where(both_QG, fused_QG, (ssin_QG - ssin_mean) * (std / ssin_std) + mean)

    def _normalised(self, distance_QG: Tensor, both_QG: Tensor) -> Tensor:
        if self.normalisation == "zscore":
            shift, scale = _moments(distance_QG, both_QG)
        else:
            infinite_QG = torch.full_like(distance_QG, torch.inf)
            shift = torch.where(both_QG, distance_QG, infinite_QG).amin((0, 1))
            scale = torch.where(both_QG, distance_QG, -infinite_QG).amax((0, 1)) - shift
        return (distance_QG - shift) / scale


def _squared(query_QD: Tensor, gallery_GD: Tensor) -> Tensor:
    query_QD, gallery_GD = query_QD.double(), gallery_GD.double()
    squares_QG = query_QD.square().sum(1)[:, None] + gallery_GD.square().sum(1)[None]
    return (squares_QG - 2 * query_QD @ gallery_GD.T).clamp(min=0)


def _moments(distance_QG: Tensor, both_QG: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the pairs that count."""
    count = both_QG.double().sum()
    mean = distance_QG.masked_fill(~both_QG, 0).sum() / count
    return mean, ((distance_QG - mean).square().masked_fill(~both_QG, 0).sum() / count).sqrt()


@dataclass(frozen=True)
class Fusion:
    """How a final job joined the streams."""

    weight: float
    """Of SMIN."""
    normalisation: Normalisation


def read_fusion(results: Path) -> Fusion:
    """What a final job chose, from its results.json or the folder of it.

    Raises FileNotFoundError, and DataError for another file and for an evaluation of one stream.
    """
    path = results / "results.json" if results.is_dir() else results
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted the results.json of `sptskm evaluate`")
    try:
        found = json.loads(path.read_text())["fusion"]
        fusion = Fusion(float(found["weight"]), found["normalisation"])
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{path}: tells no fusion, wanted the results.json of both streams evaluated") from None
    if not 0 <= fusion.weight <= 1 or fusion.normalisation not in get_args(Normalisation):
        raise DataError(
            f"{path}: fuses by {fusion.normalisation} with weight {fusion.weight}, wanted zscore or minmax and 0..1"
        )
    return fusion


def export(run: Path, out: Path, smin: Path | None = None, results: Path | None = None) -> list[Path]:
    """Write the network of `run` to `out`; with `smin` both, and with `results` also their fused distance.

    Several files are called like `out` with -ssin, -smin and -fused. Returns what was written. Raises ConfigError for
    runs that are not one of each stream and where the packages are missing, and as `load_network` and `read_fusion`.
    """
    _check(out, smin, results)
    networks = [load_network(folder) for folder in (run, smin) if folder is not None]
    streams = [network.config.stream for network in networks]
    if smin is not None and streams != ["ssin", "smin"]:
        raise ConfigError(f"the runs are {' and '.join(streams)}, wanted ssin and, as --smin, smin")
    fusion = None if results is None else read_fusion(results)
    written = []
    for network in networks:
        path = out if smin is None else _beside(out, network.config.stream)
        export_network(network, path)
        written.append(path)
    if fusion is not None:
        written.append(_beside(out, "fused"))
        lengths = [int(network.model.embedding_dim) for network in networks]  # type: ignore[arg-type]
        export_distance(fusion, (lengths[0], lengths[1]), written[-1])
    return written


def _check(out: Path, smin: Path | None, results: Path | None) -> None:
    """Everything that can be said before a network is read."""
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"export needs {missing[0]}, which is not installed: pip install 'sptskm[onnx]'")
    if out.suffix != ".onnx":
        raise ConfigError(f"{out}: wanted a file that ends in .onnx")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: no such folder, wanted one for {out.name}")
    if results is not None and smin is None:
        raise ConfigError("results of a fusion were given but one run, wanted the run of SMIN as --smin")


def _beside(out: Path, name: str) -> Path:
    return out.with_name(f"{out.stem}-{name}.onnx")


def export_network(network: Network, path: Path) -> None:
    """One stream: frames (B, T, 3, H, W) and masks (B, T, H, W) in [0, 1], or skeletons (B, 4, T, V) and valid frames
    (B, T), to an L2-normalised embedding (B, D)."""
    clips, ssin = network.config.clips, network.config.stream == "ssin"
    # two clips of at least two frames: the exporter takes a 1 for a fixed length
    if ssin:
        size = (clips.height, clips.width)  # type: ignore[union-attr]
        inputs = (torch.rand(2, 3, 3, *size), torch.rand(2, 3, *size))
    else:
        inputs = (torch.rand(2, 4, 16, 14), torch.rand(2, 16) > 0.2)
    about = {"stream": network.config.stream, "step": str(network.step), "run": Path(network.config.run).name}
    with _masking_by_value():
        _write(Embedding(network.model.float().eval()), inputs, SSIN_INPUTS if ssin else SMIN_INPUTS, path, about)


def export_distance(fusion: Fusion, lengths: tuple[int, int], path: Path) -> None:
    """The fused distance of features of these lengths (SSIN's, SMIN's); see FusedDistance."""
    side = [(torch.rand(rows, lengths[0]), torch.rand(rows, lengths[1]), torch.rand(rows) > 0.1) for rows in (3, 5)]
    about = {"weight": str(fusion.weight), "normalisation": fusion.normalisation}
    graph = FusedDistance(fusion.weight, fusion.normalisation)
    _write(graph, (*side[0], *side[1]), DISTANCE_INPUTS, path, about, "distance")


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
            dynamic_shapes=shapes,
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
    """Without the exporter's remarks about packages that are not needed and about its own code."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


@contextmanager
def _masking_by_value() -> Iterator[None]:
    """SMIN with frames set to zero after batch norm, rather than left out before it.

    Without batch statistics both are the same number for number, and only this has shapes that do not depend on values.
    """
    before = stgcn.batch_norm, stgcn._strided
    stgcn.batch_norm, stgcn._strided = _batch_norm, _strided
    try:
        yield
    finally:
        stgcn.batch_norm, stgcn._strided = before


def _batch_norm(bn: nn.Module, x: Tensor, valid_BT: Tensor | None) -> Tensor:
    y = bn(x)  # (B, C, T) or (B, C, T, V)
    if valid_BT is None:
        return y
    valid = valid_BT[:, None] if x.dim() == 3 else valid_BT[:, None, :, None]
    return torch.where(valid, y, torch.zeros_like(y))


def _strided(valid_BT: Tensor, stride: int) -> Tensor:
    """Valid where any of the frames is that a strided position stands for, by a convolution like that of the frames:
    the exporter sees that both have the same length, whatever that is."""
    if stride == 1:
        return valid_BT
    kernel = torch.zeros(1, 1, stgcn.TEMPORAL_KERNEL)
    middle = stgcn.TEMPORAL_KERNEL // 2
    kernel[..., middle : middle + stride] = 1
    return nn.functional.conv1d(valid_BT[:, None].float(), kernel, stride=stride, padding=middle)[:, 0] > 0
