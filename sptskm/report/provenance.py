"""Where a result comes from: code, versions, device."""

import hashlib
import platform
import subprocess
from pathlib import Path

import cv2
import numpy as np
import torch

from sptskm import __version__

GIT_SECONDS = 10.0


def packages() -> dict[str, str]:
    """Versions of what computes; the same on all ranks of a run."""
    return {
        "sptskm": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def versions() -> dict[str, str]:
    """What the result depends on beside configuration and data."""
    return {**packages(), "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"}


def code_state() -> dict[str, str]:
    """Hash of the toolkit's own modules and, where it is a git checkout, the commit ("-dirty": with changes)."""
    package = Path(__file__).parent.parent
    content = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    commit = _commit(package.parent)
    return {"modules": content.hexdigest()[:16]} | ({"commit": commit} if commit else {})


def _commit(root: Path) -> str:
    """Empty where `root` is no checkout itself, for instance a folder of packages within somebody else's.

    Nothing is written to the checkout: a job that is killed meanwhile would leave its lock.
    """
    if not (root / ".git").exists():
        return ""
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
