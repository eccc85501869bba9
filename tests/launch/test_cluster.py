"""Cluster files and what submitit is asked for."""

import dataclasses
from pathlib import Path

import pytest
import submitit
from helpers.launching import ROOT

from launch.cluster import Cluster, construction, load_cluster, parameters


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_cluster_file_holds_what_differs_from_one_gpu(tmp_path):
    cluster = load_cluster(write(tmp_path, "nodes: 2\ngpus_per_node: 8\nsetup: [module load cuda]\n"))
    assert cluster == Cluster(nodes=2, gpus_per_node=8, setup=("module load cuda",))
    assert load_cluster(write(tmp_path, "")) == Cluster()


def test_overrides_apply_to_a_cluster_file(tmp_path):
    assert load_cluster(write(tmp_path, "nodes: 2\n"), ["minutes=90"]) == Cluster(nodes=2, minutes=90)


def test_a_wrong_key_is_refused_with_the_legal_ones_named(tmp_path):
    with pytest.raises(ValueError, match=r"mine\.yaml: unknown key node; did you mean nodes\?") as refused:
        load_cluster(write(tmp_path, "node: 2\n"))
    for field in dataclasses.fields(Cluster):
        assert field.name in str(refused.value).split("legal here:")[1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("minutes: soon", "minutes is 'soon', wanted int"),
        ("executor: pbs", "executor is 'pbs', wanted one of slurm, local"),
        ("nodes: 0", "nodes is 0, wanted at least 1"),
        ("gpus_per_node: 0\ncpu_ranks: 0", "gpus_per_node or else cpu_ranks is 0, wanted at least 1"),
        ("nodes: 2\nexecutor: local", "nodes is 2, wanted 1 for the local executor"),
        ("minutes: 2", "warn_seconds is 120, wanted less than the 2 minutes of a job"),
        ("- nodes", "wanted `key: value` lines"),
        ("nodes: [", "not valid YAML"),
        ("nodes: 2\nminutes: 9\nnodes: 3", "nodes stands twice, line 3"),
    ],
)
def test_an_impossible_value_is_one_sentence_with_the_file(tmp_path, text, sentence):
    with pytest.raises(ValueError) as refused:
        load_cluster(write(tmp_path, text))
    assert str(refused.value).startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert sentence in str(refused.value)


def test_a_missing_file_is_refused_with_the_existing_ones_named():
    with pytest.raises(FileNotFoundError, match=r"nemo\.yaml: no such file \(found: .*local\.yaml.*slurm\.yaml"):
        load_cluster(ROOT / "configs" / "cluster" / "nemo.yaml")


def test_ranks_are_gpus_or_else_cpu_processes_of_all_nodes():
    assert Cluster(nodes=2, gpus_per_node=4, cpu_ranks=3).ranks == 8
    assert Cluster(nodes=2, gpus_per_node=0, cpu_ranks=3).ranks == 6


def test_only_the_local_cluster_of_this_repository_needs_no_scheduler():
    found = {path.stem: load_cluster(path).executor for path in (ROOT / "configs" / "cluster").glob("*.yaml")}
    assert {name for name, executor in found.items() if executor == "local"} == {"local"}
    assert found["slurm"] == "slurm"


@pytest.mark.parametrize("after", ["", "afterok:12:13"])
def test_submitit_accepts_the_parameters_of_a_full_cluster(tmp_path, after):
    full = Cluster("local", 1, 0, 2, 4, 8, 60, "gpu", "prj", "a100", ("module load cuda",))
    executor = submitit.AutoExecutor(tmp_path, full.executor, **construction(full))
    executor.update_parameters(**parameters(full, "ssin", tmp_path, tmp_path / "code", after))
    assert executor._executor.parameters["tasks_per_node"] == 2
    assert executor._executor.max_num_timeout == full.requeues


def test_a_scheduler_is_asked_to_requeue_as_often_as_the_cluster_says(tmp_path, monkeypatch):
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda _: 1))
    cluster = Cluster(requeues=7)
    executor = submitit.AutoExecutor(tmp_path, cluster.executor, **construction(cluster))
    executor.update_parameters(**parameters(cluster, "ssin", tmp_path, tmp_path / "code"))
    assert executor._executor.max_num_timeout == 7
    assert executor._executor.parameters["signal_delay_s"] == cluster.warn_seconds


def test_empty_settings_are_left_to_the_scheduler():
    given = parameters(Cluster(), "ssin", Path("jobs"), Path("code"))
    assert not {"slurm_partition", "slurm_account", "slurm_constraint"} & set(given)
