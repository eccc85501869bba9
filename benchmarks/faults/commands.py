"""Define the commands to kill and disturb, the files they start from, and the comparison of two results."""

import hashlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from faults.project import SIZES, copy, start, train
from sptskm.data.files import mat_bytes

LIMIT_S = 180.0  # of one command
Snapshot = dict[tuple[str, str], str]
"""Hashes of the contents of a folder by file name and place in the file."""


@dataclass(frozen=True)
class Command:
    """A command line, run in a folder that `prepare` has filled from the small project."""

    name: str
    arguments: Callable[[Path], list[object]]
    prepare: Callable[[Path, Path], None]
    differs: str = r"$^"
    """Pattern of files and places in them that may differ between two runs."""


def _with(*names: str) -> Callable[[Path, Path], None]:
    def prepare(project: Path, work: Path) -> None:
        for name in names:
            copy(project / name, work / name)

    return prepare


def _two_tracklets(project: Path, work: Path) -> None:
    """Write a manifest of two tracklets with frames, and their key points in another tool's files."""
    rng = np.random.default_rng(0)
    lines = ["tracklet,pid,camera,split,frames"]
    people = sorted((project / "data" / "bbox_train").iterdir())[:2]
    for name, person in zip(("a", "b"), people, strict=True):
        for frame in sorted(person.iterdir())[:4]:
            copy(frame, work / "walks" / name / frame.name)
            (work / "points").mkdir(exist_ok=True)
            points = np.concatenate([rng.random((14, 2)) * 50 + 1, np.full((14, 1), 0.9)], axis=1)
            points[:, 1] += 20 * np.arange(14)  # the head above the ankles
            (work / "points" / f"{frame.stem}.mat").write_bytes(mat_bytes("joints", points))
        lines.append(f"{name},{person.name},1,train,walks/{name}")
    (work / "m.csv").write_text("\n".join([*lines, ""]))


def _half_trained(stream: str) -> Callable[[Path, Path], None]:
    """Prepare a run that was stopped after its first epoch."""

    def prepare(project: Path, work: Path) -> None:
        copy(project / "data", work / "data")
        copy(project / stream, work / stream)
        (work / stream / "result.json").unlink()
        newest = max((work / stream).glob("checkpoint-*.pt"))
        newest.unlink()
        _settings(work)

    return prepare


def _settings(work: Path) -> None:
    for stream in ("ssin", "smin"):
        (work / f"{stream}.yaml").write_text(f"stream: {stream}\n")


def _to_train(project: Path, work: Path) -> None:
    copy(project / "data", work / "data")
    _settings(work)


LOOKS = r"test_evaluations|report\.html|events|\.code\."
COMMANDS = [
    Command("synth", lambda w: ["synth", w / "data", *SIZES.split(), "--workers", 1], lambda _p, _w: None),
    Command("import", lambda w: ["import", "mars", w / "data", w / "m.jsonl"], _with("data")),
    Command("check", lambda w: ["check", w / "data", "--workers", 1], _with("data")),
    Command(
        "prepare masks",
        lambda w: ["prepare", "masks", "--data", w / "m.csv", "--method", "grabcut"],
        _two_tracklets,
        r"prepared/",
    ),
    Command(
        "prepare skeletons",
        lambda w: ["prepare", "skeletons", "--data", w / "m.csv", "--from", w / "points", "--layout", "14"],
        _two_tracklets,
        r"prepared/",
    ),
    Command(
        "prepare video",
        lambda w: ["prepare", "video", w / "door.mp4", "--out", w / "out"],
        _with("door.mp4", "door.txt"),
    ),
    Command("pack", lambda w: ["pack", w / "data", w / "pack", "--workers", 1, "--frames", 30], _with("data")),
    Command("pack --verify", lambda w: ["pack", w / "pack", "--verify"], _with("pack")),
    Command("unpack", lambda w: ["unpack", w / "pack", w / "again"], _with("pack")),
    Command("train smin", lambda w: train("smin", w / "data", w / "smin"), _to_train),
    Command("train smin on", lambda w: train("smin", w / "data", w / "smin"), _half_trained("smin")),
    Command("train ssin on", lambda w: train("ssin", w / "data", w / "ssin"), _half_trained("ssin")),
    Command(
        "evaluate",
        lambda w: ["evaluate", w / "smin", "--out", w / "final", "--overrides", f"data.root={w / 'data'}"],
        _with("data", "smin"),
        LOOKS,
    ),
    Command(
        "extract",
        lambda w: ["extract", w / "smin", "--data", w / "data", "--out", w / "smin.npz"],
        _with("data", "smin"),
    ),
    Command("score", lambda w: ["score", w / "smin.npz", "--data", w / "data"], _with("data", "smin.npz")),
    Command(
        "search",
        lambda w: ["search", "--gallery", w / "smin.npz", "--query", w / "smin.npz", "--top", 2],
        _with("smin.npz"),
    ),
    Command("export", lambda w: ["export", w / "smin", "--out", w / "smin.onnx"], _with("smin")),
    Command("summary", lambda w: ["summary", w / "final"], _with("final")),
    Command("compare", lambda w: ["compare", f"{w / 'final'}:ssin", f"{w / 'final'}:smin"], _with("final")),
]


