"""Masks and skeletons of a data set in one pass, by weights that anybody can get."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.blazepose_weights import blazepose_file

from sptskm import cli
from sptskm.config import ConfigError
from sptskm.data import read_dataset, read_mars
from sptskm.data.derived import MADE
from sptskm.data.files import read_mask, read_skeletons

TRACKLETS = 3


@pytest.fixture
def data(walkers: Path, tmp_path: Path) -> Path:
    """A manifest of a few tracklets that have frames alone."""
    blazepose_file()
    table, lines = read_mars(walkers), ["tracklet,pid,camera,split,frames"]
    for row in range(TRACKLETS):
        folder = tmp_path / "data" / f"t{row}"
        folder.mkdir(parents=True)
        for file in table.files(row, range(int(table.lengths[row])), "frames"):
            shutil.copy(Path(str(file)), folder)
        lines.append(f"t{row},p{row},c1,train,t{row}")
    manifest = tmp_path / "data" / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def prepare(*words: object) -> int:
    return cli.main(["prepare", *map(str, words)])


def made_files(data: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(data.parent)): path.read_bytes()
        for path in sorted(data.parent.rglob("*"))
        if path.suffix in (".png", ".mat")
    }


def test_without_a_further_word_both_are_made_and_recorded(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    total = int(read_dataset(data).lengths.sum())
    assert prepare("--data", data) == 0
    said = capsys.readouterr().out
    assert f"{2 * total} masks and skeletons made, 0 were there, 0 failed" in said
    assert f"{total} of {total} masks are there\n{total} of {total} skeletons are there" in said
    table = read_dataset(data)
    assert all(read_mask(file).any() for file in table.files(0, range(3), "masks"))
    assert np.isfinite(read_skeletons(table, 0, range(3))).all()
    methods = [dict(table.derived.methods[made]) for made in MADE]
    assert methods[0] == methods[1]
    assert methods[0]["method"] == "blazepose"
    assert prepare("--data", data) == 0
    assert f"0 masks and skeletons made, {2 * total} were there" in capsys.readouterr().out


def test_one_kind_alone_has_the_same_bytes_and_the_other_is_added(data: Path) -> None:
    assert prepare("masks", "--data", data) == 0
    masks = made_files(data)
    assert {Path(name).suffix for name in masks} == {".png"}
    assert prepare("--data", data) == 0
    both = made_files(data)
    assert masks.items() < both.items()
    for name in both:
        (data.parent / name).unlink()
    assert prepare("--data", data) == 0
    assert made_files(data) == both


def test_masks_of_another_method_are_not_mixed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("masks", "--method", "grabcut", "--data", data) == 0
    before = made_files(data)
    assert prepare("--data", data) == cli.EXIT_BAD_INPUT
    assert "method: grabcut -> blazepose" in capsys.readouterr().err
    assert made_files(data) == before
    assert prepare("skeletons", "--data", data) == 0


def test_new_frames_make_both_anew(data: Path) -> None:
    assert prepare("--data", data) == 0
    before = made_files(data)
    first, second, *_ = sorted((data.parent / "t1").glob("*.jpg"))
    shutil.copy(second, first)
    assert prepare("--data", data) == 0
    changed = {name for name, content in made_files(data).items() if before[name] != content}
    assert {Path(name).parent.name for name in changed} == {"t1_mask", "t1_joint3d"}
    assert {Path(name).stem for name in changed} == {first.stem}


@pytest.mark.slow
def test_killed_and_sharded_work_ends_with_the_same_bytes(data: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(data.parent, tmp_path / "whole") / "manifest.csv"
    assert prepare("--data", whole) == 0
    command = [sys.executable, "-m", "sptskm.cli", "prepare", "--data", str(data), "--shards", "2", "--shard", "0"]
    shard = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not made_files(data) and time.monotonic() < limit:
        time.sleep(0.01)
    shard.send_signal(signal.SIGKILL)
    shard.wait()
    assert made_files(data)
    assert prepare("--data", data, "--shards", 2) == 0
    assert made_files(data) == made_files(whole)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method", "jppnet"], "jppnet makes masks alone, wanted blazepose for masks and skeletons"),
        (["--weights", "w.pth"], "--weights are of one network, wanted `prepare masks` or `prepare skeletons`"),
        (["--method", "blazepose", "--weights", "w"], "which takes none; `sptskm weights blazepose --from FILE`"),
        (["--precision", "float16"], "--precision is float16 with blazepose"),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(
    data: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare("--data", data, *words) == cli.EXIT_BAD_INPUT
    assert sentence in capsys.readouterr().err
    assert not (data.parent / "prepared" / "masks" / "settings.json").exists()


def test_missing_weights_are_one_sentence_with_the_command(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPTSKM_CACHE", str(tmp_path / "nothing"))
    assert prepare("--data", data) == cli.EXIT_BAD_INPUT
    assert "`sptskm weights blazepose` fetches them" in capsys.readouterr().err
    assert prepare() == cli.EXIT_BAD_INPUT
    assert "--data is missing" in capsys.readouterr().err


def test_each_tracklet_s_record_names_its_frames_for_both_kinds(data: Path) -> None:
    assert prepare("--data", data) == 0
    for made in MADE:
        records = list((data.parent / "prepared" / made / "made-of").glob("*.json"))
        assert sorted(json.loads(file.read_text())["tracklet"] for file in records) == ["t0", "t1", "t2"]


def test_launchers_are_told_the_same(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sptskm.launching.preparing import command_line, resolved, wanted_of

    wanted = resolved(wanted_of(command_line().parse_args(["--prepare", "both", "--data", str(data)])), gpus=True)
    assert (wanted.kinds, wanted.method, wanted.precision) == (("masks", "skeletons"), "blazepose", "float32")
    monkeypatch.setenv("SPTSKM_CACHE", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="`sptskm weights blazepose` fetches them"):
        wanted_of(command_line().parse_args(["--prepare", "both", "--data", str(data)]))
