"""Rows on correctness: the device in each number format against float64 on the CPU, as relative differences.

A relative difference is |found - wanted| / |wanted| in the Euclidean norm. "worst" of gradients is the largest over
parameters, of those whose gradient is at least a millionth of the whole.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpu_rows.step import config_of, inputs_of
from gpu_rows.table import Table, Value
from sptskm.config import STREAMS, Config, SsinClips
from sptskm.data.augment import draw_erased, draw_view
from sptskm.evaluation import Rows, evaluate, rerank, squared_distances
from sptskm.models import JPPNet, PoseHG3D
from sptskm.preparation.parsing import place_model
from sptskm.training.losses import batch_hard_triplet, identity_loss
from sptskm.training.precision import Precision
from sptskm.training.spread import prepared
from sptskm.training.streams import stream_of
from sptskm.training.world import World

FORMATS = ("float32", "bfloat16", "float16")
CASES = {  # name: stream, overrides, gaps
    "SSIN 2d": ("ssin", ["model.variant=2d"], False),
    "SSIN 3d": ("ssin", ["model.variant=3d"], False),
    "SMIN": ("smin", [], False),
    "SMIN with gaps": ("smin", [], True),
}
SCALE = 1024.0  # of losses in float16, whose small gradients would be zero
CLIPS = 8
CPU = torch.device("cpu")


def rows(table: Table) -> None:
    """Add all rows on correctness."""
    cases = CASES | {spec.title: (name, [], False) for name, spec in STREAMS.items() if name not in ("ssin", "smin")}
    for name, (stream, overrides, gaps) in cases.items():
        size = ["clips.frames=2", "clips.height=128", "clips.width=128"] if stream == "ssin" else []
        size += [] if table.small or stream == "smin" else ["model.width=16"]  # float64 on the CPU takes its time
        dropout = ["model.dropout=0.0"] if hasattr(STREAMS[stream].defaults.model, "dropout") else []
        config = config_of(stream, table.small, *overrides, *size, *dropout)
        wanted: list[Any] = []
        for form in FORMATS:
            whats = [f"{name} {form}: {what}" for what in ("embedding", "loss", "gradient", "worst gradient")]
            table.measure("correct", whats, lambda c=config, f=form, g=gaps, w=wanted: of_network(table, c, f, g, w))
    for form in FORMATS:
        table.measure("correct", [f"losses {form}: value", f"losses {form}: gradient"], lambda f=form: losses(table, f))
        for name in ("JPPNet parsing", "JPPNet pose", "pose-hg-3d"):
            half = form != "float32"  # which preparation uses on GPUs alone
            table.measure("correct", f"{name} {form}: maps", lambda n=name, f=form: maps(table, n, f), gpu=half)
    table.measure("correct", ["augmentation: frames", "augmentation: masks"], lambda: augmentation(table))
    table.measure("correct", ["evaluation: distances", "evaluation: mAP"], lambda: evaluation(table))
    table.measure("correct", ["re-ranking: distances", "re-ranking: mAP"], lambda: evaluation(table, again=True))


def off(found: Tensor, wanted: Tensor) -> float:
    """Return the relative difference."""
    found, wanted = found.detach().cpu().double(), wanted.detach().cpu().double()
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-300))


@contextmanager
def autocast(form: str, device: torch.device) -> Iterator[torch.dtype]:
    """Compute in a number format, and yield the type of parameters and inputs."""
    precision = Precision.of(form, device)
    with precision.autocast():
        yield precision.dtype


def of_network(table: Table, config: Config, form: str, gaps: bool, wanted: list[Any]) -> list[Value]:
    """Compare embedding, loss and gradients of a training step without dropout; `wanted` keeps the first answer."""
    torch.manual_seed(0)
    network = stream_of(config).model(7)
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):  # SSIN's attention, which begins switched off
            nn.init.constant_(parameter, 1.0)
        elif "attenblock" in name and name.split(".")[1] in "fgh":  # energies of thousands make any rounding a choice
            parameter.data.mul_(0.05)
        elif name.endswith(("bn3.weight", "layers.0.bn2.weight", "layers.1.bn2.weight")):  # as of a trained ResNet
            parameter.data.mul_(0.25)
    if not wanted:
        wanted.extend(answers(copy.deepcopy(network), config, "float64", CPU, gaps))
    embedding, loss, gradients = answers(network, config, form, table.device, gaps)
    whole = torch.cat([g.flatten().double().cpu() for g in gradients.values()])
    right = torch.cat([wanted[2][name].flatten() for name in gradients])
    least = 1e-6 * right.norm()
    worst = max(off(g, wanted[2][name]) for name, g in gradients.items() if wanted[2][name].norm() > least)
    return [(v, "") for v in (off(embedding, wanted[0]), off(loss, wanted[1]), off(whole, right), worst)]


def answers(
    network: nn.Module, config: Config, form: str, device: torch.device, gaps: bool
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Compute the embedding, the loss and the gradients of a batch."""
    stream = stream_of(config)
    labels = torch.arange(CLIPS, device=device) // 2
    scale = SCALE if form == "float16" else 1.0
    with autocast(form, device) as dtype:
        network = network.to(device, dtype).train()
        inputs = inputs_of(config, CLIPS, device, dtype, gaps)
        output = network(*inputs)
    loss = stream.loss(output, labels, lambda rows: rows)["total"]
    (scale * loss).backward()
    gradients = {name: p.grad.double() / scale for name, p in network.named_parameters() if p.grad is not None}
    embedding = output.embedding if hasattr(output, "embedding") else output[-1]
    return embedding.double().cpu(), loss.double().cpu(), {name: g.cpu() for name, g in gradients.items()}


