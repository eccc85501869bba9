"""Paths: whether something is there, and whether a path that a file names stays where it belongs.

Only what the system calls "no such file" is absence; what may not be looked at, or fails, stays an OSError.
"""

import os
import re
import stat
from pathlib import Path

from sptskm.common.errors import DataError

_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def exists(path: Path) -> bool:
    """Return whether a path exists. Raises OSError if that is unknown."""
    return _mode(path) is not None


def is_file(path: Path) -> bool:
    """Return whether a path is a file. Raises OSError if that is unknown."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder. Raises OSError if that is unknown."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _mode(path: Path) -> int | None:
    try:
        return os.stat(path).st_mode  # noqa: PTH116 - a million files are asked for
    except (FileNotFoundError, NotADirectoryError):
        return None


def control_in(text: str) -> str:
    """Return the first control character of a text, line breaks and lone surrogates included; empty without one."""
    return found[0] if (found := _CONTROL.search(text)) else ""


def check_inside(folder: Path, path: Path, source: Path) -> None:
    """Raise DataError unless a path named by `source` lies in `folder`, with all links and .. resolved.

    The last part of the path is not followed: files are written under another name and renamed.
    """
    if control_in(str(path).removeprefix(str(folder))):
        raise DataError(f"{source}: names the file {str(path)!r}, wanted a name without control characters")
    home, parent = folder.resolve(), path.parent.resolve()
    if path.name in ("", ".", "..") or not (parent == home or parent.is_relative_to(home)):
        raise DataError(f"{source}: names the file {path}, which lies outside of {folder}")


def fold_folder(run: str | Path, fold: int) -> Path:
    """Return the folder of the run that leaves a fold (from 1) out, beside that of a stream's run on everybody."""
    return Path(run).parent / "folds" / str(fold) / Path(run).name
