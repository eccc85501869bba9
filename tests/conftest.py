"""What every room's tests may ask for."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from _pytest.terminal import TerminalReporter
from helpers.drawing import nothing_drawn
from helpers.sharing import shared
from helpers.small import small_config

from sptskm.synthetic import TINY, write_dataset
from sptskm.training.trainer import train

CLUSTER = Path(__file__).parent / "cluster"
STREAMS = ("ssin", "smin")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many workers as cores, and one more where tests on clusters run, which mostly wait."""
    return len(os.sched_getaffinity(0)) + ("not slow" not in config.option.markexpr)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give workers whole files, so that the fixtures of a file are made once; one has all of SLURM, one all of Ray."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            if "/cluster/" not in file:
                return file
            return "ray" if "test_ray" in file else "slurm"

    config.option.loadscopereorder = False
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on clusters are slow and begin first, as they take longest."""
    items.sort(key=lambda item: CLUSTER not in item.path.parents)
    for item in items:
        if CLUSTER in item.path.parents:
            item.add_marker(pytest.mark.slow)


def pytest_configure() -> None:
    """Small tensors gain nothing from several threads, and wait for them where cores are shared."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say in one line each why tests were skipped: a dot less is easily overlooked."""
    reasons = [str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])]
    for reason, count in Counter(reasons).items():
        terminalreporter.write_line(f"{count} tests {reason[0].lower()}{reason[1:]}")


@pytest.fixture
def without_drawing() -> Iterator[None]:
    """Evaluations without pictures and projector; what a fixture of a wider scope has drawn before stays."""
    with nothing_drawn():
        yield


@pytest.fixture(scope="session")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generated data set in the MARS layout; read-only by agreement, copy it before changing it."""
    return shared(tmp_path_factory, "walkers", lambda folder: write_dataset(folder, TINY, seed=0, workers=1))


@pytest.fixture(scope="session")
def trained(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each stream, as `small_config` describes it; read-only by agreement."""

    def make(folder: Path) -> None:
        for stream in STREAMS:
            assert train(small_config(stream, walkers, folder / stream)).finished

    folder = shared(tmp_path_factory, "trained", make)
    return {stream: folder / stream for stream in STREAMS}
