"""One folder is one run: its file names and its checkpoints. Starting in a folder with a checkpoint continues it."""

import fcntl
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from sptskm.atomic import write_text
from sptskm.common.errors import ConfigError, DataError
from sptskm.common.paths import exists
from sptskm.training.checkpoints import Broken, State, read, write

log = logging.getLogger(__name__)

KEPT = 2  # newest checkpoints that stay, so that a broken one has a predecessor
CHECKPOINT = re.compile(r"checkpoint-\d{8,}\.pt")


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
        """All of them, newest first. Raises OSError where the folder is there and does not let itself be listed."""
        try:
            found = [path for path in self.path.iterdir() if CHECKPOINT.fullmatch(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(found, key=_step_of, reverse=True)

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
        """Write a checkpoint so that a kill at any moment leaves the previous ones whole, and drop older ones.

        Only what is older than this one, which has been verified, is dropped. Raises as `write`.
        """
        self.write(self.checkpoint(step), state)
        older = [path for path in self.checkpoints() if _step_of(path) < step]
        for old in [*older[KEPT - 1 :], *self.path.glob("checkpoint-*.partial")]:
            old.unlink()

    def write(self, path: Path, state: Mapping[str, Any]) -> None:
        """A PyTorch file, atomically and verified. Raises OSError naming the file, DataError for what is not finite."""
        write(path, state)

    def write_text(self, path: Path, text: str) -> None:
        """A text file, atomically."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(path, text)

    def trained(self) -> State:
        """The best weights, or the newest where nothing was held out.

        Raises FileNotFoundError where there are none, ConfigError for a file of something else, and DataError for one
        that is broken or cannot be read.
        """
        found = (self.best, read(self.best)) if exists(self.best) else self.newest()
        if found is None:
            raise FileNotFoundError(f"{self.path}: no readable checkpoint, wanted a folder in which training has run")
        path, state = found
        if not isinstance(state, dict) or not all(isinstance(state.get(key), dict) for key in ("config", "model")):
            raise ConfigError(f"{path}: is not of a run, wanted a checkpoint with its configuration and weights")
        return state

    def newest(self, set_aside: bool = False) -> tuple[Path, State] | None:
        """The newest whole checkpoint; None where there is none at all.

        Broken newer ones are passed over with a warning, and renamed to *.broken where they are to be `set_aside`: by
        whoever goes on from an older one. Raises DataError where one cannot be read, or none is whole; nothing is
        changed then.
        """
        broken: list[Broken] = []
        for path in self.checkpoints():
            try:
                state = read(path)
            except Broken as error:
                broken.append(error)
                continue
            for newer in broken:
                kept = f", and kept as {newer.path.stem}.broken" if set_aside else ""
                log.warning("%s, and is passed over for %s%s", newer, path.name, kept)
                if set_aside:
                    newer.path.rename(newer.path.with_suffix(".broken"))
            return path, state
        if broken:
            raise DataError(
                f"{broken[0]}, and no older checkpoint in {self.path} is whole: nothing was changed; wanted one that "
                "is, or a new run folder to start afresh"
            )
        return None


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("checkpoint-"))


def fingerprint(weights: Mapping[str, torch.Tensor]) -> str:
    """A short hash of a network's weights and their names; features carry that of the network that made them."""
    digest = blake2b(digest_size=8)
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + b"\0")
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
