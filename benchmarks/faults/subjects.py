"""Define a test subject: a kind of file, how it is read, and what its content may be."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from faults.mutations import BYTES, Mutation
from sptskm.data import Tracklets


@dataclass(frozen=True)
class Subject:
    """A kind of file. `prepare` makes a healthy one in an empty folder, `read` returns what the product reads."""

    name: str
    room: str
    """The part of the package with the reader."""
    prepare: Callable[[Path, Path], Path]
    """Maps the small project and an empty folder to the file to change; other files needed are beside it."""
    read: Callable[[Path], Any]
    """Maps that file to its content."""
    mutations: Sequence[Mutation]
    """Mutations in addition to those of any file."""
    checked: bool = False
    """It carries checksums: damage must not be read as something else."""
    wrong: Callable[[Any], str] = field(default=lambda _: "")
    """Returns why a content is impossible; empty if it is possible."""

    @property
    def all_mutations(self) -> list[Mutation]:
        """Return all mutations; the subject's own ones twice, as they reach deeper than damage."""
        return [*BYTES, *self.mutations, *self.mutations]


def digest(value: object) -> str:
    """Hash a value: equal contents give equal digests; numbers of arrays count, not their type."""
    found = hashlib.blake2b(digest_size=12)
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: object) -> None:
    if isinstance(value, torch.Tensor):
        found.update(f"{tuple(value.shape)}".encode())
        value = value.detach().to_dense().numpy() if value.is_sparse else value.detach().numpy()
    if isinstance(value, np.ndarray):
        found.update(f"{value.shape}".encode())
        plain = value.astype(np.float64) if value.dtype.kind in "fiub" else value
        found.update(
            repr(plain.tolist()).encode() if plain.dtype.kind == "O" else np.ascontiguousarray(plain).tobytes()
        )
    elif isinstance(value, Mapping):
        for key, inside in value.items():
            found.update(repr(key).encode())
            _feed(found, inside)
    elif isinstance(value, list | tuple):
        found.update(b"(")
        for inside in value:
            _feed(found, inside)
        found.update(b")")
    elif is_dataclass(value) and not isinstance(value, type):
        _feed(found, {part.name: getattr(value, part.name) for part in fields(value)})
    else:
        found.update(repr(value).encode())


def content_of(table: Tracklets) -> dict[str, Any]:
    """Return the whole content of a table."""
    names = ("keys_N", "stems_M", "starts_N", "stops_N", "pids_N", "camids_N", "clothes_N", "query")
    found: dict[str, Any] = {name: getattr(table, name).tolist() for name in names}
    rows = range(len(table))
    found["names"] = [(table.pid_name(row), table.camera_name(row)) for row in rows]
    found["train"] = table.num_train
    return found


def wrong_table(found: Mapping[str, Any]) -> str:
    """Return what is impossible in any table, whatever its files held."""
    pids, cameras, num_train = found["pids_N"], found["camids_N"], found["train"]
    queries = [num_train + row for row in found["query"]]
    checks = {
        "a tracklet without frames": any(b <= a for a, b in zip(found["starts_N"], found["stops_N"], strict=True)),
        "a frame in two tracklets": _overlap(found),
        "a pid below -1": min(pids, default=0) < -1,
        "a training identity that is junk or nobody": any(pid < 1 for pid in pids[:num_train]),
        "an identity in training and test": bool({*pids[:num_train]} & {pid for pid in pids[num_train:] if pid > 0}),
        "a query that is junk or nobody": any(pids[row] < 1 for row in queries),
        "a query twice": len(set(found["query"])) < len(queries),
        "a name twice": len(set(found["keys_N"])) < len(pids),
        "a name that is empty": not all(found["keys_N"]) or not all(found["stems_M"]),
        "a path as a name": any(b"/" in stem or stem == b".." for stem in found["stems_M"]),
        "a camera that is none": any(camera < 0 for camera in cameras),
    }
    return next((what for what, is_so in checks.items() if is_so), "")


def _overlap(found: Mapping[str, Any]) -> bool:
    ranges = sorted(zip(found["starts_N"], found["stops_N"], strict=True))
    return any(after < before for (_, before), (after, _) in pairwise(ranges))
