"""Compute one embedding per tracklet from all its clips on all ranks, and check that every clip was used once.

The pieces of a tracklet and the batches they are computed in depend on the tracklet alone, and each tracklet belongs
to one rank. On a CPU the result therefore has the same bits for any number of ranks, batch size and number of
workers.
Legend: N rows, D embedding, c clips of a piece.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sptskm.common.console import progress
from sptskm.common.endings import Stopped
from sptskm.config import Config
from sptskm.data.clips import AllClips, Inputs, MemorySource, Piece, PieceItem, Source
from sptskm.data.tracklets import IntArray
from sptskm.training.loading import loaded
from sptskm.training.precision import Precision
from sptskm.training.signals import StopFlag
from sptskm.training.streams import Stream
from sptskm.training.world import World

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings features_ND (float32) and valid_N; rows without input in this stream are zero and not valid."""

    features_ND: NDArray[np.float32]
    valid_N: NDArray[np.bool_]


def extract(  # noqa: PLR0913  # inputs and ranks
    model: nn.Module,
    stream: Stream,
    source: Source,
    rows: IntArray,
    config: Config,
    world: World,
    stop: StopFlag | None = None,
) -> Embeddings:
    """Embed the tracklets `rows` with the same result on every rank; on a GPU the model changes its memory layout.

    Raises Stopped on every rank when one of them was asked to stop, RuntimeError if a clip was lost or used twice.
    """
    clips = AllClips(source, config.extract.clips)
    pieces = [clips.pieces(int(row)) for row in rows]
    expected_N = torch.tensor([own[-1].last if own else 0 for own in pieces])
    sums_ND = torch.zeros(len(rows), cast(int, model.embedding_dim), dtype=torch.float64)
    counts_N = torch.zeros(len(rows), dtype=torch.int64)
    place = {int(row): n for n, row in enumerate(rows)}
    dealt = [[piece for own in share for piece in own] for share in deal(pieces, world.size)]
    own, longest = (-(-pieces // config.extract.batch) for pieces in (len(dealt[world.rank]), max(map(len, dealt))))
    precision = Precision.of(config.train.precision, world.device)
    model.eval()
    if world.device.type == "cuda":
        channels_last(model)
    with closing(_loaded(clips, dealt[world.rank], config, world)) as loaded_ahead:
        batches = _in_step(loaded_ahead, longest, world, stop or StopFlag())
        for batch in progress(batches, f"extract {config.stream}", total=own, shown=world.is_main):
            for piece, embedding_cD in _embed(model, stream, batch, precision, world):
                sums_ND[place[piece.row]] += embedding_cD.double().sum(0)
                counts_N[place[piece.row]] += len(embedding_cD)
    sums_ND = world.sum(sums_ND.to(world.device)).cpu()
    counts_N = world.sum(counts_N.to(world.device)).cpu()
    if not counts_N.equal(expected_N):
        n = int((counts_N != expected_N).nonzero()[0])
        raise RuntimeError(f"row {rows[n]}: {counts_N[n]} clips were embedded, wanted {expected_N[n]}")
    mean_ND = sums_ND / counts_N.clamp(min=1)[:, None]
    if config.extract.renormalise:
        mean_ND = nn.functional.normalize(mean_ND, dim=1)
    return Embeddings(mean_ND.float().numpy(), (counts_N > 0).numpy())


def channels_last(model: nn.Module) -> None:
    """Convert 2-D convolutions to the memory layout that is fastest on GPUs; SSIN's 3-D convolutions have none."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def deal(pieces: Sequence[list[Piece]], world: int) -> list[list[list[Piece]]]:
    """Assign whole tracklets to ranks: sort them by size and deal them in turn, so that all ranks finish together."""
    order = sorted(range(len(pieces)), key=lambda n: (-sum(p.last - p.first for p in pieces[n]), n))
    return [[pieces[n] for n in order[rank::world]] for rank in range(world)]


def _in_step(batches: Iterable[_T], rounds: int, world: World, stop: StopFlag) -> Iterator[_T]:
    """Yield this rank's batches, one or none per round. All ranks agree before each round, or raise Stopped."""
    own = iter(batches)
    for _ in range(rounds):
        if world.any(stop.requested):
            raise Stopped
        yield from islice(own, 1)


def _loaded(
    clips: AllClips, pieces: list[Piece], config: Config, world: World
) -> Generator[list[PieceItem], None, None]:
    in_memory = isinstance(clips.source, MemorySource)  # and on the device
    pinned = world.device.type == "cuda" and not in_memory
    return loaded(clips, pieces, 0 if in_memory else config.data.workers, pinned, config.extract.batch, list)


def _embed(
    model: nn.Module, stream: Stream, batch: list[PieceItem], precision: Precision, world: World
) -> Iterator[tuple[Piece, Tensor]]:
    for items in [batch] if world.device.type == "cuda" else [[item] for item in batch]:
        yield from _embed_together(model, stream, items, precision, world)


@torch.inference_mode()
def _embed_together(
    model: nn.Module, stream: Stream, items: list[PieceItem], precision: Precision, world: World
) -> list[tuple[Piece, Tensor]]:
    inputs = _join([item.inputs for item in items], world.device)
    with precision.autocast():
        embedding = model.embed(*stream.prepare(inputs, world.device, precision.dtype))  # type: ignore[operator]
    sizes = [item.piece.last - item.piece.first for item in items]
    return list(zip((item.piece for item in items), embedding.cpu().split(sizes), strict=True))


def _join(pieces: list[Inputs], device: torch.device) -> Inputs:
    """Concatenate all clips; pinned ones go to the device first, as joining on the host would lose pinned memory."""
    sent = [[x.to(device, non_blocking=True) if x.is_pinned() else x for x in piece] for piece in pieces]
    return tuple(torch.cat(parts) for parts in zip(*sent, strict=True))
