"""Submitting to a scheduler as far as that can be seen without one."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.launching import ROOT, launch

from sptskm.launching import jobs, slurm
from sptskm.launching.cluster import parameters

CLUSTER = """
nodes: 2
gpus_per_node: 2
cpus_per_task: 8
mem_gb: 100
minutes: 90
partition: gpu
account: prj-7
setup: [module load cuda]
warn_seconds: 77
"""


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(CLUSTER)
    return path


def scripts(text: str) -> dict[str, list[str]]:
    """Lines of each job's batch script."""
    _, *parts = text.split("# --- ")
    return {part.split(" ---\n")[0]: part.split(" ---\n")[1].splitlines() for part in parts}


def dry_run(capsys, *words: object) -> dict[str, list[str]]:
    assert slurm.main([*map(str, words), "--dry-run"]) == 0
    return scripts(capsys.readouterr().out)


def test_a_dry_run_shows_the_script_of_every_job(configs, cluster, tmp_path, capsys):
    words = ("--stream", "both", "--config", configs, "--cluster", cluster, "--run", tmp_path / "run")
    found = dry_run(capsys, *words)
    assert list(found) == ["ssin", "smin", "final"]
    for name, lines in found.items():
        nodes, ranks, memory = (1, 1, 50) if name == "final" else (2, 2, 100)
        assert {
            f"#SBATCH --job-name={name}",
            "#SBATCH --partition=gpu",
            "#SBATCH --account=prj-7",
            f"#SBATCH --nodes={nodes}",
            f"#SBATCH --ntasks-per-node={ranks}",
            f"#SBATCH --gpus-per-node={ranks}",
            "#SBATCH --cpus-per-task=8",
            f"#SBATCH --mem={memory}GB",
            "#SBATCH --time=90",
            "#SBATCH --signal=USR2@77",
            "module load cuda",
        } <= set(lines)
        assert sum("--kill-on-bad-exit=1 --cpus-per-task=8 " in line for line in lines if line.startswith("srun")) == 1
        assert str(tmp_path / "run" / "jobs") in "\n".join(lines)
    waits = {"#SBATCH --dependency=afterok:ssin:smin", "#SBATCH --kill-on-invalid-dep=yes"}
    assert waits <= set(found.pop("final"))
    assert not any("dep" in line for lines in found.values() for line in lines if line.startswith("#SBATCH"))
    assert not (tmp_path / "run").exists()


def test_the_final_job_waits_for_the_runs_that_leave_a_fold_out_as_well(configs, tmp_path, capsys):
    """Runs of the folds wait for nothing: a cluster with room trains all side by side."""
    words = ("--stream", "both", "--config", configs, "--run", tmp_path / "run", "final.folds=2", "data.held_out=0")
    found = dry_run(capsys, *words, "sampling.identities=2", "sampling.tracklets=2")
    folds = ["ssin-fold-1", "smin-fold-1", "ssin-fold-2", "smin-fold-2"]
    assert list(found) == [*folds, "ssin", "smin", "final"]
    assert f"#SBATCH --dependency=afterok:{':'.join(folds)}:ssin:smin" in found["final"]
    assert not any("--dependency" in line for name in folds for line in found[name])


