"""Masks and skeletons on clusters, as far as that can be seen without one: what every shard is told."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.networks import frames_only

from sptskm.config import ConfigError
from sptskm.launching import prepare_jobs, preparing, shards, slurm, tune
from sptskm.launching.cluster import Cluster
from sptskm.preparation.command import Wanted


@pytest.fixture
def data(walkers: Path, tmp_path: Path) -> Path:
    return frames_only(walkers, tmp_path / "data")


def wanted_masks(data: Path, *words: str) -> Wanted:
    given = ["--prepare", "masks", "--data", str(data), "--weights", str(data), "--shards", "3", *words]
    return preparing.wanted_of(preparing.command_line().parse_args(given))


def told_by_slurm(wanted: Wanted, gpus: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []

    def queue_array(_folder, _cluster, jobs, _name):
        told.extend(job.wanted.precision for job in jobs)
        return [SimpleNamespace(job_id=f"7_{job.shard}") for job in jobs]

    monkeypatch.setattr(prepare_jobs, "queue_array", queue_array)
    monkeypatch.setattr(prepare_jobs, "queue", lambda *_: SimpleNamespace(job_id="8"))
    prepare_jobs.submit(wanted, Cluster(gpus_per_node=gpus))
    return told


def told_by_ray(wanted: Wanted, gpus: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []

    def remote(wanted: Wanted, shard: int) -> int:
        told.append(wanted.precision)
        return shard

    task = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=remote))
    ray = SimpleNamespace(remote=lambda _: task, cluster_resources=lambda: {"GPU": gpus}, get=str)
    ray.wait = lambda calls, timeout: (calls, [])  # noqa: ARG005
    monkeypatch.setattr(shards, "ray", ray)
    shards.make(wanted, SimpleNamespace(requested=False))
    return told


@pytest.mark.parametrize("told", [told_by_slurm, told_by_ray])
def test_all_shards_are_told_one_precision_before_any_of_them_starts(told, data, monkeypatch):
    assert told(wanted_masks(data), 4, monkeypatch) == ["float16"] * 3
    assert told(wanted_masks(data), 0, monkeypatch) == ["float32"] * 3
    assert told(wanted_masks(data, "--precision", "bfloat16"), 4, monkeypatch) == ["bfloat16"] * 3


@pytest.mark.parametrize("told", [told_by_slurm, told_by_ray])
def test_half_precision_without_gpus_is_refused_before_any_shard_starts(told, data, monkeypatch):
    with pytest.raises(ConfigError, match="--precision is float16 and there is no GPU, wanted float32"):
        told(wanted_masks(data, "--precision", "float16"), 0, monkeypatch)


@pytest.mark.parametrize("launcher", [slurm, tune])
@pytest.mark.parametrize("made", ["masks", "skeletons"])
def test_weights_of_something_else_are_refused_before_any_shard_starts(launcher, made, data, tmp_path, capsys):
    (tmp_path / "w.pth").write_text("<!DOCTYPE html><html>Virus scan warning</html>")
    words = ["--prepare", made, "--data", str(data), "--weights", str(tmp_path / "w.pth")]
    assert launcher.main(words) == 2
    assert f"weights {tmp_path / 'w.pth'}: is a web page" in capsys.readouterr().err
    assert not list(data.rglob("jobs"))
