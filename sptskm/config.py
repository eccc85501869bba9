"""All settings of the toolkit, typed, each with its default. Unknown keys are errors.

The defaults are the published recipe, except for its bugs: there the correct behaviour is the default and the published
one has a name of its own. YAML files in configs/ hold only what differs from the defaults.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from math import remainder
from typing import Literal

from sptskm.common.errors import ConfigError as ConfigError

Modality = Literal["frames", "masks", "skeletons"]


@dataclass(frozen=True)
class Data:
    """Data for training and validation."""

    root: str = "data/mars"
    """Folder in the MARS layout, a pack, or a manifest."""
    held_out: float = 0.1
    """Share of the training identities held out for validation and the fusion weight; 0 = none."""
    split_seed: int = 0
    """Seed of that split; streams to be fused must use the same seed."""
    min_length: int = 1
    """Least number of frames of a training tracklet (published: 30 for SSIN, 31 for SMIN)."""
    test: bool = True
    """Whether the test part is read at all; a hyper-parameter search never reads it, so that it cannot leak."""
    workers: int = 2
    """Loader processes per rank; 0 loads in the training process. SMIN, whose skeletons lie in memory, has none."""
    stage: str = "auto"
    """Where a node keeps copies of a pack's zip files while it trains: a folder, "none", or "auto": $SLURM_TMPDIR, else
    $TMPDIR in a job of SLURM, else nowhere."""


class StreamClips:
    """How a stream cuts clips from tracklets: base of each stream's section `clips`."""


class StreamModel:
    """A stream's network: base of each stream's section `model`."""


class StreamLoss:
    """A stream's loss: base of each stream's section `loss`."""

    triplet: float


@dataclass(frozen=True)
class SsinClips(StreamClips):
    """How SSIN cuts clips from tracklets."""

    frames: int = 4
    """Consecutive frames per clip."""
    height: int = 256
    """Height in pixels to which frames and masks are resized."""
    width: int = 128
    """Width in pixels to which frames and masks are resized."""
    last_window: bool = True
    """Whether the last possible window may be drawn; false is the published code, which never draws it."""


@dataclass(frozen=True)
class SminClips(StreamClips):
    """How SMIN cuts skeleton sequences from tracklets."""

    frames: int = 28
    """Consecutive frames per training clip, at a random position."""
    test_frames: int = 30
    """Frames per test clip; longer tracklets are covered by several."""
    first_frames: int = 0
    """Number of frames used, from the start of a tracklet (published: 30); 0 = all."""
    fps: float = 25.0
    """Frames per second to which skeletons are brought where a manifest says their rate; 0 = as recorded."""
    normalise: bool = True
    """Root, scale and facing of every tracklet (no change to skeletons stored in that form already)."""
    random_move: bool = True
    """Rotate, scale and shift training clips, interpolated over time."""


@dataclass(frozen=True)
class SsinModel(StreamModel):
    """SSIN; the paper's network by default."""

    variant: Literal["2d", "3d"] = "2d"
    """2d attends within each frame and embeds three branches; 3d attends over the whole clip and embeds two."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Bottlenecks in each stage of the image branch (ResNet-50)."""
    mask_depths: tuple[int, ...] = (1, 1, 1, 1)
    """Bottlenecks in each stage of the mask branch."""
    width: int = 64
    """Channels of the stem; the last stage has 32 times as many."""
    embedding_dim: int = 1024
    """Length of each branch's embedding; the branches are concatenated."""
    dropout: float = 0.5
    """Dropout rate before the classifiers, in training."""
    pooling: Literal["max", "mean"] = "max"
    """Pooling of a branch's embeddings over the frames of a clip."""
    pretrained: str = ""
    """Local file with ImageNet weights in torchvision's layout (resnet50-19c8e357.pth), read when a run begins; empty
    = none."""


@dataclass(frozen=True)
class SminModel(StreamModel):
    """SMIN; ST-GCN as published, on the correct skeleton graph."""

    graph: Literal["spatial", "published"] = "spatial"
    """ST-GCN's partitions of each joint's neighbours; published: no joint sees another."""
    width: int = 64
    """Channels of the first blocks; later ones have two and four times as many."""
    embedding_dim: int = 1024
    """Length of the embedding."""
    dropout: float = 0.5
    """Dropout rate in each block but the first, in training."""


@dataclass(frozen=True)
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
    margin: float = 0.3
    """Margin between the hardest positive and negative (Euclidean distance of unit embeddings)."""
    smoothing: float = 0.1
    """Label smoothing: share of the target that is spread evenly over all identities."""


@dataclass(frozen=True)
class SminLoss(StreamLoss):
    """total = identity * CE + triplet * batch-hard triplet."""

    identity: float = 0.8
    """Weight of the classifier's cross entropy."""
    triplet: float = 0.2
    """Weight of the triplet loss; 0 leaves it out."""
    margin: float = 0.3
    """Margin, as for SSIN."""
    smoothing: float = 0.1
    """Label smoothing, as for SSIN."""


