"""What every room's tests may ask for."""

from collections import Counter
from pathlib import Path

import cv2
import pytest
import torch
from _pytest.terminal import TerminalReporter

from sptskm.synthetic import TINY, write_dataset


def pytest_configure() -> None:
    """Small tensors gain nothing from several threads, and wait for them where cores are shared."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say in one line each why tests were skipped: a dot less is easily overlooked."""
    reasons = [str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])]
    for reason, count in Counter(reasons).items():
        terminalreporter.write_line(f"{count} tests {reason[0].lower()}{reason[1:]}")


@pytest.fixture(scope="session")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generated data set in the MARS layout; read-only by agreement, copy it before changing it."""
    root = tmp_path_factory.mktemp("walkers") / "tiny"
    write_dataset(root, TINY, seed=0, workers=1)
    return root
