"""Load published weights strictly by their original names, without any download.

A mismatch is reported in one sentence that counts the missing, unexpected, mis-shaped and not finite entries and names
some of them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sptskm.common.errors import DataError
from sptskm.config import SsinModel
from sptskm.models.jppnet import JPPNet, tf_names
from sptskm.models.posehg3d import PoseHG3D
from sptskm.models.resnet import ResNet
from sptskm.models.smin import SMIN
from sptskm.models.ssin import SSIN
from sptskm.models.tf_checkpoint import TFCheckpoint, find_prefix, open_checkpoint
from sptskm.models.torch_files import read_torch

_STAGES = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
_NUMBERED = {number: stage for stage, number in _STAGES.items()}
_WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net")
_PREFIXES = ("module", "_orig_mod")
FEW = 3  # entries named in a sentence, of each kind


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """Return the dictionary in a local PyTorch file unchanged, without executing any code.

    Raises FileNotFoundError or another OSError naming the file, or DataError when it is damaged or not a dictionary.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights {path}: no such file; copy it there from a machine that has it")
    try:
        content = read_torch(path)
    except DataError as error:
        raise DataError(f"weights {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"weights {path}: holds a {type(content).__name__}, wanted a state dict")
    return content


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Add the file name to a DataError about its content."""
    try:
        yield
    except DataError as error:
        raise DataError(f"weights {path}: {error}") from None


def load_published(model: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Load a checkpoint with the original names into SSIN or SMIN.

    Accepts the wrappers and prefixes of `plain_names`. Entries are Tensors or numpy arrays. A plain ST-GCN checkpoint
    goes into SMIN's backbone: its classifier `fcn` is left out and SMIN's head stays as initialised.
    Raises DataError with some of the entries that are missing, unexpected, mis-shaped or not finite.
    """
    entries = plain_names(state_dict)
    if not isinstance(model, SSIN | SMIN):
        raise ValueError(f"published weights exist for SSIN and SMIN, not for {type(model).__name__}")
    if isinstance(model, SMIN) and any(name.startswith("st_gcn_networks.") for name in entries):
        backbone = {name: value for name, value in entries.items() if not name.startswith("fcn.")}
        backbone.setdefault("A", model.backbone.A)  # not every checkpoint stores it; it is a constant
        entries = {f"backbone.{name}": value for name, value in backbone.items()}
        entries |= {name: value for name, value in model.state_dict().items() if not name.startswith("backbone.")}
    if isinstance(model, SMIN):
        _check_graph(model, entries.get("backbone.A"))
    _load_strict(model, entries)


def load_resnet(model: SSIN, state_dict: Mapping[str, Any]) -> None:
    """Load ImageNet weights in torchvision's layout (`resnet50-19c8e357.pth`) into both trunks of SSIN.

    The mask trunk has fewer blocks per stage and takes the first of each, as published. `fc` is left out. Beside a
    trunk of `transformers` only the mask trunk takes them.
    Raises DataError with some of the entries that are missing, unexpected, mis-shaped or not finite.
    """
    entries = plain_names(state_dict)
    for trunk, fitted in _trunks(model, entries):
        _fill(trunk, fitted)


def load_pretrained(model: SSIN, path: str | Path) -> None:
    """Load a file of ImageNet weights into both trunks. Raises as `read_state_dict` and `load_resnet`."""
    content = read_state_dict(path)
    with _naming(path):
        load_resnet(model, content)


def check_pretrained(model: SsinModel) -> None:
    """Check the configured file like `load_pretrained`, but without building the network."""
    content = read_state_dict(model.pretrained)
    with torch.device("meta"):  # shapes only
        trunks = SimpleNamespace(
            img_base=None if model.trunk else ResNet(model.depths, model.width).as_sequential(),
            mask_base=ResNet(model.mask_depths, model.width).as_sequential(),
        )
    with _naming(model.pretrained):
        _trunks(trunks, plain_names(content))


def _trunks(model: Any, entries: Mapping[str, Any]) -> list[tuple[nn.Module, dict[str, Tensor]]]:
    """Return the image and the mask trunk, each with the entries of torchvision's ResNet by the trunk's own names."""
    found: list[tuple[nn.Module, dict[str, Tensor]]] = []
    for trunk in (trunk for trunk in (model.img_base, model.mask_base) if isinstance(trunk, nn.Sequential)):
        own = {_published(name): value for name, value in trunk.state_dict().items()}
        # the image trunk gets all entries, so that weights of a deeper network are refused
        given = {n: v for n, v in entries.items() if n in own or (trunk is model.img_base and not n.startswith("fc."))}
        fitted = fit("ResNet", own, given)
        named = {name: fitted[_published(name)] for name in trunk.state_dict() if _published(name) in fitted}
        found.append((trunk, named))
    return found


def load_posehg3d(model: PoseHG3D, path: str | Path) -> None:
    """Load a file of pose-hg-3d's second version (`fusion_3d_var.pth`), in any wrapper that `plain_names` accepts.

    Only the batch counters that old files lack may be missing. Raises FileNotFoundError, or DataError when the
    file belongs to another network, with some of the entries that do not fit.
    """
    content = read_state_dict(path)
    with _naming(path):
        entries = plain_names(content)
        if any(name.startswith("hourglass.") for name in entries):
            raise DataError("has the hourglass network of the branch hg3d, wanted the second version")
        if "hm.weight" in entries and not any(name.startswith("depth.") for name in entries):
            raise DataError("has no depth head (trained on MPII alone), wanted fusion_3d_var.pth or alike")
        _load_strict(model, entries)


def load_jppnet(model: JPPNet, path: str | Path) -> None:
    """Load the published TensorFlow checkpoint (`model.ckpt-205632`), or a PyTorch state dict with our names.

    `path` of a checkpoint is the prefix, the folder or one of its files (see tf_checkpoint.find_prefix). Variables
    beside the model's (`fc3_pose`, those of the optimiser) are left out. `torch.save(model.state_dict(), ...)`
    afterwards makes a file of the second kind. Raises FileNotFoundError, or DataError with some of the entries that do
    not fit, or the part that is damaged.
    """
    if find_prefix(path) is not None:
        checkpoint = open_checkpoint(path)
        names = tf_names(model)
        _check_variables(model, names, checkpoint)
        with _naming(path):
            _load_strict(model, {ours: _oihw(checkpoint.read(theirs)) for ours, theirs in names.items()})
        return
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights {path}: neither a PyTorch file nor the prefix of a TensorFlow checkpoint")
    content = read_state_dict(path)
    with _naming(path):
        _load_strict(model, plain_names(content))


def open_jppnet(path: str | Path) -> JPPNet:
    """Build JPPNet in the size of a weights file and load the file. Raises as `load_jppnet`."""
    if find_prefix(path) is not None:
        shapes = {name: variable.shape for name, variable in open_checkpoint(path).variables.items()}
        units = [_count(shapes, rf"res{stage}\w+_branch2a/weights$") for stage in (2, 3, 4, 5)]
        sizes = units, shapes.get("conv1/weights", ())[3:], shapes.get("fc1_pose/pose_conv6/b", ())
    else:
        entries = read_weights(path) if Path(path).is_file() else {}
        shapes = {name: tuple(value.shape) for name, value in entries.items() if isinstance(value, Tensor)}
        units = [_count(shapes, rf"backbone\.stage{stage}\.\d+\.conv_a\.weight$") for stage in (2, 3, 4, 5)]
        sizes = units, shapes.get("backbone.conv1.weight", ())[:1], shapes.get("parsing2.last.bias", ())
    depths, width, context = sizes
    # a file of another network is compared with the published JPPNet
    model = JPPNet(depths, width[0], context[0]) if min(depths) and width and context else JPPNet()
    load_jppnet(model, path)
    return model


def open_posehg3d(path: str | Path) -> PoseHG3D:
    """Build pose-hg-3d in the size of a weights file and load the file. Raises as `load_posehg3d`."""
    entries = read_weights(path)
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
        raise DataError(
            f"checkpoint {checkpoint.prefix}: {len(problems)} of {len(names)} variables do not fit: {_some(problems)}"
        )


def _hwio(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape


def _oihw(values: NDArray[Any]) -> NDArray[Any]:
    """Transpose TensorFlow's kernels (rows, columns, in, out) to torch's (out, in, rows, columns)."""
    return np.ascontiguousarray(values.transpose(3, 2, 0, 1)) if values.ndim == 4 else values


def _published(name: str) -> str:
    """Return torchvision's name of an entry of a trunk whose layers are numbered."""
    number, _, rest = name.partition(".")
    return f"{_NUMBERED[int(number)]}.{rest}"


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read the entries of a file by their network's names. Raises as `read_state_dict` and `plain_names`."""
    content = read_state_dict(path)
    with _naming(path):
        return plain_names(content)


def plain_names(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the entries of a state dict by the network's own names.

    Training programs wrap a state dict in another dictionary ({"state_dict": ...}, {"model": ...}), and put `module.`
    (data parallel) and `_orig_mod.` (torch.compile) before names or parts of names, in any order.
    Raises DataError for a value that is not a tensor and for names that become equal.
    """
    while inner := next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None):
        content = inner
    entries: dict[str, Any] = {}
    for given, value in content.items():
        if not isinstance(given, str) or not isinstance(value, Tensor | np.ndarray):
            kind = type(value).__name__
            raise DataError(f"holds a {kind} under {str(given)[:60]!r}, wanted a state dict: tensors by name")
        name = ".".join(part for part in given.split(".") if part not in _PREFIXES)
        if name in entries:
            raise DataError(f"holds {name} twice, with and without a prefix (as in {given}), wanted it once")
        entries[name] = value
    return entries


def _check_graph(model: SMIN, A: Any) -> None:
    ours = model.backbone.A
    if A is None or torch.as_tensor(A).shape != ours.shape:
        return  # absent, or reported as mis-shaped with the rest
    if not torch.allclose(torch.as_tensor(A).to(ours), ours, atol=1e-6):
        other = "published" if model.backbone.graph == "spatial" else "spatial"
        raise DataError(
            f"the checkpoint's adjacency A is not that of graph={model.backbone.graph!r}; "
            f"construct SMIN(graph={other!r}) if it was trained with that one"
        )


def _load_strict(module: nn.Module, entries: Mapping[str, Any]) -> None:
    _fill(module, fit(type(module).__name__, module.state_dict(), entries))


def _fill(module: nn.Module, fitted: Mapping[str, Tensor]) -> None:
    module.load_state_dict({**module.state_dict(), **fitted})


def fit(what: str, own: Mapping[str, Tensor], entries: Mapping[str, Any]) -> dict[str, Tensor]:
    """Convert the entries of a checkpoint to the types of a network's own; only batch counters may be missing.

    Raises DataError that says how many entries are missing, unexpected, mis-shaped or not finite, and names some.
    """
    # written only by PyTorch >= 0.4.1 and not used by any computation here
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    tensors = {name: _plain(name, entries[name]) for name in own if name in entries}
    missing = [name for name in own if name not in entries and name not in optional]
    unexpected = [name for name in entries if name not in own]
    other = [
        f"{name} has shape {tuple(value.shape)}, wanted {tuple(own[name].shape)}"
        for name, value in tensors.items()
        if value.shape != own[name].shape
    ]
    if number := len(missing) + len(unexpected) + len(other):
        told = [f"missing {_some(missing)}"] * bool(missing) + [f"unexpected {_some(unexpected)}"] * bool(unexpected)
        told += [_some(other, "; ")] * bool(other)
        raise DataError(f"{what}: {number} entries do not fit: {'; '.join(told)}")
    fitted = {name: value.to(own[name].dtype) for name, value in tensors.items()}
    if bad := [name for name, value in fitted.items() if not _usable(name, value)]:
        raise DataError(
            f"{what}: {len(bad)} of {len(fitted)} entries are not finite (or a negative variance): {_some(bad)}; "
            "wanted numbers"
        )
    return fitted


def _plain(name: str, value: Any) -> Tensor:
    """Convert an entry to an ordinary tensor of real numbers; raise DataError if it is none."""
    if isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
        raise DataError(f"{name} is an array of {value.dtype}, wanted real numbers")
    tensor = torch.as_tensor(value)
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_complex():
        raise DataError(f"{name} is a quantised, sparse, complex or empty tensor, wanted one of real numbers")
    return tensor


def _usable(name: str, value: Tensor) -> bool:
    """Return whether all values are finite and no variance is negative."""
    return bool(value.isfinite().all()) and not (name.endswith("running_var") and bool((value < 0).any()))


def _some(names: Sequence[str], between: str = ", ") -> str:
    """Join the first few names, and say how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return between.join(names[:FEW]) + more
