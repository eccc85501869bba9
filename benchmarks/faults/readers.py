"""Run every reader on every mutation, in forked processes with limits of memory and time.

An input is a pure function of (seed, subject, number), so that any of them can be made again.
"""

import json
import os
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from faults.data_subjects import SUBJECTS as DATA
from faults.mutations import Mutation
from faults.run_subjects import SUBJECTS as RUNS
from faults.subjects import Subject, digest
from sptskm.common.endings import is_ours, sentence

SUBJECTS = [*DATA, *RUNS]
Class = Literal[
    "equal", "meant", "refused", "no path", "long", "traceback", "crash", "hang", "memory", "silently other", "unusable"
]
GOOD = ("equal", "meant", "refused")
CPU_S, WALL_S = 10.0, 90.0  # of one input
ROOM = 2 << 30  # bytes of address space beyond what the process has already
PEAK = 1 << 30  # bytes of memory that reading a file of some kilobytes may take
LONGEST = 600  # characters of a sentence


@dataclass(frozen=True)
class Found:
    """Result of one input."""

    subject: str
    number: int
    mutation: str
    what: Class
    said: str
    seconds: float = 0.0


def mutated(subject: Subject, healthy: bytes, seed: int, number: int) -> tuple[Mutation, bytes]:
    """Return the input of this number. Kinds of mutations take turns, so that each has its share."""
    kinds = subject.all_mutations
    mutation = kinds[number % len(kinds)]
    rng = np.random.default_rng([seed, zlib.crc32(subject.name.encode()), number])
    content = mutation.change(healthy, rng)
    for _ in range(8):
        if content != healthy:
            break
        content = mutation.change(healthy, rng)
    return mutation, content


def judge(subject: Subject, path: Path, home: Path, mutation: Mutation, equal: str) -> tuple[Class, str]:
    """Read a file in `home` and judge the result and the message; some files are read through links elsewhere."""
    _forget_peak()
    before = _status("VmRSS")
    try:
        value = subject.read(path)
        found, wrong = digest(value), subject.wrong(value)
    except MemoryError as error:
        return "memory", f"{type(error).__name__}: {error}"
    except Exception as error:
        return _peak(before) or _refusal(error, home)
    if (over := _peak(before)) or found == equal:
        return over or ("equal", "")
    if wrong:
        return "silently other", f"accepted with {wrong}"
    if mutation.meaning in ("form", "wrong") or (mutation.meaning == "damage" and subject.checked):
        return "silently other", f"accepted as something else after {mutation.name}"
    return "meant", ""


def _refusal(error: Exception, home: Path) -> tuple[Class, str]:
    if not isinstance(error, ValueError | OSError) or not is_ours(error):
        return "traceback", "".join(traceback.format_exception(error))
    said = sentence(error)
    if "\n" in said or len(said) > LONGEST:
        return "long", said
    return ("refused" if str(home.parent.parent) in said else "no path"), said


