"""What every launcher's tests may ask for."""

from pathlib import Path

import pytest
from helpers.launching import write_configs


@pytest.fixture
def configs(walkers: Path, tmp_path: Path) -> Path:
    """A folder with small configurations of both streams on the tiny walkers."""
    return write_configs(tmp_path / "configs", walkers)
