"""Make a small complete project with the product's own commands: data, a pack, trained runs, features, results."""

import contextlib
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from sptskm import cli
from sptskm.data.files import mat_bytes

SIZES = "--train-ids 5 --test-ids 3 --cameras 2 --tracklets-per-camera 1 1 --frames 5 6 --distractors 1 --junk 1"
SETTINGS = ["data.workers=0", "data.held_out=0.4", "sampling.identities=2", "sampling.tracklets=2", "sampling.rounds=2"]
SETTINGS += [
    "model.width=4",
    "model.embedding_dim=8",
    "train.epochs=2",
    "train.validate_every=1",
    "optim.milestones=[1]",
]
OWN = {
    "smin": ["clips.frames=6", "clips.test_frames=8", "optim.lr=1e-2"],
    "ssin": ["clips.frames=2", "clips.height=64", "clips.width=32", "model.depths=[1,1,1,1]", "optim.lr=1e-3"],
}


def run(arguments: Sequence[object], said: Path) -> int:
    """Run `sptskm ARGUMENTS` in a forked process; return the exit code and append the output to `said`.

    A forked process needs no new imports, and it can be killed or limited.
    """
    child = start(arguments, said)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def start(arguments: Sequence[object], said: Path) -> int:
    """Start the command like `run`, without waiting; return the id of the process, which leads its own group."""
    child = os.fork()
    if child:
        with contextlib.suppress(OSError):  # whoever is first
            os.setpgid(child, child)
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        code = _ended(arguments)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(code)


def _ended(arguments: Sequence[object]) -> int:
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def train(stream: str, data: Path, run_folder: Path) -> list[object]:
    """Return the arguments that train a stream on the small data set."""
    file = run_folder.parent / f"{stream}.yaml"
    return ["train", file, f"data.root={data}", f"run={run_folder}", *SETTINGS, *OWN[stream]]


def make(folder: Path) -> Path:
    """Make the project; the commands' output is in `said.txt`. Raises RuntimeError when one of them fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for stream in OWN:
        (folder / f"{stream}.yaml").write_text(f"stream: {stream}\n")
    data, runs = folder / "data", {stream: folder / stream for stream in OWN}
    final = folder / "final"
    commands: list[list[object]] = [
        ["synth", data, *SIZES.split(), "--workers", 1],
        ["import", "mars", data, folder / "manifest.jsonl"],
        ["pack", data, folder / "pack", "--workers", 1],
        *(train(stream, data, run_folder) for stream, run_folder in runs.items()),
        ["evaluate", *runs.values(), "--out", final],
        ["extract", runs["smin"], "--data", data, "--out", folder / "smin.npz"],
    ]
    for command in commands:
        if code := run(command, folder / "said.txt"):
            raise RuntimeError(f"sptskm {command[0]} ended with {code}: {(folder / 'said.txt').read_text()[-2000:]}")
    _footage(folder)
    return folder


def _footage(folder: Path) -> None:
    """Write a video with the boxes of one walker, and key points of the first tracklet's frames in a tool's format."""
    video = cv2.VideoWriter(str(folder / "door.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 72))
    for number in range(10):
        picture = np.full((72, 96, 3), 40, np.uint8)
        cv2.rectangle(picture, (10 + number, 8), (40 + number, 64), (0, 200, 255), -1)
        video.write(picture)
    video.release()
    boxes = "".join(f"{number + 1},7,{10 + number},8,30,56,1,-1,-1,-1\n" for number in range(10))
    (folder / "door.txt").write_text(boxes)
    (folder / "points.mat").write_bytes(mat_bytes("joints", np.random.default_rng(0).random((14, 3)) + 0.1))


def copy(source: Path, target: Path) -> Path:
    """Copy a file or folder and replace the target."""
    if target.is_dir():
        shutil.rmtree(target)
    if source.is_dir():
        return Path(shutil.copytree(source, target))
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(source, target))