def _peak(before: int) -> tuple[Class, str] | None:
    over = _status("VmHWM") - before
    return ("memory", f"took {over / 2**30:.1f} GiB") if over > PEAK else None


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(name: str, process: int | str = "self") -> int:
    """Return a number of bytes from the kernel's status of a process."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    return 0


def _cpu_seconds(process: int) -> float:
    cells = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(cells[11]) + int(cells[12])) / os.sysconf("SC_CLK_TCK")


def _work(project: Path, seed: int, cases: Sequence[tuple[Subject, int]], pipe: int, folder: Path) -> None:
    """Judge these inputs one after the other, and report to the parent before and after each."""
    warnings.simplefilter("ignore")
    limit = _status("VmSize") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    current, home, path, healthy, equal = "", folder, folder, b"", ""
    for subject, number in cases:
        if subject.name != current:
            current, home = subject.name, folder / f"{zlib.crc32(subject.name.encode()):08x}"
            equal = ""
            try:
                path = _prepared(subject, project, home)
                healthy, equal = path.read_bytes(), digest(subject.read(path))
            except Exception as error:
                _tell(pipe, Found(current, number, "healthy", "unusable", str(error)[:LONGEST]))
        if not equal:
            continue
        mutation, content = mutated(subject, healthy, seed, number)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        _tell(pipe, Found(current, number, mutation.name, "hang", ""))
        start = time.process_time()
        what, said = judge(subject, path, home, mutation, equal)
        _tell(pipe, Found(current, number, mutation.name, what, said[-3000:], time.process_time() - start))


def _prepared(subject: Subject, project: Path, home: Path) -> Path:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    return subject.prepare(project, home)


def _tell(pipe: int, found: Found) -> None:
    os.write(pipe, (json.dumps(asdict(found)) + "\n").encode())


def run(project: Path, seed: int, cases: Sequence[tuple[Subject, int]]) -> Iterator[Found]:
    """Judge these inputs, in their order; a process that dies or hangs loses only the current input."""
    left = list(cases)
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        while left:
            done = 0
            for found, ended in _of_process(project, seed, left, Path(folder)):
                yield found
                done = ended
            left = left[done:]


def _of_process(
    project: Path, seed: int, cases: Sequence[tuple[Subject, int]], folder: Path
) -> Iterator[tuple[Found, int]]:
    """Yield the results of one process, each with the number of inputs done so far."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _enter(project, seed, cases, writing, folder)
    os.close(writing)
    place = {(subject.name, number): at for at, (subject, number) in enumerate(cases, 1)}
    begun: Found | None = None
    done = 0
    for found in _heard(reading, child):
        done = place.get((found.subject, found.number), len(cases))
        begun = found if found.what == "hang" and not found.said else None
        if begun is None:
            yield found, done
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if begun is not None:
        yield replace(begun, what="crash", said=f"the process ended with {os.waitstatus_to_exitcode(status)}"), done
    elif not done:
        yield Found("harness", 0, "", "crash", "a process ended without a word"), len(cases)


def _enter(project: Path, seed: int, cases: Sequence[tuple[Subject, int]], pipe: int, folder: Path) -> NoReturn:
    silent = os.open(os.devnull, os.O_RDWR)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    try:
        _work(project, seed, cases, pipe, folder)
    except BaseException:
        _tell(pipe, Found("harness", 0, "", "crash", traceback.format_exc()[-3000:]))
    os._exit(0)


def _heard(pipe: int, child: int) -> Iterator[Found]:
    """Yield the reports of a process until it ends; kill and report one that takes too long for an input."""
    begun: Found | None = None
    buffer, started = b"", (0.0, 0.0)
    while True:
        if select.select([pipe], [], [], 0.5)[0]:
            got = os.read(pipe, 1 << 16)
            if not got:
                return
            *lines, buffer = (buffer + got).split(b"\n")
            for line in lines:
                begun = Found(**json.loads(line))
                started = time.monotonic(), _cpu_seconds(child)
                yield begun
        elif begun and begun.what == "hang":
            used = time.monotonic() - started[0], _cpu_seconds(child) - started[1]
            if used[0] > WALL_S or used[1] > CPU_S:
                os.kill(child, signal.SIGKILL)
                yield replace(begun, said=f"took more than {used[0]:.0f} s", seconds=used[0])
                return


def chosen(names: Sequence[str]) -> list[Subject]:
    """Return the subjects whose names contain one of these words; all without any word."""
    return [subject for subject in SUBJECTS if not names or any(name in subject.name for name in names)]


def turns(subjects: Sequence[Subject], inputs: int, slices: int) -> Iterator[list[tuple[Subject, int]]]:
    """Yield `inputs` cases in `slices` rounds over all subjects, so that any number of rounds covers all of them."""
    each = max(1, inputs // len(subjects))
    step = max(1, each // slices)
    for first in range(0, each, step):
        yield [(subject, number) for subject in subjects for number in range(first, min(first + step, each))]


def rows(found: Sequence[Found]) -> list[list[object]]:
    """Return a table line for each subject."""
    counts: dict[str, Counter[str]] = {}
    for one in found:
        counts.setdefault(one.subject, Counter())[one.what] += 1
    lines: list[list[object]] = [
        [name, sum(count.values()), *(count[what] for what in CLASSES)] for name, count in counts.items()
    ]
    total = Counter(one.what for one in found)
    return [*lines, ["all", len(found), *(total[what] for what in CLASSES)]]


BAD = ("no path", "long", "traceback", "crash", "hang", "memory", "silently other", "unusable")
CLASSES: tuple[Any, ...] = (*GOOD, *BAD)
HEADER = ["kind of file", "inputs", *CLASSES]