def test_options_of_sbatch_and_of_the_command_line_are_in_the_scripts(configs, cluster, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SBATCH_QOS", "low")
    with cluster.open("a") as file:
        file.write(
            "sbatch: {qos: high, mail-user: me@x.org, exclude: 'n[3-5]', comment: \"it's $HOME\", exclusive: true}\n"
        )
        file.write("final: {minutes: 20, sbatch: {qos: short}}\n")
    words = ("--stream", "ssin", "--config", configs, "--cluster", cluster, "--run", tmp_path / "run")
    words += ("--partition", "debug", "--minutes", 45, "--nodes", 1)
    assert slurm.main([*map(str, words), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert err == "note: the environment overrides the cluster file with SBATCH_QOS=low\n"
    found = scripts(out)
    for lines in found.values():
        assert {
            "#SBATCH --mail-user=me@x.org",
            "#SBATCH --exclude='n[3-5]'",
            """#SBATCH --comment='it'"'"'s $HOME'""",
            "#SBATCH --exclusive",
            "#SBATCH --partition=debug",
            "#SBATCH --nodes=1",
        } <= set(lines)
    assert {"#SBATCH --qos=high", "#SBATCH --time=45"} <= set(found["ssin"])
    assert {"#SBATCH --qos=short", "#SBATCH --time=20"} <= set(found["final"])


def test_a_percent_sign_in_the_run_folder_is_one_in_the_names_of_logs(configs, tmp_path, capsys):
    run = tmp_path / "50 % x"
    found = dry_run(capsys, "--stream", "ssin", "--config", configs, "--run", run)
    doubled = str(run).replace("%", "%%")
    for lines in found.values():
        assert f"#SBATCH --output='{doubled}/jobs/%j_0_log.out'" in lines
        (srun,) = [line for line in lines if line.startswith("srun")]
        assert f"--output '{doubled}/jobs/%j_%t_log.out' --error '{doubled}/jobs/%j_%t_log.err'" in srun


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_a_line_break_in_the_run_folder_is_refused_before_anything_is_written(
    configs, tmp_path, capsys, monkeypatch, words
):
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/sbatch")
    run = tmp_path / "run\n#SBATCH --uid=0"
    error = refused(capsys, "--stream", "ssin", "--config", configs, "--run", run, *words)
    assert r"run\n#SBATCH --uid=0/jobs', wanted it without line breaks" in error
    assert error.count("\n") == 1
    assert not run.exists()


def test_one_stream_is_one_training_job_and_a_final_job_behind_it(configs, capsys):
    found = dry_run(capsys, "--stream", "ssin", "--config", configs, "sampling.identities=4")
    assert list(found) == ["ssin", "final"]
    assert "#SBATCH --dependency=afterok:ssin" in found["final"]
    assert "#SBATCH --gpus-per-node=4" in found["ssin"], "configs/cluster/slurm.yaml is the default"


def test_a_dry_run_needs_neither_torch_nor_slurm(configs, tmp_path):
    code = "import sys; from sptskm.launching.slurm import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    words = ["--stream", "both", "--config", str(configs), "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(scripts(done.stdout)) == ["ssin", "smin", "final"]


def refused(capsys, *words: object) -> str:
    assert slurm.main([*map(str, words)]) == 2
    return capsys.readouterr().err


def test_what_a_cluster_file_gets_wrong_is_one_sentence_and_nothing_is_submitted(
    configs, cluster, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(subprocess, "Popen", None)
    words = ("--stream", "both", "--config", configs, "--run", tmp_path / "run", "--cluster")
    cluster.write_text("partitoin: gpu\n")
    assert "unknown key partitoin; did you mean partition?" in refused(capsys, *words, cluster)
    cluster.write_text("nodes: 3\n")
    assert "ssin: the global batch of 4 clips" in refused(capsys, *words, cluster)
    assert "smin: the global batch of 6 clips" in refused(capsys, *words, "slurm", "smin.sampling.tracklets=3")
    assert "nemo.yaml: no such file" in refused(capsys, *words, "nemo")
    assert "leave_seconds is 120, wanted less than the 120 s" in refused(
        capsys, *words, "slurm", "train.leave_seconds=120"
    )
    assert "--watch follows jobs of SLURM" in refused(capsys, *words, "slurm", "--watch", "--dry-run")
    assert "--retrain trains what a search has found, wanted --search" in refused(capsys, *words, "slurm", "--retrain")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert "no sbatch on this machine" in refused(capsys, *words, "slurm")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [("--prepare", "masks"), ("--prepare=masks",)])
def test_without_a_scheduler_nothing_is_prepared_by_one(words, walkers, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    error = refused(capsys, *words, "--data", walkers, "--method", "grabcut")
    assert error == "sptskm slurm: no sbatch on this machine; `sptskm prepare` works without SLURM\n"


@pytest.mark.slow
def test_a_search_is_one_job_with_one_task_on_each_node_that_has_all_of_its_cpus(
    configs, cluster, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("ray")
    from sptskm.launching import ray_jobs

    asked = []
    paths = SimpleNamespace(stderr="", stdout="")
    monkeypatch.setattr(shutil, "which", lambda _: "sbatch")
    monkeypatch.setattr(ray_jobs, "queue", lambda *job: asked.append(job) or SimpleNamespace(job_id="7", paths=paths))
    words = ["--stream", "smin", "--config", str(configs), "--run", str(tmp_path / "run"), f"--cluster={cluster}"]
    file = tmp_path / "search.yaml"
    file.write_text("cpus_per_worker: 200\nsmin: {optim.lr: {uniform: [1, 2]}}")
    assert "no room for" in refused(capsys, *words, "--search", file)
    file.write_text("workers: 2\nsmin: {optim.lr: {uniform: [1, 2]}}")
    assert slurm.main([*words, "--search", str(file)]) == 0
    ((_, found, _, name),) = asked
    given = parameters(found, name, tmp_path, tmp_path)
    assert (given["nodes"], given["tasks_per_node"]) == (2, 1)


def test_every_job_is_queued_and_the_final_one_behind_the_others(configs, tmp_path, monkeypatch, capsys):
    queued = []

    def queue(_plan, _cluster, job, name, after=""):
        queued.append((name, type(job), after))
        return SimpleNamespace(job_id=str(40 + len(queued)))

    monkeypatch.setattr(slurm, "queue", queue)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/sbatch")
    words = ["--stream", "both", "--config", str(configs), "--run", str(tmp_path / "run")]
    assert slurm.main(words) == 0
    assert queued == [
        ("ssin", jobs.TrainJob, ""),
        ("smin", jobs.TrainJob, ""),
        ("final", jobs.FinalJob, "afterok:41:42"),
    ]
    assert capsys.readouterr().out == f"tensorboard --logdir {tmp_path / 'run'}\n"


def environment(folder: Path, rank: int) -> SimpleNamespace:
    paths = SimpleNamespace(result_pickle=folder / f"7_{rank}_result.pkl", submitted_pickle=folder / "7_submitted.pkl")
    return SimpleNamespace(paths=paths, global_rank=rank)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_requeued_job_removes_what_its_earlier_start_left_half_done(tmp_path, rank):
    names = ["7_submitted.pkl", "7_submitted.pkl.save_tmp"]
    names += [f"7_{r}_result.pkl{end}" for r in (0, 1) for end in ("", ".save_tmp")]
    for name in names:
        (tmp_path / name).touch()
    jobs._forget_earlier_start(environment(tmp_path, rank))
    gone = {f"7_{rank}_result.pkl", f"7_{rank}_result.pkl.save_tmp"}
    gone |= {"7_submitted.pkl.save_tmp"} if rank == 0 else set()
    assert {path.name for path in tmp_path.iterdir()} == set(names) - gone


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_rank_whose_work_is_done_does_not_fail_by_a_signal_while_python_ends(number):
    program = f"""
import os, signal, subprocess
from sptskm.launching import jobs
signal.signal({int(number)}, lambda *_: None)  # submitit's, which Python gives up before it has ended
jobs._enter_world = lambda: 0
print(jobs.attend(lambda stop: "done", 5.0, 0), flush=True)
shell = f"while kill -{int(number)} {{os.getpid()}}; do :; done"
subprocess.Popen(["sh", "-c", shell], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""
    assert launch("-c", program)[:2] == (0, "done\n")
