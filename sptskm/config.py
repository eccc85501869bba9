"""All settings of the toolkit, typed, each with its default. Unknown keys are errors.

The defaults are the published recipe, except for its bugs: there the correct behaviour is the default and the published
one has a name of its own. YAML files in configs/ hold only what differs from the defaults.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from sptskm.common.errors import ConfigError as ConfigError
from sptskm.common.settings import refuse, settings
from sptskm.sections import Final as Final
from sptskm.sections import GaitClips as GaitClips
from sptskm.sections import GaitLoss as GaitLoss
from sptskm.sections import GaitModel as GaitModel
from sptskm.sections import SminClips as SminClips
from sptskm.sections import SminLoss as SminLoss
from sptskm.sections import SminModel as SminModel
from sptskm.sections import SsinClips as SsinClips
from sptskm.sections import SsinLoss as SsinLoss
from sptskm.sections import SsinModel as SsinModel
from sptskm.sections import StreamClips as StreamClips
from sptskm.sections import StreamLoss as StreamLoss
from sptskm.sections import StreamModel as StreamModel
from sptskm.sections import strip_problems

Modality = Literal["frames", "masks", "skeletons"]


@settings
class Data:
    """Data for training and validation."""

    root: str = "data/mars"
    """Folder in the MARS layout, a pack, or a manifest."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training identities held out for validation and the fusion weight; 0 = none."""
    split_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of that split; streams to be fused must use the same seed."""
    fold: str = ""
    """Part of the training identities that this run never sees, as NUMBER/COUNT (1/4 to 4/4), so that its features of
    them can choose fusion weights; empty = none. The launchers set it for the folds of `final.folds`."""
    min_length: Annotated[int, Field(ge=0)] = 1
    """Least number of frames of a training tracklet (published: 30 for SSIN, 31 for SMIN)."""
    test: bool = True
    """Whether the test part is read at all; a hyper-parameter search never reads it, so that it cannot leak."""
    workers: Annotated[int, Field(ge=0, le=4096)] = 2
    """Loader processes per rank; 0 loads in the training process. SMIN, whose skeletons lie in memory, has none."""
    stage: str = "auto"
    """Where a node keeps copies of a pack's zip files while it trains: a folder, "none", or "auto": $SLURM_TMPDIR, else
    $TMPDIR in a job of SLURM, else nowhere."""

    def __post_init__(self) -> None:
        numbers = [int(word) for word in self.fold.split("/") if word.isdecimal()]
        if self.fold and not (self.fold.count("/") == 1 and len(numbers) == 2 and 1 <= numbers[0] <= numbers[1] > 1):
            refuse([f"fold is {self.fold}, wanted NUMBER/COUNT, such as 1/4 for the first of four"])

    @property
    def fold_numbers(self) -> tuple[int, int] | None:
        """Return the number of the fold, from 1, and how many there are; None without folds."""
        if not self.fold:
            return None
        number, count = map(int, self.fold.split("/"))
        return number, count


@settings
class Optim:
    """Optimiser and step schedule."""

    algorithm: Literal["adam", "adamw", "sgd"] = "adam"
    """"sgd" is with Nesterov momentum 0.9; "adamw" has no decay of biases and normalisation layers."""
    lr: Annotated[float, Field(gt=0)] = 3e-4
    """Largest learning rate, independent of the number of ranks: the batch is global."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Added to the gradient (L2), as both published optimisers do; with adamw the share of the learning rate by which
    weights shrink in a step."""
    schedule: Literal["steps", "cosine"] = "steps"
    """How the rate falls: at the milestones, or by a cosine toward 0 at the end of train.epochs, which then cannot be
    raised when a run continues."""
    milestones: tuple[Annotated[int, Field(ge=0)], ...] = (200, 400, 600, 800)
    """0-based epochs at which the rate is multiplied by gamma, for the schedule "steps"."""
    gamma: Annotated[float, Field(gt=0)] = 0.1
    """The factor at each milestone."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """First epochs, in which the rate rises evenly to its value."""
    clip: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of the gradient; longer ones are scaled down to it. 0 = no limit."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of the moving average of weights that is validated, kept and used; 0 = the weights as trained."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each layer of `model.trunk` to the one before it, for the last layer too; all
    other weights have the full rate. 1 = one rate."""


