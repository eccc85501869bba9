"""Jobs on a real two-node SLURM cluster, as they are meant to go: what is asserted are final weights and states."""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import torch
from helpers.launching import ROOT, launch, processes_naming, write_configs
from helpers.nodes import CLUSTER, Slurm, ids
from helpers.runs import SHIPPED, assert_same_end, end_of, options, until, until_training

from sptskm.config import STREAMS
from sptskm.training.allocation import port


def test_all_streams_train_across_two_nodes_and_the_final_job_follows(finished: Path) -> None:
    results = json.loads((finished / "final" / "results.json").read_text())
    assert {line["stream"] for line in results["results"]} == {*STREAMS, "fused"}
    for stream in STREAMS:
        assert torch.load(max((finished / stream).glob("checkpoint-*.pt")), weights_only=True)["world"] == 2


def test_a_preempted_job_is_requeued_once_and_ends_with_the_same_bits(
    slurm: Slurm, configs: Path, cluster_file: Path, tmp_path: Path, finished: Path
) -> None:
    job = slurm.launch(*options(configs, cluster_file, tmp_path / "run", "ssin"))["ssin"]
    until_training(tmp_path / "run" / "ssin")
    slurm.wait(slurm.occupy(seconds=1), "COMPLETED")
    slurm.wait_once_requeued(job)
    assert_same_end(tmp_path / "run" / "ssin", finished / "ssin")


def test_three_streams_with_gait_preempted_by_term_alone_end_with_the_same_bits_and_the_final_job_with_the_same_numbers(
    slurm_term_only: Slurm, configs: Path, cluster_file: Path, tmp_path: Path, finished: Path
) -> None:
    slurm = slurm_term_only
    jobs = slurm.launch(*options(configs, cluster_file, tmp_path / "run", "all"))
    until_training(tmp_path / "run" / "gait")
    slurm.wait(slurm.occupy(seconds=1), "COMPLETED")
    slurm.wait_once_requeued(jobs["gait"])
    for stream in STREAMS:
        slurm.wait(jobs[stream], "COMPLETED")
        assert_same_end(tmp_path / "run" / stream, finished / stream)
    slurm.wait(jobs["final"], "COMPLETED")
    found, wanted = (json.loads((run / "final" / "results.json").read_text()) for run in (tmp_path / "run", finished))
    assert found["results"] == wanted["results"]


def test_a_cancelled_job_has_saved_and_does_not_come_back(
    slurm: Slurm, configs: Path, cluster_file: Path, tmp_path: Path
) -> None:
    jobs = slurm.launch(*options(configs, cluster_file, tmp_path / "run", "ssin"))
    until_training(tmp_path / "run" / "ssin")
    slurm.call("scancel", jobs["ssin"])
    assert slurm.wait(jobs["ssin"], "CANCELLED") == "CANCELLED"
    assert slurm.wait(jobs["final"], "CANCELLED") == "CANCELLED"
    time.sleep(8)  # longer than a requeued job waits
    assert slurm.state(jobs["ssin"]) == "CANCELLED"
    assert not processes_naming(str(tmp_path))
    assert end_of(tmp_path / "run" / "ssin")["step"] > 0


STATES = {"ssin": "failed", "smin": "completed", "final": "cancelled"}


