"""Cluster files and what submitit is asked for."""

import dataclasses
from pathlib import Path

import pytest
import submitit
from helpers.launching import ROOT

from sptskm.config import ConfigError
from sptskm.launching.cluster import Cluster, load_cluster, overriding, parameters


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
        ("executor: local", "executor is 'local', wanted it left out: this version has no such setting"),
        ("nodes: 0", "nodes is 0, wanted at least 1"),
        ("gpus_per_node: 0\ncpu_ranks: 0", "gpus_per_node or else cpu_ranks is 0, wanted at least 1"),
        ("minutes: 2", "warn_seconds is 120, wanted less than the 2 minutes of a job"),
        ("minutes: -5", "minutes is -5, wanted at least 1"),
        ("minutes: 1e20", "minutes is 100000000000000000000, wanted at most 10000000"),
        ("requeues: -3", "requeues is -3, wanted at least 0"),
        ("mem_gb: -1", "mem_gb is -1, wanted at least 0"),
        ("cpus_per_task: 0", "cpus_per_task is 0, wanted at least 1"),
        ("- nodes", "wanted `key: value` lines"),
        ("nodes: [", "not valid YAML"),
        ("nodes: 2\nminutes: 9\nnodes: 3", "nodes stands twice, line 3"),
        ("sbatch: high", "sbatch is 'high', wanted a section of `key: value` lines"),
        ("sbatch: {3: high}", "sbatch is {3: 'high'}, wanted a section"),
        ("sbatch: {qos: [high, low]}", "sbatch: qos is ['high', 'low'], wanted text (in quotes), a number, or true"),
        ("sbatch: {qos: false}", "sbatch: qos is False, wanted text"),
        ("sbatch: {qos: }", "sbatch: qos is None, wanted text"),
        ("sbatch: {begin: 2026-12-01}", "sbatch: begin is datetime.date(2026, 12, 1), wanted text (in quotes)"),
        ("sbatch: {qos: ''}", "sbatch: qos is empty, wanted a value"),
        (
            'sbatch: {qos: "high\\n#SBATCH --uid=0"}',
            r"sbatch: qos is 'high\n#SBATCH --uid=0', wanted it with",
        ),
        ("sbatch: {--qos: high}", "sbatch: '--qos' is no long name of an option, wanted one as in `qos: value`"),
        ("sbatch: {mail_user: me}", "wanted one as in `mail-user: value`"),
        ("sbatch: {p: gpu}", "sbatch: 'p' is no long name of an option"),
        ('sbatch: {"qos=a --uid": 0}', "is no long name of an option"),
        ("sbatch: {time: 30}", "sbatch: time follows from a key of the cluster file, wanted minutes instead"),
        ("sbatch: {ntasks-per-node: 3}", "wanted gpus_per_node or cpu_ranks instead"),
        ("sbatch: {output: here.log}", "sbatch: output is set by the launcher itself"),
        ('partition: "gpu\\n#SBATCH --uid=0"', r"partition is 'gpu\n#SBATCH --uid=0', wanted it without line breaks"),
        ('account: "a\\rb"', "account is 'a\\rb', wanted it without line breaks"),
        ('constraint: "a\\u2028b"', "wanted it without line breaks"),
        ('setup: ["module load cuda\\nrm x"]', "setup is 'module load cuda\\nrm x', wanted it without line breaks"),
        ("final: {nodes: 0}", "nodes is 0, wanted at least 1"),
        ("final: {node: 1}", "unknown key final.node; did you mean nodes?"),
        ("final: {at_once: 2}", "final.at_once is given, wanted it for all jobs, outside `final`"),
        ("final: {sbatch: {time: 3}}", "sbatch: time follows from a key of the cluster file"),
    ],
)
def test_an_impossible_value_is_one_sentence_with_the_file(tmp_path, text, sentence):
    with pytest.raises(ValueError) as refused:
        load_cluster(write(tmp_path, text))
    assert str(refused.value).startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert sentence in str(refused.value)


def test_a_missing_file_is_refused_with_the_existing_ones_named():
    with pytest.raises(FileNotFoundError, match=r"nemo\.yaml: no such file \(found: .*slurm\.yaml"):
        load_cluster(ROOT / "configs" / "cluster" / "nemo.yaml")