@settings
class Sampling:
    """The global batch: identities * tracklets clips, whatever the number of GPUs."""

    kind: Literal["identities", "shuffled"] = "identities"
    """P x K identity sampling, or a plain shuffle (published SMIN: most anchors then lack a positive)."""
    identities: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    """Identities per batch (P)."""
    tracklets: Annotated[int, Field(ge=1, le=1_000_000)] = 4
    """Tracklets of each identity (K)."""
    rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Passes over all identities that make up one epoch."""


@settings
class Train:
    """Training loop."""

    epochs: Annotated[int, Field(ge=1)] = 1000
    """Epochs in all, each of `sampling.rounds` passes over the training identities; may be raised after the end."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of weights, batches, clips, augmentation and dropout."""
    batch_norm: Literal["sync", "local", "frozen"] = "sync"
    """Statistics over all ranks, per rank, or fixed at the loaded ones."""
    precision: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Autocast type; auto = float32 on a CPU, bfloat16 on a GPU (float16 where its compute capability is below 8).
    float32 on a GPU is without TF32."""
    compile: bool = False
    """Whether the network runs through torch.compile: SSIN in one graph, SMIN in a few where clips have gaps."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Parts in which a rank's batch goes through the network, one after the other, to save memory; losses still see
    the whole batch, at the cost of one more forward pass. Batch normalisation sees a part."""
    recompute: bool = False
    """Compute activations within blocks again in the backward pass instead of keeping them, to save memory."""
    validate_every: Annotated[int, Field(ge=1)] = 10
    """Epochs between validations on the held-out identities."""
    best_from: Annotated[int, Field(ge=0)] = 0
    """Least number of held-out identities by which the best validated weights are kept; with fewer the last validated
    ones are, as the best of many scores on few people is chance."""
    save_minutes: Annotated[float, Field(ge=0)] = 10.0
    """Minutes between checkpoints within an epoch. Its end is saved before a validation, after the last epoch, and else
    where saving takes less than half a second, or at most a twentieth of the time since the last checkpoint."""
    save_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between checkpoints within an epoch, beside those by the minute; 0 = only by the minute."""
    leave_seconds: Annotated[float, Field(gt=0)] = 20.0
    """How long a rank that was asked to stop may need to save and leave; one that is stuck is ended then, and its
    last checkpoint counts. Less than the grace time of the cluster."""
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    """CPU threads per rank; add ranks rather than threads (the last bits of results depend on threads)."""
    timeout_minutes: Annotated[float, Field(gt=0)] = 10.0
    """How long a rank waits for the others before it gives up."""
    wandb: str = ""
    """Project of Weights & Biases that follows the run (the extra `wandb`); empty = none."""
    mlflow: str = ""
    """Experiment of MLflow that follows the run, at MLFLOW_TRACKING_URI (the extra `mlflow`); empty = none."""
    profile: Annotated[int, Field(ge=0, le=1000)] = 0
    """Steps that rank 0 traces by PyTorch's profiler, after five others, into trace.json of the run; 0 = none."""


@settings
class Extract:
    """Settings for turning a tracklet's clips into one embedding."""

    clips: Annotated[int, Field(ge=0)] = 0
    """Clips per tracklet, drawn by a seeded generator where there are more (published: 20); 0 = all."""
    renormalise: bool = True
    """L2-normalise the mean over clips; false is the published code."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Pieces of tracklets (at most 16 clips each) read and, on a GPU, embedded together."""


@settings
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
        if self.sampling.identities < 2 and self.loss.triplet != 0:
            identities = self.sampling.identities
            raise ConfigError(f"sampling.identities is {identities}; a triplet needs at least 2 identities")
        if isinstance(self.clips, GaitClips) and isinstance(self.model, GaitModel):
            refuse(strip_problems(self.clips, self.model))
        if self.optim.layer_decay < 1 and not getattr(self.model, "trunk", ""):
            raise ConfigError(f"optim.layer_decay is {self.optim.layer_decay}, wanted 1 without model.trunk")


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


# nothing is published for data like MARS; batch and rate are of the kind that the field uses for silhouettes
GAIT_DEFAULTS = Config(
    "gait",
    GaitClips(),
    GaitModel(),
    GaitLoss(),
    optim=Optim(lr=1e-3, milestones=(150, 225)),
    sampling=Sampling(identities=32, tracklets=4, rounds=4),
    train=Train(epochs=300),
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
        StreamSpec(
            GAIT_DEFAULTS,
            "gait",
            "The stream that compares sets of aligned silhouettes, that is, shape and gait without what is worn.",
            ("masks",),
            "sptskm.streams.gait:GaitStream",
        ),
    )
}
"""Every stream by its name, in the order of tables and of fusion."""
PAIR = ("ssin", "smin")
"""The streams of the paper, which `--stream both` trains and fuses."""

# Settings that a resumed run may change; none of them affects the weights trained so far.
FREE_ON_RESUME = frozenset(
    {
        "run", "data.root", "data.workers", "data.stage", "model.pretrained", "model.trunk", "train.epochs",
        "train.validate_every", "train.save_minutes", "train.save_steps", "train.leave_seconds",
        "train.timeout_minutes", "train.compile", "train.wandb", "train.mlflow", "train.profile", "extract.batch",
    }
)  # fmt: skip
