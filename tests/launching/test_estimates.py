"""What runs take is told before anything is started, by every launcher and by `sptskm train`."""

from pathlib import Path

import pytest
from helpers.launching import ROOT

from sptskm import cli
from sptskm.launching import local, slurm, tune

CLUSTER = "nodes: 1\ngpus_per_node: 2\nmem_gb: 100\nminutes: 90\ngpu_gb: {gpu_gb}\nwarn_seconds: 77\n"


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("launcher", [local, tune, slurm])
def test_an_estimate_names_steps_and_memory_of_every_stream_and_starts_nothing(launcher, configs, tmp_path, capsys):
    words = ["--stream", "both", "--config", str(configs), "--run", str(tmp_path / "run"), "--estimate"]
    cluster = tmp_path / "cpus.yaml"
    cluster.write_text("gpus_per_node: 0")
    more = {slurm: ["--cluster", str(cluster)], tune: ["--fixed"], local: []}
    assert launcher.main([*words, *more[launcher]]) == 0
    told = capsys.readouterr().out
    for stream in ("ssin", "smin"):
        assert f"{stream}: " in told
        assert f"{stream}: about " in told
    assert "steps of 4 clips on 1 rank" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("gpu_gb", "sentence"), [(80, "fits the 80 GB of gpu_gb"), (1, "does NOT fit the 1 GB")])
def test_memory_is_compared_with_the_gpu_of_the_cluster_file_and_hours_with_a_job(
    gpu_gb, sentence, configs, tmp_path, capsys
):
    cluster = tmp_path / "mine.yaml"
    cluster.write_text(CLUSTER.format(gpu_gb=gpu_gb))
    words = ["--stream", "smin", "--config", str(configs), "--run", str(tmp_path / "run"), "--cluster", str(cluster)]
    assert slurm.main([*words, "--estimate", "--rate", "0.001"]) == 0
    told = capsys.readouterr().out
    assert "on 2 ranks; about" in told
    assert sentence in told
    assert "times the 90 minutes of a job" in told


def test_a_run_of_one_stream_is_estimated_from_an_earlier_run(trained, capsys):
    before = sorted(trained["smin"].iterdir())
    words = ["train", str(trained["smin"] / "config.yaml"), "--estimate", "--rate", str(trained["smin"])]
    assert cli.main(words) == 0
    assert f"({trained['smin'] / 'metrics.csv'}, 2 epochs)" in capsys.readouterr().out
    assert sorted(trained["smin"].iterdir()) == before


def test_a_rate_without_effect_or_of_several_streams_is_refused(configs, tmp_path: Path, capsys):
    words = ["--stream", "both", "--config", str(configs), "--run", str(tmp_path / "run"), "--rate", "5"]
    assert local.main(words) == 2
    assert "wanted --estimate with them" in capsys.readouterr().err
    assert local.main([*words, "--estimate"]) == 2
    assert "--rate is 5 for 2 streams, wanted the folder of earlier runs" in capsys.readouterr().err
