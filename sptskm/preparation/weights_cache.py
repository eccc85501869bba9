"""Fetch BlazePose's weights by package name, check their hash, and keep them in the user's cache.

The file is part of PyPI's wheels of mediapipe 0.10.5 to 0.10.21 and of npm's @mediapipe/pose (Apache-2.0). Neither
package is installed: a wheel is a zip file and npm's package a tar file, and only this file is extracted.
"""

import argparse
import hashlib
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from sptskm.common.atomic import write_bytes
from sptskm.config import ConfigError

FILE = "pose_landmark_full.tflite"
SHA256 = "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
LARGEST = 64_000_000  # bytes that are read from a member of an archive at most
CACHE = "SPTSKM_CACHE"  # environment variable that names another folder
MISSING = (
    "BlazePose's weights are missing; `sptskm weights blazepose` fetches them, or --from FILE takes them from a file"
)
PIP = ("pip", "download", "--no-deps", "--only-binary", ":all:", "--python-version", "3.12")
WHEEL = ("--platform", "manylinux_2_28_x86_64", "mediapipe==0.10.21")
NPM = ("npm", "pack", "--silent", "@mediapipe/pose@0.5.1675469404")


def cache_folder() -> Path:
    """Return the folder that keeps weights: $SPTSKM_CACHE, else sptskm in $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get(CACHE)
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sptskm"


def blazepose_weights() -> Path:
    """Return the file of BlazePose's weights.

    Raises ConfigError if it is missing, is not the published file, or is in a folder that others may write to.
    """
    path = cache_folder() / FILE
    if not path.exists():
        raise ConfigError(f"{path}: {MISSING}")
    _check_owner(path)
    if (found := _sha256(path.read_bytes())) != SHA256:
        raise ConfigError(f"{path}: has the SHA-256 {found[:16]}, wanted {SHA256[:16]}; remove it and {MISSING}")
    return path


def fetch_blazepose(source: Path | None = None) -> Path:
    """Put the weights into the cache, from `source` (.tflite, .whl, .tgz), else by pip or npm.

    Raises FileNotFoundError, or ConfigError naming what was tried.
    """
    path = cache_folder() / FILE
    if source is None and path.exists() and _sha256(path.read_bytes()) == SHA256:
        return path
    content = _from_packages() if source is None else _from_file(source)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_bytes(path, content)
    return path


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `sptskm weights`."""
    parser.add_argument("name", choices=["blazepose"], help="the network")
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE", help=f"{FILE}, or a package that holds it")


def run(chosen: argparse.Namespace) -> str:
    """Fetch the weights and return a sentence with their path."""
    return f"{fetch_blazepose(chosen.source)}: BlazePose's weights, as published"


def _from_packages() -> bytes:
    """Download the wheel with pip or npm's package with npm, by name, and return the weights."""
    failed = []
    for command in ([sys.executable, "-m", *PIP, *WHEEL], [*NPM]):
        with tempfile.TemporaryDirectory() as folder:
            try:
                subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=600)
                (package,) = Path(folder).iterdir()
                return _from_file(package)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
                failed.append(f"{command[-1]}: {said[-1] if said else 'failed'}")
    raise ConfigError(
        f"BlazePose's weights could not be fetched ({'; '.join(failed)}); on a machine with a registry "
        f"`{' '.join((*PIP, *WHEEL))}`, then here `sptskm weights blazepose --from FILE.whl`"
    )


def _from_file(source: Path) -> bytes:
    """Return the checked content of the weights from a file or an archive that holds it."""
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file, wanted {FILE}, or a wheel or npm package that holds it")
    try:
        content = _opener(source)(source)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise ConfigError(f"{source}: cannot be read ({error})") from None
    if content is None:
        raise ConfigError(
            f"{source}: holds no {FILE}, wanted a wheel of mediapipe 0.10.5 to 0.10.21 or @mediapipe/pose"
        )
    if (found := _sha256(content)) != SHA256:
        raise ConfigError(f"{source}: its {FILE} has the SHA-256 {found[:16]}, wanted {SHA256[:16]}")
    return content


def _opener(source: Path) -> Callable[[Path], bytes | None]:
    if zipfile.is_zipfile(source):
        return _from_zip
    return _from_tar if tarfile.is_tarfile(source) else Path.read_bytes


def _from_zip(source: Path) -> bytes | None:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            if Path(member.filename).name == FILE and member.file_size <= LARGEST:
                return archive.read(member)
    return None


def _from_tar(source: Path) -> bytes | None:
    with tarfile.open(source) as archive:
        for member in archive:
            if Path(member.name).name == FILE and member.size <= LARGEST and (file := archive.extractfile(member)):
                return file.read()
    return None


def _check_owner(path: Path) -> None:
    """Refuse weights that another user could have put there: the hash protects the file when it is read, not later."""
    for place in (path, path.parent):
        found = place.stat()
        if found.st_uid not in (os.getuid(), 0) or found.st_mode & stat.S_IWOTH:
            raise ConfigError(f"{place}: belongs to another user or is writable by all, wanted one's own (${CACHE})")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
