"""Published weights in, and nothing executed on the way."""

import dataclasses
import errno
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.oracles import GAINS, weights_by_rule
from torch import Tensor

from sptskm.common.errors import DataError
from sptskm.config import SsinModel
from sptskm.models import SMIN, SSIN, load_pretrained, load_published, load_resnet, read_state_dict
from sptskm.models.graph import adjacency
from sptskm.models.resnet import ResNet
from sptskm.models.weights import check_pretrained

State = dict[str, Any]


def ssin() -> SSIN:
    return SSIN(5, depths=(2, 1, 1, 1), width=8, embedding_dim=16)


def smin(graph: str = "spatial") -> SMIN:
    return SMIN(5, graph, width=8, embedding_dim=16)  # type: ignore[arg-type]


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def stgcn_checkpoint(graph: str = "spatial") -> State:
    """What the original ST-GCN saves: its own names, the adjacency, and a classifier."""
    wanted = {name: shape for name, shape in shapes(smin().backbone).items() if name != "A"}
    wanted |= {"fcn.weight": (5, 32, 1, 1), "fcn.bias": (5,)}
    A = torch.tensor(adjacency(graph), dtype=torch.float32)  # type: ignore[arg-type]
    return {"A": A, **weights_by_rule(wanted, GAINS)}


def resnet_checkpoint() -> State:
    """ImageNet weights in torchvision's layout, classifier included."""
    wanted = {name: shape for name, shape in shapes(ResNet((2, 1, 1, 1), 8)).items() if "num_batches" not in name}
    return weights_by_rule({**wanted, "fc.weight": (1000, 256), "fc.bias": (1000,)}, GAINS)


def assert_loaded(model: torch.nn.Module, wanted: State) -> None:
    state = model.state_dict()
    for name, value in wanted.items():
        torch.testing.assert_close(state[name], torch.as_tensor(value), rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("as_numpy", [False, True])
def test_a_published_checkpoint_loads_in_every_wrapping(prefix: str, wrapped: bool, as_numpy: bool) -> None:
    model = ssin()
    wanted = weights_by_rule(shapes(model), GAINS)
    given: State = {prefix + name: value.numpy() if as_numpy else value for name, value in wanted.items()}
    load_published(model, {"state_dict": given, "epoch": 900} if wrapped else given)
    assert_loaded(model, wanted)


def test_one_error_tells_of_all_that_does_not_fit_and_changes_nothing() -> None:
    model = ssin()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = weights_by_rule(shapes(model), GAINS)
    del given["img_base.0.weight"], given["glob_cls.bias"]
    given["extra.weight"] = given["another"] = torch.zeros(3)
    given["conv_cls.weight"] = torch.zeros(625, 16)
    given["mask_cls.bias"] = torch.zeros(625)
    with pytest.raises(ValueError) as caught:
        load_published(model, given)
    message = str(caught.value)
    for part in (
        "SSIN: 6 entries do not fit",
        "missing img_base.0.weight, glob_cls.bias;",
        "unexpected extra.weight, another;",
        "conv_cls.weight has shape (625, 16), wanted (5, 16)",
        "mask_cls.bias has shape (625,), wanted (5,)",
    ):
        assert part in message
    assert_loaded(model, before)


def test_only_the_batch_counters_of_old_checkpoints_may_be_missing() -> None:
    model = ssin()
    given = {n: v for n, v in weights_by_rule(shapes(model), GAINS).items() if "num_batches_tracked" not in n}
    assert len(given) < len(shapes(model))
    load_published(model, given)
    assert_loaded(model, given)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_plain_stgcn_goes_into_the_backbone_and_leaves_the_head_as_it_is(prefix: str) -> None:
    model = smin()
    head = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("backbone.")}
    given = stgcn_checkpoint()
    load_published(model, {prefix + name: value for name, value in given.items()})
    assert_loaded(model.backbone, {name: value for name, value in given.items() if not name.startswith("fcn.")})
    assert_loaded(model, head)
    assert {"fc.weight", "feat_bn.running_mean", "cls.bias"} <= set(head)


def test_a_stgcn_checkpoint_without_its_constant_adjacency_loads() -> None:
    model, given = smin(), stgcn_checkpoint()
    del given["A"], given["fcn.weight"], given["fcn.bias"]
    load_published(model, given)
    assert_loaded(model.backbone, given)


@pytest.mark.parametrize(("graph", "other"), [("spatial", "published"), ("published", "spatial")])
def test_weights_of_the_other_graph_are_refused_with_the_way_out(graph: str, other: str) -> None:
    wanted = rf"not that of graph='{graph}'; construct SMIN\(graph='{other}'\)"
    with pytest.raises(ValueError, match=wanted):
        load_published(smin(graph), stgcn_checkpoint(other))
    with pytest.raises(ValueError, match=wanted):
        load_published(smin(graph), smin(other).state_dict())
    load_published(smin(graph), stgcn_checkpoint(graph))


