"""Launchers as a user starts them: programs in the repository's root, on configurations small enough for tests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from helpers.small import small_config
from sptskm.config import PAIR
from sptskm.configfile import to_yaml
from sptskm.data import read_mars

ROOT = Path(__file__).parents[2]
DEADLINE = 480  # seconds; only a hanging launcher meets it


def write_configs(folder: Path, root: Path, streams: Iterable[str] = PAIR) -> Path:
    """A configuration folder with some streams on the data in `root`."""
    folder.mkdir(parents=True, exist_ok=True)
    for stream in streams:
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


def broken_walkers(walkers: Path, root: Path) -> set[Path]:
    """A copy of the walkers with no readable training frame; the broken files."""
    shutil.copytree(walkers, root)
    table = read_mars(root)
    broken = {table.path(row, frame, "frames") for row in table.train for frame in range(table.lengths[row])}
    for path in broken:
        path.write_bytes(b"no picture")
    return broken


def processes() -> Iterator[tuple[int, list[str], str]]:
    """Pid, environment (`NAME=value`, as far as we may look) and command line of every living process."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            line = (path / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            environment = ""
            with suppress(PermissionError):  # somebody else's
                environment = (path / "environ").read_bytes().decode(errors="replace")
            yield int(path.name), environment.split("\0"), line


def processes_naming(text: str) -> list[str]:
    """Command lines of living processes in which `text` occurs."""
    return [line for _, _, line in processes() if text in line]


def processes_with(text: str) -> list[str]:
    """Command lines of living processes in whose environment `text` occurs."""
    return [line for _, environment, line in processes() if any(text in variable for variable in environment)]


def submitted_rank(rank: int, *variables: str, naming: str = "") -> int:
    """Pid of a rank of a submitit job on SLURM, told by more of its environment or by its command line."""
    wanted = {f"SLURM_PROCID={rank}", *variables}
    for pid, environment, line in processes():
        if wanted <= set(environment) and "submitit" in line and naming in line:
            return pid
    raise AssertionError(f"no process of rank {rank} with {' '.join(variables)} {naming}")


def members(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        if int(own) == group and state != "Z":
            found.append(int(path.parent.name))
    return found
