"""Copies of the code, so that a job runs the code of its submission, also after a requeue."""

import shutil
import tempfile
from pathlib import Path

from sptskm.provenance import code_hash, sources


def place(folder: Path) -> Path:
    """Return the folder for a copy of the current code below `folder`, named by a hash of its content."""
    return folder / f"code-{code_hash()[:12]}"


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
