"""Masks and skeletons for a whole data set: in shards, killed, started again, and then trained on."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.networks import contents, frames_only, write_jppnet, write_posehg3d
from helpers.small import on_ranks, small_config

from sptskm import cli
from sptskm.config import ConfigError, Final
from sptskm.data import read_mars
from sptskm.data.derived import HOME
from sptskm.final import final
from sptskm.preparation.work import missing_blocks, shard_rows, verify_results
from sptskm.training.trainer import train


@pytest.fixture
def frames(walkers: Path, tmp_path: Path) -> Path:
    return frames_only(walkers, tmp_path / "data")


@pytest.fixture(scope="session")
def jppnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jppnet(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def posehg3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_posehg3d(tmp_path_factory.mktemp("weights"))


def table_of(runs: list[Path], out: Path) -> str:
    results = final(runs, out, Final())
    return results.text() if results else ""


def prepare(made: str, root: Path, *words: object) -> int:
    return cli.main(["prepare", made, "--data", str(root), *map(str, words)])


@pytest.mark.parametrize("shards", [1, 2, 5, 400])
def test_shards_are_disjoint_and_together_all_tracklets(walkers: Path, shards: int) -> None:
    table = read_mars(walkers)
    rows = np.concatenate([shard_rows(table, shard, shards) for shard in range(shards)])
    np.testing.assert_array_equal(rows, np.arange(len(table)))
    if shards == 2:
        halves = [table.lengths[shard_rows(table, shard, 2)].sum() for shard in range(2)]
        assert abs(halves[0] - halves[1]) <= 2 * table.lengths.max()


@pytest.mark.slow
def test_shards_side_by_side_are_verified_together(
    frames: Path, posehg3d: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prepare("skeletons", frames, "--weights", posehg3d, "--shards", 2) == 0
    out, total = capfd.readouterr().out, read_mars(frames).lengths.sum()
    assert out.count(" made, 0 were there, 0 failed") == 2
    assert f"{total} of {total} skeletons are there" in out


def test_a_shard_that_does_not_exist_is_refused(walkers: Path) -> None:
    with pytest.raises(ConfigError, match="shard is 3 of 3, wanted 0 to 2"):
        shard_rows(read_mars(walkers), 3, 3)
    with pytest.raises(ConfigError, match="shards is 0, wanted at least 1"):
        shard_rows(read_mars(walkers), 0, 0)


@pytest.mark.slow
def test_what_networks_in_published_formats_make_is_whole_made_once_checked_trained_on_and_evaluated(
    frames: Path, jppnet: Path, posehg3d: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total = int(read_mars(frames).lengths.sum())
    for made, weights in (("masks", jppnet), ("skeletons", posehg3d)):
        words = (["--fast"] if made == "masks" else []) + ["--weights", weights, "--device", "cpu"]
        assert prepare(made, frames, *words) == 0
        out = capsys.readouterr().out
        assert f"{total} {made} made, 0 were there, 0 failed" in out
        assert f"{total} of {total} {made} are there" in out
        assert prepare(made, frames, *words) == 0
        assert f"0 {made} made, {total} were there, 0 failed" in capsys.readouterr().out
    assert cli.main(["check", str(frames)]) == 0
    runs = [frames.parent / stream for stream in ("ssin", "smin")]
    for run in runs:
        (end,) = on_ranks(1, train, small_config(run.name, frames, run, "train.epochs=1"))
        assert end.finished
    (text,) = on_ranks(1, table_of, runs, frames.parent / "final")
    assert "fused" in text


@pytest.mark.slow
def test_a_run_in_shards_that_was_killed_at_any_moment_leaves_the_bytes_of_an_undisturbed_one(
    walkers: Path, frames: Path, tmp_path: Path, posehg3d: Path
) -> None:
    whole = frames_only(walkers, tmp_path / "whole")
    assert prepare("skeletons", whole, "--weights", posehg3d) == 0
    wanted = contents(whole, "joint3d")
    assert len(set(wanted.values())) > len(wanted) / 2, "skeletons that differ"
    command = [sys.executable, "-m", "sptskm.cli", "prepare", "skeletons", "--data", str(frames)]
    command += ["--weights", str(posehg3d), "--shards", "2", "--shard"]
    for number in (0, 1):
        killed = subprocess.Popen([*command, str(number)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        there = len(contents(frames, "joint3d"))
        while len(contents(frames, "joint3d")) < there + 3 and killed.poll() is None:
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        found = contents(frames, "joint3d")
        assert all(wanted.get(name) == content for name, content in found.items())
    for number in (0, 1):
        subprocess.run([*command, str(number)], check=True, capture_output=True)
    assert contents(frames, "joint3d") == wanted
    assert verify_results(frames, read_mars(frames), "skeletons")[0]


def test_a_broken_frame_is_named_with_its_reason_and_the_others_are_made(
    frames: Path, posehg3d: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = read_mars(frames)
    broken = table.path(3, 1, "frames")
    broken.write_bytes(b"no picture")
    assert prepare("skeletons", frames, "--weights", posehg3d) == cli.EXIT_BAD_INPUT
    out = capsys.readouterr().out
    assert f"{table.lengths.sum() - 1} of {table.lengths.sum()} skeletons are there" in out
    assert f"{table.path(3, 1, 'skeletons')}: frame {broken}: corrupt, not a readable image" in out
    assert prepare("skeletons", frames, "--verify") == cli.EXIT_BAD_INPUT
    assert "corrupt" in capsys.readouterr().out


@pytest.mark.slow
def test_masks_of_another_kind_are_not_mixed_with_those_there(
    frames: Path, jppnet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare("masks", frames, "--method", "grabcut", "--shards", 8, "--shard", 0) == 0
    assert prepare("masks", frames, "--weights", jppnet, "--fast") == cli.EXIT_BAD_INPUT
    err = capsys.readouterr().err
    assert "the masks there were made otherwise (method: grabcut -> jppnet" in err
    assert str(frames / HOME / "masks" / "settings.json") in err


@pytest.mark.parametrize(
    ("made", "sentence"),
    [("masks", "model.ckpt-205632: give --weights PREFIX"), ("skeletons", "fusion_3d_var.pth: give --weights FILE")],
)
def test_without_weights_the_message_says_where_they_come_from(
    frames: Path, made: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    method = "jppnet" if made == "masks" else "posehg3d"
    assert prepare(made, frames, "--method", method) == cli.EXIT_BAD_INPUT
    assert sentence in capsys.readouterr().err


def test_weights_of_another_network_are_refused_before_anything_is_written(
    frames: Path, posehg3d: Path, jppnet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare("masks", frames, "--weights", posehg3d) == cli.EXIT_BAD_INPUT
    assert "entries do not fit: missing backbone.conv1.weight" in capsys.readouterr().err
    assert prepare("skeletons", frames, "--weights", jppnet) == cli.EXIT_BAD_INPUT
    assert not (frames / HOME).exists()


def test_what_is_missing_is_found_by_block(frames: Path, posehg3d: Path) -> None:
    assert prepare("skeletons", frames, "--weights", posehg3d) == 0
    table = read_mars(frames)
    lost = table.path(5, 2, "skeletons")
    lost.unlink()
    (block,) = missing_blocks(table, range(len(table)), "skeletons", size=3)
    assert lost in block.paths(table, "skeletons")
    assert block.stop - block.start == min(table.lengths[5], 3)
    assert json.loads((frames / HOME / "skeletons" / "settings.json").read_text())["method"] == "pose-hg-3d"
