"""Export of trained streams and their fusion as ONNX files, for programs without PyTorch.

Batch norm runs in evaluation mode and dropout is off. Batch size and clip length are free; the frame height and width
of SSIN are those of its run. A network file computes the embedding of one clip: a tracklet's embedding is the mean over
its clips, scaled to length 1 again.
Legend: B clips, T frames, C channels, V = 14 joints, Q queries, G gallery rows, D embedding.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sptskm.atomic import partial_of, write_error
from sptskm.config import ConfigError
from sptskm.extraction import Network, load_network
from sptskm.report.fused import Fused, read_fused
from sptskm.training.streams import stream_of

OPSET = 18
Names = Mapping[str, Mapping[int, str]]
"""Inputs in order, with the names of their free axes."""

DISTANCE_INPUTS: Names = {
    "ssin_query": {0: "queries"},
    "smin_query": {0: "queries"},
    "valid_query": {0: "queries"},
    "ssin_gallery": {0: "gallery"},
    "smin_gallery": {0: "gallery"},
    "valid_gallery": {0: "gallery"},
}


class Embedding(nn.Module):
    """Module whose forward pass is the embedding that a stream's network computes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network.embed(*inputs)  # type: ignore[operator]


class PairDistance(nn.Module):
    """Module that computes fused distances (Q, G) from the features and skeleton masks of both streams.

    It is `sptskm.evaluation.FusedDistance` with its constants, applied to features (Q, D) and (G, D). With "concat" the
    features are first scaled to length 1.
    """

    def __init__(self, fused: Fused) -> None:
        super().__init__()
        self.constants, self.unit = fused.distance, fused.normalisation == "concat"

    def forward(
        self,
        ssin_query_QD: Tensor,
        smin_query_QD: Tensor,
        valid_query_Q: Tensor,
        ssin_gallery_GD: Tensor,
        smin_gallery_GD: Tensor,
        valid_gallery_G: Tensor,
    ) -> Tensor:
        ssin_QG = self._squared(ssin_query_QD, ssin_gallery_GD)
        fused_QG = self.constants.ssin * ssin_QG + self.constants.smin * self._squared(smin_query_QD, smin_gallery_GD)
        both_QG = valid_query_Q[:, None] & valid_gallery_G[None]
        return torch.where(both_QG, fused_QG, self.constants.alone * ssin_QG + self.constants.offset)

    def _squared(self, query_QD: Tensor, gallery_GD: Tensor) -> Tensor:
        query_QD, gallery_GD = query_QD.double(), gallery_GD.double()
        if self.unit:
            query_QD, gallery_GD = F.normalize(query_QD, dim=1), F.normalize(gallery_GD, dim=1)
        squares_QG = query_QD.square().sum(1)[:, None] + gallery_GD.square().sum(1)[None]
        return (squares_QG - 2 * query_QD @ gallery_GD.T).clamp(min=0)


def export(run: Path, out: Path, smin: Path | None = None, fusion: Path | None = None) -> list[Path]:
    """Write the network of `run` to `out`; with `smin` both networks, and with `fusion` also the fused distance.

    `fusion` is the path of a final job's results. Several files are named like `out` with -ssin, -smin and -fused.
    Returns the paths written. Raises ConfigError unless the runs are one of each stream and all packages are installed,
    DataError for results of other networks, and errors as `load_network` and `read_fused`.
    """
    _check(out, smin, fusion)
    fused = None if fusion is None else read_fused(fusion)
    networks = [load_network(folder) for folder in (run, smin) if folder is not None]
    streams = [network.config.stream for network in networks]
    if smin is not None and streams != ["ssin", "smin"]:
        raise ConfigError(f"the runs are {' and '.join(streams)}, wanted ssin and, as --smin, smin")
    for network, folder in zip(networks, (run, smin), strict=False):
        if fused is not None:
            fused.check(network.config.stream, network.fingerprint, f"{folder}")
    written = []
    for network in networks:
        path = out if smin is None else _beside(out, network.config.stream)
        export_network(network, path)
        written.append(path)
    if fused is not None:
        written.append(_beside(out, "fused"))
        lengths = [int(network.model.embedding_dim) for network in networks]  # type: ignore[arg-type]
        export_distance(fused, (lengths[0], lengths[1]), written[-1])
    return written


def _check(out: Path, smin: Path | None, fusion: Path | None) -> None:
    """Raise an error for everything that can be checked before a network is read."""
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"export needs {missing[0]}, which is not installed: pip install 'sptskm[onnx]'")
    if out.suffix != ".onnx":
        raise ConfigError(f"{out}: wanted a file that ends in .onnx")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: no such folder, wanted one for {out.name}")
    if why := write_error(out):
        raise ConfigError(f"{out}: {why}, wanted a file that can be written")
    if fusion is not None and smin is None:
        raise ConfigError("--fusion was given but one run, wanted the run of SMIN as --smin")


def _beside(out: Path, name: str) -> Path:
    return out.with_name(f"{out.stem}-{name}.onnx")


def export_network(network: Network, path: Path) -> None:
    """Write one stream's network, which computes L2-normalised embeddings (B, D) of its stream's `inputs`.

    Inputs of SSIN: frames (B, T, 3, H, W) and masks (B, T, H, W) in [0, 1]. Inputs of SMIN: skeletons (B, 4, T, V) and
    a mask of valid frames (B, T).
    """
    inputs = stream_of(network.config).inputs()
    names = {one.name: one.free for one in inputs}
    about = {"stream": network.config.stream, "step": str(network.step), "run": Path(network.config.run).name}
    _write(Embedding(network.model.float().eval()), [one.example for one in inputs], names, path, about)


def export_distance(fused: Fused, lengths: tuple[int, int], path: Path) -> None:
    """Write the fused distance for features of these lengths (SSIN, SMIN); see PairDistance."""
    side = [(torch.rand(rows, lengths[0]), torch.rand(rows, lengths[1]), torch.rand(rows) > 0.1) for rows in (3, 5)]
    about = {"weight": str(fused.weight), "normalisation": fused.normalisation}
    _write(PairDistance(fused), (*side[0], *side[1]), DISTANCE_INPUTS, path, about, "distance")


def _write(
    graph: nn.Module, inputs: Sequence[Tensor], names: Names, path: Path, about: Mapping[str, str], output: str = ""
) -> None:
    free = {name: torch.export.Dim(name, min=1) for axes in names.values() for name in axes.values()}
    shapes: tuple[Any, ...] = tuple({axis: free[name] for axis, name in axes.items()} for axes in names.values())
    if isinstance(graph, Embedding):  # whose inputs are one argument, *inputs
        shapes = (shapes,)
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
