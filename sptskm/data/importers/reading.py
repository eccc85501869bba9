"""What the layouts have in common: lists of words, and folders that hold folders."""

import os
from collections.abc import Iterator
from pathlib import Path

from sptskm.common.tables import read_words

MADE = ("_mask", "_joint3d")
"""Endings of folders that lie beside those of frames, see manifest.py."""


def lines_of_words(path: Path, wanted: str) -> Iterator[tuple[str, list[str]]]:
    """The words of each line that has any, with its place.

    `wanted` names the words of a line. Raises FileNotFoundError, and DataError for a line with another number of them.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted a list with {wanted} in each line")
    yield from ((f"{path}: {place}", words) for place, words in read_words(path, wanted))


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted plainly, without hidden ones and those of masks and skeletons.

    Raises FileNotFoundError.
    """
    try:
        with os.scandir(folder) as items:
            names = {item.name for item in items if item.is_dir() and not item.name.startswith(".")}
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{folder}: no such folder") from None
    return sorted(
        name for name in names if not any(name.endswith(made) and name[: -len(made)] in names for made in MADE)
    )
