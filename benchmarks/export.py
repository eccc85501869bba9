"""Measure how far embeddings of full-size networks in ONNX differ from PyTorch's, and both from float64.

    python benchmarks/export.py

The weights are random, with batch statistics of eight clips: with those of fewer, networks of this depth lose more
digits in float32, in PyTorch as well.
Legend: B clips, T frames, D embedding.
"""

import copy
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sptskm.configfile import load
from sptskm.export import export_network
from sptskm.extraction import Network
from sptskm.training.streams import stream_of

KINDS = {
    "SSIN 2d": ("configs/mars/ssin.yaml", ["model.variant=2d"]),
    "SSIN 3d": ("configs/mars/ssin.yaml", ["model.variant=3d"]),
    "SMIN": ("configs/mars/smin.yaml", []),
}
CLASSES = 625
OTHERS = 3  # clips to be compared


def main() -> None:
    """Print a line for each network: the largest difference of any number of an embedding of length 1."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, (path, overrides) in KINDS.items():
        config = load(path, overrides)
        model = calibrated(stream_of(config).model(CLASSES), clips(config.stream, 8))
        inputs = clips(config.stream, OTHERS)
        with torch.no_grad():
            single = model.embed(*inputs).numpy()
            double = copy.deepcopy(model).double().embed(*(x.double() if x.is_floating_point() else x for x in inputs))
        with tempfile.TemporaryDirectory() as folder:
            export_network(Network(config, model, 0, ""), Path(folder) / "network.onnx")
            exported = run(Path(folder) / "network.onnx", inputs)
        pairs = (exported - single, exported - double.numpy(), single - double.numpy())
        print(f"{name}: onnxruntime from PyTorch, both from float64:", *(f"{abs(pair).max():.1e}" for pair in pairs))


def calibrated(model: nn.Module, inputs: tuple[Tensor, Tensor]) -> nn.Module:
    """Return the model for evaluation, with attention switched on and the batch statistics of some clips."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean over batches, here of one
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 0.7)
    with torch.no_grad():
        model.train()(*inputs)
    return model.eval()


def clips(stream: str, count: int) -> tuple[Tensor, Tensor]:
    """Generate smooth pictures with blots for masks, or skeletons that move at random with some frames missing."""
    if stream == "smin":
        return torch.randn(count, 4, 28, 14), torch.rand(count, 28) > 0.2
    frames = F.interpolate(torch.rand(count * 4, 3, 16, 8), size=(256, 128), mode="bicubic").clamp(0, 1)
    masks = F.interpolate(torch.rand(count * 4, 1, 8, 4), size=(256, 128), mode="bilinear") > 0.4
    return frames.unflatten(0, (count, 4)), masks.float().view(count, 4, 256, 128)


def run(path: Path, inputs: tuple[Tensor, Tensor]) -> np.ndarray:
    """Compute embeddings (B, D) with onnxruntime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return np.asarray(session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})[0])


if __name__ == "__main__":
    main()
