"""The cluster at one's desk: for ordinary users as well, twice at once, and gone without a trace."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.launching import ROOT, processes_naming
from helpers.nodes import Slurm

PYTHON = "/usr/bin/python3"  # one that every user may run


@pytest.fixture
def ordinary() -> Iterator[tuple[Path, dict[str, object]]]:
    """A folder of an ordinary user with the program in it, and how subprocess becomes that user, if it is not yet."""
    me = os.getuid()
    user = pwd.getpwnam("games") if me == 0 else pwd.getpwuid(me)
    folder = Path(tempfile.mkdtemp(prefix="slm-", dir="/tmp"))
    folder.chmod(0o755)
    shutil.copy(ROOT / "slurm" / "devcluster", folder)
    os.chown(folder, user.pw_uid, user.pw_gid)
    yield folder, {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if me == 0 else {}
    shutil.rmtree(folder)


def test_an_ordinary_user_has_a_cluster_beside_another_one_and_nothing_stays(slurm: Slurm, ordinary) -> None:
    folder, become = ordinary
    environment = {"PATH": os.environ["PATH"], "SLURM_CONF": f"{folder}/c/etc/slurm.conf"}

    def call(*command: str) -> str:
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, umask=0o077, **become
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def devcluster(action: str) -> str:
        return call(PYTHON, f"{folder}/devcluster", action, "--folder", f"{folder}/c")

    try:
        assert "up: two nodes" in devcluster("up")
        assert "already up" in devcluster("up")
        theirs = call("srun", "-N2", "sh", "-c", "echo $SLURMD_NODENAME $(id -u)").split()
        assert sorted(theirs[::2]) == ["127.0.0.1", "127.0.0.2"]
        assert set(theirs[1::2]) == {str(become.get("user", os.getuid()))}
        assert len(call("squeue", "-h", "-t", "all").splitlines()) == 1, "the other cluster's jobs are not seen"
    finally:
        devcluster("down")
    assert "nothing in" in devcluster("down")
    assert not (folder / "c").exists()
    assert not [line for line in processes_naming(str(folder)) if "devcluster" not in line]
    slurm.devcluster("status")  # still there
