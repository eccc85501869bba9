"""A real SLURM cluster of two nodes for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.launching import write_configs
from helpers.nodes import CLUSTER, Slurm, bring_up
from helpers.runs import options

from sptskm.config import STREAMS


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A cluster that preempts with CONT and USR2, as administrators configure it who know submitit."""
    yield from bring_up()


@pytest.fixture(scope="session")
def slurm_term_only() -> Iterator[Slurm]:
    """A cluster that preempts as SLURM does unconfigured: CONT and TERM, then the kill."""
    yield from bring_up("--term-only")


@pytest.fixture(scope="session")
def cluster_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One rank on each of two nodes."""
    path = tmp_path_factory.mktemp("cluster") / "dev.yaml"
    path.write_text(CLUSTER)
    return path


@pytest.fixture(scope="session")
def configs(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small configurations of all streams on the tiny walkers."""
    return write_configs(tmp_path_factory.mktemp("configs"), walkers, STREAMS)


@pytest.fixture(scope="session")
def finished(slurm: Slurm, configs: Path, cluster_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All streams and the final job, uninterrupted, DDP across both nodes."""
    run = tmp_path_factory.mktemp("finished") / "run"
    jobs = slurm.launch(*options(configs, cluster_file, run, "all"))
    assert list(jobs) == [*STREAMS, "final"]
    assert slurm.state(jobs["final"]) == "PENDING"
    slurm.wait(jobs["final"], "COMPLETED")
    return run
