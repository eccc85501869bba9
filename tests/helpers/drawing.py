"""Evaluations without pictures, where only words, numbers and files matter."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Let evaluations draw no picture and no projector inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sptskm.report.writing.pictures", lambda _: [])
        patch.setattr("sptskm.report.writing.write_projector", lambda *_: None)
        yield
