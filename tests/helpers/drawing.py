"""Evaluations as the final job writes them, and without pictures, where only words, numbers and files matter."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from sptskm.evaluation.results import Results
from sptskm.evaluation.saving import write_results
from sptskm.provenance import origin
from sptskm.report.style import Image, pixels
from sptskm.report.writing import write_report


def write(results: Results, out: Path) -> None:
    """Write all files of an evaluation."""
    write_report(results, write_results(results, out, origin()), out)


def image_of(draw: Callable[..., Figure], *arguments: Any) -> Image:
    """Draw a figure by a function with these arguments, and return its pixels on screen."""
    return pixels(partial(draw, *arguments))


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Let evaluations draw no picture and no projector inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sptskm.report.writing.pictures", lambda _: [])
        patch.setattr("sptskm.report.writing.write_projector", lambda *_: None)
        yield
