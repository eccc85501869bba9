"""A TensorBoard that is asked over HTTP, as a browser does."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """The address of a TensorBoard that shows this folder."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port=0", "--load_fast=false"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert server.stderr is not None
    try:
        yield next(found[0] for line in server.stderr if (found := re.findall(r"http://localhost:\d+", line)))
    finally:
        server.terminate()
        server.wait()
