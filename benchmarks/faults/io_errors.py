"""Inject I/O errors and full disks at the n-th call of a command.

The errors come from a small C library (shim.c). It is compiled when needed and preloaded into this very process, so
that all forked processes can be disturbed. Without a C compiler there are no such errors.
"""

import ctypes
import errno
import io
import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from faults.commands import Ended, Reference, fresh, typed
from faults.kills import Try, again
from faults.subjects import digest

VARIABLE = "SPTSKM_FAULTS"
OPEN_READ, OPEN_WRITE, READ, WRITE, SYNC, RENAME, STAT = (1 << bit for bit in range(7))  # as in shim.c
READING, WRITING = OPEN_READ | READ | STAT, OPEN_WRITE | WRITE | SYNC | RENAME
KINDS = {
    OPEN_READ: "opening to read", OPEN_WRITE: "opening to write", READ: "reading", WRITE: "writing", SYNC: "syncing",
    RENAME: "renaming", STAT: "asking for", READING: "all reading", WRITING: "all writing",
}  # fmt: skip
EVER = 2**62


class Plan(ctypes.Structure):
    """Memory layout of the plan that shim.c reads."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("kinds", "code", "first", "last", "count", "hits")),
        ("seen", ctypes.c_int64 * 7),
        ("folder", ctypes.c_char * 4096),
    ]


def preload(folder: Path) -> str:
    """Restart this program with the library loaded, if it is not yet; return why that is impossible, else nothing."""
    if VARIABLE in os.environ:
        return ""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return "no C compiler"
    library = folder / "shim.so"
    command = [compiler, "-O1", "-fPIC", "-shared", "-o", library, Path(__file__).with_name("shim.c"), "-ldl"]
    built = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if built.returncode:
        return f"the library does not compile ({built.stderr.splitlines()[:1]})"
    plan = folder / "plan"
    plan.write_bytes(bytes(ctypes.sizeof(Plan)))
    environment = {**os.environ, "LD_PRELOAD": str(library), VARIABLE: str(plan)}
    return os.execve(sys.executable, [sys.executable, *sys.argv], environment)


class Faults:
    """The plan that all processes share."""

    def __init__(self, work: Path) -> None:
        with Path(os.environ[VARIABLE]).open("r+b") as file:
            self.plan = Plan.from_buffer(mmap.mmap(file.fileno(), 0))
        self.plan.folder = f"{work}/".encode()

    def arm(self, kinds: int, code: int, first: int, last: int) -> None:
        """Let calls of these kinds fail from now on, from the first to the last one."""
        self.plan.kinds, self.plan.code, self.plan.first, self.plan.last = 0, code, first, last
        self.plan.count = self.plan.hits = 0
        self.plan.seen = type(self.plan.seen)()
        self.plan.kinds = kinds

    def disarm(self) -> tuple[int, int]:
        """Return how many calls there were, and how many failed."""
        self.plan.kinds = 0
        return self.plan.count, self.plan.hits


def calls(reference: Reference, project: Path, work: Path, faults: Faults) -> dict[int, int]:
    """Count the calls of each kind that the command makes below its folder."""
    fresh(reference.command, project, work)
    faults.arm(READING | WRITING, 0, EVER, EVER)
    typed(reference.command, work)
    faults.disarm()
    found = {1 << bit: int(faults.plan.seen[bit]) for bit in range(7)}
    found[READING] = sum(found[kind] for kind in (OPEN_READ, READ, STAT))
    found[WRITING] = sum(found[kind] for kind in (OPEN_WRITE, WRITE, SYNC, RENAME))
    return {kind: count for kind, count in found.items() if count}


def disturb(
    reference: Reference, counts: dict[int, int], place: tuple[Path, Path], faults: Faults, seed: tuple[int, int]
) -> Try:
    """Run a command with one error, once or from then on, then without; `place`: project and working folder."""
    (project, work), number = place, seed[1]
    rng = np.random.default_rng([*seed, 2])
    kind = int(rng.choice(sorted(counts)))
    reads = bool(kind & READING)
    code = int(
        rng.choice(
            [errno.EIO, errno.EACCES, errno.ESTALE] if reads else [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOSPC]
        )
    )
    first, ever = int(rng.integers(1, counts[kind] + 1)), bool(rng.integers(2))
    how = f"{errno.errorcode[code]} at {KINDS[kind]} {first}{' and after' if ever else ''} of {counts[kind]}"
    return _disturbed(reference, (project, work), faults, (kind, code, first, EVER if ever else first), (number, how))


def full_disk(
    reference: Reference, counts: dict[int, int], place: tuple[Path, Path], faults: Faults, seed: tuple[int, int]
) -> Try:
    """Run a command with a disk that is full from a random write on, then again with free space."""
    rng = np.random.default_rng([*seed, 3])
    first = int(rng.integers(1, counts[WRITE] + 1))
    how = f"full from write {first} of {counts[WRITE]}"
    return _disturbed(reference, place, faults, (WRITE, errno.ENOSPC, first, EVER), (seed[1], how))


def _disturbed(
    reference: Reference,
    place: tuple[Path, Path],
    faults: Faults,
    plan: tuple[int, int, int, int],
    told: tuple[int, str],
) -> Try:
    project, work = place
    fresh(reference.command, project, work)
    before = _kept(work)
    faults.arm(*plan)
    ended = typed(reference.command, work)
    _, hits = faults.disarm()
    tried = Try(reference.command.name, told[0], told[1], hits > 0, "", ended.said[-3000:])
    if problem := _wrong(reference, ended, before, work):
        return replace(tried, problem=problem)
    if ended.code == 0:
        return tried
    return again(reference, work, tried)


def _kept(work: Path) -> dict[str, bytes]:
    """Return the weights that must survive an error."""
    return {str(path.relative_to(work)): path.read_bytes() for path in work.rglob("*.pt")}


def _wrong(reference: Reference, ended: Ended, before: dict[str, bytes], work: Path) -> str:
    """Return what a disturbed command has done wrong."""
    if ended.code is None:
        return "hangs"
    if ended.traceback:
        return "traceback"
    for name, content in before.items():
        path = work / name
        if not path.exists():
            newer = [found for found in path.parent.glob("checkpoint-*.pt") if found.name > path.name]
            if "best" in name or not newer:
                return f"deleted {name}"
        elif path.read_bytes() != content and _weights(path.read_bytes()) != _weights(content) and "best" not in name:
            return f"replaced {name}"
    if ended.code and str(work) not in ended.said:
        return "names no path"
    if not ended.code and (difference := reference.difference(work)):
        return f"ended well, but {difference}"
    return ""


def _weights(content: bytes) -> str:
    """Return the weights in a checkpoint; its other content changes after a repeated validation."""
    return digest(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)["model"])


def run(
    references: Sequence[Reference], place: tuple[Path, Path], faults: Faults, seed: int, count: int, full: bool
) -> Iterator[Try]:
    """Inject `count` errors (or full disks), in turns over the commands."""
    counted: dict[str, dict[int, int]] = {}
    for number in range(count):
        chosen = references[number % len(references)]
        name = chosen.command.name
        if name not in counted:
            counted[name] = calls(chosen, *place, faults)
        if full and not counted[name].get(WRITE):
            continue
        make = full_disk if full else disturb
        yield make(chosen, counted[name], place, faults, (seed, number))
