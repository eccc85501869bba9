"""Prepare what a run trains on: table, split, clips and their order."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn

from sptskm.common.errors import ConfigError
from sptskm.config import STREAMS, Config
from sptskm.configfile import flat, to_dict
from sptskm.data import Split, Tracklets, read_dataset, split_of
from sptskm.data.clips import FileSource, MemorySource, Source, TrainItem
from sptskm.data.derived import Made, Method
from sptskm.data.packs.staging import stage
from sptskm.data.sampler import Schedule, epoch_batches
from sptskm.data.tracklets import IntArray
from sptskm.provenance import packages
from sptskm.training.loading import loaded
from sptskm.training.precision import Precision
from sptskm.training.streams import Stream, stream_of
from sptskm.training.world import World
from sptskm.trunkfile import completed


@dataclass(frozen=True, eq=False)
class Setup:
    """The parts of a run that are fixed before the first step."""

    config: Config
    table: Tracklets
    split: Split
    stream: Stream
    source: Source
    schedule: Schedule
    precision: Precision

    @classmethod
    def of(cls, config: Config, world: World, training: bool = True) -> "Setup":
        """Read the data to train or evaluate on. Raises RuntimeError when the ranks do not see the same data."""
        config = completed(config)
        table = read_dataset(config.data.root, config.data.test)
        split = split_of(table, config.data)
        stream = stream_of(config)
        parts = [split.train] if training else [table.test, split.left_out]
        wanted = np.concatenate([*parts, split.held_out])
        precision = Precision.of(config.train.precision, world.device)
        source = stream.source(table, wanted, precision)
        rows = split.train[source.has_any(split.train)] if training else split.train
        schedule = Schedule(
            config.sampling, rows, table.pids_N[rows], config.train.epochs, config.train.seed, world.rank, world.size
        )
        check_parts(config, world.size)
        setup = cls(config, table, split, stream, source, schedule, precision)
        computing = {"device": world.device.type, "precision": str(precision), "table": table.fingerprint}
        world.agree({**packages(), **computing, **setup.provenance, **flat(to_dict(config))})
        return setup

    @property
    def methods(self) -> dict[Made, Method]:
        """Return the methods that made the masks or skeletons of this stream, if known."""
        return methods_of(self.config.stream, self.table, self.source)

    @property
    def provenance(self) -> dict[str, str]:
        """Return what must be equal in a checkpoint to continue it."""
        return self.split.data_of(self.table)

    def network(self, pretrained: bool) -> nn.Module:
        """Build the network; without pretrained weights and constants of the data if all will be replaced."""
        network = self.stream.model(len(self.split.classes), pretrained)
        if pretrained:
            self.stream.fit(network, self.source, self.schedule.rows, self.schedule.pids)
        return network

    @property
    def keeps_last(self) -> bool:
        """Return whether the last weights are kept, because too few identities are held out to tell the best."""
        return self._held_out() < self.config.train.best_from

    @property
    def few(self) -> str:
        """Return why, in words."""
        return f"{self._held_out()} identities are held out, train.best_from is {self.config.train.best_from}"

    def _held_out(self) -> int:
        return len(np.unique(self.table.pids_N[self.split.held_out]))

    def check_negatives(self, epoch: int) -> None:
        """Raise ConfigError when a batch of this epoch has no negative for its triplets; P x K batches have."""
        if self.config.sampling.kind == "identities" or self.config.loss.triplet == 0:
            return
        schedule = self.schedule
        rows_SG = epoch_batches(schedule.sampling, schedule.rows, schedule.pids, epoch, schedule.seed)
        pids_SG = self.table.pids_N[rows_SG]
        if (pids_SG == pids_SG[:, :1]).all(axis=1).any():
            raise ConfigError("a batch holds a single identity, so that no negative exists; raise sampling.identities")

    def labels(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the class of each row (B,): the position of its identity among the training identities."""
        return torch.from_numpy(np.searchsorted(self.split.classes, self.table.pids_N[rows.numpy()]))

    def batches(self, step: int, pinned: bool) -> Generator[TrainItem, None, None]:
        """Return this rank's batches from global step `step` to the end of all epochs. The caller must close it."""
        if isinstance(self.source, MemorySource):
            return self.source.batches(self.schedule, step)
        coming = [batch.rows_G for batch in islice(self.schedule.batches(step), self.schedule.per_epoch)]
        self.stage(np.concatenate([*coming, self.schedule.rows, self.split.held_out]))
        assert isinstance(self.source, FileSource)
        clips = self.source.training(self.config.train.seed)  # makes batches itself
        return loaded(clips, self.schedule.from_step(step), self.config.data.workers, pinned)

    def stage(self, rows: IntArray) -> None:
        """Copy the files of `rows` to this node in this order, if they are read repeatedly."""
        if isinstance(self.source, FileSource):
            stage(self.table, self.config.data.stage, rows)


def methods_of(stream: str, table: Tracklets, source: Source) -> dict[Made, Method]:
    """Return the methods that made the masks or skeletons that a stream reads, if known, and what it found in them."""
    known = table.derived.methods
    methods = {
        need: {**known.get(need, {}), **source.found.get(need, {})}
        for need in STREAMS[stream].needs
        if need != "frames"
    }
    return {made: method for made, method in methods.items() if method}


def check_parts(config: Config, ranks: int) -> None:
    """Raise ConfigError when a part of a rank's batch would have one clip: batch normalisation needs two."""
    clips, parts = config.sampling.identities * config.sampling.tracklets // ranks, config.train.accumulate
    if parts > 1 and clips // parts < 2:
        raise ConfigError(
            f"train.accumulate is {parts}, wanted at most {max(1, clips // 2)}: a rank's batch has {clips} clips "
            "(sampling.identities x sampling.tracklets / ranks), and a part needs two"
        )
