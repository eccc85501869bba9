"""Commands that texts show, and what their programs make of them before they do anything."""

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sptskm import cli, config_command
from sptskm.configfile import load
from sptskm.launching import local, slurm, tune
from sptskm.launching.plan import make_plan

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = {"local": local, "slurm": slurm, "tune": tune}
SHELL, OTHERS = "sh", ("", "python", "yaml")  # languages of fences
PROGRAMS = ("sptskm", "python", "make", "torchrun", "srun", "sbatch", "tensorboard", "pip", "docker", "apptainer")
ELSEWHERE = ("pip", "pytest")  # modules of others that `python -m` runs


class _Understood(Exception):
    """A script has understood its command line."""


_FENCE = re.compile(r"^ *(?:```+|~~~+) *([^`\n]*?) *\n(.*?)^ *(?:```+|~~~+) *$", re.DOTALL | re.MULTILINE)


def fences(text: str) -> list[tuple[str, str]]:
    """Language and content of every fenced block, indented ones and those of tildes too."""
    return _FENCE.findall(text)


def is_command(line: str) -> bool:
    """Whether a line of a block looks like a command."""
    first = line.strip().partition(" ")[0]
    return first == "$" or first.rpartition("/")[2] in PROGRAMS


def commands(text: str) -> list[list[str]]:
    """Words of every command in the blocks of a shell: continued lines joined, comments and variables left out."""
    lines = "".join(block for language, block in fences(text) if language == SHELL).replace("\\\n", " ").splitlines()
    typed = [shlex.split(re.sub(r"^([A-Z_]+=\S+ )+", "", line), comments=True) for line in lines]
    return [words for words in typed if words]


def quoted(text: str) -> list[list[str]]:
    """Words of every command in a sentence, which may leave something out or stand for several."""
    spans = re.findall(r"`([^`]+)`", _FENCE.sub("", text))
    return [words for span in spans if is_command(span) and len(words := span.split()) > 1]


def accepted(words: Sequence[str]) -> None:
    """Fail, or exit with another code than 0, where the program would refuse this command, or is not known."""
    words = list(words)
    program = Path(words[0]).name
    if program == "srun":
        words, program = words[words.index("sptskm") :], "sptskm"
    if program == "sbatch":
        place, script = next((place, word) for place, word in enumerate(words) if word.endswith(".sbatch"))
        assert (ROOT / script).is_file()
        words = ["sptskm", *(() if script.endswith("torchrun.sbatch") else ("tune",)), *words[place + 1 :]]
        program = "sptskm"
    if program == "torchrun":
        words, program = ["sptskm", *words[words.index("sptskm.cli") + 1 :]], "sptskm"
    if program == "sptskm" and words[1] in LAUNCHERS:
        _launched(LAUNCHERS[words[1]], words[2:])
    elif program == "sptskm":
        _single_step(words[1:])
    elif program == "make":
        _made(words[1:])
    elif program == "python" and words[1] == "-m":
        assert words[2] in ELSEWHERE, f"no module to run: {words[2]}"
        _installed(words[3:])
    elif program == "python" and words[1].startswith("launch/"):
        _launched(LAUNCHERS[Path(words[1]).stem], words[2:])
    elif program == "python":
        _ran(words[1], words[2:])
    else:
        _foreign(program, words)


def known(words: Sequence[str]) -> None:
    """Fail where a command in a sentence has a name or an option that its program does not have."""
    words = [word for word in words if not re.fullmatch(r"[A-Z][A-Z ]*|\.\.\.", word)]
    options = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    program = Path(words[0]).name
    if program == "sptskm" and len(words) > 1:
        missing = set(options) - _options(words[1:])
    elif program == "python" and words[1].startswith("launch/"):
        missing = set(options) - _options([Path(words[1]).stem])
    elif program == "python" and words[1] != "-m":
        source = (ROOT / words[1]).read_text()
        missing = {option for option in options if f'"{option}"' not in source}
    elif program == "make":
        _made(words[1:])
        missing = set()
    elif program == "torchrun":
        missing = set(options[1:]) - _options(words[words.index("sptskm.cli") + 1 :])
    else:
        missing = set()
    assert not missing, f"{shlex.join(words)}: no option {sorted(missing)}"


def _options(words: Sequence[str]) -> set[str]:
    """Options of a command of `sptskm`; fails where it does not have the command."""
    if words[0] in LAUNCHERS:
        program = LAUNCHERS[words[0]]
        made = [getattr(program, name) for name in ("command_line", "prepare_command_line") if hasattr(program, name)]
        return {option for parser in made for option in parser()._option_string_actions}
    parser = config_command.parser() if words[0] == "config" else cli._parser()
    for place, word in enumerate(words if words[0] != "config" else ()):
        below: Mapping[str, Any] = next(
            (one.choices for one in parser._actions if isinstance(one, argparse._SubParsersAction)), {}
        )
        assert place or word in below or word.startswith("--"), f"sptskm has no command {word}"
        parser = below.get(word, parser)
    return set(parser._option_string_actions)


def _single_step(words: Sequence[str]) -> None:
    if words[0] == "config":
        if "--help" not in words:
            config_command.run(config_command.parser().parse_intermixed_args(words[1:]))
        return
    chosen = cli._parser().parse_args(words)
    if "overrides" in chosen and "file" in chosen:
        load(ROOT / chosen.file, chosen.overrides)


def _launched(program: Any, words: Sequence[str]) -> None:
    if "--prepare" in words:
        program.prepare_command_line().parse_args(words)
        return
    chosen = program.command_line().parse_intermixed_args(words)
    plan = make_plan(chosen)
    if program in (slurm, tune):
        program.searched_by(plan, chosen)


def _made(words: Sequence[str]) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets


def _ran(script: str, words: Sequence[str]) -> None:
    """Run a script up to where it has understood its command line."""
    assert (ROOT / script).is_file(), script
    reads = re.findall(r"\.(parse_(?:intermixed_)?args)\(", (ROOT / script).read_text())
    if not words or not reads:
        assert not words, f"{script} takes no arguments"
        return
    parse = getattr(argparse.ArgumentParser, reads[0])

    def stop(self: argparse.ArgumentParser, _words: Sequence[str] | None = None) -> None:
        parse(self, words)
        raise _Understood

    places = [str((ROOT / script).parent), *sys.path]
    with (
        patch.object(argparse.ArgumentParser, reads[0], stop),
        patch.object(sys, "path", places),
        patch.dict("os.environ"),
        suppress(_Understood),
    ):
        runpy.run_path(str(ROOT / script), run_name="__main__")


def _installed(words: Sequence[str]) -> None:
    """Fail where pip is asked for an extra that the package does not have."""
    asked = {name for word in words for found in re.findall(r"\[(.*?)\]", word) for name in found.split(",")}
    assert asked <= extras(), f"no extra {sorted(asked - extras())}"


def extras() -> set[str]:
    """Names of the extras of the package."""
    return set(re.findall(r'^        "(\w+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE))


def _foreign(program: str, words: Sequence[str]) -> None:
    """Fail where a program of others is not one of those that the texts use, or lacks its file."""
    if program == "pip":
        _installed(words[1:])
    elif program in ("docker", "apptainer"):
        recipe = "Dockerfile" if program == "docker" else words[-1]
        assert words[1] in ("build", "run", "exec")
        assert words[1] != "build" or (ROOT / recipe).is_file()
    elif words[0] == "slurm/devcluster":
        assert f'"{words[1]}"' in (ROOT / words[0]).read_text()
    else:
        assert program in ("tensorboard", "export", "cd"), f"no program of this repository: {words[0]}"
