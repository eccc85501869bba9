"""The benchmark for GPUs runs on a CPU, and every row of it has a number or says why it has none."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import DeviceType

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from gpu_rows.counting import Watch, count  # noqa: E402
from gpu_rows.runs import together_do  # noqa: E402
from gpu_rows.speed import KERNELS, kernel_seconds, largest  # noqa: E402
from gpu_rows.step import CLASSES, config_of  # noqa: E402
from gpu_rows.table import NO_GPU, NO_TIME, Table  # noqa: E402
from gpu_rows.watching import watch  # noqa: E402

from sptskm.config import STREAMS  # noqa: E402
from sptskm.training.streams import stream_of  # noqa: E402

CPU = torch.device("cpu")
NO_NUMBER = {NO_GPU, "no frames", "no peak to compare with", "clips of its own length"}


def fails() -> object:
    raise RuntimeError("broken\nin two lines")


def test_a_row_that_fails_holds_its_error_and_the_others_are_measured(tmp_path, capsys):
    table = Table(CPU, True, 60.0, tmp_path / "gpu.json")
    table.measure("a", ["x", "y"], fails)
    table.measure("a", "z", lambda: (2.0, "s"))
    table.measure("b", "only there", fails, gpu=True)
    table.seconds = -1.0
    table.measure("b", "late", fails)
    assert [row.text for row in table.rows] == ["RuntimeError: broken"] * 2 + ["2 s", NO_GPU, NO_TIME]
    written = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row["value"] for row in written] == [None, None, 2.0, None, None]
    assert "only there" in table.text()
    assert "in two lines" in capsys.readouterr().out, "the whole error is printed beside the table"


ROWS = """
import os, sys, time
from pathlib import Path
import torch
from gpu_rows.table import Table

