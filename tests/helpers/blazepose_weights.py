"""BlazePose's weights for tests: from the cache, else by package name, as users get them."""

import functools
import os
from pathlib import Path

import pytest

from sptskm.config import ConfigError
from sptskm.preparation.weights_cache import fetch_blazepose


@functools.cache
def _fetched() -> Path | str:
    try:
        return fetch_blazepose()
    except ConfigError as error:
        return str(error)


def blazepose_file() -> Path:
    """Give the file; without a registry the test is skipped, except in CI, where it fails."""
    found = _fetched()
    if isinstance(found, Path):
        return found
    if os.environ.get("CI"):
        pytest.fail(found)
    pytest.skip(f"Want BlazePose's weights: {found}")
