"""One folder is one run: its file names and its checkpoints. Starting in a folder with a checkpoint continues it."""

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from sptskm.atomic import write_text
from sptskm.config import ConfigError

log = logging.getLogger(__name__)

KEPT = 2  # newest checkpoints that stay, so that a broken one has a predecessor
State = dict[str, Any]


class RunDir:
    """Names and atomic files of a run; rank 0 writes, every rank may read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config(self) -> Path:
        """The complete configuration, as YAML."""
        return self.path / "config.yaml"

    @property
    def best(self) -> Path:
        """The checkpoint with the highest validation mAP."""
        return self.path / "best.pt"

    @property
    def result(self) -> Path:
        """Written when training has ended: what it reached, as JSON."""
        return self.path / "result.json"

    def checkpoint(self, step: int) -> Path:
        """The checkpoint after `step` steps."""
        return self.path / f"checkpoint-{step:08d}.pt"

    def checkpoints(self) -> list[Path]:
        """All of them, newest first."""
        return sorted(self.path.glob("checkpoint-*.pt"), reverse=True)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Nobody else trains in this folder inside the block; ConfigError when somebody does.

        A record lock: it ends with this process, however that ends, and is not inherited by loader processes.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                raise ConfigError(
                    f"{self.path}: another process is training in this folder; wait for it, or choose another one"
                ) from None
            except OSError as error:
                log.warning(
                    "%s: this file system has no locks (%s); see that nobody else trains here", self.path, error
                )
            yield

    def save(self, state: Mapping[str, Any], step: int) -> None:
        """Write a checkpoint so that a kill at any moment leaves the previous ones whole, and drop older ones."""
        self.write(self.checkpoint(step), state)
        for old in [*self.checkpoints()[KEPT:], *self.path.glob("checkpoint-*.partial")]:
            old.unlink()

    def write(self, path: Path, state: Mapping[str, Any]) -> None:
        """A PyTorch file under a temporary name, synced, then renamed. Raises OSError naming the file."""
        self.path.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                torch.save(dict(state), file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # PyTorch's own follows one of the system
            cause = error if isinstance(error, OSError) else error.__context__
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror, str(partial)) from None
            raise
        partial.replace(path)
        _sync_folder(self.path)

    def write_text(self, path: Path, text: str) -> None:
        """A text file, atomically."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(path, text)

    def trained(self) -> State:
        """The best weights, or the newest where nothing was held out.

        Raises FileNotFoundError where there are none, and ConfigError for a file of something else.
        """
        best = read_state(self.best) if self.best.is_file() else None
        found = self.newest() if best is None else (self.best, best)
        if found is None:
            raise FileNotFoundError(f"{self.path}: no readable checkpoint, wanted a folder in which training has run")
        path, state = found
        if not isinstance(state, dict) or not all(isinstance(state.get(key), dict) for key in ("config", "model")):
            raise ConfigError(f"{path}: is not of a run, wanted a checkpoint with its configuration and weights")
        return state

    def newest(self) -> tuple[Path, State] | None:
        """The newest checkpoint that can be read; broken newer ones are passed over with a warning."""
        for path in self.checkpoints():
            state = read_state(path)
            if state is not None:
                return path, state
        return None


def read_state(path: Path) -> State | None:
    """A checkpoint's content on the CPU, or None with a warning when the file is broken; executes nothing."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # truncated zips raise whatever their reader meets first
        log.warning("checkpoint %s cannot be read and is passed over (%s)", path, str(error).splitlines()[0])
        return None


def fingerprint(weights: Mapping[str, torch.Tensor]) -> str:
    """A short hash of a network's weights and their names; features carry that of the network that made them."""
    digest = blake2b(digest_size=8)
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + b"\0")
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sync_folder(path: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
