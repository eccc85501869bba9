"""Evaluations as the final job writes them, and without pictures, where only words, numbers and files matter."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sptskm.evaluation.results import Results
from sptskm.evaluation.writing import write_results
from sptskm.provenance import origin
from sptskm.report.writing import write_report


def write(results: Results, out: Path) -> None:
    """Write all files of an evaluation."""
    write_report(results, write_results(results, out, origin()), out)


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Let evaluations draw no picture and no projector inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sptskm.report.writing.pictures", lambda _: [])
        patch.setattr("sptskm.report.writing.write_projector", lambda *_: None)
        yield
