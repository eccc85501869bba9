"""Published weights in: strict loading by the original names, never a download.

A mismatch is one error that names every missing, unexpected or mis-shaped entry.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sptskm.models.smin import SMIN
from sptskm.models.ssin import SSIN

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
