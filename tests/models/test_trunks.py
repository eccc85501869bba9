"""Trunks of `transformers`, small and of random weights.

Legend: N images, C channels, h, w rows and columns of a map.
"""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.networks import TRUNKS, write_trunk
from torch import nn

pytest.importorskip("transformers", reason="the extra backbones is not installed")

from safetensors.torch import load_file, save_file

from sptskm.common.errors import ConfigError, DataError
from sptskm.models import trunks
from sptskm.models.recomputing import recompute
from sptskm.models.trunks import build_trunk, check_trunk, open_trunk
from sptskm.trunkfile import CLIP, architecture

SIZE = (64, 32)
FRAMES = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind."""
    home = tmp_path_factory.mktemp("trunks")
    for kind in TRUNKS:
        write_trunk(home / kind, kind)
    return {kind: home / kind for kind in TRUNKS}


@pytest.fixture
def folder(tmp_path: Path, folders: dict[str, Path]) -> Path:
    """A folder of DINOv2 to change."""
    return Path(shutil.copytree(folders["dinov2"], tmp_path / "dinov2"))


@pytest.mark.parametrize("kind", TRUNKS)
def test_a_trunk_gives_a_map_of_features_of_zero_or_more_and_every_weight_has_a_gradient(kind: str, folders) -> None:
    trunk = open_trunk(folders[kind], architecture(folders[kind]), SIZE, 12)
    map_NChw = trunk(FRAMES)
    assert map_NChw.shape == (2, 12, *((2, 1) if "convnext" in kind else (4, 2)))
    assert map_NChw.min() >= 0
    (map_NChw * torch.rand_like(map_NChw)).sum().backward()
    assert not [name for name, p in trunk.named_parameters() if p.grad is None], "DDP would wait for it"


@pytest.mark.parametrize("kind", TRUNKS)
def test_the_map_is_what_the_library_computes_from_frames_by_their_mean_and_deviation(
    kind: str, folders, tmp_path
) -> None:
    """The library resizes positions itself, in each pass."""
    library = write_trunk(tmp_path, kind)
    library = getattr(library, "vision_model", library)  # as before version 5 beside CLIP as a whole
    found = architecture(folders[kind])
    trunk = open_trunk(folders[kind], found, SIZE, 12).eval()
    trunk.project = nn.Identity()
    mean, std = (torch.tensor(found[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    more = {"interpolate_pos_encoding": True} if "clip" in kind else {}
    with torch.no_grad():
        y = library(pixel_values=(FRAMES - mean) / std, **more).last_hidden_state
        if "convnext" in kind:
            expected = library.layernorm(y.movedim(1, 3)).movedim(3, 1)
        else:
            y = y[:, -8:]
            y = library.post_layernorm(y) if "clip" in kind else y
            expected = y.transpose(1, 2).unflatten(2, (4, 2))
        torch.testing.assert_close(trunk(FRAMES), expected.relu())


def test_layers_are_patches_then_blocks_and_the_last_normalisation_is_in_none(folders) -> None:
    trunk = open_trunk(folders["dinov2"], architecture(folders["dinov2"]), SIZE, 12)
    names = {id(p): name for name, p in trunk.named_parameters()}
    layers = [{names.pop(id(p)).rsplit(".", 1)[0] for p in layer} for layer in trunk.layers()]
    assert len(layers) == 3
    assert layers[0] == {"body.embeddings", "body.embeddings.patches"}
    assert all(name.startswith("body.encoder.layer.1.") for name in layers[2])
    assert set(names.values()) == {
        "body.layernorm.weight", "body.layernorm.bias", "project.0.weight", "project.1.weight", "project.1.bias",
    }  # fmt: skip


def test_three_blocks_of_a_stage_of_convnext_are_a_layer_with_the_convolution_before_them(folders) -> None:
    trunk = open_trunk(folders["convnext"], architecture(folders["convnext"]), SIZE, 12)
    names = {id(p): name for name, p in trunk.named_parameters()}
    layers = [{names[id(p)] for p in layer} for layer in trunk.layers()]
    assert len(layers) == 1 + 1 + 1 + 2 + 1
    blocks = [sorted({name.split(".")[5] for name in layer if ".layers." in name}) for layer in layers]
    assert blocks == [[], ["0"], ["0"], ["0", "1", "2"], ["3"], ["0"]]
    assert "body.encoder.stages.2.downsampling_layer.1.weight" in layers[3]
    assert not any("downsampling" in name for name in layers[4])


def test_a_trunk_without_its_weights_has_the_same_entries(folders) -> None:
    for kind, folder in folders.items():
        found = architecture(folder)
        kept = json.loads(json.dumps(found))
        shapes = [
            {name: value.shape for name, value in trunk.state_dict().items()}
            for trunk in (open_trunk(folder, found, SIZE, 12), build_trunk(kept, SIZE, 12))
        ]
        assert shapes[0] == shapes[1], kind


@pytest.mark.parametrize("kind", ["dinov2", "clip_vision_model", "convnext"])
def test_activations_that_are_computed_again_give_the_same_gradient(kind: str, folders) -> None:
    gradients = []
    for again in (False, True):
        torch.manual_seed(0)
        trunk = open_trunk(folders[kind], architecture(folders[kind]), SIZE, 12)
        if again:
            recompute(trunk)
        trunk(FRAMES).square().sum().backward()
        gradients.append({name: p.grad for name, p in trunk.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_images_have_the_mean_and_deviation_of_the_folders_preprocessor_or_those_of_the_kind(folder, folders) -> None:
    assert architecture(folders["clip"])["image_mean"] == list(CLIP[0])
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}')
    found = architecture(folder)
    assert (found["image_mean"], found["image_std"]) == ([0.5, 0.4, 0.3], [0.2, 0.2, 0.1])
    assert open_trunk(folder, found, SIZE, 12).image_std.flatten().tolist() == pytest.approx([0.2, 0.2, 0.1])
    (folder / "preprocessor_config.json").write_text('{"image_std": 0}')
    with pytest.raises(ConfigError, match="image_std is 0, wanted three numbers, one for each colour"):
        architecture(folder)


def test_nothing_is_asked_of_a_network(folder, monkeypatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("asks a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    open_trunk(folder, architecture(folder), SIZE, 12)


def test_entries_of_a_classifier_are_left_out_and_weights_in_half_precision_become_float32(folder) -> None:
    entries = {f"dinov2.{name}": value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file({**entries, "classifier.weight": torch.ones(3, 16)}, folder / "model.safetensors", {"format": "pt"})
    trunk = open_trunk(folder, architecture(folder), SIZE, 12)
    assert {p.dtype for p in trunk.parameters()} == {torch.float32}
    torch.testing.assert_close(trunk.body.layernorm.weight.data, entries["dinov2.layernorm.weight"].float())


def without_file(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def listed(folder: Path, name: str | None) -> None:
    """Put a list of files in the place of the weights, as of those that are in several."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"layernorm.bias": name}}))


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def damaged(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def changed(folder: Path, name: str, value: torch.Tensor | None) -> None:
    entries = load_file(folder / "model.safetensors")
    if value is None:
        del entries[name]
    else:
        entries[name] = value
    save_file(entries, folder / "model.safetensors", {"format": "pt"})


def described(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (shutil.rmtree, FileNotFoundError, "model.trunk is .*dinov2: no such folder; compute nodes have no internet"),
        (without_config, FileNotFoundError, "has no config.json, wanted a folder with config.json and model.safeten"),
        (without_file, FileNotFoundError, "has no model.safetensors, wanted weights in that format"),
        (damaged, DataError, "weights .*dinov2: "),
        (lambda f: changed(f, "layernorm.bias", None), DataError, "1 entries are missing, such as layernorm.bias"),
        (lambda f: changed(f, "layernorm.bias", torch.ones(7)), DataError, "weights .*dinov2: "),
        (lambda f: changed(f, "layernorm.bias", torch.full((8,), torch.nan)), DataError, "not finite, such as layern"),
        (lambda f: described(f, model_type="bert"), ConfigError, "says model_type 'bert', wanted one of dinov2, "),
        (lambda f: described(f, hidden_size="wide"), ConfigError, "hidden_size is 'wide', wanted whole numbers from 1"),
        (lambda f: described(f, num_hidden_layers=10**6), ConfigError, "num_hidden_layers is 1000000, wanted whole"),
        (lambda f: described(f, num_hidden_layers=-1), ConfigError, "num_hidden_layers is -1, wanted whole numbers"),
        (lambda f: described(f, num_hidden_layers=1), DataError, "18 entries are of more layers than config.json says"),
        (lambda f: described(f, hidden_size=16), DataError, "43 entries are of another shape than config.json says"),
        (lambda f: listed(f, "pytorch_model.bin"), DataError, "names 'pytorch_model.bin', wanted files of safetensors"),
        (lambda f: listed(f, "../x.safetensors"), DataError, r"names '\.\./x.safetensors', wanted files of safet"),
        (lambda f: listed(f, None), DataError, "weight_map names None, wanted files of safetensors in this folder"),
        (lambda f: described(f, hidden_act="none"), ConfigError, "model.trunk: its config.json describes no network"),
        (lambda f: described(f, patch_size=[8, 16]), ConfigError, r"has patch_size \[8, 16\]"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_used_is_refused_in_one_sentence(folder, change, kind, message) -> None:
    change(folder)
    with pytest.raises(kind, match=message) as refused:
        check_trunk(folder, architecture(folder), SIZE)
    assert "\n" not in str(refused.value)


def test_frames_of_parts_of_a_patch_are_refused_with_the_nearest_sizes_that_do(folder) -> None:
    found = {**architecture(folder), "patch_size": 14}
    with pytest.raises(
        ConfigError,
        match=r"clips.height is 256, wanted 252 or 266, and clips.width is 128, wanted 126 or 140: multiples of the 14",
    ):
        build_trunk(found, (256, 128), 12)


def test_what_a_config_json_does_not_say_is_as_the_library_has_it(tmp_path) -> None:
    """Published files leave out what was the default."""
    write_trunk(tmp_path, "clip_vision_model", patch_size=32, image_size=64)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["patch_size"], config["num_channels"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_trunk(tmp_path, architecture(tmp_path), SIZE, 12)(FRAMES).shape == (2, 12, 2, 1)


def test_nothing_but_sizes_is_taken_from_a_checkpoint_of_somebody_else(folder) -> None:
    found = {**architecture(folder), "auto_map": {"AutoModel": "evil.py"}, "_attn_implementation": "evil/kernel"}
    assert build_trunk(found, SIZE, 12).body.config._attn_implementation in ("sdpa", "eager")
    with pytest.raises(ConfigError, match="has model_type None, wanted one of dinov2"):
        build_trunk({"hidden_size": 8}, SIZE, 12)


def test_a_run_without_the_extra_is_told_how_to_install_it(folder, monkeypatch) -> None:
    def absent(_name: str) -> None:
        raise ImportError

    monkeypatch.setattr(trunks, "import_module", absent)
    with pytest.raises(ConfigError, match=r"transformers is not installed, wanted: pip install 'sptskm\[backbones\]'"):
        check_trunk(folder, architecture(folder), SIZE)
