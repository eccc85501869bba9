"""The pose network against a second writing of its table, and published files in."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import SHARED, fill, needs_shared, oracle, weights_by_rule
from torch import Tensor

from sptskm.models import PoseHG3D, PoseMaps, load_posehg3d

State = dict[str, Any]
GAINS = ((r"^layer\d\.\d+\.conv3\.weight$", 0.25),)
DEPTHS = (2, 1, 1, 1)


def tiny() -> PoseHG3D:
    return PoseHG3D(DEPTHS, width=4)


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def weights(model: torch.nn.Module | None = None) -> State:
    return weights_by_rule(shapes(model or tiny()), GAINS)


def by_the_table(x_N3HW: Tensor, state: State) -> PoseMaps:
    """The network as functions of its weights, written apart from the module."""

    def bn(x: Tensor, name: str) -> Tensor:
        mean, var, gamma, beta = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gamma + beta

    def block(x: Tensor, name: str, stride: int) -> Tensor:
        y = bn(F.conv2d(x, state[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
        y = bn(F.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1), f"{name}.bn2").relu()
        y = bn(F.conv2d(y, state[f"{name}.conv3.weight"]), f"{name}.bn3")
        if f"{name}.downsample.0.weight" in state:
            x = bn(F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
        return (x + y).relu()

    x = bn(F.conv2d(x_N3HW, state["conv1.weight"], stride=2, padding=3), "bn1").relu()
    x = F.max_pool2d(x, 3, 2, padding=1)
    for layer, blocks in enumerate(DEPTHS, start=1):
        for index in range(blocks):
            x = block(x, f"layer{layer}.{index}", 2 if layer > 1 and index == 0 else 1)
    for index in (0, 3, 6):
        x = F.conv_transpose2d(x, state[f"deconv_layers.{index}.weight"], stride=2, padding=1)
        x = bn(x, f"deconv_layers.{index + 1}").relu()
    hm, depth = (F.conv2d(x, state[f"{head}.weight"], state[f"{head}.bias"]) for head in ("hm", "depth"))
    return PoseMaps(hm, depth)


def test_the_network_is_what_its_table_says() -> None:
    model = fill(tiny().double(), GAINS)
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps, wanted = model(x), by_the_table(x, model.state_dict())
    assert wanted.hm_NJHW.shape == wanted.depth_NJHW.shape == (2, 16, 16, 24)
    assert wanted.hm_NJHW.std() > 0.1
    assert not torch.allclose(wanted.hm_NJHW, wanted.depth_NJHW)
    torch.testing.assert_close(maps.hm_NJHW, wanted.hm_NJHW, rtol=0, atol=1e-12)
    torch.testing.assert_close(maps.depth_NJHW, wanted.depth_NJHW, rtol=0, atol=1e-12)


def test_the_published_network_has_its_published_size() -> None:
    with torch.device("meta"):
        model = PoseHG3D()
        maps = model(torch.empty(1, 3, 256, 256))
    assert len(model.state_dict()) == 340
    assert sum("num_batches_tracked" in name for name in model.state_dict()) == 56
    assert model.deconv_layers[0].weight.shape == (2048, 256, 4, 4)
    assert model.deconv_layers[3].weight.shape == model.deconv_layers[6].weight.shape == (256, 256, 4, 4)
    assert maps.hm_NJHW.shape == maps.depth_NJHW.shape == (1, 16, 64, 64)


@needs_shared
def test_names_and_shapes_are_the_published_ones_and_the_weight_rule_holds() -> None:
    listed = json.loads((SHARED / "oracles" / "manifest_posehg3d.json").read_text())["params"]
    with torch.device("meta"):
        model = PoseHG3D()
    assert shapes(model) == {entry["name"]: tuple(entry["shape"]) for entry in listed}
    values = weights(model)
    for entry in listed:
        value = values[entry["name"]].double()
        assert value.flatten()[0].item() == pytest.approx(entry["first"], rel=1e-6), entry["name"]
        assert value.sum().item() == pytest.approx(entry["sum_f64"], rel=1e-6, abs=1e-6), entry["name"]


@needs_shared
def test_the_maps_are_those_of_the_original_network() -> None:
    if not (SHARED / "oracles" / "posehg3d_syn.npz").is_file():
        pytest.skip("the original pose network's maps are not at hand")
    given = oracle("posehg3d_syn.npz")
    with torch.no_grad():
        maps = fill(PoseHG3D(), GAINS)(torch.from_numpy(given["input"]).reshape(1, 3, 256, 256))
    for found, name in ((maps.hm_NJHW, "hm"), (maps.depth_NJHW, "depth")):
        np.testing.assert_allclose(found.numpy().ravel(), given[name].ravel(), rtol=0, atol=5e-5)
    assert (maps.hm_NJHW[0].flatten(1).argmax(1).numpy() == given["hm"].reshape(16, -1).argmax(1)).all()


def assert_loaded(model: torch.nn.Module, wanted: State) -> None:
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("wrapping", ["none", "epoch", "optimizer"])
def test_a_published_file_loads_in_every_wrapping(tmp_path: Path, wrapping: str, old_format: bool) -> None:
    path, model, wanted = tmp_path / "fusion_3d_var.pth", tiny(), weights()
    content: State = wanted if wrapping == "none" else {"epoch": 30, "state_dict": wanted}
    if wrapping == "optimizer":
        momenta = torch.optim.Adam([torch.nn.Parameter(wanted["hm.bias"].clone())]).state_dict()
        content["optimizer"] = momenta
    torch.save(content, path, _use_new_zipfile_serialization=not old_format)
    load_posehg3d(model, path)
    assert_loaded(model, wanted)


def test_only_the_batch_counters_of_old_files_may_be_missing(tmp_path: Path) -> None:
    path, model = tmp_path / "fusion_3d_var.pth", tiny()
    wanted = {name: value for name, value in weights().items() if "num_batches_tracked" not in name}
    torch.save({"epoch": 30, "state_dict": wanted}, path)
    load_posehg3d(model, path)
    assert_loaded(model, wanted)
    del wanted["bn1.running_mean"]
    torch.save(wanted, path)
    with pytest.raises(ValueError, match=r"1 entries do not fit: missing bn1\.running_mean$"):
        load_posehg3d(model, path)


def test_one_error_names_the_file_and_everything_that_does_not_fit_and_changes_nothing(tmp_path: Path) -> None:
    path, model, given = tmp_path / "other.pth", tiny(), weights()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    del given["conv1.weight"], given["depth.bias"]
    given["fc.weight"] = torch.zeros(1000, 128)
    given["hm.weight"] = torch.zeros(17, 16, 1, 1)
    torch.save({"epoch": 1, "state_dict": given}, path)
    with pytest.raises(ValueError, match=f"weights {re.escape(str(path))}: PoseHG3D: 4 entries") as caught:
        load_posehg3d(model, path)
    for part in (
        "missing conv1.weight, depth.bias",
        "unexpected fc.weight",
        "hm.weight has shape (17, 16, 1, 1), wanted (16, 16, 1, 1)",
    ):
        assert part in str(caught.value)
    assert_loaded(model, before)


def test_files_of_the_other_pose_networks_are_told_apart(tmp_path: Path) -> None:
    path, given = tmp_path / "mpii.pth", weights()
    del given["depth.weight"], given["depth.bias"]
    torch.save({"epoch": 140, "state_dict": given}, path)
    with pytest.raises(ValueError, match=r"mpii\.pth: has no depth head \(trained on MPII alone\), wanted fusion_3d"):
        load_posehg3d(tiny(), path)
    torch.save({"conv1_.weight": torch.zeros(1), "hourglass.0.up1_.0.bn.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="has the hourglass network of the branch hg3d, wanted the second version"):
        load_posehg3d(tiny(), path)


@pytest.mark.parametrize("content", [{"epoch": 3, "conv1.weight": torch.zeros(1)}, {"epoch": 3, "state_dict": 7}])
def test_a_file_of_something_else_is_one_sentence(tmp_path: Path, content: State) -> None:
    path = tmp_path / "notes.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"notes\.pth: holds a int under 'epoch', wanted a state dict"):
        load_posehg3d(tiny(), path)


def test_a_file_that_is_missing_or_would_execute_something_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: no such file"):
        load_posehg3d(tiny(), tmp_path / "nowhere.pth")
    torch.save(tiny(), tmp_path / "whole_module.pth")
    with pytest.raises(ValueError, match=r"whole_module\.pth: not a plain PyTorch state dict"):
        load_posehg3d(tiny(), tmp_path / "whole_module.pth")
