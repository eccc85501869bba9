"""Read what the layouts have in common: lists of words, and folders of folders."""

import os
from collections.abc import Iterator
from pathlib import Path

from sptskm.common.tables import read_words

MADE = ("_mask", "_joint3d")
"""Endings of the folders of masks and skeletons beside a folder of frames, see manifest.py."""


def lines_of_words(path: Path, wanted: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the words of each line that is not empty, with the file and line for error messages.

    `wanted` names the words of a line. Raises FileNotFoundError, and DataError for a line with another number of words.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted a list with {wanted} in each line")
    yield from ((f"{path}: {place}", words) for place, words in read_words(path, wanted))


def subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, without hidden folders and folders of masks or skeletons.

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
