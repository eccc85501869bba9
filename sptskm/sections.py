"""Settings of the final job, and sections that belong to a stream: their bases, and those of each stream.

The rest of the configuration is in `sptskm.config`.
"""

from collections.abc import Iterator
from dataclasses import field
from math import remainder
from typing import Annotated, Any, Literal

from pydantic import Field

from sptskm.common.settings import refuse, settings


class StreamClips:
    """How a stream cuts clips from tracklets: base of each stream's section `clips`."""


class StreamModel:
    """A stream's network: base of each stream's section `model`."""


class StreamLoss:
    """A stream's loss: base of each stream's section `loss`."""

    triplet: float


@settings
class SsinClips(StreamClips):
    """How SSIN cuts clips from tracklets."""

    frames: Annotated[int, Field(ge=1, le=100_000)] = 4
    """Consecutive frames per clip."""
    height: Annotated[int, Field(ge=32, le=16_384)] = 256
    """Height in pixels to which frames and masks are resized."""
    width: Annotated[int, Field(ge=16, le=16_384)] = 128
    """Width in pixels to which frames and masks are resized."""
    last_window: bool = True
    """Whether the last possible window may be drawn; false is the published code, which never draws it."""
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the training clips with a rectangle erased from all frames and masks (random erasing)."""


@settings
class SsinModel(StreamModel):
    """SSIN; the paper's network by default."""

    variant: Literal["2d", "3d"] = "2d"
    """2d attends within each frame and embeds three branches; 3d attends over the whole clip and embeds two."""
    depths: tuple[Annotated[int, Field(ge=1, le=200)], ...] = (3, 4, 6, 3)
    """Bottlenecks in each stage of the image branch (ResNet-50)."""
    mask_depths: tuple[Annotated[int, Field(ge=1, le=200)], ...] = (1, 1, 1, 1)
    """Bottlenecks in each stage of the mask branch."""
    width: Annotated[int, Field(ge=1, le=16_384)] = 64
    """Channels of the stem; the last stage has 32 times as many."""
    embedding_dim: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    """Length of each branch's embedding; the branches are concatenated."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout rate before the classifiers, in training."""
    pooling: Literal["max", "mean"] = "max"
    """Pooling of a branch's embeddings over the frames of a clip."""
    imagenet: bool = False
    """Whether frames are brought to ImageNet's mean and standard deviation, as its pretrained weights expect."""
    last_stride: Literal[1, 2] = 2
    """Stride of the last stage of both trunks; 1 gives maps of twice the height and width."""
    spatial_pooling: Literal["mean", "gem"] = "mean"
    """Pooling of a frame's features over its positions; gem is the generalised mean with a learned exponent."""
    pretrained: str = ""
    """Local file with ImageNet weights in torchvision's layout (resnet50-19c8e357.pth), read when a run begins; empty
    = none."""
    trunk: str = ""
    """Local folder with config.json and model.safetensors of DINOv2, CLIP's vision part, ConvNeXt or ConvNeXt V2, as
    `transformers` writes them (the extra `backbones`): the trunk of the frames, with its own mean and standard
    deviation of images, in place of `depths`; the masks keep their ResNet. Its weights are read when a run begins;
    empty = published."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """What config.json in `trunk` says of the network; filled in when a run begins, for the time when the folder is
    gone."""

    def __post_init__(self) -> None:
        for name in ("depths", "mask_depths"):
            if len(found := getattr(self, name)) != 4:
                refuse([f"{name} is {list(found)}, wanted four numbers, one for each stage"])
        if self.architecture and not self.trunk:
            refuse(["architecture is given without trunk, wanted the folder of a trunk, which it describes"])


@settings
class SsinLoss(StreamLoss):
    """total = identity * (image*CE + mask*CE + glob*CE) + triplet * batch-hard triplet."""

    identity: float = 0.5
    """Weight of the classifiers' cross entropies."""
    image: float = 0.4
    """Weight of the image branch's cross entropy."""
    mask: float = 0.1
    """Weight of the mask branch's cross entropy."""
    glob: float = 0.5
    """Weight of the cross entropy of the branch that sees both."""
    triplet: float = 0.5
    """Weight of the triplet loss; 0 leaves it out."""
    margin: Annotated[float, Field(ge=0)] = 0.3
    """Margin between the hardest positive and negative (Euclidean distance of unit embeddings)."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Label smoothing: share of the target that is spread evenly over all identities."""