def test_a_failed_stream_cancels_the_final_job_and_who_watches_is_told(
    slurm: Slurm, walkers: Path, cluster_file: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(walkers, data)
    for frame in (data / "bbox_train").rglob("*F003.jpg"):
        frame.write_bytes(b"broken")  # which is not among the files looked at before submission
    configs = write_configs(tmp_path / "configs", data)
    words = options(configs, cluster_file, tmp_path / "run", "both")
    code, out, err = launch("launch/slurm.py", *words, "--watch", **slurm.variables)
    assert code == 1, err
    jobs = ids(out)
    last = {line.split()[0]: line.split()[1:] for line in out.splitlines()[-3:]}
    assert last == {name: [jobs[name], state] for name, state in STATES.items()}, out
    assert {name: slurm.state(job).lower() for name, job in jobs.items()} == STATES
    assert slurm.restarts(jobs["ssin"]) == 0
    assert "F003.jpg: corrupt, not a readable image" in out
    assert "smin epoch 12/12" in out


def test_a_job_runs_the_code_as_it_was_submitted_also_after_a_requeue(
    slurm: Slurm, configs: Path, cluster_file: Path, tmp_path: Path, finished: Path
) -> None:
    shutil.copytree(ROOT / "sptskm", tmp_path / "mine" / "sptskm")
    mine = {"PYTHONPATH": str(tmp_path / "mine")}
    job = slurm.launch(*options(configs, cluster_file, tmp_path / "run", "ssin"), **mine)["ssin"]
    for source in ("training/trainer.py", "config.py", "__init__.py"):
        (tmp_path / "mine" / "sptskm" / source).write_text("raise SystemExit('edited after submission')")
    until_training(tmp_path / "run" / "ssin")
    slurm.call("scancel", "--signal=USR1", job)
    slurm.wait_once_requeued(job)
    assert_same_end(tmp_path / "run" / "ssin", finished / "ssin")


def test_two_ranks_on_each_of_two_nodes_meet_whatever_was_set_before_and_whoever_has_their_port(
    slurm: Slurm, configs: Path, tmp_path: Path
) -> None:
    (tmp_path / "two.yaml").write_text(f"{CLUSTER}cpu_ranks: 2\n".replace("mem_gb: 1", "mem_gb: 2"))
    inherited = {"RANK": "3", "LOCAL_RANK": "5", "WORLD_SIZE": "9", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}
    words = options(configs, tmp_path / "two.yaml", tmp_path / "run", "smin")
    rival = slurm.occupy(seconds=60)
    slurm.wait(rival, "RUNNING")
    job = slurm.launch(*words, "train.epochs=2", **inherited, CUDA_VISIBLE_DEVICES="7")["smin"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("", port(int(job), restarts=0)))
        taken.listen()
        slurm.call("scancel", rival)
        until("a second start", lambda: slurm.restarts(job) == 1)
    slurm.wait(job, "COMPLETED")
    assert torch.load(max((tmp_path / "run" / "smin").glob("checkpoint-*.pt")), weights_only=True)["world"] == 4


def test_the_ranks_of_an_allocation_can_be_looked_at_before_anything_is_trained(slurm: Slurm) -> None:
    inherited = {"RANK": "3", "WORLD_SIZE": "9", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}
    seen = slurm.call("srun", "-N2", "--ntasks-per-node=2", "sptskm", "check", "--dist", **inherited).splitlines()
    assert [line.split()[:4] for line in seen[2:-1]] == [
        ["0", "0", "127.0.0.1", "cpu"],
        ["1", "1", "127.0.0.1", "cpu"],
        ["2", "0", "127.0.0.2", "cpu"],
        ["3", "1", "127.0.0.2", "cpu"],
    ]
    assert seen[-1].startswith("all-reduce over 4 ranks: ")


def test_a_step_that_was_given_gpus_which_pytorch_does_not_see_says_so(slurm: Slurm) -> None:
    command = ["srun", "-N1", "--gpus-per-node=1", "sptskm", "check", "--dist"]  # the GPUs of this cluster are none
    done = subprocess.run(command, env=slurm.environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "sptskm: rank 0 was given GPUs (SLURM_STEP_GPUS=0 on 127.0.0.1), but PyTorch" in done.stderr


TEMPLATE = ["--parsable", "-N2", "-p", "main", "--gpus-per-node=0", "--cpus-per-task=1", "--mem=1G", "-o/dev/null"]


def test_without_submitit_torchrun_trains_and_a_preempted_job_ends_with_the_same_bits(
    slurm_term_only: Slurm, configs: Path, tmp_path: Path, finished: Path
) -> None:
    slurm = slurm_term_only  # where the batch script is not even told
    run = tmp_path / "run" / "ssin"
    words = ["train", configs / "ssin.yaml", f"run={run}", "train.epochs=12", "train.validate_every=6", SHIPPED]
    job = slurm.call("sbatch", *TEMPLATE, "slurm/torchrun.sbatch", *words)
    evaluate = ["evaluate", run, "--out", tmp_path / "final"]
    last = slurm.call("sbatch", f"-dafterok:{job}", *TEMPLATE, "slurm/torchrun.sbatch", *evaluate)
    until_training(run)
    slurm.wait(slurm.occupy(seconds=1), "COMPLETED")
    slurm.wait_once_requeued(job)
    assert_same_end(run, finished / "ssin")
    slurm.wait(last, "COMPLETED")
    assert json.loads((tmp_path / "final" / "results.json").read_text())["results"]
