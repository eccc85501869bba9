"""JPPNet against a second writing of the published tables, by TensorFlow's names; its loading; the original's numbers.

Legend: N images, C channels, H rows, W columns.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.oracles import SHARED, jppnet_by_rule, needs_shared, oracle, tf_weights_by_rule
from helpers.tf_writer import data_file, write_checkpoint
from numpy.typing import NDArray
from torch import Tensor

from sptskm.models import JPPNet, load_jppnet
from sptskm.models.jppnet import RATES, FixedBatchNorm, Outputs, pad_same, same_padding, tf_names
from sptskm.models.tf_checkpoint import open_checkpoint

Variables = dict[str, NDArray]
TOLERANCE = 1e-5
UNITS = {2: ("2a", "2b"), 3: ("3a", "3b1"), 4: ("4a", "4b1", "4b2"), 5: ("5a", "5b")}
PREFIX = "model.ckpt-205632"


def tiny() -> JPPNet:
    return JPPNet(tuple(map(len, UNITS.values())), width=4, context=8)


def tf_shapes(model: JPPNet) -> dict[str, tuple[int, ...]]:
    """TensorFlow's names with their shapes, kernels as HWIO."""
    names = tf_names(model)
    return {names[ours]: hwio(tuple(value.shape)) for ours, value in model.state_dict().items()}


def hwio(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in (2, 3, 1, 0)) if len(shape) == 4 else shape


def extras() -> Variables:
    """What the published file is expected to hold beside the variables of the network."""
    some = {"fc3_pose/conv6/b": (16,), "conv1/weights/Momentum": (7, 7, 3, 4), "fc1_human_c0/biases/Momentum": (20,)}
    return {name: np.ones(shape, np.float32) for name, shape in some.items()} | {"global_step": np.array(205632)}


@pytest.fixture(scope="module")
def variables() -> Variables:
    return tf_weights_by_rule(tf_shapes(tiny()))


@pytest.fixture
def prefix(tmp_path: Path, variables: Variables) -> Path:
    return write_checkpoint(tmp_path / PREFIX, variables | extras(), block_bytes=500)


@pytest.fixture
def loaded(prefix: Path) -> JPPNet:
    model = tiny()
    load_jppnet(model, prefix)
    return model.eval()