@settings
class SminClips(StreamClips):
    """How SMIN cuts skeleton sequences from tracklets."""

    frames: Annotated[int, Field(ge=1, le=100_000)] = 28
    """Consecutive frames per training clip, at a random position."""
    test_frames: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Frames per test clip; longer tracklets are covered by several."""
    first_frames: Annotated[int, Field(ge=0)] = 0
    """Number of frames used, from the start of a tracklet (published: 30); 0 = all."""
    fps: Annotated[float, Field(ge=0)] = 25.0
    """Frames per second to which skeletons are brought where a manifest says their rate; 0 = as recorded."""
    normalise: bool = True
    """Root, scale and facing of every tracklet (no change to skeletons stored in that form already)."""
    scale: Literal["tracklet", "metric", "auto"] = "tracklet"
    """What `normalise` does to size. tracklet: every tracklet gets the same sum of bones, as published; metric: sizes
    are kept; auto: they are kept if the skeletons are in metres (or in cm or mm, and brought to metres), which the
    record of their method and the lengths of bones tell."""
    random_move: bool = True
    """Rotate, scale and shift training clips, interpolated over time; sizes that are kept are not scaled."""
    mirrored: bool = False
    """Exchange left and right in half of the training clips."""


@settings
class SminModel(StreamModel):
    """SMIN; ST-GCN as published, on the correct skeleton graph."""

    graph: Literal["spatial", "published"] = "spatial"
    """ST-GCN's partitions of each joint's neighbours; published: no joint sees another."""
    width: Annotated[int, Field(ge=1, le=16_384)] = 64
    """Channels of the first blocks; later ones have two and four times as many."""
    embedding_dim: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    """Length of the embedding."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout rate in each block but the first, in training."""
    bones: bool = False
    """Add each joint's way from its neighbour toward the neck to the channels."""
    pooling: Literal["mean", "mean+std"] = "mean"
    """Pooling over time; mean+std appends standard deviations."""
    mirror: bool = False
    """Embed a clip as the mean of its own and its mirror image's embedding."""
    static: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the body measures (lengths of bones, heights, posture), compared by a metric learned on the training
    people, in the squared distance of embeddings; 0 = the network alone."""
    measures: Literal["body", "body+motion"] = "body"
    """The measures of `static`; body+motion adds how far each joint moves about the hips, as ranges over time."""


@settings
class SminLoss(StreamLoss):
    """total = identity * CE + triplet * batch-hard triplet."""

    identity: float = 0.8
    """Weight of the classifier's cross entropy."""
    triplet: float = 0.2
    """Weight of the triplet loss; 0 leaves it out."""
    margin: Annotated[float, Field(ge=0)] = 0.3
    """Margin, as for SSIN."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Label smoothing, as for SSIN."""


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
    mirror: bool = False
    """Embed a clip as the mean of its own and its mirror image's embedding."""
    static: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of average silhouettes, compared by a metric learned on the training people, in the squared distance of
    embeddings; 0 = the network alone."""
    static_rows: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """First row and end of each band of rows in which average silhouettes are compared, even numbers up to
    clips.height: [0, 14, 40, 64] = head and legs of 64 rows; empty = all rows."""


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


@settings
class Final:
    """The final job: extract, fuse, report."""

    protocol: str = "mars-official"
    """Name of a protocol, or the path of a .yaml file with rules of one's own."""
    streams: tuple[str, ...] = ()
    """Streams that are evaluated and fused; empty = all that were trained."""
    normalisation: Literal["zscore", "minmax", "rank", "concat", "calibrated", "auto"] = "zscore"
    """Normalisation of the streams' distances; calibrated = in log-odds that two tracklets show one person, fitted to
    held-out pairs; auto = chosen among the others on the held-out identities, with the weight."""
    weight: Annotated[float | None, Field(ge=0, le=1)] = None
    """Share of SMIN (the second of two streams) in the fused distance; empty = chosen on the held-out identities."""
    weights: dict[str, float] = field(default_factory=dict)
    """Share of every stream in the fused distance, in all 1, such as {ssin: 0.7, smin: 0.3}; empty = `weight`."""
    weight_step: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Step of the weights whose mAP on the held-out identities is drawn and kept beside that of the chosen ones."""
    folds: Annotated[int, Field(ge=0, le=100)] = 0
    """Parts of the training identities that choose the weights, each by runs that leave it out: this many more
    trainings of every stream, for few people, of whom `data.held_out` would cost too many; 0 = held-out ones choose."""
    undecided: Literal["better", "fused"] = "better"
    """The result where neither fusing nor the better stream is shown to be better: that stream, or fused as a hedge."""
    rerank: bool = False
    """Add the k-reciprocal re-ranking of the last ranking; auto then chooses among normalisations other than rank."""
    rerank_gigabytes: Annotated[float, Field(gt=0)] = 1.0
    """Memory (2^30 bytes) that re-ranking may take beside features and distances."""

    def __post_init__(self) -> None:
        refuse(self._conflicts())

    def _conflicts(self) -> Iterator[str]:
        """Yield a sentence for each setting that does not go with the others."""
        if (self.weight is not None or self.weights) and self.normalisation == "auto":
            yield "normalisation is auto with a weight, wanted both chosen or both given"
        if self.folds == 1:
            yield "folds is 1, wanted 0 for none, or at least 2"
        if self.folds and (self.weight is not None or self.weights):
            yield f"folds is {self.folds} with a weight, wanted it chosen or given"
        if abs(remainder(1, self.weight_step)) > 1e-9:
            near = f"{1 / round(1 / self.weight_step):.10g}"
            yield f"weight_step is {self.weight_step}, wanted one that divides 1, such as {near}"
        if self.rerank and self.normalisation == "rank":
            yield "rerank with normalisation rank, which is no distance of a pair, wanted another one"
        shares = self.weights.values()
        if shares and (min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or self.weight is not None):
            yield f"weights are {self.weights}, wanted shares from 0 to 1 whose sum is 1, and no weight beside them"


def strip_problems(clips: GaitClips, model: GaitModel) -> Iterator[str]:
    """Yield a sentence for strips or bands of rows that the network's last map or the silhouettes do not have."""
    rows = -(-clips.height // model.stride) // 4
    if not model.strips or max(model.strips) > rows:
        yield (
            f"model.strips is {list(model.strips)}, wanted numbers from 1 to {rows}: the rows that clips.height "
            f"{clips.height} and model.stride {model.stride} leave"
        )
    ends = list(model.static_rows)
    empty = any(first == end for first, end in zip(ends[::2], ends[1::2], strict=False))
    if len(ends) % 2 or any(row % 2 or row > clips.height for row in ends) or ends != sorted(ends) or empty:
        yield (
            f"model.static_rows is {ends}, wanted a first row and an end for each band, even numbers that rise to "
            f"{clips.height} (clips.height) at most"
        )
