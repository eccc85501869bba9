"""What slurm/devcluster does not trust: folders that others may have filled, and processes that it has not started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.launching import ROOT

PROGRAM = ROOT / "slurm" / "devcluster"
ACTIONS = ("up", "down", "status", "env", "fail", "heal")


def devcluster(action: str, folder: Path) -> tuple[int, str, str]:
    command = [sys.executable, str(PROGRAM), action, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def cluster_folder(folder: Path) -> Path:
    """What looks like a cluster that is down."""
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "slurm.conf").write_text("ClusterName=dev\n")
    (folder / "daemons.json").write_text("[]")
    return folder


def somebody_elses(folder: Path) -> str:
    if os.getuid():
        pytest.skip("only root can give a folder away")
    os.chown(cluster_folder(folder), 5, 0)
    return "belongs to user 5, wanted a folder of your own"


def open_to_all(folder: Path) -> str:
    cluster_folder(folder).chmod(0o777)
    return "may be written by others"


def open_to_the_group(folder: Path) -> str:
    cluster_folder(folder).chmod(0o775)
    return "may be written by others"


def a_link(folder: Path) -> str:
    folder.symlink_to(cluster_folder(folder.with_name("elsewhere")))
    return "is a link or a file"


def in_an_open_place(folder: Path) -> str:
    folder.parent.chmod(0o777)
    cluster_folder(folder)
    return "where everybody may rename what is not theirs"


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("planted", [somebody_elses, open_to_all, open_to_the_group, a_link, in_an_open_place])
def test_a_folder_that_others_may_have_filled_is_neither_read_nor_removed(planted, action, tmp_path):
    (tmp_path / "place").mkdir()
    folder = tmp_path / "place" / "slm"
    told = planted(folder)
    code, out, err = devcluster(action, folder)
    assert (code, out) == (2, "")
    assert err.startswith(f"devcluster: {folder} ")
    assert told in err
    assert err.count("\n") == 1
    assert (folder / "etc" / "slurm.conf").exists()


@pytest.mark.parametrize("name", ["a b", "a\nb", "a#b", "a%n"])
def test_a_name_that_slurm_would_misread_is_refused(name, tmp_path):
    code, _, err = devcluster("up", tmp_path / name)
    assert code == 2
    assert "cannot stand in SLURM's files" in err


def started_at(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def test_a_process_that_it_has_not_started_is_not_ended(tmp_path):
    folder = cluster_folder(tmp_path / "slm")
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (folder / "daemons.json").write_text(json.dumps([[bystander.pid, started_at(bystander.pid)]]))
        assert devcluster("status", folder)[0] == 1
        assert devcluster("fail", folder)[0] == 2
        assert devcluster("down", folder)[0] == 0
        assert bystander.poll() is None
        bystander.kill()
    assert not folder.exists()


@pytest.mark.parametrize("content", ["", "{}", "[[1, 2]]", '[["7", "8"]]', "[3]", "[[-1, '3']]", '[[1, "5"]]'])
def test_a_damaged_list_of_daemons_is_none(content, tmp_path):
    folder = cluster_folder(tmp_path / "slm")
    (folder / "daemons.json").write_text(content)
    for action, code in (("status", 1), ("fail", 2), ("heal", 2), ("down", 0)):
        assert devcluster(action, folder)[0] == code
    assert not folder.exists()
