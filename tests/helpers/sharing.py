"""What is made once in a run of the tests, however many processes (pytest-xdist) share them."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a new folder that `make` has filled; whoever comes first makes it, the others wait.

    It is read-only by agreement: copy it before changing it.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # the own one lies in that of all workers
    folder, done = base / "shared" / name, base / "shared" / f"{name}.done"
    done.parent.mkdir(exist_ok=True)
    with (base / "shared" / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # half done by a process that failed
            make(folder)
            done.touch()
    return folder
