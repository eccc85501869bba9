"""Small networks with random weights in the formats in which the large ones are published."""

import shutil
from pathlib import Path
from typing import Any

import torch

from helpers import tf_writer
from sptskm.models import JPPNet, PoseHG3D
from sptskm.models.jppnet import tf_names

SMALL = {"depths": (1, 1, 1, 1), "width": 4}


def write_jppnet(folder: Path) -> Path:
    """The prefix of a checkpoint in TensorFlow's format, with the published names."""
    torch.manual_seed(0)
    model = JPPNet(**SMALL, context=8)
    names = tf_names(model)
    variables = {
        names[ours]: (value.permute(2, 3, 1, 0) if value.ndim == 4 else value).numpy()
        for ours, value in model.state_dict().items()
    }
    prefix = folder / "model.ckpt-205632"
    tf_writer.write_checkpoint(prefix, variables)
    return prefix


def write_posehg3d(folder: Path) -> Path:
    """A file as pose-hg-3d's authors save it."""
    torch.manual_seed(0)
    path, model = folder / "fusion_3d_var.pth", PoseHG3D(**SMALL)
    torch.nn.init.ones_(model.hm.bias)  # a joint is where the map is positive
    torch.save({"epoch": 60, "state_dict": model.state_dict()}, path)
    return path


def frames_only(walkers: Path, root: Path) -> Path:
    """A copy of the walkers as they are before anything was prepared."""
    return Path(shutil.copytree(walkers, root, ignore=shutil.ignore_patterns("*_mask", "*_joint3d")))


def contents(root: Path, kind: str) -> dict[str, bytes]:
    """Everything that was made of one kind ("mask", "joint3d") by its path; what is half written is not looked at."""
    files = (path for path in root.glob(f"*_{kind}/*/*") if path.suffix in (".png", ".mat"))
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


TRUNKS = ("dinov2", "dinov2_with_registers", "clip_vision_model", "clip", "convnext", "convnextv2")
"""Values of `model_type` in a config.json from which SSIN's trunk is read."""


def write_trunk(folder: Path, kind: str = "dinov2", **settings: Any) -> Any:
    """Write a small trunk of random weights as `transformers` does, and return the model that was written."""
    import transformers

    tokens = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 48, "patch_size": 16}
    stages = {"hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 4, 1]}
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    text |= {"vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2}
    config, model, given = {
        "dinov2": ("Dinov2Config", "Dinov2Model", tokens),
        "dinov2_with_registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", tokens),
        "clip_vision_model": ("CLIPVisionConfig", "CLIPVisionModel", {**tokens, "intermediate_size": 16}),
        "clip": (
            "CLIPConfig",
            "CLIPModel",
            {"vision_config": {**tokens, "intermediate_size": 16}, "text_config": text},
        ),
        "convnext": ("ConvNextConfig", "ConvNextModel", stages),
        "convnextv2": ("ConvNextV2Config", "ConvNextV2Model", stages),
    }[kind]
    torch.manual_seed(0)
    described = getattr(transformers, config)(**{**given, **settings})
    written = getattr(transformers, model)(described).eval()
    with torch.no_grad():
        for parameter in written.parameters():
            torch.nn.init.normal_(parameter, std=0.3)  # as the initial ones leave many paths without effect
    written.save_pretrained(folder)
    return written