class Reference:
    """The network from TensorFlow's variables, with deviations from the published tables where a test asks for one."""

    def __init__(self, variables: Variables, **deviations: Any) -> None:
        self.variables = {name: torch.from_numpy(values) for name, values in variables.items()}
        self.epsilon = deviations.pop("epsilon", 1e-3)
        self.stem = deviations.pop("stem", None)
        self.pool = deviations.pop("pool", None)
        self.strided = deviations.pop("strided", "a")
        self.dilations = {2: 1, 3: 1, 4: 2, 5: deviations.pop("dilation5", 4)}
        self.parsing_first = deviations.pop("parsing_first", True)
        self.fresh_pose = deviations.pop("fresh_pose", True)
        self.rates = deviations.pop("rates", (6, 12, 18, 24))
        assert not deviations

    def conv(
        self, scope: str, x: Tensor, stride: int = 1, rate: int = 1, border: tuple[int, int] | None = None
    ) -> Tensor:
        kernel_name, bias_name = ("w", "b") if "/" in scope else ("weights", "biases")
        kernel = self.variables[f"{scope}/{kernel_name}"].permute(3, 2, 0, 1)
        x = padded(x, (kernel.shape[2] - 1) * rate + 1, stride, border)
        return F.conv2d(x, kernel, self.variables.get(f"{scope}/{bias_name}"), stride, dilation=rate)

    def bn(self, scope: str, x: Tensor) -> Tensor:
        leaves = ("moving_mean", "moving_variance", "gamma", "beta")
        mean, variance, gamma, beta = (self.variables[f"{scope}/{leaf}"].view(-1, 1, 1) for leaf in leaves)
        return (x - mean) / (variance + self.epsilon).sqrt() * gamma + beta

    def unit(self, unit: str, x: Tensor) -> Tensor:
        stride, dilation = (2 if unit == "3a" else 1), self.dilations[int(unit[0])]
        stride_a, stride_b = (stride, 1) if self.strided == "a" else (1, stride)
        y = self.conv(f"res{unit}_branch2a", x, stride_a)
        y = self.conv(f"res{unit}_branch2b", self.bn(f"bn{unit}_branch2a", y).relu(), stride_b, dilation)
        y = self.conv(f"res{unit}_branch2c", self.bn(f"bn{unit}_branch2b", y).relu())
        y = self.bn(f"bn{unit}_branch2c", y)
        if unit[1:] == "a":
            x = self.bn(f"bn{unit}_branch1", self.conv(f"res{unit}_branch1", x, stride))
        return (x + y).relu()

    def chain(self, scopes: list[str], x: Tensor) -> Tensor:
        for scope in scopes:
            x = self.conv(scope, x).relu()
        return x

    def atrous(self, scopes: list[str], x: Tensor) -> Tensor:
        return sum((self.conv(s, x, rate=r) for s, r in zip(scopes, self.rates, strict=True)), torch.zeros(()))

    def refined_parsing(self, net: str, parsing: Tensor, pose: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        remapped = [self.conv(f"{net}/parsing_remap", parsing).relu(), self.conv(f"{net}/pose_remap", pose).relu()]
        joined = torch.cat([*(remapped if self.parsing_first else remapped[::-1]), context], dim=1)
        context = self.chain([f"{net}/parsing_conv{i}" for i in (1, 2, 3, 4)], joined)
        last = self.chain([f"{net}/parsing_conv5"], context)
        return self.atrous([f"{net}/parsing_human{i}" for i in (1, 2, 3, 4)], last), context

    def refined_pose(self, net: str, pose: Tensor, parsing: Tensor, context: Tensor) -> Tensor:
        remapped = [self.conv(f"{net}/pose_remap", pose).relu(), self.conv(f"{net}/parsing_remap", parsing).relu()]
        features = self.chain([f"{net}/conv{i}" for i in (1, 2, 3, 4, 5)], torch.cat([*remapped, context], dim=1))
        return self.conv(f"{net}/conv6", features)

    def __call__(self, images: Tensor) -> Outputs:
        x = self.bn("bn_conv1", self.conv("conv1", images, 2, border=self.stem)).relu()
        x = F.max_pool2d(padded(x, 3, 2, self.pool), 3, 2)
        outputs = {}
        for unit in (unit for units in UNITS.values() for unit in units):
            outputs[unit] = x = self.unit(unit, x)
        parsing1 = self.atrous([f"fc1_human_c{i}" for i in range(4)], x)
        parsing_context = self.chain(["res5d_branch2a_parsing", "res5d_branch2b_parsing"], x)
        pose_context = self.chain([f"fc1_pose/pose_conv{i}" for i in range(1, 7)], outputs["4b2"])
        pose1 = self.conv("fc1_pose/pose_conv8", self.chain(["fc1_pose/pose_conv7"], pose_context))
        pose2 = self.refined_pose("fc2_pose", pose1, parsing1, pose_context)
        parsing2, parsing_context = self.refined_parsing("fc2_parsing", parsing1, pose1, parsing_context)
        last_pose = pose2 if self.fresh_pose else pose1
        parsing3, _ = self.refined_parsing("fc3_parsing", parsing2, last_pose, parsing_context)
        return Outputs((parsing1, parsing2, parsing3), (pose1, pose2))


def padded(x: Tensor, kernel: int, stride: int, border: tuple[int, int] | None) -> Tensor:
    """SAME: as many samples as strides begin in the image; the odd zero goes behind."""
    before_after = []
    for size in (x.shape[3], x.shape[2]):
        missing = max(0, kernel - (stride if size % stride == 0 else size % stride))
        before_after += border or (missing // 2, missing - missing // 2)
    return F.pad(x, before_after)


def images(height: int = 208, width: int = 216) -> Tensor:
    """Large enough for the widest of the four rates to see something."""
    return 60 * torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height))


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def worst(found: Outputs, wanted: Outputs) -> float:
    return max(error(f, w) for f, w in zip([*found.parsing, *found.pose], [*wanted.parsing, *wanted.pose], strict=True))


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(208, 216), (207, 201), (66, 37)])
def test_a_loaded_checkpoint_computes_the_published_tables(
    loaded: JPPNet, variables: Variables, height: int, width: int
) -> None:
    x = images(height, width)
    assert worst(loaded(x), Reference(variables)(x)) <= TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize(
    "deviation",
    [
        {"epsilon": 1e-5},
        {"stem": (3, 3)},
        {"pool": (1, 1)},
        {"strided": "b"},
        {"dilation5": 2},
        {"parsing_first": False},
        {"fresh_pose": False},
        {"rates": (6, 12, 24, 18)},
    ],
    ids=lambda deviation: next(iter(deviation)),
)
def test_the_comparison_would_notice_the_usual_mistakes(
    loaded: JPPNet, variables: Variables, deviation: dict[str, Any]
) -> None:
    x = images()
    assert worst(loaded(x), Reference(variables, **deviation)(x)) > 50 * TOLERANCE


