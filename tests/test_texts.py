"""What README.md, CONTRIBUTING.md and docs/ say can be typed, opened and set."""

import re
import shlex
from pathlib import Path

import pytest
from helpers.launching import ROOT

from sptskm import cli, config_command
from sptskm.config import STREAMS, Final
from sptskm.configfile import apply_overrides, load
from sptskm.launching import local, slurm, tune
from sptskm.launching.plan import make_plan
from sptskm.tuning import check_search, load_search

TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def text_of(path: Path) -> str:
    if not path.is_file():
        pytest.skip(f"{path.name} is not written yet")
    return path.read_text()


def commands(text: str) -> list[list[str]]:
    """Words of every command in fenced sh or bash blocks, continued lines joined, comments left out."""
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def understood(words: list[str]) -> bool:
    """Whether this is a command of this repository; fails where its program would refuse it."""
    if words[0] == "srun":
        words = words[words.index("sptskm") :]
    if words[0] == "sbatch":
        place, script = next((place, word) for place, word in enumerate(words) if word.endswith(".sbatch"))
        assert (ROOT / script).is_file()
        program = ["sptskm"] if script.endswith("torchrun.sbatch") else ["python", "launch/tune.py"]
        words = [*program, *words[place + 1 :]]
    if words[0].endswith("torchrun"):
        assert "sptskm.cli" in words
        words = ["sptskm", *words[words.index("sptskm.cli") + 1 :]]
    if words[0].endswith("sptskm") and words[1] in cli.LAUNCHERS:
        launched(f"launch/{words[1]}.py", words[2:])
    elif words[0].endswith("sptskm"):
        single_step(words[1:])
    elif words[:1] == ["make"]:
        targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in words[1:] if "=" not in word} <= targets
    elif words[0].endswith("python") and words[1].startswith("launch/"):
        launched(words[1], words[2:])
    elif words[0].endswith("python") and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file()
    else:
        return False
    return True


def single_step(words: list[str]) -> None:
    """What `sptskm` makes of a command line before it does anything."""
    if words[0] == "config":
        if "--help" not in words:
            config_command.run(config_command.parser().parse_intermixed_args(words[1:]))
        return
    chosen = cli._parser().parse_args(words)
    if "overrides" in chosen and "file" in chosen:
        load(ROOT / chosen.file, chosen.overrides)


def launched(script: str, words: list[str]) -> None:
    """What a launcher makes of a command line before it looks at data and machines."""
    program = {"launch/local.py": local, "launch/slurm.py": slurm, "launch/tune.py": tune}[script]
    if "--prepare" in words:
        program.prepare_command_line().parse_args(words)
        return
    chosen = program.command_line().parse_intermixed_args(words)
    plan = make_plan(chosen)
    if program is tune:
        tune.searched_by(plan, chosen)
    if program is slurm:
        slurm.searched_by(plan, chosen)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_command_in_the_texts_is_one_that_its_program_accepts(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    known = []
    for words in commands(text_of(path)):
        try:
            known += [words[0]] if understood(words) else []
        except SystemExit as ending:  # --help and --version end well
            if ending.code:
                pytest.fail(f"not accepted: {shlex.join(words)}")
    wanted = {"README.md": {"make", "sptskm", "python"}, "CONTRIBUTING.md": {"make"}, "slurm.md": {"python", "srun"}}
    assert wanted.get(path.name, set()) <= set(known)


def test_the_search_file_that_the_documentation_shows_is_one(tmp_path):
    (example,) = re.findall(r"^```yaml\n(.*?)^```", text_of(ROOT / "docs/tuning.md"), re.DOTALL | re.MULTILINE)
    (tmp_path / "search.yaml").write_text(example)
    for stream, search in load_search(tmp_path / "search.yaml").items():
        check_search(tmp_path / "search.yaml", search, STREAMS[stream].defaults)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_link_picture_and_file_that_the_texts_name_exists(path):
    text = text_of(path)
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", text)
    files = re.findall(r"`((?:sptskm|launch|tests|configs|benchmarks|docs)/[\w/.-]*)`", text)
    assert files or links or path.parent.name == "docs"
    assert not [name for name in links if not (path.parent / name).exists()]
    assert not [name for name in files if not (ROOT / name).exists()]


def test_every_override_that_the_texts_quote_is_a_setting():
    spans = [span for path in TEXTS for span in re.findall(r"`([^`\n]+)`", text_of(path))]
    words = [word for span in spans for word in span.split()]
    quoted = [word for word in words if re.fullmatch(r"(?!section|ssin\.section)[a-z_]+\.(?!key)[a-z_.]+=\S+", word)]
    assert len(quoted) > 5
    for override in quoted:
        target, _, rest = override.partition(".")
        if target == "final":
            apply_overrides(Final(), [rest])
        for stream in STREAMS:
            if target not in (*STREAMS, "final"):
                apply_overrides(STREAMS[stream].defaults, [override])
            elif target == stream:
                apply_overrides(STREAMS[stream].defaults, [rest])


def test_the_page_of_keys_is_what_the_command_prints():
    page = (ROOT / "docs/configuration.md").read_text()
    assert page == config_command.markdown(), "run: sptskm config --markdown > docs/configuration.md"