@dataclass(frozen=True)
class Optim:
    """Optimiser and step schedule."""

    algorithm: Literal["adam", "sgd"] = "adam"
    """"sgd" is with Nesterov momentum 0.9."""
    lr: float = 3e-4
    """Learning rate before the first milestone, independent of the number of ranks: the batch is global."""
    weight_decay: float = 5e-4
    """Added to the gradient (L2), as both published optimisers do."""
    milestones: tuple[int, ...] = (200, 400, 600, 800)
    """0-based epochs at which the rate is multiplied by gamma."""
    gamma: float = 0.1
    """The factor at each milestone."""


@dataclass(frozen=True)
class Sampling:
    """The global batch: identities * tracklets clips, whatever the number of GPUs."""

    kind: Literal["identities", "shuffled"] = "identities"
    """P x K identity sampling, or a plain shuffle (published SMIN: most anchors then lack a positive)."""
    identities: int = 8
    """Identities per batch (P)."""
    tracklets: int = 4
    """Tracklets of each identity (K)."""
    rounds: int = 1
    """Passes over all identities that make up one epoch."""


@dataclass(frozen=True)
class Train:
    """Training loop."""

    epochs: int = 1000
    """Epochs in all, each of `sampling.rounds` passes over the training identities; may be raised after the end."""
    seed: int = 0
    """Seed of weights, batches, clips, augmentation and dropout."""
    batch_norm: Literal["sync", "local", "frozen"] = "sync"
    """Statistics over all ranks, per rank, or fixed at the loaded ones."""
    precision: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Autocast type; auto = float32 on a CPU, bfloat16 on a GPU (float16 where its compute capability is below 8).
    float32 on a GPU is without TF32."""
    compile: bool = False
    """Whether the network runs through torch.compile: SSIN in one graph, SMIN in a few where clips have gaps."""
    validate_every: int = 10
    """Epochs between validations on the held-out identities."""
    save_minutes: float = 10.0
    """Minutes between checkpoints within an epoch. Its end is saved before a validation, after the last epoch, and else
    where saving takes less than half a second, or at most a twentieth of the time since the last checkpoint."""
    save_steps: int = 0
    """Steps between checkpoints within an epoch, beside those by the minute; 0 = only by the minute."""
    leave_seconds: float = 20.0
    """How long a rank that was asked to stop may need to save and leave; one that is stuck is ended then, and its
    last checkpoint counts. Less than the grace time of the cluster."""
    threads: int = 1
    """CPU threads per rank; add ranks rather than threads (the last bits of results depend on threads)."""
    timeout_minutes: float = 10.0
    """How long a rank waits for the others before it gives up."""


@dataclass(frozen=True)
class Extract:
    """Settings for turning a tracklet's clips into one embedding."""

    clips: int = 0
    """Clips per tracklet, drawn by a seeded generator where there are more (published: 20); 0 = all."""
    renormalise: bool = True
    """L2-normalise the mean over clips; false is the published code."""
    batch: int = 8
    """Pieces of tracklets (at most 16 clips each) read and, on a GPU, embedded together."""


@dataclass(frozen=True)
class Config:
    """One training run of one stream."""

    stream: str
    clips: StreamClips
    model: StreamModel
    loss: StreamLoss
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    sampling: Sampling = field(default_factory=Sampling)
    train: Train = field(default_factory=Train)
    extract: Extract = field(default_factory=Extract)
    run: str = ""
    """Folder of this run: configuration, checkpoints, TensorBoard; an existing run in it is continued."""

    def __post_init__(self) -> None:
        for ok, message in _rules(self):
            if not ok:
                raise ConfigError(message)


@dataclass(frozen=True)
class Final:
    """The final job: extract, fuse, report."""

    protocol: str = "mars-official"
    """Name of a protocol, or the path of a .yaml file with rules of one's own."""
    normalisation: Literal["zscore", "minmax", "rank", "concat", "auto"] = "zscore"
    """Normalisation of the two streams' distances; auto = chosen on the held-out identities, with the weight."""
    weight: float | None = None
    """Share of SMIN in the fused distance; empty = chosen on the held-out identities."""
    weight_step: float = 0.05
    """Step of the grid over which the weight is chosen."""
    rerank: bool = False
    """Add the k-reciprocal re-ranking of the last ranking; auto then chooses among normalisations other than rank."""
    rerank_gigabytes: float = 1.0
    """Memory (2^30 bytes) that re-ranking may take beside features and distances."""

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 <= self.weight <= 1:
            raise ConfigError(f"weight is {self.weight}, wanted 0 (SSIN alone) to 1 (SMIN alone)")
        if self.weight is not None and self.normalisation == "auto":
            raise ConfigError("normalisation is auto with a weight, wanted both chosen or both given")
        if not 0 < self.weight_step <= 1:
            raise ConfigError(f"weight_step is {self.weight_step}, wanted more than 0 and at most 1")
        if abs(remainder(1, self.weight_step)) > 1e-9:
            near = f"{1 / round(1 / self.weight_step):.10g}"
            raise ConfigError(f"weight_step is {self.weight_step}, wanted one that divides 1, such as {near}")
        if self.rerank and self.normalisation == "rank":
            raise ConfigError("rerank with normalisation rank, which is no distance of a pair, wanted another one")
        if self.rerank_gigabytes <= 0:
            raise ConfigError(f"rerank_gigabytes is {self.rerank_gigabytes}, wanted more than 0")