def test_a_stgcn_checkpoint_with_something_missing_names_it() -> None:
    given = stgcn_checkpoint()
    del given["edge_importance.3"]
    given["A"] = torch.zeros(3, 18, 18)
    with pytest.raises(ValueError, match=r"missing backbone\.edge_importance\.3; backbone\.A has shape \(3, 18, 18\)"):
        load_published(smin(), given)


def test_a_toolkit_checkpoint_of_smin_loads_whole() -> None:
    source, model = smin(), smin()
    load_published(model, source.state_dict())
    assert_loaded(model, source.state_dict())


def test_other_modules_are_refused() -> None:
    with pytest.raises(ValueError, match="SSIN and SMIN, not for ResNet"):
        load_published(ResNet((1, 1, 1, 1), 8), {})


def test_imagenet_weights_go_into_both_trunks_and_the_mask_trunk_takes_first_blocks() -> None:
    model, given = ssin(), resnet_checkpoint()
    load_resnet(model, given)
    state = model.state_dict()
    for trunk in ("img_base", "mask_base"):
        torch.testing.assert_close(state[f"{trunk}.0.weight"], given["conv1.weight"])
        torch.testing.assert_close(state[f"{trunk}.1.running_var"], given["bn1.running_var"])
        torch.testing.assert_close(state[f"{trunk}.4.0.conv2.weight"], given["layer1.0.conv2.weight"])
        torch.testing.assert_close(state[f"{trunk}.7.0.downsample.1.bias"], given["layer4.0.downsample.1.bias"])
    torch.testing.assert_close(state["img_base.4.1.conv3.weight"], given["layer1.1.conv3.weight"])
    assert "mask_base.4.1.conv3.weight" not in state


def test_imagenet_weights_of_another_network_are_refused_by_name() -> None:
    given = resnet_checkpoint()
    del given["layer1.1.conv3.weight"]
    given["conv1.weight"] = torch.zeros(64, 3, 7, 7)
    with pytest.raises(ValueError, match=r"missing layer1\.1\.conv3\.weight; conv1\.weight has shape \(64, 3, 7, 7\)"):
        load_resnet(ssin(), given)


def test_a_saved_state_dict_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "model_900.pth.tar"
    torch.save({"state_dict": {"module.w": torch.ones(2)}, "epoch": 900}, path)
    content = read_state_dict(path)
    assert content["epoch"] == 900
    assert isinstance(content["state_dict"]["module.w"], Tensor)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path: Path, legacy: bool) -> None:
    path, proof = tmp_path / "weights.pth", tmp_path / "executed"
    if legacy:
        path.write_bytes(pickle.dumps({"w": Malicious(proof)}, protocol=2))
    else:
        torch.save({"w": torch.ones(2), "x": Malicious(proof)}, path)
    with pytest.raises(ValueError, match=f"weights {path}: not a plain PyTorch state dict"):
        read_state_dict(path)
    assert not proof.exists()
    pickle.loads(pickle.dumps(Malicious(proof)))  # noqa: S301 - shows that the bait works
    assert proof.exists()


def test_files_that_are_no_weights_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: no such file; copy it there"):
        read_state_dict(tmp_path / "nowhere.pth")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(DataError, match=r"page\.pth: is a web page \(HTML\)"):
        read_state_dict(tmp_path / "page.pth")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    with pytest.raises(ValueError, match=r"tensor\.pth: holds a Tensor, wanted a state dict"):
        read_state_dict(tmp_path / "tensor.pth")


def test_float64_arrays_are_taken_at_the_models_precision() -> None:
    model = ssin()
    wanted = weights_by_rule(shapes(model), GAINS)
    load_published(model, {name: value.numpy().astype(np.float64) for name, value in wanted.items()})
    assert model.img_base[0].weight.dtype == torch.float32
    assert_loaded(model, wanted)


@pytest.mark.parametrize(
    ("wrappers", "prefix"),
    [
        (("model",), ""),
        (("model_state_dict",), "module."),
        (("model", "state_dict"), "_orig_mod."),
        ((), "_orig_mod.module."),
        (("state_dict",), "module._orig_mod."),
    ],
)
def test_what_training_programs_wrap_around_weights_is_understood(tmp_path: Path, wrappers, prefix: str) -> None:
    model, content = ssin(), {prefix + name: value for name, value in resnet_checkpoint().items()}
    for wrapper in wrappers:
        content = {"epoch": 3, "note": "of a friend", wrapper: content}
    torch.save(content, tmp_path / "w.pth")
    load_pretrained(model, tmp_path / "w.pth")
    torch.testing.assert_close(model.img_base[0].weight, resnet_checkpoint()["conv1.weight"])