table = Table(torch.device("cpu"), True, 60.0, Path(sys.argv[1]))
table.go_on()
write, table.write = table.write, lambda now=None: write(now and {**now, "until": now["began"] + 3.0})
table.measure("a", "first", lambda: (float(os.getpid()), ""))
table.measure("a", ["dies", "dies with it"], os.abort)
table.measure("b", "hangs", lambda: time.sleep(600))
table.measure("b", "last", lambda: (2.0, "s"))
"""


@pytest.mark.slow
def test_a_row_that_ends_or_holds_the_process_is_noted_and_the_next_one_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)]))
    state = tmp_path / "gpu.json"
    assert watch([sys.executable, "-c", ROWS, str(state)], state) == 0
    rows = json.loads(state.read_text())["rows"]
    assert [row["what"] for row in rows] == ["first", "dies", "dies with it", "hangs", "last"]
    reasons = [row["reason"] for row in rows]
    assert reasons[:3] == ["", *["the process ended by SIGABRT"] * 2]
    assert reasons[3].startswith("stopped after ")
    assert rows[-1]["value"] == 2


def test_a_watcher_that_is_asked_to_end_leaves_no_process_behind(tmp_path):
    """As `timeout` asks it, which tells nobody else."""
    pid = tmp_path / "pid"
    inner = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)"
    outer = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
        "from pathlib import Path; from gpu_rows.watching import watch\n"
        f"watch([sys.executable, '-c', {inner!r}], Path({str(tmp_path / 'state')!r}))"
    )
    watcher = subprocess.Popen([sys.executable, "-c", outer])
    while not (pid.exists() and pid.read_text()):
        assert watcher.poll() is None
        time.sleep(0.05)
    watcher.terminate()
    assert watcher.wait(10) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_process_that_fails_outside_of_a_row_is_not_started_again(tmp_path, capfd):
    assert watch([sys.executable, "-c", "print('begun'); raise SystemExit(3)"], tmp_path / "gpu.json") == 3
    assert capfd.readouterr().out.count("begun") == 1


def test_a_number_that_is_none_is_a_reason(tmp_path):
    table = Table(CPU, True, 60.0, tmp_path / "gpu.json")
    table.measure("a", "x", lambda: (float("nan"), "s"))
    assert (table.rows[0].value, table.rows[0].text) == (None, "nan")


def test_kernels_are_counted_once_and_sorted_by_their_names():
    def event(key: str, seconds: float, device: DeviceType = DeviceType.CUDA, named: bool = False) -> SimpleNamespace:
        told = {"key": key, "self_device_time_total": 1e6 * seconds, "device_type": device}
        return SimpleNamespace(**told, is_user_annotation=named)

    events = [
        event("aten::cudnn_convolution", 4.0, DeviceType.CPU), event("Optimizer.step#Adam.step", 9.0, named=True),
        event("sm90_xmma_fprop_implicit_gemm_bf16", 4.0), event("nchw_bn_fw_tr_1C11_kernel_NCHW", 1.0),
        event("batch_norm_backward_reduce_channels_last", 1.0), event("FusedAdamMathFunctor", 0.5),
        event("vectorized_elementwise_kernel<4, add>", 2.0), event("Memcpy DtoH", 0.25),
    ]  # fmt: skip
    assert list(kernel_seconds(events).values()) == [2.0, 4.0, 0.5, 2.25]
    assert list(kernel_seconds([])) == list(KERNELS)


def test_the_largest_batch_is_the_last_one_that_could_be_computed(tmp_path, monkeypatch):
    def varied(_table, _name, _form, clips, _how):
        if clips > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [(10.0 * clips, "clips/s"), (1.0, "GiB")]

    monkeypatch.setattr("gpu_rows.speed.varied", varied)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    limit = 100
    assert largest(Table(CPU, True, 60.0, tmp_path / "gpu.json"), "ssin", 32) == [(64, "clips"), (640.0, "clips/s")]
    limit = 16
    with pytest.raises(torch.OutOfMemoryError):
        largest(Table(CPU, True, 60.0, tmp_path / "gpu.json"), "ssin", 32)


@pytest.mark.slow
def test_a_rank_that_ends_without_a_word_is_named():
    with pytest.raises(RuntimeError, match=r"no answer from rank 0 \(exit status 7\)"):
        together_do(1, "gloo", os._exit, 7)


def test_counted_work_is_that_of_the_layers_by_hand():
    config = config_of("ssin", True, "train.precision=bfloat16", "clips.height=128", "clips.width=64")
    found = count(config, 2)
    # the trunks end in 128 channels of 4 x 2 places; forward and twice backward, for 2 clips of 2 frames
    layers = (128 * 64 + 64 * 64) * 9 * 8 + (64 * 32 + 32 * 32) * 9 * 2
    assert found.parts["mask convolutions"].flops == 3 * 2 * 4 * layers
    network = stream_of(config).model(CLASSES)
    assert found.parameters == sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert 0 < found.least_bytes < found.whole.bytes + found.optimiser
    assert found.floor("H100 SXM")[0] == found.whole.flops / 989e12


def test_counted_bytes_are_those_of_operands_and_results_and_a_question_to_a_tensor_moves_none():
    with FakeTensorMode():
        x, y = torch.empty(6, 10), torch.empty(10, 5)
        with Watch(lambda _: "all") as seen:
            assert x.device == CPU
            (x.view(3, 2, 10).view(6, 10) @ y).relu()
    assert seen.parts["all"].bytes == 4 * (60 + 50 + 30 + 30 + 30)
    assert seen.parts["all"].operations == 2


@pytest.mark.slow
def test_the_benchmark_needs_no_launcher():
    code = f"import sys; sys.path.append({str(ROOT / 'benchmarks')!r})\n"
    code += "for name in ('ray', 'submitit', 'pyarrow'): sys.modules[name] = None\nimport gpu_rows.measuring"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_every_row_has_a_number_or_says_why_it_has_none(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--small", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert {row["group"] for row in rows} == {
        "device", "correct", "run", "ranks", "loader", "resnet-50", "step", "stages", "extraction", "evaluation",
        "preparation", "compiled",
    }  # fmt: skip
    assert not [row for row in rows if (row["value"] is None) != (row["reason"] in NO_NUMBER)]
    for spec in STREAMS.values():
        assert {row["group"] for row in rows if row["what"].startswith(f"{spec.title} ")} >= {"correct", "step"}
    found = {row["what"]: row["value"] for row in rows}
    close = [row for row in rows if row["group"] == "correct" and "float32: embedding" in row["what"] and row["value"]]
    assert max(row["value"] for row in close if " float32" in row["what"]) < 1e-3
    assert found["SSIN: stopped after an epoch and continued, against not stopped"] == 0
    assert found["SMIN: two ranks over gloo on one device, against one"] < 1e-8
    assert all(row["what"] in done.stdout for row in rows)
