"""Launchers as a user starts them: programs in the repository's root, on configurations small enough for tests."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from small import small_config

from sptskm.configfile import to_yaml

ROOT = Path(__file__).parents[1]
DEADLINE = 240  # seconds; only a hanging launcher meets it


def write_configs(folder: Path, root: Path) -> Path:
    """A configuration folder with both streams on the data in `root`."""
    folder.mkdir(parents=True, exist_ok=True)
    for stream in ("ssin", "smin"):
        (folder / f"{stream}.yaml").write_text(to_yaml(small_config(stream, root, Path("unused"))))
    return folder


def start(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    """`python ARGUMENTS` in the repository's root, with more environment, as a process whose output can be read."""
    activated = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {
        **os.environ,
        "PATH": activated,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a launcher; one that hangs is ended and fails the test."""
    try:
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.terminate()
    return process.returncode, out, err


def launch(*arguments: object, **variables: str) -> tuple[int, str, str]:
    """`start` and `end`."""
    return end(start(*arguments, **variables))


def processes_naming(text: str) -> list[str]:
    """Command lines of living processes in which `text` occurs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if text in line:
            found.append(line)
    return found


def processes_with(text: str) -> list[str]:
    """Command lines of living processes in whose environment `text` occurs."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended, or is somebody else's
            if text.encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found
