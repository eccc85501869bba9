"""Published weights in: strict loading by the original names, never a download.

A mismatch is one error that names every missing, unexpected or mis-shaped entry.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sptskm.models.jppnet import JPPNet, tf_names
from sptskm.models.posehg3d import PoseHG3D
from sptskm.models.smin import SMIN
from sptskm.models.ssin import SSIN
from sptskm.models.tf_checkpoint import TFCheckpoint, find_prefix, open_checkpoint

_STAGES = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


@dataclass(frozen=True)
class Loaded:
    """Which entries of a checkpoint were left out, and which of the model stay as initialised."""

    ignored: tuple[str, ...] = ()
    initialised: tuple[str, ...] = ()


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """A state dict from a local file, with or without a wrapping {"state_dict": ...}; executes nothing.

    Raises FileNotFoundError, or ValueError when the file is not a plain dictionary of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights {path}: no such file; copy it there from a machine that has it")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"weights {path}: not a plain PyTorch state dict ({reason})") from error
    if not isinstance(content, dict):
        raise ValueError(f"weights {path}: holds a {type(content).__name__}, wanted a state dict")
    return content


def load_published(model: nn.Module, state_dict: Mapping[str, Any]) -> Loaded:
    """Load a checkpoint with the original names into SSIN or SMIN.

    Accepts the data-parallel prefix `module.` and the published wrapper {"state_dict", "epoch"}. Entries
    are Tensors or numpy arrays. A plain ST-GCN checkpoint goes into SMIN's backbone: its classifier `fcn`
    is left out and SMIN's head stays as initialised; the returned value names both.
    Raises ValueError naming every missing, unexpected or mis-shaped entry.
    """
    entries = _plain_names(state_dict)
    if isinstance(model, SMIN) and any(name.startswith("st_gcn_networks.") for name in entries):
        return _load_stgcn(model, entries)
    if isinstance(model, SMIN):
        _check_graph(model, entries.get("backbone.A"))
    if not isinstance(model, SSIN | SMIN):
        raise ValueError(f"published weights exist for SSIN and SMIN, not for {type(model).__name__}")
    _load_strict(model, entries)
    return Loaded()


def load_resnet(model: SSIN, state_dict: Mapping[str, Any]) -> Loaded:
    """ImageNet weights in torchvision's layout (`resnet50-19c8e357.pth`) into both trunks of SSIN.

    The mask trunk has fewer blocks per stage and takes the first of each, as published. `fc` is left out.
    Raises ValueError naming every missing or mis-shaped entry.
    """
    entries = _plain_names(state_dict)
    renamed = {_indexed(name): value for name, value in entries.items() if not name.startswith("fc.")}
    for trunk in (model.img_base, model.mask_base):
        wanted = trunk.state_dict().keys()
        _load_strict(trunk, {name: value for name, value in renamed.items() if name in wanted})
    ignored = [name for name in entries if name.startswith("fc.")]
    unused = [name for name in entries if _indexed(name) not in model.img_base.state_dict()]
    return Loaded(ignored=tuple(sorted({*ignored, *unused})))


def load_posehg3d(model: PoseHG3D, path: str | Path) -> None:
    """Load a file of pose-hg-3d's second version (`fusion_3d_var.pth`), bare or as {"epoch", "state_dict"}.

    Only the batch counters that old files lack may be missing. Raises FileNotFoundError, or ValueError when the
    file belongs to another network, naming every missing, unexpected or mis-shaped entry.
    """
    content = read_state_dict(path)
    inner = content.get("state_dict", content)
    if not isinstance(inner, dict) or any(not isinstance(value, Tensor) for value in inner.values()):
        raise ValueError(f"weights {path}: its state dict holds something else than tensors, wanted tensors by name")
    entries = _plain_names(content)
    if any(name.startswith("hourglass.") for name in entries):
        raise ValueError(f"weights {path}: has the hourglass network of the branch hg3d, wanted the second version")
    if "hm.weight" in entries and not any(name.startswith("depth.") for name in entries):
        raise ValueError(
            f"weights {path}: has no depth head (trained on MPII alone), wanted fusion_3d_var.pth or alike"
        )
    try:
        _load_strict(model, entries)
    except ValueError as error:
        raise ValueError(f"weights {path}: {error}") from None


def load_jppnet(model: JPPNet, path: str | Path) -> Loaded:
    """Load the published TensorFlow checkpoint (`model.ckpt-205632`), or a PyTorch state dict of our own names.

    For a checkpoint `path` is the prefix, the folder or one of its files (see tf_checkpoint.find_prefix); what it
    holds beside the model's variables (`fc3_pose`, the optimiser's) is left out. `torch.save(model.state_dict(), ...)`
    afterwards makes the second kind. Raises FileNotFoundError, or ValueError naming every missing or mis-shaped
    entry, or what is damaged.
    """
    if find_prefix(path) is not None:
        checkpoint = open_checkpoint(path)
        names = tf_names(model)
        _check_variables(model, names, checkpoint)
        _load_strict(model, {ours: _oihw(checkpoint.read(theirs)) for ours, theirs in names.items()})
        return Loaded(ignored=tuple(sorted(checkpoint.variables.keys() - names.values())))
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights {path}: neither a PyTorch file nor the prefix of a TensorFlow checkpoint")
    entries = _plain_names(read_state_dict(path))
    try:
        _load_strict(model, entries)
    except ValueError as error:
        raise ValueError(f"weights {path}: {error}") from None
    return Loaded()


