"""Copies of the code, so that a job runs the code of its submission, also after a requeue."""

import hashlib
import shutil
import tempfile
from pathlib import Path

import sptskm

SUFFIXES = (".py", ".jinja")  # what a job imports and what it reads beside its modules


def sources() -> dict[str, Path]:
    """Return every module and template of the toolkit by its path relative to the folder that holds the package."""
    home = Path(str(sptskm.__file__)).parent
    found = sorted(path for path in home.rglob("*") if path.suffix in SUFFIXES)
    return {str(path.relative_to(home.parent)): path for path in found}


def place(folder: Path) -> Path:
    """Return the folder for a copy of the current code below `folder`, named by a hash of its content."""
    content = hashlib.sha256()
    for name, path in sources().items():
        content.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return folder / f"code-{content.hexdigest()[:12]}"


def take(folder: Path) -> Path:
    """Copy the code to its place unless it is there, and return the folder; a job started there imports it."""
    target = place(folder)
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".code-", dir=folder))
    partial.chmod(0o755)
    for name, path in sources().items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, partial / name)
    try:
        partial.rename(target)
    except OSError:  # another launcher was quicker
        shutil.rmtree(partial)
    return target