def losses(table: Table, form: str) -> list[Value]:
    """Compare both losses on rounded logits and embeddings, which are what a network in this format hands over."""
    rounded = getattr(torch, form)
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 100, generator=draw).to(rounded)
    embedding = nn.functional.normalize(torch.randn(32, 64, generator=draw)).to(rounded)
    labels = torch.arange(32) // 4

    def value(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x, e = (t.clone().to(device, dtype).requires_grad_() for t in (logits, embedding))
        own = labels.to(device)
        total = identity_loss(x, own, 0.1) + batch_hard_triplet(e, own, 0.3, lambda rows: rows)
        total.backward()
        return total, torch.cat([x.grad.flatten().cpu().double(), e.grad.flatten().cpu().double()])  # type: ignore[union-attr]

    found, wanted = value(table.device, rounded), value(CPU, torch.float64)
    return [(off(f, w), "") for f, w in zip(found, wanted, strict=True)]


def augmentation(table: Table) -> list[Value]:
    """Compare clips cropped, flipped and erased on the device with those of the CPU, which must have the same bits."""
    config = config_of("ssin", table.small, "clips.erase=0.5")
    assert isinstance(config.clips, SsinClips)
    rng, size = np.random.default_rng(0), (config.clips.height, config.clips.width)
    views = [draw_erased(draw_view(*size, rng), config.clips, rng) for _ in range(CLIPS)]
    frames, masks = (rng.integers(0, 256, (CLIPS, 2, *size, *more), np.uint8) for more in ((3,), ()))
    inputs = (torch.from_numpy(frames), torch.from_numpy(masks), torch.tensor(views))
    stream = stream_of(config)
    found, wanted = (stream.prepare(inputs, device, torch.float32) for device in (table.device, CPU))
    return [(off(f, w), "") for f, w in zip(found, wanted, strict=True)]


def maps(table: Table, name: str, form: str) -> Value:
    """Compare the maps of a network that makes masks or skeletons, with random weights."""
    torch.manual_seed(0)
    sizes = {"depths": (1, 1, 1, 1), "width": 4} if table.small else {}
    network: nn.Module
    if name.startswith("JPPNet"):
        network = JPPNet(**sizes, **({"context": 8} if table.small else {})).eval()  # type: ignore[arg-type]
    else:
        network = PoseHG3D(**sizes).eval()  # type: ignore[arg-type]
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = copy.deepcopy(network).double()(x.double())
        network = place_model(network, table.device, getattr(torch, form))
        convolution = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
        found = network(x.to(table.device, convolution.weight.dtype))
    if name == "JPPNet parsing":
        return off(found.parsing[-1], wanted.parsing[-1]), ""
    return off(*((maps.pose[-1] if name == "JPPNet pose" else maps.hm_NJHW) for maps in (found, wanted))), ""


def evaluation(table: Table, again: bool = False) -> list[Value]:
    """Compare distances by the device with those by NumPy, and what follows from them; `again` re-ranks them."""
    rng = np.random.default_rng(0)
    count, dimension = (200, 32) if table.small else (3000, 3072)
    pids = rng.integers(1, count // 10, count)
    features = rng.standard_normal((count, dimension)).astype(np.float32)
    features += 0.3 * rng.standard_normal((count // 10, dimension), np.float32)[pids]
    labels, query = Rows(pids, rng.integers(1, 7, count)), np.arange(0, count, 10)

    def distances(by_device: bool) -> np.ndarray:
        there = prepared(features, World()) if by_device else None
        if not again:
            return there.to(features[query]) if there else squared_distances(features[query], features)
        block = (
            (lambda a, b: there.to(features[a:b])) if there else lambda a, b: squared_distances(features[a:b], features)
        )
        return rerank(block, query, np.arange(count), count)

    found, wanted = distances(True), distances(False)
    scores = [evaluate(x, labels.part(query), labels).mAP for x in (found, wanted)]
    largest = float(np.abs(found - wanted).max() / wanted.max())
    return [(largest, ""), (abs(scores[0] - scores[1]), "")]
