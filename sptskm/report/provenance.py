"""Provenance of a result: code, versions, device."""

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
    """Return the versions of the packages that compute; they are the same on all ranks of a run."""
    return {
        "sptskm": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def versions() -> dict[str, str]:
    """Return the versions and the device, on which the result depends besides configuration and data."""
    return {**packages(), "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"}


def code_state() -> dict[str, str]:
    """Return a hash of the toolkit's own modules and, in a git checkout, the commit ("-dirty": with changes)."""
    package = Path(__file__).parent.parent
    content = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    commit = _commit(package.parent)
    return {"modules": content.hexdigest()[:16]} | ({"commit": commit} if commit else {})


def _commit(root: Path) -> str:
    """Return the commit of the checkout at `root`; empty where `root` itself is none, for example in site-packages.

    Nothing is written to the checkout: if the job were killed during a write, a lock would stay behind.
    """
    if not (root / ".git").exists():
        return ""
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