@torch.no_grad()
def test_maps_are_an_eighth_of_the_images_rounded_up() -> None:
    outputs = tiny()(torch.zeros(2, 3, 41, 64))
    assert [tuple(maps.shape) for maps in outputs.parsing] == [(2, 20, 6, 8)] * 3
    assert [tuple(maps.shape) for maps in outputs.pose] == [(2, 16, 6, 8)] * 2


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "wanted"),
    [(384, 7, 2, (2, 3)), (67, 7, 2, (3, 3)), (192, 3, 2, (0, 1)), (45, 3, 2, (1, 1)), (96, 1, 2, (0, 0))],
)
def test_strided_layers_are_padded_as_tensorflow_does(
    size: int, kernel: int, stride: int, wanted: tuple[int, int]
) -> None:
    assert same_padding(size, kernel, stride) == wanted


@torch.no_grad()
def test_statistics_stay_as_they_are_in_training_too(loaded: JPPNet) -> None:
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    wanted, found = loaded(images(66, 37)), loaded.train()(images(66, 37))
    assert worst(found, wanted) == 0
    assert all(value.equal(before[name]) for name, value in loaded.state_dict().items())


@pytest.fixture(scope="module")
def full() -> JPPNet:
    """The published network without any memory behind it."""
    with torch.device("meta"):
        return JPPNet()


def test_the_full_network_has_the_published_variables(full: JPPNet) -> None:
    names = tf_names(full)
    assert names.keys() == full.state_dict().keys()
    assert len(set(names.values())) == len(names) == 608
    assert sum(value.numel() for value in full.state_dict().values()) == 107_922_640
    first = [name.split("/")[0] for name in names.values()]
    nets = ("fc1_pose", "fc2_pose", "fc2_parsing", "fc3_parsing")
    assert [first.count(net) for net in nets] == [16, 16, 22, 22]
    assert sum(name.startswith("bn") for name in first) == 416
    assert {"res4b22_branch2c/weights", "bn3b3_branch2b/gamma", "res5c_branch2a/weights"} <= set(names.values())


def test_what_is_no_image_or_no_network_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"images must be \(N, 3, H, W\), got \(1, 64, 64, 3\)"):
        tiny()(torch.zeros(1, 64, 64, 3))
    with pytest.raises(ValueError, match=r"four positive unit counts, got \(1, 1\)"):
        JPPNet((1, 1))
    with pytest.raises(ValueError, match="an even number of channels, got 7"):
        JPPNet((1, 1, 1, 1), 4, context=7)


def test_variables_beside_those_of_the_network_are_left_out(prefix: Path) -> None:
    assert set(extras()) <= set(open_checkpoint(prefix).variables)
    load_jppnet(tiny(), prefix)


def test_a_converted_file_loads_as_the_checkpoint_did(loaded: JPPNet, tmp_path: Path) -> None:
    torch.save(loaded.state_dict(), tmp_path / "jppnet.pth")
    again = tiny()
    load_jppnet(again, tmp_path / "jppnet.pth")
    assert all(value.equal(loaded.state_dict()[name]) for name, value in again.state_dict().items())