def open_jppnet(path: str | Path) -> JPPNet:
    """The network of a file of weights, as large as these say. Raises as `load_jppnet`."""
    if find_prefix(path) is not None:
        shapes = {name: variable.shape for name, variable in open_checkpoint(path).variables.items()}
        units = [_count(shapes, rf"res{stage}\w+_branch2a/weights$") for stage in (2, 3, 4, 5)]
        sizes = units, shapes.get("conv1/weights", ())[3:], shapes.get("fc1_pose/pose_conv6/b", ())
    else:
        entries = _plain_names(read_state_dict(path)) if Path(path).is_file() else {}
        shapes = {name: tuple(value.shape) for name, value in entries.items() if isinstance(value, Tensor)}
        units = [_count(shapes, rf"backbone\.stage{stage}\.\d+\.conv_a\.weight$") for stage in (2, 3, 4, 5)]
        sizes = units, shapes.get("backbone.conv1.weight", ())[:1], shapes.get("parsing2.last.bias", ())
    depths, width, context = sizes
    # what is no JPPNet at all is told by how it differs from the published one
    model = JPPNet(depths, width[0], context[0]) if min(depths) and width and context else JPPNet()
    load_jppnet(model, path)
    return model


def open_posehg3d(path: str | Path) -> PoseHG3D:
    """The network of a file of weights, as large as these say. Raises as `load_posehg3d`."""
    entries = _plain_names(read_state_dict(path))
    depths = [_count(entries, rf"layer{stage}\.\d+\.conv1\.weight$") for stage in (1, 2, 3, 4)]
    stem = entries.get("conv1.weight")
    model = PoseHG3D(depths, stem.shape[0]) if min(depths) and isinstance(stem, Tensor) else PoseHG3D()
    load_posehg3d(model, path)
    return model


def _count(names: Iterable[str], pattern: str) -> int:
    return sum(re.match(pattern, name) is not None for name in names)


def _check_variables(model: JPPNet, names: Mapping[str, str], checkpoint: TFCheckpoint) -> None:
    found, problems = checkpoint.variables, []
    for ours, value in model.state_dict().items():
        name, wanted = names[ours], _hwio(tuple(value.shape))
        if name not in found:
            problems.append(f"missing {name}")
        elif found[name].shape != wanted or not found[name].dtype.startswith("float"):
            problems.append(f"{name} is {found[name].dtype} {found[name].shape}, wanted float {wanted}")
    if problems:
        listed = "; ".join(problems)
        raise ValueError(
            f"checkpoint {checkpoint.prefix}: {len(problems)} of {len(names)} variables do not fit: {listed}"
        )


def _hwio(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape


def _oihw(values: NDArray[Any]) -> NDArray[Any]:
    """TensorFlow's kernels (rows, columns, in, out) as torch's (out, in, rows, columns)."""
    return np.ascontiguousarray(values.transpose(3, 2, 0, 1)) if values.ndim == 4 else values


def _indexed(name: str) -> str:
    stage, _, rest = name.partition(".")
    return f"{_STAGES.get(stage, stage)}.{rest}"


def _plain_names(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    inner = state_dict.get("state_dict", state_dict)
    return {name.removeprefix("module."): value for name, value in inner.items()}


def _load_stgcn(model: SMIN, entries: dict[str, Any]) -> Loaded:
    ignored = tuple(name for name in entries if name.startswith("fcn."))
    backbone = {name: value for name, value in entries.items() if name not in ignored}
    _check_graph(model, backbone.get("A"))
    backbone.setdefault("A", model.backbone.A)  # not every checkpoint stores it; it is a constant
    _load_strict(model.backbone, backbone)
    head = (name for name in model.state_dict() if not name.startswith("backbone."))
    return Loaded(ignored, tuple(head))


def _check_graph(model: SMIN, A: Any) -> None:
    ours = model.backbone.A
    if A is None or torch.as_tensor(A).shape != ours.shape:
        return  # absent, or reported as mis-shaped with the rest
    if not torch.allclose(torch.as_tensor(A).to(ours), ours, atol=1e-6):
        other = "published" if model.backbone.graph == "spatial" else "spatial"
        raise ValueError(
            f"the checkpoint's adjacency A is not that of graph={model.backbone.graph!r}; "
            f"construct SMIN(graph={other!r}) if it was trained with that one"
        )


def _load_strict(module: nn.Module, entries: Mapping[str, Any]) -> None:
    own: dict[str, Tensor] = module.state_dict()
    # written only by PyTorch >= 0.4.1 and not used by any computation here
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    problems = [f"missing {name}" for name in own if name not in entries and name not in optional]
    problems += [f"unexpected {name}" for name in entries if name not in own]
    tensors = {name: torch.as_tensor(entries[name]) for name in own if name in entries}
    problems += [
        f"{name} has shape {tuple(value.shape)}, wanted {tuple(own[name].shape)}"
        for name, value in tensors.items()
        if value.shape != own[name].shape
    ]
    if problems:
        raise ValueError(f"{type(module).__name__}: {len(problems)} entries do not fit: " + "; ".join(problems))
    module.load_state_dict({**own, **tensors})
