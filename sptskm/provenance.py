"""Provenance of a result: command, code, versions, device.

Launchers import this, so that torch is imported where its version is asked for.
"""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sptskm import __version__

GIT_SECONDS = 10.0
SUFFIXES = (".py", ".jinja")
"""What the toolkit imports, and what it reads beside its modules."""
COMMAND = "SPTSKM_COMMAND"
"""Environment variable by which launchers tell their jobs what was typed."""


def typed() -> str:
    """Return the command line of this process."""
    return f"{sys.argv[0]} {shlex.join(sys.argv[1:])}".strip()


def tell_jobs() -> None:
    """Let the jobs that this process starts record its own command line."""
    os.environ[COMMAND] = typed()


def command() -> str:
    """Return what was typed to start this process: the launcher's command if there was one, else its own.

    It is empty in a worker of a Ray cluster that was there before, as no launcher can set variables there.
    """
    return os.environ.get(COMMAND) or ("" if Path(sys.argv[0]).name == "default_worker.py" else typed())


def origin() -> dict[str, Any]:
    """Return what made a result besides configuration and data: versions, code, command and date."""
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"versions": versions(), "code": code_state(), "command": command(), "date": date}


def packages() -> dict[str, str]:
    """Return the versions of the packages that compute; they are the same on all ranks of a run."""
    import cv2
    import numpy as np
    import torch

    return {
        "sptskm": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def versions() -> dict[str, str]:
    """Return the versions and the device, on which the result depends besides configuration and data."""
    import torch

    return {**packages(), "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"}


def sources() -> dict[str, Path]:
    """Return every module and template of the toolkit by its path relative to the folder that holds the package."""
    home = Path(__file__).parent
    found = sorted(path for path in home.rglob("*") if path.suffix in SUFFIXES)
    return {str(path.relative_to(home.parent)): path for path in found}


def code_hash() -> str:
    """Return a hash of all modules and templates."""
    content = hashlib.sha256()
    for name, path in sources().items():
        content.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()


def code_state() -> dict[str, str]:
    """Return a hash of the toolkit's own modules and, in a git checkout, the commit ("-dirty": with changes)."""
    commit = _commit(Path(__file__).parents[1])
    return {"modules": code_hash()[:16]} | ({"commit": commit} if commit else {})


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
