"""The torture test tells right from wrong, and a short run of it finds nothing wrong."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from faults import io_errors, readers  # noqa: E402
from faults.mutations import Mutation  # noqa: E402
from faults.subjects import Subject, digest  # noqa: E402

from sptskm.common.errors import DataError  # noqa: E402


def numbered(read: Callable[[Path], Any], **more: Any) -> Subject:
    """A kind of file that holds a number, which is 1 more in every input."""

    def healthy(_project: Path, folder: Path) -> Path:
        (folder / "a.txt").write_text("0")
        return folder / "a.txt"

    more = {"mutations": [Mutation("more", lambda content, _: b"%d" % (int(content) + 1), "value")], **more}
    return Subject("number", "nobody", healthy, read, **more)


def found(subject: Subject, tmp_path: Path) -> readers.Found:
    """What becomes of the first input of its own kind of mutation."""
    number = len(subject.all_mutations) - 1
    (one,) = readers.run(tmp_path, 0, [(subject, number)])
    return one


def unless_healthy(action: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda path: 0 if path.read_text() == "0" else action(path)


def refuse(path: Path) -> None:
    raise DataError(f"{path}: is odd")


def refuse_without_path(_path: Path) -> None:
    raise DataError("is odd")


def fail(_path: Path) -> None:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("action", "what"),
    [
        (refuse, "refused"),
        (refuse_without_path, "no path"),
        (fail, "traceback"),
        (lambda _: int("x"), "traceback"),
        (lambda _: os._exit(3), "crash"),
        (lambda _: np.ones(3 << 28).sum(), "memory"),
        (lambda _: 0, "equal"),
        (lambda _: 7, "meant"),
    ],
)
def test_what_a_reader_does_is_called_by_its_name(action: Any, what: str, tmp_path: Path) -> None:
    assert found(numbered(unless_healthy(action)), tmp_path).what == what


def test_a_reader_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "WALL_S", 0.5)
    assert found(numbered(unless_healthy(lambda _: time.sleep(60))), tmp_path).what == "hang"


def test_another_content_is_silent_where_it_could_have_been_noticed(tmp_path: Path) -> None:
    read = unless_healthy(lambda path: path.read_text())
    damage = [Mutation("damage", lambda content, _: content + b"1")]
    assert found(numbered(read, mutations=damage), tmp_path).what == "meant"
    assert found(numbered(read, mutations=damage, checked=True), tmp_path).what == "silently other"
    assert found(numbered(read, wrong=lambda _: "a letter"), tmp_path).what == "silently other"


def test_an_input_is_a_function_of_the_seed_and_its_number(tmp_path: Path) -> None:
    subject = next(subject for subject in readers.SUBJECTS if subject.name == "OpenPose .json")
    healthy = subject.prepare(tmp_path, tmp_path).read_bytes()
    made = [[readers.mutated(subject, healthy, seed, number)[1] for number in range(40)] for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]


def test_contents_differ_when_a_number_does() -> None:
    assert digest({"a": np.array([1, 2])}) == digest({"a": np.array([1.0, 2.0])})
    assert digest({"a": np.array([1, 2])}) != digest({"a": np.array([1, 3])})
    assert digest([1, [2]]) != digest([[1], 2])


@pytest.mark.slow
@pytest.mark.parametrize("part", ["readers", "kills", "errors", "full disk"])
def test_a_short_run_finds_nothing_wrong(part: str) -> None:
    words = {
        "readers": ["--inputs", "180"],
        "kills": ["--kills", "5", "--commands", "import", "pack", "train smin on", "extract"],
        "errors": ["--errors", "8", "--commands", "import", "pack", "train smin on", "extract"],
        "full disk": ["--disks", "4", "--commands", "import", "pack", "train smin on", "extract"],
    }[part]
    command = [sys.executable, ROOT / "benchmarks" / "torture.py", "--only", part, *words, "--seconds", "60"]
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert "## What was wrong" in ended.stdout, ended.stderr
    if "not tried" in ended.stdout:
        pytest.skip(re.findall("not tried.*", ended.stdout)[0])
    assert ended.returncode == 0, ended.stdout[-5000:]


def test_the_library_knows_the_same_kinds_of_calls() -> None:
    text = Path(io_errors.__file__).with_name("shim.c").read_text()
    names = ("OPEN_READ", "OPEN_WRITE", "READ", "WRITE", "SYNC", "RENAME", "STAT")
    assert {name: int(value) for name, value in re.findall(r"\b([A-Z_]+) = (\d+)", text)} == {
        name: getattr(io_errors, name) for name in names
    }
