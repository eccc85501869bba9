"""Recipes of containers and the citation file, as texts: no container engine is run."""

import re
from pathlib import Path

import pytest
import yaml
from helpers.launching import ROOT

import sptskm
from sptskm import cli


def copied(recipe: str, text: str) -> list[str]:
    """The files and folders of the checkout that a recipe copies."""
    if recipe == "Dockerfile":
        lines = re.findall(r"^COPY (.+)$", text, re.MULTILINE)
        return [word for line in lines for word in line.split()[:-1]]
    (block,) = re.findall(r"^%files\n((?:    .+\n)+)", text, re.MULTILINE)
    return [line.split()[0] for line in block.splitlines()]


@pytest.mark.parametrize("recipe", ["Dockerfile", "apptainer.def"])
def test_a_container_is_built_from_files_of_the_checkout_which_are_all_that_an_installation_needs(recipe: str) -> None:
    found = copied(recipe, (ROOT / recipe).read_text())
    assert not [name for name in found if not (ROOT / name).exists()]
    assert {"setup.py", "pyproject.toml", "sptskm", "configs", "slurm"} <= set(found)


@pytest.mark.parametrize("recipe", ["Dockerfile", "apptainer.def"])
def test_the_commands_of_a_container_are_commands_of_this_project(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / recipe).read_text()
    words = re.findall(r"(?:-t sptskm|/runs\" sptskm|\.sif sptskm) (\w+)", text)
    assert words
    for word in words:
        with pytest.raises(SystemExit) as end:
            cli.main([word, "--help"])
        assert end.value.code == 0
        assert f"usage: sptskm {word} " in capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["Dockerfile", "apptainer.def"])
def test_a_container_starts_the_program_and_installs_extras_that_the_package_has(recipe: str) -> None:
    text = (ROOT / recipe).read_text()
    assert re.search(r'^ENTRYPOINT \["sptskm"\]$|^    exec sptskm "\$@"$', text, re.MULTILINE)
    (extras,) = re.findall(r"pip install --no-cache-dir '\.\[([\w,]+)\]'", text)
    setup = Path(ROOT / "setup.py").read_text()
    assert all(f'"{extra}": [' in setup for extra in extras.split(","))


def test_the_citation_file_names_the_version_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == sptskm.__version__
