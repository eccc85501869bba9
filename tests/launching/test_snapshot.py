"""The copy of the code that a job runs."""

import os
import subprocess
import sys
from pathlib import Path

import sptskm
from sptskm import provenance
from sptskm.launching import snapshot


def test_a_copy_is_taken_once_and_holds_every_module(tmp_path):
    taken = snapshot.take(tmp_path / "jobs")
    assert taken == snapshot.place(tmp_path / "jobs")
    names = {str(path.relative_to(taken)) for path in taken.rglob("*") if path.is_file()}
    assert names == set(provenance.sources())
    assert {"sptskm/launching/jobs.py", "sptskm/training/trainer.py", "sptskm/__init__.py"} <= names
    made = taken.stat().st_mtime_ns
    assert snapshot.take(tmp_path / "jobs") == taken
    assert taken.stat().st_mtime_ns == made
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == [taken.name]


def test_a_copy_holds_what_modules_read_beside_them():
    package = Path(sptskm.__file__).parent
    beside = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert set(provenance.sources().values()) == beside
    assert package / "report/report.html.jinja" in beside


def test_other_code_or_another_template_has_another_place_and_another_hash_in_results(tmp_path, monkeypatch):
    before, said, known = snapshot.place(tmp_path), provenance.code_state(), provenance.sources()
    for name in ("sptskm/new.py", "sptskm/report/report.html.jinja"):
        (tmp_path / "other").write_text("x = 1\n")
        monkeypatch.setattr(provenance, "sources", lambda name=name: known | {name: tmp_path / "other"})
        assert snapshot.place(tmp_path) != before
        assert provenance.code_state() != said


def test_a_module_started_in_the_copy_is_the_copy(tmp_path):
    taken = snapshot.take(tmp_path)
    code = "import sptskm.launching.jobs, sptskm.config as c; print(sptskm.launching.jobs.__file__, c.__file__)"
    elsewhere = {**os.environ, "PYTHONPATH": str(tmp_path / "elsewhere")}
    # as submitit is: `python -m`, which looks into the working folder first
    (tmp_path / "started.py").write_text(code)
    (taken / "started.py").write_text(code)
    done = subprocess.run([sys.executable, "-m", "started"], cwd=taken, env=elsewhere, capture_output=True, text=True)
    package = taken / "sptskm"
    assert done.stdout.split() == [str(package / "launching" / "jobs.py"), str(package / "config.py")], done.stderr
