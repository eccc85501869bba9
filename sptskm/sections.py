"""Sections of the configuration that belong to a stream: their bases, and those of the gait stream.

Those of the paper's pair of streams are in `sptskm.config`, which has the rest of the configuration.
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from sptskm.common.settings import settings


class StreamClips:
    """How a stream cuts clips from tracklets: base of each stream's section `clips`."""


class StreamModel:
    """A stream's network: base of each stream's section `model`."""


class StreamLoss:
    """A stream's loss: base of each stream's section `loss`."""

    triplet: float


@settings
class GaitClips(StreamClips):
    """How the gait stream aligns silhouettes and draws sets of them."""

    frames: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Silhouettes per training clip: a random set of the tracklet's."""
    test_frames: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Silhouettes per test clip; longer tracklets are covered by several."""
    height: Annotated[int, Field(ge=32, le=16_384)] = 64
    """Height in pixels to which the person is scaled."""
    width: Annotated[int, Field(ge=16, le=16_384)] = 44
    """Width in pixels around the centre of the person's mass."""
    least_rows: Annotated[int, Field(ge=1)] = 30
    """Least height in pixels of a person in a mask; frames with less are left out."""
    shift: Annotated[int, Field(ge=0, le=1_000)] = 2
    """Most pixels by which training clips are moved along each side; they are also mirrored at random."""


@settings
class GaitModel(StreamModel):
    """Gait; a network of the kind of GaitSet."""

    width: Annotated[int, Field(ge=1, le=16_384)] = 64
    """Channels of the first stage; the next two have two and four times as many."""
    depth: Annotated[int, Field(ge=1, le=100)] = 2
    """Convolutions in each of the three stages."""
    stride: Annotated[int, Field(ge=1, le=16)] = 1
    """Stride of the first convolution."""
    strips: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 4, 8)
    """Numbers of horizontal strips, coarse to fine; every strip is a part with an embedding of its own."""
    embedding_dim: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Length of each part's embedding; the parts are concatenated."""


@settings
class GaitLoss(StreamLoss):
    """total = identity * CE + triplet * batch-all triplet, each the mean over parts."""

    identity: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the classifiers' cross entropies."""
    triplet: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the triplet loss; 0 leaves it out."""
    margin: Annotated[float, Field(ge=0)] = 0.2
    """Margin between a positive and a negative (Euclidean distance)."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Label smoothing, as for SSIN."""


def strip_problems(clips: GaitClips, model: GaitModel) -> Iterator[str]:
    """Yield a sentence if the last map of the network has too few rows for the strips."""
    rows = -(-clips.height // model.stride) // 4
    if not model.strips or max(model.strips) > rows:
        yield (
            f"model.strips is {list(model.strips)}, wanted numbers from 1 to {rows}: the rows that clips.height "
            f"{clips.height} and model.stride {model.stride} leave"
        )