@dataclass(frozen=True)
class Ended:
    """How a command ended; the exit code is None if it was killed after LIMIT_S."""

    code: int | None
    said: str
    seconds: float

    @property
    def traceback(self) -> bool:
        """Return whether it printed a traceback or died of a signal."""
        return "Traceback (most recent call last)" in self.said or (self.code is not None and self.code < 0)

    @property
    def last(self) -> str:
        """Return the last line of its output."""
        return ([line for line in self.said.splitlines() if line.strip()] or [""])[-1]


def fresh(command: Command, project: Path, work: Path) -> Path:
    """Prepare the folder as it is before the command."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    command.prepare(project, work)
    return work


def typed(command: Command, work: Path, kill_after: float | None = None, whole_group: bool = True) -> Ended:
    """Run the command in a folder to its end or until it is killed; no process of its group survives."""
    said = work.with_suffix(".said")
    said.unlink(missing_ok=True)
    began = time.monotonic()
    child = start(command.arguments(work), said)
    limit, code = LIMIT_S if kill_after is None else kill_after, None
    while code is None:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
        elif time.monotonic() - began > limit:
            _kill(child, whole_group)
            os.waitpid(child, 0)
            break
        else:
            time.sleep(0.002)
    seconds = time.monotonic() - began
    _end_group(child)
    text = said.read_text(errors="replace") if said.exists() else ""
    return Ended(code, text, seconds)


def _kill(child: int, whole_group: bool) -> None:
    if whole_group:
        os.killpg(child, signal.SIGKILL)
    else:
        os.kill(child, signal.SIGKILL)


def _end_group(child: int) -> None:
    """Wait for helpers, which notice that their parent is gone, and kill those that remain after a while."""
    for attempt in range(100):
        try:
            os.killpg(child, 0 if attempt < 99 else signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.05)


def snapshot(work: Path) -> Snapshot:
    """Read all files of a folder, split into parts where parts may vary between runs."""
    found: Snapshot = {}
    for path in sorted(work.rglob("*")):
        if not path.is_file():
            continue
        name = re.sub(r"events\.out\.tfevents\..*", "events", str(path.relative_to(work)))
        for place, value in _leaves(path).items():
            found[name, place] = value
    return found


def _leaves(path: Path) -> dict[str, str]:
    if path.name.startswith("events.out."):
        return {"": ""}
    try:
        if path.suffix == ".pt":
            return _flat(torch.load(path, map_location="cpu", weights_only=True))
        if path.suffix == ".json":
            return _flat(json.loads(path.read_bytes()))
        if path.suffix == ".png":
            return {"": hashlib.sha256(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).tobytes()).hexdigest()}
    except Exception as error:
        return {"": f"unreadable: {error}"}
    return {"": hashlib.sha256(path.read_bytes()).hexdigest()}


def _flat(value: Any, place: str = "") -> dict[str, str]:
    if isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        inside: dict[str, str] = {place: type(value).__name__}
        for key, item in items:
            inside |= _flat(item, f"{place}.{key}")
        return inside
    if isinstance(value, torch.Tensor):
        value = value.contiguous().numpy().tobytes()
    return {place: hashlib.sha256(value if isinstance(value, bytes) else repr(value).encode()).hexdigest()}


@dataclass(frozen=True)
class Reference:
    """Result of an undisturbed command, the parts of it that vary between runs, and its duration."""

    command: Command
    left: Snapshot
    volatile: frozenset[tuple[str, str]]
    seconds: float

    def difference(self, work: Path) -> str:
        """Describe what is lost, changed or surplus in a folder; empty if nothing is."""
        found, may = snapshot(work), re.compile(self.command.differs)
        names, wanted = {name for name, _ in found}, {name for name, _ in self.left}
        if lost := sorted(name for name in wanted - names if not may.search(name)):
            return f"lost {lost[0]}"
        if litter := sorted(name for name in names - wanted if not may.search(name)):
            return f"litter {litter[0]}"
        for key in sorted({*found, *self.left} - self.volatile):
            if found.get(key) != self.left.get(key) and not may.search("".join(key)):
                return f"other {key[0]} {key[1]}".rstrip()
        return ""


def reference(command: Command, project: Path, work: Path) -> Reference:
    """Make the reference from two undisturbed runs. Raises RuntimeError if one of them fails."""
    snapshots, seconds = [], 0.0
    for _ in range(2):
        ended = typed(command, fresh(command, project, work))
        if ended.code != 0:
            raise RuntimeError(f"{command.name} ended with {ended.code}: {ended.said[-2000:]}")
        snapshots.append(snapshot(work))
        seconds = ended.seconds
    first, second = snapshots
    volatile = {key for key in {*first, *second} if first.get(key) != second.get(key)}
    return Reference(command, second, frozenset(volatile), seconds)
