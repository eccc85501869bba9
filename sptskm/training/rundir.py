"""Manage the folder of a run: its file names and checkpoints. A run in a folder with a checkpoint continues it."""

import fcntl
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from sptskm.common.atomic import write_text
from sptskm.common.errors import ConfigError, DataError
from sptskm.common.paths import exists
from sptskm.training.checkpoints import Broken, State, read, write

log = logging.getLogger(__name__)

KEPT = 2  # newest checkpoints that stay, so that a broken one has a predecessor
CHECKPOINT = re.compile(r"checkpoint-\d{8,}\.pt")


class RunDir:
    """File names of a run and their atomic writing. Only rank 0 writes, every rank may read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config(self) -> Path:
        """Return the path of the complete configuration (YAML)."""
        return self.path / "config.yaml"

    @property
    def data(self) -> Path:
        """Return the path of the hashes of the training data (JSON), which launchers read without PyTorch."""
        return self.path / "data.json"

    @property
    def best(self) -> Path:
        """Return the path of the checkpoint with the highest validation mAP."""
        return self.path / "best.pt"

    @property
    def result(self) -> Path:
        """Return the path of the final result (JSON), written when training has ended."""
        return self.path / "result.json"

    def checkpoint(self, step: int) -> Path:
        """Return the path of the checkpoint after `step` steps."""
        return self.path / f"checkpoint-{step:08d}.pt"

    def checkpoints(self) -> list[Path]:
        """List all checkpoints, newest first. Raises OSError if the folder exists but cannot be listed."""
        try:
            found = [path for path in self.path.iterdir() if CHECKPOINT.fullmatch(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(found, key=_step_of, reverse=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold an exclusive lock on the run folder. Raises ConfigError if another process holds it.

        It is a record lock: it ends with this process, however that ends, and loader processes do not inherit it.
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
        """Write a checkpoint and delete older ones; a kill at any moment leaves the previous checkpoints whole.

        Only checkpoints older than this one are deleted, after this one was verified. Raises as `write`.
        """
        self.write(self.checkpoint(step), state)
        older = [path for path in self.checkpoints() if _step_of(path) < step]
        for old in [*older[KEPT - 1 :], *self.path.glob("checkpoint-*.partial")]:
            old.unlink()

    def write(self, path: Path, state: Mapping[str, Any]) -> None:
        """Write a PyTorch file atomically and verify it. Raises OSError naming the file, DataError if not finite."""
        write(path, state)

    def write_text(self, path: Path, text: str) -> None:
        """Write a text file atomically."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(path, text)

    def trained(self) -> State:
        """Read the best weights, or the newest if nothing was held out; averaged ones where the run averages.

        Raises FileNotFoundError if there are none, ConfigError if the file is not a checkpoint of a run, and DataError
        if it is broken or cannot be read.
        """
        found = (self.best, read(self.best)) if exists(self.best) else self.newest()
        if found is None:
            inside = sorted(config.parent for config in self.path.glob("*/config.yaml"))
            hint = f", such as {inside[0]}" if inside else ""
            raise FileNotFoundError(
                f"{self.path}: no readable checkpoint, wanted a folder in which training has run{hint}"
            )
        state = of_a_run(*found)
        return {**state, "model": state.get("average", state["model"])}

    def newest(self, set_aside: bool = False) -> tuple[Path, State] | None:
        """Read the newest whole checkpoint; return its path and state, or None if there is no checkpoint.

        Broken newer checkpoints are skipped with a warning. With `set_aside`, for callers that continue from an older
        one, they are renamed to *.broken. Raises DataError if one cannot be read or none is whole; then nothing is
        changed.
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
    """Hash a network's weights and their names; features carry the hash of the network that made them."""
    digest = blake2b(digest_size=8)
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + b"\0")
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


NUMBERS = {"step": 0, "epochs_done": 0, "world": 1}
"""Least values of the whole numbers that a checkpoint holds."""


def of_a_run(path: Path, state: Any) -> State:
    """Return the content of a checkpoint file.

    Raises ConfigError where it lacks the configuration or the weights, or where a value is of another type.
    """
    parts = ("config", "model")
    if not isinstance(state, dict) or not all(isinstance(state.get(key), dict) for key in parts):
        raise ConfigError(f"{path}: is not of a run, wanted a checkpoint with its configuration and weights")
    if not isinstance(state.get("provenance", {}), dict):
        raise ConfigError(f"{path}: provenance is {state['provenance']!r}, wanted where its data came from")
    for key, least in NUMBERS.items():
        number = state.get(key, least)
        if not isinstance(number, int) or number < least:
            raise ConfigError(f"{path}: {key} is {number!r}, wanted a whole number from {least} on")
    if not isinstance(state.get("best_mAP", 0.0), int | float):
        raise ConfigError(f"{path}: best_mAP is {state['best_mAP']!r}, wanted a number")
    return state
