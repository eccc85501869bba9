"""Which rank a process is, and on which device, in the environments that schedulers make."""

import os

import pytest
import torch

from sptskm.config import ConfigError
from sptskm.training.allocation import PORTS, VARIABLES, enter_step, is_main, port, set_variables, tasks_per_node
from sptskm.training.world import World, join

STEP = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "3,1",
    "SLURM_STEP_NODELIST": "a[7-8]",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "55",
    "SLURM_RESTART_COUNT": "2",
}
INHERITED = {"RANK": "9", "LOCAL_RANK": "9", "WORLD_SIZE": "99", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    monkeypatch.setattr(os, "environ", environment)
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho a7\necho a8\n")
    (tmp_path / "scontrol").chmod(0o755)
    environment["PATH"] = f"{tmp_path}:/usr/bin:/bin"
    return environment


def variables() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


@pytest.mark.parametrize("inherited", [{}, INHERITED])
def test_a_task_of_srun_knows_its_place_whatever_was_set_before(inherited):
    os.environ.update(inherited | STEP)
    enter_step()
    assert variables() == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "a7",
        "MASTER_PORT": str(port(55, 2)),
    }


@pytest.mark.parametrize("inherited", [{}, INHERITED])
def test_a_lone_task_is_a_single_process(inherited):
    os.environ.update(inherited | STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"})
    os.environ.update({"SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0"})
    enter_step()
    assert variables() == {}


@pytest.mark.parametrize("below", [{}, {"TORCHELASTIC_RUN_ID": "7", **STEP}])
def test_outside_of_srun_and_below_torchrun_nothing_is_changed(below):
    os.environ.update(INHERITED | below)
    enter_step()
    assert variables() == INHERITED


def test_tasks_per_node_are_read_in_slurms_shorthand():
    assert tasks_per_node("2(x3),1") == [2, 2, 2, 1]
    assert tasks_per_node("4") == [4]


def test_every_start_of_a_job_has_another_port_below_those_of_the_system():
    ports = [port(4242, restarts) for restarts in range(100)]
    assert len(set(ports)) == 100
    assert all(20_000 <= found < 32_000 for found in ports)
    assert port(PORTS + 1, 0) == port(1, 0)


def test_ranks_of_one_process_leave_no_variables():
    os.environ.update(INHERITED)
    set_variables(0, 1, 0, 1, "127.0.0.1", 20_000)
    assert variables() == {}


@pytest.mark.parametrize(
    ("visible", "local_rank", "expected"),
    [(4, 2, "cuda:2"), (4, 0, "cuda:0"), (1, 0, "cuda:0"), (1, 3, "cuda:0"), (0, 1, "cpu")],
    ids=["all of the node's GPUs", "the first of them", "one GPU", "only its own GPU", "none"],
)
def test_a_rank_uses_its_own_gpu_whether_it_sees_all_or_one(monkeypatch, visible, local_rank, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    assert str(World(5, 8, local_rank).device) == expected


def test_too_few_visible_gpus_are_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    os.environ["CUDA_VISIBLE_DEVICES"] = "GPU-1a,GPU-2b"
    with pytest.raises(ConfigError, match=r"rank 7 is number 3 on its node, but only 2 GPUs .*DEVICES=GPU-1a,GPU-2b"):
        _ = World(7, 8, 3).device


@pytest.mark.parametrize("name", [name for name in STEP if name != "SLURM_RESTART_COUNT"])
@pytest.mark.parametrize("value", [None, "", " ", "x", "-1", "1.5", "9" * 30, "\u0663"])
def test_variables_of_slurm_that_are_missing_empty_or_no_numbers_are_one_sentence(own_environment, name, value):
    own_environment |= STEP
    own_environment[name] = value
    if value is None:
        del own_environment[name]
    free = name in ("SLURM_STEP_NODELIST", "SLURM_STEP_NUM_NODES") and (value or "").strip()
    if free or (name == "SLURM_STEP_NUM_TASKS" and not (value or "").strip()):
        enter_step()
        return
    with pytest.raises(ConfigError, match=rf"^the environment (lacks|says) {name}"):
        enter_step()


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_variable_is_none(own_environment, value):
    own_environment |= {"RANK": value, "WORLD_SIZE": value, "LOCAL_RANK": value, "MASTER_ADDR": value}
    with join(threads=1, timeout_minutes=1) as world:
        assert (world.rank, world.size) == (0, 1)
    assert is_main()


@pytest.mark.parametrize(
    ("name", "value"),
    [("RANK", "x"), ("RANK", "2"), ("RANK", "-1"), ("WORLD_SIZE", "0"), ("WORLD_SIZE", "1e3"), ("LOCAL_RANK", "a")]
    + [("MASTER_PORT", value) for value in ("0", "70000", "http")],
)
def test_variables_of_torchrun_that_are_no_numbers_are_one_sentence(own_environment, name, value):
    own_environment |= {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", name: value}
    with pytest.raises(ConfigError, match=rf"^the environment says .*{name}="), join(threads=1, timeout_minutes=1):
        pass
