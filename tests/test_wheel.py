"""The toolkit as it is installed from a wheel, far from any checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.launching import ROOT

pytestmark = pytest.mark.slow
SMALL = ("--train-ids", 12, "--test-ids", 3, "--cameras", 2, "--workers", 1)
PARTS = ("sptskm", "configs", "slurm", "setup.py", "pyproject.toml")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the installed package."""
    folder = tmp_path_factory.mktemp("wheel")
    source, site = folder / "source", folder / "site"
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, source / part)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    for command in (
        [*pip, "wheel", "--quiet", *offline, "--wheel-dir", folder, source],
        [*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", site, "--find-links", folder, "sptskm"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return site


def sptskm(site: Path, folder: Path, *words: object) -> str:
    """What a command prints that is typed in an empty folder."""
    environment = {**os.environ, "PYTHONPATH": str(site), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "sptskm.cli", *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_one_package_with_its_configurations_and_batch_templates(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} <= {"sptskm", "bin"}
    for name in (
        "configs/mars/ssin.yaml",
        "configs/strong/gait.yaml",
        "configs/cluster/slurm.yaml",
        "slurm/ray.sbatch",
        "launching/slurm.py",
        "report/report.html.jinja",
    ):
        assert (installed / "sptskm" / name).is_file(), name


def test_an_installed_toolkit_runs_the_commands_of_the_readme_in_any_folder(installed: Path, tmp_path: Path) -> None:
    sptskm(installed, tmp_path, "synth", "walkers", *SMALL)
    assert "stream: ssin" in sptskm(installed, tmp_path, "config", "configs/demo/ssin.yaml")
    for launcher in ("local", "slurm", "tune"):
        assert f"usage: sptskm {launcher} " in sptskm(installed, tmp_path, launcher, "--help")
    root = f"data.root={tmp_path / 'walkers'}"
    script = sptskm(installed, tmp_path, "slurm", "--stream", "both", "--config", "configs/demo", "--dry-run", root)
    assert script.count("#SBATCH --job-name=") == 3


def test_an_installed_toolkit_has_the_functions_of_the_api_and_their_recommended_recipe(
    installed: Path, tmp_path: Path
) -> None:
    code = (
        "import sptskm; from sptskm import load_config, search, train; "
        "print(sptskm.__file__, load_config('strong/gait').stream, callable(train), callable(search))"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(installed / "sptskm/__init__.py"), "gait", "True", "True"]
