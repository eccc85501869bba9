"""How commands end: what is told in a sentence and what is shown with its trace, and output that nobody reads."""

import errno
import os
import subprocess
import sys

import pytest
from helpers.launching import ROOT

from sptskm import cli
from sptskm.common.endings import is_ours
from sptskm.common.errors import DataError
from sptskm.config import ConfigError


@pytest.mark.parametrize(
    "error",
    [
        DataError("x"),
        ConfigError("x"),
        FileNotFoundError("weights x: no such file"),
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(errno.EACCES, "Permission denied", "x"),
    ],
)
def test_what_the_user_can_change_is_told(error):
    assert is_ours(error)


def foreign():
    yield lambda: b"\xff".decode()
    yield lambda: int("x")
    yield lambda: {}["x"]
    yield lambda: "a".encode("nonsense")
    yield lambda: os.read(-1, 1)
    yield lambda: [][1]


@pytest.mark.parametrize("number", range(6))
def test_what_is_a_bug_wherever_it_is_raised_shows_its_trace(number, monkeypatch, tmp_path):
    fault = list(foreign())[number]
    with pytest.raises(Exception) as caught:
        fault()
    assert not is_ours(caught.value)
    monkeypatch.setattr(cli.config_command, "run", lambda _: fault())
    with pytest.raises(type(caught.value)):
        cli.main(["config", str(tmp_path / "x.yaml")])


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, **variables}
    return subprocess.run(["bash", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("command", "codes"),
    [
        ("$PYTHON -m sptskm.cli config configs/mars/ssin.yaml", ["141\n"]),
        ("$PYTHON -m sptskm.cli --help", ["0\n", "141\n"]),  # argparse swallows the error itself
        ("$PYTHON launch/slurm.py --help", ["0\n", "141\n"]),
    ],
)
def test_a_command_whose_output_nobody_reads_ends_quietly(command, codes):
    done = shell(f"{command} | (exec <&-; sleep 0); echo ${{PIPESTATUS[0]}}")
    assert done.stderr == ""
    assert done.stdout in codes


def test_empty_variables_of_a_launcher_are_none_and_wrong_ones_one_sentence(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "")
    assert cli.main(["config", str(ROOT / "configs/demo/smin.yaml")]) == 0
    for text in ("first", "-1", "1.5", "٣", "9" * 30):
        monkeypatch.setenv("RANK", text)
        assert cli.main(["config", str(ROOT / "configs/demo/smin.yaml")]) == 2
        error = capsys.readouterr().err
        assert error == f"sptskm: the environment says RANK={text!r}, wanted a whole number from 0 on, or nothing\n"


def test_a_pipe_that_is_not_the_commands_output_keeps_its_trace():
    code = "from sptskm.common.endings import until_nobody_reads; until_nobody_reads(lambda: open(1, 'w') and 1 / 0)"
    assert "ZeroDivisionError" in shell(f'$PYTHON -c "{code}" | cat').stderr
    code = "import os; from sptskm.common.endings import until_nobody_reads as u; r, w = os.pipe(); os.close(r)"
    assert "BrokenPipeError" in shell(f'$PYTHON -c "{code}; u(lambda: os.write(w, bytes(1)))" | cat').stderr
