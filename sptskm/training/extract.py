"""One embedding per tracklet from all its clips, over all ranks, written by row and checked for coverage.

What a tracklet's pieces are and what is computed with what depends on the tracklet alone, and a tracklet belongs
to one rank: on a CPU the result has the same bits for any number of ranks, batch size and number of workers.
Legend: N rows, D embedding, c clips of a piece.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sptskm.config import Config
from sptskm.data.clips import AllClips, Piece, PieceItem, Source
from sptskm.data.tracklets import IntArray
from sptskm.report.console import progress
from sptskm.training.precision import Precision
from sptskm.training.signals import ignore_in_worker
from sptskm.training.streams import Stream
from sptskm.training.world import World


@dataclass(frozen=True, eq=False)
class Embeddings:
    """features_ND float32; rows without any input in this stream are zero and not valid_N."""

    features_ND: NDArray[np.float32]
    valid_N: NDArray[np.bool_]


def extract(
    model: nn.Module, stream: Stream, source: Source, rows: IntArray, config: Config, world: World
) -> Embeddings:
    """Embed the tracklets `rows`, on every rank the same result; RuntimeError if a clip was lost or done twice."""
    clips = AllClips(source, config.extract.clips)
    pieces = [clips.pieces(int(row)) for row in rows]
    expected_N = torch.tensor([own[-1].last if own else 0 for own in pieces])
    sums_ND = torch.zeros(len(rows), cast(int, model.embedding_dim), dtype=torch.float64)
    counts_N = torch.zeros(len(rows), dtype=torch.int64)
    place = {int(row): n for n, row in enumerate(rows)}
    mine = [piece for own in deal(pieces, world.rank, world.size) for piece in own]
    for piece, embedding_cD in _embed(model, stream, clips, mine, config, world):
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


def deal(pieces: Sequence[list[Piece]], rank: int, world: int) -> list[list[Piece]]:
    """Whole tracklets for `rank`: sorted by size and dealt like cards, so that ranks finish together."""
    order = sorted(range(len(pieces)), key=lambda n: (-sum(p.last - p.first for p in pieces[n]), n))
    return [pieces[n] for n in order[rank::world]]


def _embed(
    model: nn.Module, stream: Stream, clips: AllClips, pieces: list[Piece], config: Config, world: World
) -> Iterator[tuple[Piece, Tensor]]:
    loader = DataLoader(
        clips,
        batch_size=config.extract.batch,
        sampler=pieces,  # type: ignore[arg-type]  # a sampler is any sequence of what the data set is indexed by
        num_workers=config.data.workers,
        collate_fn=list,
        pin_memory=world.device.type == "cuda",
        worker_init_fn=ignore_in_worker,
    )
    precision = Precision.of(config.train.precision, world.device)
    model.eval()
    for batch in progress(loader, f"extract {config.stream}", shown=world.is_main):
        groups = [batch] if world.device.type == "cuda" else [[item] for item in batch]
        for items in groups:
            yield from _embed_together(model, stream, items, precision, world)


@torch.inference_mode()
def _embed_together(
    model: nn.Module, stream: Stream, items: list[PieceItem], precision: Precision, world: World
) -> list[tuple[Piece, Tensor]]:
    inputs = tuple(torch.cat(parts) for parts in zip(*(item.inputs for item in items), strict=True))
    with precision.autocast():
        embedding = model.embed(*stream.prepare(inputs, world.device, precision.dtype))  # type: ignore[operator]
    sizes = [item.piece.last - item.piece.first for item in items]
    return list(zip((item.piece for item in items), embedding.cpu().split(sizes), strict=True))
