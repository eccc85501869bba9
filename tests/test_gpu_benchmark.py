"""The benchmark for GPUs runs on a CPU, and every row of it has a number or says why it has none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from gpu_rows.counting import count  # noqa: E402
from gpu_rows.step import CLASSES, config_of  # noqa: E402
from gpu_rows.table import NO_GPU, NO_TIME, Table  # noqa: E402

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


def test_counted_work_is_that_of_the_layers_by_hand():
    config = config_of("ssin", True, "train.precision=bfloat16", "clips.height=128", "clips.width=64")
    found = count(config, 2)
    # the trunks end in 128 channels of 4 x 2 places; forward and twice backward, for 2 clips of 2 frames
    layers = (128 * 64 + 64 * 64) * 9 * 8 + (64 * 32 + 32 * 32) * 9 * 2
    assert found.parts["mask convolutions"].flops == 3 * 2 * 4 * layers
    network = stream_of(config).model(CLASSES)
    assert found.parameters == sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert 0 < found.least_bytes < found.whole.bytes
    assert found.floor("H100 SXM")[0] == found.whole.flops / 989e12


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
