"""What README.md, CONTRIBUTING.md and docs/ say can be typed, opened and set."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import typed
from helpers.launching import ROOT

from sptskm import config_command
from sptskm.config import STREAMS, Final
from sptskm.configfile import apply_overrides
from sptskm.tuning import check_search, load_search

TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def text_of(path: Path) -> str:
    if not path.is_file():
        pytest.skip(f"{path.name} is not written yet")
    return path.read_text()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_command_in_the_texts_is_one_that_its_program_accepts(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in typed.commands(text_of(path)):
        refused = refusal(typed.accepted, words)
        assert not refused, f"not accepted: {shlex.join(words)}: {refused}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_command_in_a_sentence_has_a_name_and_options_of_its_program(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in typed.quoted(text_of(path)):
        refused = refusal(typed.known, words)
        assert not refused, f"not known: {shlex.join(words)}: {refused}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_commands_stand_in_blocks_of_the_language_that_is_tested(path):
    for language, block in typed.fences(text_of(path)):
        assert language in (typed.SHELL, *typed.OTHERS) or language.startswith("{"), f"```{language}, wanted ```sh"
        shown = [line for line in block.splitlines() if language != typed.SHELL and typed.is_command(line)]
        assert not shown, f"{shown[0]} in a block ```{language}, wanted ```sh"


def refusal(check: Callable[[list[str]], None], words: list[str]) -> str:
    """What a check has against a command, empty if nothing."""
    try:
        check(words)
    except SystemExit as ending:  # --help and --version end well
        return f"exit code {ending.code}" if ending.code else ""
    except (AssertionError, LookupError, OSError, ValueError) as error:
        return repr(error)
    return ""


@pytest.mark.parametrize(
    "command",
    [
        "sptksm evaluate runs/mars/ssin --out final",
        "sptskm evaluat runs/mars/ssin --out final",
        "sptskm evaluate runs/mars/ssin --outt final",
        "sptskm train configs/mars/ssin.yaml train.epoch=3",
        "sptskm local --stream all --config configs/strnog",
        "python launch/slurm.py --stream both --wacth",
        "python benchmarks/gpu.py --smll",
        "python benchmarks/gpus.py",
        "python benchmarks/export.py --small",
        "OMP_NUM_THREADS=1 python benchmarks/evaluation.py --bigg",
        "python -m sptskm.cly",
        "python -m pip install '.[onyx]'",
        "make dmeo",
        "torchrun -m sptskm.cli trian configs/mars/ssin.yaml",
        "slurm/devcluster upp",
        "apptainer build sptskm.sif apptainer.deff",
    ],
)
@pytest.mark.parametrize("fence", ["```sh\n{}\n```\n", "  ```sh\n  {}\n  ```\n", "~~~sh\n{} \\\n\n~~~\n"])
def test_a_wrong_command_in_a_block_is_found(command, fence, monkeypatch):
    monkeypatch.chdir(ROOT)
    (words,) = typed.commands(f"Before.\n\n{fence.format(command)}\nAfter.\n")
    assert refusal(typed.accepted, words)


@pytest.mark.parametrize(
    "command",
    [
        "sptskm evaluat",
        "sptskm evaluate --outt",
        "sptskm prepare points\n--layuot NAME",
        "python launch/local.py --streams",
        "python benchmarks/gpu.py --smal",
        "python benchmarks/gpus.py",
        "make dmeo",
        "torchrun -m sptskm.cli trian ...",
    ],
)
def test_a_wrong_command_in_a_sentence_is_found(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    (words,) = typed.quoted(f"Then `{command}` ends it.\n")
    assert refusal(typed.known, words)


def test_python_in_the_texts_compiles_and_imports_what_there_is():
    texts = [path for path in TEXTS if path.name != "streams.md"]  # whose stream a test of its own adds
    blocks = [block for path in texts for language, block in typed.fences(text_of(path)) if language == "python"]
    lines = [line for block in blocks for line in block.splitlines() if re.match("(from|import) sptskm", line)]
    assert len(lines) > 1
    for block in blocks:
        compile(block, "a text", "exec", dont_inherit=True)
    for line in lines:
        exec(line, {})


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


def test_the_readme_is_a_page():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 150


def test_the_table_of_extras_has_every_extra_of_the_package_and_no_other():
    rows = re.findall(r"^\| (`.*?`) \|.*\|.*\|$", text_of(ROOT / "docs/install.md"), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == typed.extras()


def test_every_benchmark_is_named_in_the_documentation():
    told = "".join(text_of(path) for path in TEXTS)
    assert [path.name for path in (ROOT / "benchmarks").glob("*.py") if f"benchmarks/{path.name}" not in told] == []


def test_the_page_of_keys_is_what_the_command_prints():
    page = (ROOT / "docs/configuration.md").read_text()
    assert page == config_command.markdown(), "run: sptskm config --markdown > docs/configuration.md"