WITHDRAWN = {"camera_weights": False}
"""Settings of the final job that earlier versions had, each with the value at which it changed nothing."""

# smallest legal value of each number that has one; open marks a bound that may not be reached itself
_AT_LEAST = {
    "data.min_length": 0, "data.workers": 0, "data.split_seed": 0,
    "clips.frames": 1, "clips.test_frames": 1, "clips.first_frames": 0, "clips.fps": 0,
    "clips.height": 32, "clips.width": 16,
    "model.width": 1, "model.embedding_dim": 1,
    "loss.margin": 0, "optim.weight_decay": 0,
    "sampling.identities": 1, "sampling.tracklets": 1, "sampling.rounds": 1,
    "train.epochs": 1, "train.seed": 0, "train.validate_every": 1, "train.save_minutes": 0, "train.save_steps": 0,
    "train.threads": 1,
    "extract.clips": 0, "extract.batch": 1,
}  # fmt: skip
# largest legal value: of those that take memory or threads, and else what fits the numbers of NumPy and PyTorch
_AT_MOST = {
    "data.workers": 4096, "train.threads": 4096,
    "clips.frames": 100_000, "clips.test_frames": 100_000, "clips.height": 16_384, "clips.width": 16_384,
    "model.width": 16_384, "model.embedding_dim": 1_000_000,
    "sampling.identities": 1_000_000, "sampling.tracklets": 1_000_000, "sampling.rounds": 1_000_000,
}  # fmt: skip
LARGEST, LARGEST_REAL = 2**63 - 1, 1e30
_MORE_THAN = {"optim.lr": 0, "optim.gamma": 0, "train.timeout_minutes": 0, "train.leave_seconds": 0}
_SHARES = ("data.held_out", "model.dropout", "loss.smoothing")


def _rules(config: Config) -> Iterator[tuple[bool, str]]:
    """Yield for each rule whether it is met, and the sentence for when it is not."""

    def value(name: str) -> float | None:
        section, _, key = name.partition(".")
        return getattr(getattr(config, section), key, None)  # some keys belong to one stream only

    for name, least in _AT_LEAST.items():
        yield (found := value(name)) is None or found >= least, f"{name} is {found}, wanted at least {least}"
    for name, bound in _MORE_THAN.items():
        yield (found := value(name)) is None or found > bound, f"{name} is {found}, wanted more than {bound}"
    for name in _SHARES:
        yield (found := value(name)) is None or 0 <= found < 1, f"{name} is {found}, wanted a share: 0 <= {name} < 1"
    for name, number in _numbers(config):
        most = _AT_MOST.get(name, LARGEST if isinstance(number, int) else LARGEST_REAL)
        yield abs(number) <= most, f"{name} is {number}, wanted at most {most}"
    identities = config.sampling.identities
    yield (
        identities >= 2 or config.loss.triplet == 0,
        f"sampling.identities is {identities}; a triplet needs at least 2 identities",
    )


def _numbers(config: Config) -> Iterator[tuple[str, int | float]]:
    """Yield every number of the configuration with its dotted name; those of a list one by one."""
    for section, settings in vars(config).items():
        for key, value in vars(settings).items() if is_dataclass(settings) else ():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int | float):
                    yield f"{section}.{key}", number


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


@dataclass(frozen=True)
class StreamSpec:
    """What the toolkit knows of a stream without its code; docs/streams.md says how to add one."""

    defaults: Config
    """Its settings, whose `stream` is its name."""
    title: str
    """Its name in tables, pictures and reports."""
    about: str
    """What it compares, in a sentence for readers of a report."""
    needs: tuple[Modality, ...]
    code: str
    """Its `training.streams.Stream`, as `module:class`; imported only for training, as launchers use no torch."""


STREAMS: dict[str, StreamSpec] = {
    spec.defaults.stream: spec
    for spec in (
        StreamSpec(
            SSIN_DEFAULTS,
            "SSIN",
            "The stream that compares frames and the masks (silhouettes) of the person in them.",
            ("frames", "masks"),
            "sptskm.streams.ssin:SsinStream",
        ),
        StreamSpec(
            SMIN_DEFAULTS,
            "SMIN",
            "The stream that compares sequences of 3D skeletons, that is, how somebody moves.",
            ("skeletons",),
            "sptskm.streams.smin:SminStream",
        ),
    )
}
"""Every stream by its name, in the order of tables and of fusion."""
PAIR = ("ssin", "smin")
"""The streams of the paper, which `--stream both` trains and fuses."""

# Settings that a resumed run may change; none of them affects the weights trained so far.
FREE_ON_RESUME = frozenset(
    {
        "run", "data.root", "data.workers", "data.stage", "model.pretrained", "train.epochs", "train.validate_every",
        "train.save_minutes", "train.save_steps", "train.leave_seconds", "train.timeout_minutes", "train.compile",
        "extract.batch",
    }
)  # fmt: skip
