"""What every room's tests may ask for."""

import os
from collections import Counter
from pathlib import Path

import cv2
import pytest
import torch
from _pytest.terminal import TerminalReporter

from sptskm.synthetic import TINY, write_dataset

CLUSTER = Path(__file__).parent / "cluster"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many workers as cores, and one more where tests on clusters run, which mostly wait."""
    return len(os.sched_getaffinity(0)) + ("not slow" not in config.option.markexpr)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on clusters are slow and come first, all by one worker; another file's tests stay with one worker, too.

    So the fixtures of a file are made once.
    """
    for item in items:
        if on_cluster := CLUSTER in item.path.parents:
            item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.xdist_group("cluster" if on_cluster else item.path.stem))
    items.sort(key=lambda item: CLUSTER not in item.path.parents)


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