def test_one_error_names_every_variable_that_does_not_fit_and_changes_nothing(
    tmp_path: Path, variables: Variables
) -> None:
    changed = {name: values for name, values in variables.items() if name != "fc2_pose/conv4/w"}
    changed["conv1/weights"] = np.zeros((4, 3, 7, 7), np.float32)
    changed["fc1_human_c3/biases"] = np.zeros(20, np.int64)
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load_jppnet(model, write_checkpoint(tmp_path / PREFIX, changed))
    message = str(caught.value)
    for part in (
        f"{PREFIX}: 3 of {len(variables)} variables do not fit: ",
        "missing fc2_pose/conv4/w",
        "conv1/weights is float32 (4, 3, 7, 7), wanted float (7, 7, 3, 4)",
        "fc1_human_c3/biases is int64 (20,), wanted float (20,)",
    ):
        assert part in message
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_damaged_weights_are_refused_and_change_nothing(prefix: Path) -> None:
    content = bytearray(data_file(prefix).read_bytes())
    content[-3] ^= 1
    data_file(prefix).write_bytes(content)
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"damaged, variable res5d_branch2b_parsing/weights has checksum"):
        load_jppnet(model, prefix)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_files_that_are_no_weights_of_the_network_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: neither a PyTorch file nor the prefix of a TensorFlow"):
        load_jppnet(tiny(), tmp_path / "nowhere")
    torch.save({"backbone.conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: JPPNet: \d+ entries do not fit: missing backbone\.bn1\.weight"):
        load_jppnet(tiny(), tmp_path / "other.pth")


@needs_shared
def test_names_and_shapes_are_those_of_the_original(full: JPPNet) -> None:
    manifest = json.loads((SHARED / "oracles" / "manifest_jppnet.json").read_text())["variables"]
    assert tf_shapes(full) == {entry["name"]: tuple(entry["shape"]) for entry in manifest}


@needs_shared
def test_the_weight_rule_gives_the_check_values_of_the_original() -> None:
    manifest = json.loads((SHARED / "oracles" / "manifest_jppnet.json").read_text())["variables"]
    entries = [entry for entry in manifest if np.prod(entry["shape"]) < 300_000]
    values = tf_weights_by_rule({entry["name"]: tuple(entry["shape"]) for entry in entries})
    assert len(values) >= 550
    for entry in entries:
        value = values[entry["name"]]
        assert value.flat[0] == pytest.approx(entry["first"], rel=1e-7), entry["name"]
        assert value.sum(dtype=np.float64) == pytest.approx(entry["sum_f64"], rel=1e-9, abs=1e-9), entry["name"]


@needs_shared
@pytest.mark.parametrize("case", [0, 1, 2])
def test_strided_layers_compute_what_tensorflow_computes(case: int) -> None:
    arrays = {name: torch.from_numpy(values) for name, values in oracle("tf_ops.npz").items()}
    x = arrays[f"conv7s2_{case}/x"].permute(0, 3, 1, 2)
    kernel = arrays[f"conv7s2_{case}/w"].permute(3, 2, 0, 1)
    found = F.conv2d(pad_same(x, 7, 2), kernel, stride=2), F.max_pool2d(pad_same(x, 3, 2, -torch.inf), 3, 2)
    for maps, name in zip(found, ("conv7s2", "pool3s2"), strict=True):
        assert error(maps.permute(0, 2, 3, 1), arrays[f"{name}_{case}/y"]) <= TOLERANCE


@needs_shared
@torch.no_grad()
def test_normalisation_is_that_of_tensorflow() -> None:
    arrays = {name: torch.from_numpy(values) for name, values in oracle("tf_ops.npz").items()}
    layer = FixedBatchNorm(6)
    ours = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    layer.load_state_dict({name: arrays[f"bn/{theirs}"] for name, theirs in ours.items()})
    found = layer(arrays["bn/x"].permute(0, 3, 1, 2)).permute(0, 2, 3, 1).relu()  # slim's layer had a ReLU
    assert error(found, arrays["bn/y"]) <= TOLERANCE


@needs_shared
@pytest.mark.parametrize("rate", RATES)
@torch.no_grad()
def test_convolutions_with_holes_are_those_of_tensorflow(rate: int) -> None:
    arrays = {name: torch.from_numpy(values) for name, values in oracle("tf_ops.npz").items()}
    x, kernel = arrays[f"atrous{rate}/x"].permute(0, 3, 1, 2), arrays[f"atrous{rate}/w"].permute(3, 2, 0, 1)
    found = F.conv2d(x, kernel, padding=rate, dilation=rate)
    assert error(found.permute(0, 2, 3, 1), arrays[f"atrous{rate}/y"]) <= TOLERANCE


@needs_shared
@torch.inference_mode()
def test_every_stage_computes_what_the_original_computes() -> None:
    arrays = {name: torch.from_numpy(values) for name, values in oracle("jppnet_small.npz").items()}
    model = jppnet_by_rule()
    for scale in ("100", "075", "125"):
        found = model(arrays[f"input_{scale}"].permute(0, 3, 1, 2))
        for kind, stages in (("parsing", found.parsing), ("pose", found.pose)):
            for number, maps in enumerate(stages, start=1):
                wanted = arrays[f"{kind}_out{number}_{scale}"]
                assert error(maps.permute(0, 2, 3, 1), wanted) <= TOLERANCE, (kind, number, scale)
