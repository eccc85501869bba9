"""Train either stream: the training loop, its checkpoints and its log."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from sptskm import __version__
from sptskm.common.console import progress
from sptskm.common.endings import Stopped
from sptskm.common.errors import DataError
from sptskm.common.paths import exists
from sptskm.config import Config, ConfigError
from sptskm.configfile import changed_keys, to_dict, to_yaml
from sptskm.data.clips import TrainItem
from sptskm.data.derived import methods_in, warn_of_methods
from sptskm.data.splits import changed_data
from sptskm.evaluation import Rows, Scores, evaluate, stream_distances
from sptskm.models.recomputing import recompute
from sptskm.provenance import command
from sptskm.training.averaging import Average
from sptskm.training.checkpoints import State, read
from sptskm.training.extract import channels_last, extract
from sptskm.training.logbook import Logbook
from sptskm.training.meters import Meters
from sptskm.training.optimisers import clip_gradient, learning_rate, make_optimizer, set_rate
from sptskm.training.passes import Passes
from sptskm.training.profiling import Profile
from sptskm.training.rundir import RunDir, of_a_run
from sptskm.training.setup import Setup
from sptskm.training.signals import StopFlag, stop_flag
from sptskm.training.streams import compiled
from sptskm.training.world import World, join

log = logging.getLogger(__name__)

LOG_EVERY = 10  # steps between points in TensorBoard
WANTED = ("model", "config", "provenance", "step", "best_mAP", "epochs_done", "optimizer", "scaler", "world")
"""Keys that every checkpoint has."""
CHEAP_SECONDS, CHEAP_SHARE = (
    0.5,
    1 / 20,
)  # a save is cheap below this time, or this share of the time since the last one


class NonFiniteLoss(DataError):
    """Raised when the loss or its gradient is not finite.

    The message names the step, the tracklets of the batch and the last good checkpoint.
    """


@dataclass(frozen=True)
class Outcome:
    """State of a run when `train` returns."""

    step: int
    finished: bool
    """False when a signal asked it to stop; starting again continues."""
    best_mAP: float


Report = Callable[[Mapping[str, float]], None]


def _no_report(_values: Mapping[str, float]) -> None:
    """Do nothing (default callback)."""


def train(config: Config, stop: StopFlag | None = None, report: Report = _no_report) -> Outcome:
    """Train the stream of `config` in the folder `config.run`, or continue the run in it.

    Runs in one process, or as one of many under torchrun, submitit or Ray; every rank makes the same call. Training
    stops when `stop` is set on any rank; without `stop`, this function handles signals itself. Rank 0 calls `report`
    after every epoch. Raises ConfigError, DataError or NonFiniteLoss with one sentence that says what to change,
    Unreachable when another rank has vanished.
    """
    if not config.run:
        raise ConfigError("run is empty, wanted the folder of this run (run=runs/name)")
    with (
        nullcontext(stop) if stop else stop_flag(config.train.leave_seconds) as flag,
        join(config.train.threads, config.train.timeout_minutes) as world,
        RunDir(config.run).locked() if world.is_main else nullcontext(),
    ):
        return Trainer(Setup.of(config, world), world, flag, report).run()


class Trainer:
    """The training loop and the state of a run between steps."""

    def __init__(self, setup: Setup, world: World, stop: StopFlag, report: Report = _no_report) -> None:
        self.setup, self.world, self.stop = setup, world, stop
        self.report = report if world.is_main else _no_report
        self.config = config = setup.config
        self.precision = setup.precision
        self.folder = RunDir(config.run)
        state = self.newest()
        torch.manual_seed(config.train.seed)
        self.network = setup.network(pretrained=state is None).to(world.device, self.precision.dtype)
        if world.device.type == "cuda":
            channels_last(self.network)
        self.average = Average(self.network, config.optim.ema)
        if config.train.recompute:
            recompute(self.network)
        self.model = world.wrap(self.network, config.train.batch_norm)
        self.network = getattr(self.model, "module", self.model)
        forward = compiled(self.model) if config.train.compile else self.model
        self.passes = Passes(self.model, forward, self.precision.autocast, config.train.accumulate)
        self.optimizer = make_optimizer(config, self.network)
        self.scaler = self.precision.scaler()
        self.step, self.epochs_done, self.best_mAP = 0, 0, -1.0
        self.saved_at, self.save_seconds = time.monotonic(), 0.0
        self.command = command() if state is None else state.get("command", "")
        if state is not None:
            self.restore(state)

    def run(self) -> Outcome:
        """Train the remaining epochs, unless asked to stop before, and return the outcome."""
        log.info("%s trains on %s in %s", self.config.stream, device_name(self.world.device), self.precision)
        if self.setup.keeps_last:
            log.info("%s keeps its last weights and no best epoch: %s", self.config.stream, self.setup.few)
        first = self.first_logged()
        self.logbook = Logbook(
            self.config, self.folder.path, first, self.epochs_done, self.world.size, self.world.is_main
        )
        self.profile = Profile(self.folder.path, self.config.train.profile if self.world.is_main else 0)
        with closing(self.setup.batches(self.step, self.world.device.type == "cuda")) as batches:
            return self.leave(finished=self.finish(batches))

    def finish(self, batches: Iterator[TrainItem]) -> bool:
        """Train to the end, or save and stop when asked to; return whether the end was reached."""
        per_epoch, epochs = self.setup.schedule.per_epoch, self.config.train.epochs
        for epoch in range(self.epochs_done, epochs):
            self.setup.check_negatives(epoch)
            meters = Meters(per_epoch, learning_rate(self.config, epoch))
            set_training(self.model, self.config.train.batch_norm)
            set_rate(self.optimizer, meters.rate, self.config.optim.layer_decay)
            remaining = range(self.step - epoch * per_epoch, per_epoch)
            for _ in progress(remaining, f"{self.config.stream} epoch {epoch + 1}", shown=self.world.is_main):
                with meters.waiting():
                    batch = next(batches)
                stop = self.train_step(batch, meters)
                self.profile.step()
                if stop or self.must_save():
                    self.save()
                if stop:
                    return False
            try:
                self.end_epoch(epoch, meters)
            except Stopped:  # in the validation, which is repeated when the run continues
                return False
        return True

    def train_step(self, batch: TrainItem, meters: Meters) -> bool:
        """Do one step on one global batch; return whether any rank was asked to stop."""
        inputs = self.setup.stream.prepare(tuple(batch.inputs), self.world.device, self.precision.dtype)
        labels = upload(self.setup.labels(batch.row), self.world.device)
        if self.step == 0 and self.world.is_main:
            self.logbook.clips(self.setup.stream.picture(inputs))
        output = self.passes.outputs(inputs, partial(seed_step, self.config.train.seed, self.step, self.world.rank))
        terms = self.setup.stream.loss(output, labels, self.world.gather)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(terms["total"]).backward()
        self.passes.backward()
        self.scaler.unscale_(self.optimizer)
        shared, norm, stop = self.exchange(terms)
        self.check_finite(batch, shared, norm)
        clip_gradient(self.network, norm, self.config.optim.clip)
        meters.add(shared, len(labels) * self.world.size)
        if self.step % LOG_EVERY == 0:
            self.logbook.point(meters.point(norm), self.step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.network, self.step)
        if not np.isfinite(norm) and (scale := self.scaler.get_scale()) < 1:
            hint = "float16 is too narrow, wanted train.precision=bfloat16 or float32; "
            self.refuse(batch, {**shared, "gradient norm": norm, "loss scale": scale}, hint)
        self.step += 1
        return stop

    def exchange(self, terms: dict[str, torch.Tensor]) -> tuple[dict[str, float], float, bool]:
        """Return the mean of every loss term over ranks, the norm of the gradient, and whether any rank wants to stop.

        One collective and one copy from the device fetch all of them; before that a GPU does not wait.
        """
        total = terms["total"].detach()
        flag = total.new_full((), float(self.stop.requested))
        sums = self.world.sum(torch.stack([*terms.values(), flag]))
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        *means, stop, length = torch.cat([sums, norm.to(sums.dtype)[None]]).tolist()
        return {name: value / self.world.size for name, value in zip(terms, means, strict=True)}, length, stop > 0

    def check_finite(self, batch: TrainItem, terms: dict[str, float], norm: float) -> None:
        """Raise NonFiniteLoss on every rank before a value that is not finite reaches the weights."""
        if not np.isfinite(list(terms.values())).all():
            self.refuse(batch, terms)
        if not np.isfinite(norm) and not self.scaler.is_enabled():  # the scaler skips such a step and halves its scale
            self.refuse(batch, {**terms, "gradient norm": norm})

    def refuse(self, batch: TrainItem, terms: dict[str, float], hint: str = "") -> None:
        """Raise NonFiniteLoss on every rank with the tracklets of the whole global batch."""
        rows = self.world.gather(batch.row.to(self.world.device)).tolist()
        keys = ", ".join(sorted({str(self.setup.table.keys_N[row]) for row in rows}))
        newest = self.folder.checkpoints()
        raise NonFiniteLoss(
            f"loss {terms} at step {self.step} of {self.config.stream} is not finite; {hint}"
            f"tracklets of the batch: {keys}; last good checkpoint: {newest[0] if newest else 'none yet'}"
        )

    def end_epoch(self, epoch: int, meters: Meters) -> None:
        """Validate and save when due, keep the best weights and log a line; Stopped if asked to stop meanwhile."""
        found: dict[str, float] = {}
        last_one = epoch + 1 == self.config.train.epochs
        due = (epoch + 1) % self.config.train.validate_every == 0 or last_one
        if due and len(self.setup.split.held_out):
            self.save()  # a validation may take longer than a job has left after a stop request
            scores = self.validate()
            best = scores.mAP if self.setup.keeps_last else max(self.best_mAP, scores.mAP)
            found = {"validation/mAP": scores.mAP, "validation/rank-1": scores.rank(1), "validation/best mAP": best}
            if scores.mAP > self.best_mAP or self.setup.keeps_last:
                self.best_mAP = scores.mAP
                if self.world.is_main:
                    self.folder.write(self.folder.best, self.weights())
        values = self.logbook.epoch(epoch, self.step, meters, found)
        self.epochs_done = epoch + 1
        if last_one or self.may_save():
            self.save()
        self.report(values)

    def validate(self) -> Scores:
        """Compute scores on the held-out identities, across cameras."""
        split, table, source = self.setup.split, self.setup.table, self.setup.source
        if self.config.train.batch_norm == "local":  # else each rank would validate with its own statistics
            self.world.share_buffers(self.average.network)
        found = extract(
            self.average.network, self.setup.stream, source, split.held_out, self.config, self.world, self.stop
        )
        features, valid, query = found.features_ND, found.valid_N, split.query
        distance_QG = stream_distances(features[query], features, valid[query], valid)
        labels = Rows.of(table, split.held_out[query]), Rows.of(table, split.held_out)
        return evaluate(distance_QG, *labels)

    def must_save(self) -> bool:
        """Return whether a checkpoint within the epoch is due."""
        every, minutes = self.config.train.save_steps, self.config.train.save_minutes
        return (every > 0 and self.step % every == 0) or time.monotonic() - self.saved_at > 60 * minutes

    def may_save(self) -> bool:
        """Return whether saving is cheap enough to do at the end of every epoch; all ranks wait for rank 0."""
        since = time.monotonic() - self.saved_at
        return self.save_seconds < CHEAP_SECONDS or self.save_seconds <= CHEAP_SHARE * since

    def weights(self) -> State:
        """Return the network (averaged where the run averages) and its origin: all that the final job needs."""
        return {
            "model": self.average.network.state_dict(),
            "config": to_dict(self.config),
            "provenance": self.setup.provenance,
            "methods": self.setup.methods,
            "step": self.step,
            "best_mAP": self.best_mAP,
            "version": __version__,
            "command": self.command,
        }

    def save(self) -> None:
        """Save everything to resume exactly here. Schedule, random draws and dropout follow from the step."""
        began = time.monotonic()
        if self.world.is_main:
            state = {
                **self.weights(),
                "model": self.network.state_dict(),
                **self.average.state(),
                "epochs_done": self.epochs_done,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "world": self.world.size,
                "precision": str(self.precision),
            }
            self.folder.save(state, self.step)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - began

    def newest(self) -> State | None:
        """Read the newest whole checkpoint on every rank.

        Raises ConfigError when it belongs to another run, and as `RunDir.newest`.
        """
        found = self.folder.newest(set_aside=True) if self.world.is_main else None
        path = self.world.share(found[0] if found else None)
        if path is None:
            if self.world.is_main:
                self.begin()
            return None
        state = of_a_run(path, found[1] if found else read(path))
        self.check_same_run(state)
        log.info("%s continues from %s (step %d)", self.config.stream, path, state["step"])
        return state

    def begin(self) -> None:
        """Write what a new run is of. Raise ConfigError if the folder has weights of an earlier run."""
        if exists(self.folder.best):
            raise ConfigError(
                f"{self.folder.best}: is there, but no checkpoint to go on from, and a new run would replace it; "
                "choose another run folder, or delete this one to start afresh"
            )
        self.folder.write_text(self.folder.data, json.dumps(self.setup.provenance, indent=1))
        self.folder.write_text(self.folder.config, to_yaml(self.config))

    def restore(self, state: State) -> None:
        """Restore the exact state of a checkpoint. Raise DataError if it does not fit the network or the optimiser."""
        try:
            self.network.load_state_dict(state["model"])
            self.average.restore(state)
            for own, saved in zip(self.optimizer.param_groups, state["optimizer"]["param_groups"], strict=True):
                saved["fused"] = own["fused"]  # earlier versions saved an Adam that was not
            self.optimizer.load_state_dict(state["optimizer"])
            if state["scaler"]:  # only runs in float16 have one
                self.scaler.load_state_dict(state["scaler"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise DataError(f"{self.folder.path}: its newest checkpoint does not fit the run: {error}") from None
        self.step, self.epochs_done, self.best_mAP = state["step"], state["epochs_done"], state["best_mAP"]

    def first_logged(self) -> int:
        """Return the step from which TensorBoard's data is replaced: the next one, or that of a repeated validation.

        Points of a validation are at the last step of the epoch. A training point at that step would be written again
        with the same values.
        """
        again = self.step == (self.epochs_done + 1) * self.setup.schedule.per_epoch
        return self.step - 1 if again and (self.step - 1) % LOG_EVERY else self.step

    def check_same_run(self, state: State) -> None:
        """Refuse to mix runs. A different number of ranks draws the same clips, with other rounding errors."""
        if missing := [name for name in WANTED if name not in state]:
            raise ConfigError(f"{self.folder.path}: its newest checkpoint has no {missing[0]}, wanted one of a run")
        changed = changed_keys(state["config"], to_dict(self.config))
        changed += changed_data(state["provenance"], self.setup.provenance)
        if changed:
            raise ConfigError(
                f"{self.folder.path}: holds another run ({'; '.join(changed)}); choose another run folder, "
                "or delete this one to start afresh"
            )
        methods = methods_in(state.get("methods"))
        warn_of_methods(f"{self.folder.path} so far", methods, "its data now", self.setup.methods)
        before = state.get("precision", str(self.precision))  # older checkpoints lack this key
        if before != str(self.precision):
            log.warning("trained in %s so far, continued in %s: other roundings", before, self.precision)
        if state["world"] != self.world.size:
            log.warning(
                "saved by %d ranks, continued by %d: same clips, not same bits", state["world"], self.world.size
            )

    def leave(self, finished: bool) -> Outcome:
        """Close the files and report how the run ended."""
        outcome = Outcome(self.step, finished, self.best_mAP)
        if self.world.is_main and finished:
            self.folder.write_text(self.folder.result, json.dumps(vars(outcome), indent=1))
        if not finished:
            log.info("%s stops at step %d as asked; start again to continue", self.config.stream, self.step)
        self.profile.close()
        self.logbook.close(finished)
        return outcome


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a small tensor from the CPU to the device without making the CPU wait."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def device_name(device: torch.device) -> str:
    """Return a human-readable device name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def seed_step(seed: int, step: int, rank: int, part: int) -> None:
    """Seed dropout by (seed, step, rank, part of the batch), so that a resumed run needs no saved generator."""
    numbers = [seed, step, rank, *([part] if part else [])]
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1)


def set_training(model: nn.Module, batch_norm: str) -> None:
    """Switch to training mode; frozen batch normalisation keeps its running statistics."""
    model.train()
    if batch_norm == "frozen":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