def test_ranks_are_gpus_or_else_cpu_processes_of_all_nodes():
    assert Cluster(nodes=2, gpus_per_node=4, cpu_ranks=3).ranks == 8
    assert Cluster(nodes=2, gpus_per_node=0, cpu_ranks=3).ranks == 6


@pytest.mark.parametrize("after", ["", "afterok:12:13"])
def test_submitit_accepts_the_parameters_of_a_full_cluster(tmp_path, after, monkeypatch):
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda _: 1))
    full = Cluster(1, 0, 2, 4, 8, 60, "gpu", "prj", "a100", ("module load cuda",))
    executor = submitit.AutoExecutor(tmp_path, "slurm", slurm_max_num_timeout=full.requeues)
    executor.update_parameters(**parameters(full, "ssin", tmp_path, tmp_path / "code", after))
    assert executor._executor.parameters["ntasks_per_node"] == 2
    assert executor._executor.max_num_timeout == full.requeues


def test_a_scheduler_is_asked_to_requeue_as_often_as_the_cluster_says(tmp_path, monkeypatch):
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda _: 1))
    cluster = Cluster(requeues=7)
    executor = submitit.AutoExecutor(tmp_path, "slurm", slurm_max_num_timeout=cluster.requeues)
    executor.update_parameters(**parameters(cluster, "ssin", tmp_path, tmp_path / "code"))
    assert executor._executor.max_num_timeout == 7
    assert executor._executor.parameters["signal_delay_s"] == cluster.warn_seconds


def test_empty_settings_are_left_to_the_scheduler():
    given = parameters(Cluster(), "ssin", Path("jobs"), Path("code"))
    assert not {"slurm_partition", "slurm_account", "slurm_constraint"} & set(given)


def test_the_final_job_has_one_rank_with_its_share_of_a_node_unless_the_file_says_otherwise(tmp_path):
    training = "nodes: 4\ngpus_per_node: 8\ncpus_per_task: 6\nmem_gb: 500\npartition: gpu\nsbatch: {qos: long}\n"
    found = load_cluster(write(tmp_path, training)).for_final()
    assert found == Cluster(cpus_per_task=6, mem_gb=63, partition="gpu", sbatch={"qos": "long"})
    own = "final: {gpus_per_node: 2, mem_gb: 90, minutes: 60, partition: small, sbatch: {qos: short, nice: 5}}\n"
    found = load_cluster(write(tmp_path, training + own)).for_final()
    assert (found.ranks, found.mem_gb, found.minutes, found.partition) == (2, 90, 60, "small")
    assert found.sbatch == {"qos": "short", "nice": 5}
    on_cpus = load_cluster(write(tmp_path, "gpus_per_node: 0\ncpu_ranks: 8\nmem_gb: 16\n")).for_final()
    assert (on_cpus.ranks, on_cpus.mem_gb) == (1, 2)


def test_times_in_a_file_stay_what_was_written(tmp_path):
    assert load_cluster(write(tmp_path, "sbatch: {begin: 16:00, deadline: 1:30:00.5}\n")).sbatch == {
        "begin": "16:00",
        "deadline": "1:30:00.5",
    }


@pytest.mark.parametrize("folder", ["a\nb", "a\x1b[2Jb", "100%j", "%a"])
def test_a_folder_that_cannot_stand_in_a_batch_script_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"the folder of the jobs is .*, wanted it without"):
        parameters(Cluster(), "ssin", tmp_path / folder, tmp_path / "code")


def test_variables_that_override_the_file_are_said_in_one_line():
    inside = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4", "SLURM_CONF": "/etc/slurm/slurm.conf", "HOME": "/"}
    assert overriding(inside) == ""
    given = {**inside, "SBATCH_PARTITION": "debug", "SBATCH_QOS": "", "SLURM_HINT": "nomultithread"}
    note = "note: the environment overrides the cluster file with SBATCH_PARTITION=debug, SLURM_HINT=nomultithread"
    assert overriding(given) == note
    assert "SBATCH_ACCOUNT=a #SBATCH \\x1b[2J" in overriding({"SBATCH_ACCOUNT": "a\n#SBATCH \x1b[2J"})