def test_a_compiled_part_of_a_network_loads_and_a_name_given_twice_is_refused() -> None:
    model, wanted = ssin(), weights_by_rule(shapes(ssin()), GAINS)
    load_published(model, {name.replace("img_base.", "img_base._orig_mod."): value for name, value in wanted.items()})
    assert_loaded(model, wanted)
    with pytest.raises(DataError, match=r"holds glob_cls\.bias twice, with and without a prefix"):
        load_published(model, {**wanted, "module.glob_cls.bias": torch.zeros(5)})


CONFIG = SsinModel(depths=(2, 1, 1, 1), width=8)


def pretrained(path: Path, content: object, **options: Any) -> SsinModel:
    torch.save(content, path, **options)
    return dataclasses.replace(CONFIG, pretrained=str(path))


def test_weights_that_training_can_load_pass_the_check_of_submission(tmp_path: Path) -> None:
    check_pretrained(pretrained(tmp_path / "w.pth", {"state_dict": resnet_checkpoint()}))


def altered(**entries: Any) -> State:
    return {**resnet_checkpoint(), **{name.replace("__", "."): value for name, value in entries.items()}}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (altered(conv1__weight=torch.full((8, 3, 7, 7), torch.nan)), "1 of .* are not finite .*: conv1.weight; wanted"),
        (altered(bn1__bias=torch.full((8,), 1e300, dtype=torch.float64)), "not finite .*: bn1.bias"),
        (altered(bn1__running_var=-torch.ones(8)), "negative variance.*: bn1.running_var"),
        (altered(bn1__bias=torch.zeros(8, dtype=torch.complex64)), "bn1.bias is a .*complex"),
        (altered(bn1__bias=torch.zeros(8).to_sparse()), "bn1.bias is a .*sparse"),
        (altered(bn1__bias=torch.zeros(8, device="meta")), "bn1.bias is a .*empty"),
        (altered(bn1__bias=[0.0] * 8), "holds a list under 'bn1.bias', wanted a state dict"),
        (altered(layer1__2__conv1__weight=torch.zeros(8, 32, 1, 1)), "1 entries .*: unexpected layer1.2.conv1.weight"),
        ({3: torch.zeros(3)}, "holds a Tensor under '3', wanted a state dict"),
        ({}, "missing conv1.weight, bn1.weight, bn1.bias and 97 more$"),
        (weights_by_rule(shapes(smin()), GAINS), "missing conv1.weight, .* more; unexpected .* and .* more$"),
    ],
)
def test_weights_that_do_not_fit_are_one_short_sentence_at_submission_and_before_training(
    tmp_path: Path, content: object, told: str
) -> None:
    config = pretrained(tmp_path / "w.pth", content)
    sentences = []
    for refuse in (check_pretrained, lambda config: load_pretrained(ssin(), config.pretrained)):
        with pytest.raises(DataError, match=told) as caught:
            refuse(config)
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]
    assert sentences[0].startswith(f"weights {tmp_path / 'w.pth'}: ")
    assert len(sentences[0]) < 400 + len(str(tmp_path))
    assert "\n" not in sentences[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\n <!DOCTYPE html><html>Virus scan warning", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of Git LFS"),
        (b"\x40\0\0\0\0\0\0\0{}", "is a safetensors file"),
        (b"\x1f\x8b\x08", "is compressed"),
        (b"weights of a friend", "cut off or damaged"),
    ],
)
def test_what_is_no_file_of_pytorch_is_told_without_its_advice(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(DataError, match=rf"w\.pth: .*{told}.*wanted") as caught:
        read_state_dict(tmp_path / "w.pth")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_that_are_cut_off_are_refused(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save(resnet_checkpoint(), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match=r"w\.pth: .*cut off"):
        read_state_dict(path)


def test_a_flipped_bit_in_weights_is_found_and_files_without_checksums_are_read(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\x00\x00\x80\x3f" * 8) + 402] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(1000)), "PyTorch takes it"
    with pytest.raises(DataError, match=r"w\.pth: is damaged \(Bad CRC-32 .*data/0"):
        read_state_dict(path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(1000)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_state_dict(path)["a"], torch.ones(1000))


def test_weights_that_cannot_be_read_are_not_called_damaged(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(1000)}, path)

    def broken_disk(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(zipfile.ZipExtFile, "read", broken_disk)
    with pytest.raises(OSError, match=r"Input/output error: '.*w\.pth'"):
        read_state_dict(path)


def test_a_whole_module_is_refused_with_the_class_it_wants_to_execute(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"holds torch\.nn\.modules\.linear\.Linear, which .* would have to execute"):
        read_state_dict(tmp_path / "w.pth")
