"""Rows on speed: the device's own peak, steps of the streams beside a bare ResNet-50, extraction and preparation."""

import gc
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu_rows.counting import count
from gpu_rows.step import STAGES, Step, config_of, inputs_of
from gpu_rows.table import NO_GPU, Table, Value, clock_of, timed, wait
from sptskm.config import STREAMS
from sptskm.evaluation import Rows, evaluate
from sptskm.models import JPPNet, PoseHG3D
from sptskm.models.resnet import ResNet
from sptskm.preparation.parsing import FAST, parse_frames, place_model
from sptskm.preparation.pose import estimate_skeletons
from sptskm.training.extract import channels_last
from sptskm.training.precision import Precision
from sptskm.training.spread import prepared
from sptskm.training.streams import stream_of
from sptskm.training.world import World

GIGA, TERA = 1e9, 1e12
MARS_TEST_CLIPS = {"ssin": 177_000, "smin": 30_000}  # about: 12,180 tracklets of 58 frames on average, 4 or 30 a clip
MARS_QUERIES, MARS_GALLERY = 1980, 12_180
FORMATS = ("float32", "bfloat16")
PROFILED = 5  # steps
OTHER = "sums, ReLU, copies and the rest"
KERNELS = {  # kind of kernel: parts of the names of its kernels
    "normalisation": ("batch_norm", "batchnorm", "bn_fw", "bn_bw"),
    "convolutions and products": ("conv", "gemm", "xmma", "cutlass", "wgrad", "dgrad", "fprop", "winograd", "nvjet"),
    "optimiser and norms": ("adam", "sgd", "multi_tensor_apply"),
    OTHER: (),
}  # fmt: skip


def peaks(table: Table) -> None:
    """Add what the device reaches in a large product and a large copy: speeds below are shares of these."""
    side = 256 if table.small else 8192 if table.on_gpu else 1024

    def product(dtype: torch.dtype) -> Value:
        a, b = (torch.randn(side, side, device=table.device).to(dtype) for _ in range(2))
        return 2 * side**3 / timed(table.device, lambda: a @ b, 1.0) / TERA, "TFLOP/s"

    def copy() -> Value:
        a = torch.empty((2**20 if table.small else 2**28), device=table.device)
        b = torch.empty_like(a)
        return 2 * a.nbytes / timed(table.device, lambda: b.copy_(a), 1.0) / GIGA, "GB/s"

    def launch() -> Value:
        x = torch.zeros(1, device=table.device)
        return timed(table.device, lambda: [x.add_(1) for _ in range(1000)], 0.5) / 1000 * 1e6, "µs"

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        slow = not table.on_gpu and dtype != torch.float32  # minutes, where the CPU has no instructions for it
        table.measure("device", f"product in {name}", lambda d=dtype: product(d), gpu=slow)
    table.measure("device", "copy of memory", copy)
    table.measure("device", "one small operation", launch)


def bare(table: Table) -> None:
    """Add training steps of a ResNet-50 on 224 x 224 images, the known number beside all others."""
    count, size = (2, 32) if table.small else (128 if table.on_gpu else 8, 224)
    for form in FORMATS:
        table.measure("resnet-50", f"ResNet-50 {form}, {count} images", lambda f=form: resnet(table, f, count, size))


def resnet(table: Table, form: str, count: int, size: int) -> Value:
    """Return the images a second of training steps."""
    precision = Precision.of(form, table.device)
    depths, width = ((1, 1, 1, 1), 4) if table.small else ((3, 4, 6, 3), 64)
    network = nn.Sequential(ResNet(depths, width).as_sequential(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(32 * width, 1000)).to(table.device)
    x = torch.rand(count, 3, size, size, device=table.device)
    if table.on_gpu:
        channels_last(network)
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    labels = torch.arange(count, device=table.device)

    def step() -> None:
        with precision.autocast():
            loss = nn.functional.cross_entropy(network(x), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return count / timed(table.device, step, warm=3 if table.on_gpu else 1), "images/s"


def steps(table: Table) -> None:
    """Add the training steps of every stream at its published batch and in variations of how they are computed."""
    for name, spec in STREAMS.items():
        sampling = spec.defaults.sampling
        published = sampling.identities * sampling.tracklets
        clips = (
            4
            if table.small
            else published
            if table.on_gpu
            else min(published, 64 if spec.needs == ("skeletons",) else 4)
        )
        for form in FORMATS:
            more = ("", ": of the product's speed", ": beside the ResNet-50", ": memory")
            whats = [f"{spec.title} {form}, {clips} clips{one}" for one in more]
            table.measure("step", whats, lambda n=name, f=form, c=clips: plain(table, n, f, c))
        form = "bfloat16" if table.on_gpu else "float32"
        variations: dict[str, dict[str, Any]] = {
            "without channels last": {"last": False},
            "activations computed again": {"checkpointed": True},
            "the fastest of cuDNN's kernels": {"tuned": True},
        }
        if "skeletons" in spec.needs:
            variations["with gaps"] = {"gaps": True}
        for what, how in variations.items():
            whats = [f"{spec.title} {form}, {clips} clips, {what}{more}" for more in ("", ": memory")]
            only = what != "activations computed again" and what != "with gaps"
            table.measure("step", whats, lambda n=name, f=form, c=clips, h=how: varied(table, n, f, c, h), gpu=only)
        names = [f"{spec.title} {form}: {stage}" for stage in (*STAGES, "device at work")]
        names += [f"{spec.title} {form}, kernels: {kind}" for kind in KERNELS]
        table.measure("stages", names, lambda n=name, f=form, c=clips: stages(table, n, f, c))
        whats = [f"{spec.title} bfloat16, largest batch", f"{spec.title} bfloat16 at it"]
        table.measure("step", whats, lambda n=name, c=published: largest(table, n, c), gpu=True)


def compiling(table: Table) -> None:
    """Add steps through torch.compile, last, as compiling takes a minute; those first that promise most."""
    ways = [(name, mode) for mode in ("default", "reduce-overhead") for name in STREAMS]
    ways.sort(key=lambda way: way not in (("ssin", "default"), ("smin", "reduce-overhead"), ("smin", "default")))
    for name, mode in ways:
        spec = STREAMS[name]
        clips = spec.defaults.sampling.identities * spec.defaults.sampling.tracklets
        what = f"{spec.title} bfloat16, {clips} clips, compiled ({mode})"
        how = {"compile": mode}
        table.measure(
            "compiled", [what, f"{what}: memory"],
            lambda n=name, c=clips, h=how: varied(table, n, "bfloat16", c, h), gpu=True, limit=120.0,
        )  # fmt: skip


def memory(table: Table) -> Value:
    """Return the most memory that tensors took since the last reset."""
    if not table.on_gpu:
        return NO_GPU  # type: ignore[return-value]
    return torch.cuda.max_memory_allocated(table.device) / 2**30, "GiB"


@cache
def flops_of(name: str, small: bool, clips: int) -> float:
    """Return the FLOPs of a training step, which depend on no number format."""
    return count(config_of(name, small, "train.precision=float32"), clips).whole.flops


def plain(table: Table, name: str, form: str, clips: int) -> list[Value]:
    """Return clips/s, the share of the measured peak, frames/s beside images/s of the ResNet-50, and memory."""
    [speed, used] = varied(table, name, form, clips, {})
    work = flops_of(name, table.small, clips) / clips * speed[0]
    peak = table.number(f"product in {form}")
    share: Any = (100 * work / TERA / peak, "%") if peak else "no peak to compare with"
    images = next((r.value for r in table.rows if r.what.startswith(f"ResNet-50 {form}")), None)
    ratio: Any = "no frames" if "frames" not in STREAMS[name].needs else "no ResNet-50 to compare with"
    if images and "frames" in STREAMS[name].needs:
        ratio = (speed[0] * config_of(name, table.small).clips.frames / images, "frames / image")
    return [speed, share, ratio, used]


def varied(table: Table, name: str, form: str, clips: int, how: dict[str, Any]) -> list[Value]:
    """Return clips/s and memory of steps that are computed in this way: of Step, or "tuned" for cuDNN's own trials."""
    if table.on_gpu:
        torch.cuda.reset_peak_memory_stats(table.device)
    given = {key: value for key, value in how.items() if key != "tuned"}
    step = Step(config_of(name, table.small, f"train.precision={form}"), clips, table.device, **given)
    warm = 3 if table.on_gpu else 1
    torch.backends.cudnn.benchmark = how.get("tuned", False)
    try:
        return [(clips / timed(table.device, step, 2.0, warm, 2 if table.small else 50), "clips/s"), memory(table)]
    finally:
        torch.backends.cudnn.benchmark = False


def largest(table: Table, name: str, published: int) -> list[Value]:
    """Return the largest batch, of the published one doubled again and again, that can be computed, and its clips/s."""
    found: list[Value] = []
    for times in range(8):
        clips = published * 2**times
        try:
            speed, _ = varied(table, name, "bfloat16", clips, {})
        except RuntimeError as error:  # out of memory, or more numbers than a kernel can count
            if not found:
                raise
            print(f"{clips} clips: {type(error).__name__}: {error}".splitlines()[0], flush=True)
            break
        found = [(clips, "clips"), speed]
        gc.collect()
        torch.cuda.empty_cache()
    return found


def stages(table: Table, name: str, form: str, clips: int) -> list[Any]:
    """Return the milliseconds of each stage, and those that kernels of each kind take of a step (by a profiler)."""
    spans: dict[str, list[float]] = {stage: [] for stage in STAGES}
    config = config_of(name, table.small, f"train.precision={form}")
    step = Step(config, clips, table.device, stages=lambda stage: Span(table.device, spans[stage]))
    timed(table.device, step, 1.0, 3 if table.on_gpu else 1, 1 if table.small else 20)
    found: list[Any] = [(1e3 * float(np.median(spans[stage][-20:])), "ms") for stage in STAGES]
    if not table.on_gpu:
        return [*found, *[NO_GPU] * (1 + len(KERNELS))]
    step.stages = lambda _: nullcontext()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as watched:
        began = time.perf_counter()
        for _ in range(PROFILED):
            step()
        wait(table.device)
        took = time.perf_counter() - began
    kinds = kernel_seconds(watched.key_averages())
    busy: Value = (100 * sum(kinds.values()) / took, "% of the time")
    return [*found, busy, *((1e3 * kinds[kind] / PROFILED, "ms") for kind in KERNELS)]


def kernel_seconds(events: Iterable[Any]) -> dict[str, float]:
    """Return the seconds of kernels by kind.

    The profiler's events of operations, and of ranges with a name, hold the time of their kernels once more.
    """
    found = dict.fromkeys(KERNELS, 0.0)
    for event in events:
        if event.device_type != DeviceType.CUDA or getattr(event, "is_user_annotation", False):
            continue
        kind = next(
            (kind for kind, parts in KERNELS.items() if any(part in event.key.lower() for part in parts)), OTHER
        )
        found[kind] += event.self_device_time_total / 1e6
    return found


class Span(AbstractContextManager[None]):
    """Append the seconds of a block, waiting for the device at both ends."""

    def __init__(self, device: torch.device, found: list[float]) -> None:
        self.device, self.found = device, found

    def __enter__(self) -> None:
        wait(self.device)
        self.began = clock_of(self.device)()

    def __exit__(self, *_: object) -> None:
        wait(self.device)
        self.found.append(clock_of(self.device)() - self.began)


def use(table: Table) -> None:
    """Add extraction and evaluation at the size of MARS, and the networks that make masks and skeletons."""
    for name, spec in STREAMS.items():
        whats = [f"{spec.title}: embedding of test clips", f"{spec.title}: test part of MARS, embedding alone"]
        table.measure("extraction", whats, lambda n=name: embedding(table, n))
    size = "200 x 200" if table.small else f"{MARS_QUERIES} x {MARS_GALLERY}"
    table.measure("evaluation", f"{size} of 3072 numbers", lambda: at_mars_size(table))
    for name in ("JPPNet, fast", "pose-hg-3d"):
        table.measure("preparation", f"{name}: frames of 256 x 128", lambda n=name: made(table, n))


def embedding(table: Table, name: str) -> list[Any]:
    """Return clips/s of embedding, and the minutes for MARS's test part that follow from it."""
    config = config_of(name, table.small)
    precision = Precision.of("auto", table.device)
    network: Any = stream_of(config).model(7, False).to(table.device).eval()
    if table.on_gpu:
        channels_last(network)
    clips = 4 if table.small or not table.on_gpu else 128
    inputs = inputs_of(config, clips, table.device, precision.dtype)

    def embed() -> None:
        with torch.inference_mode(), precision.autocast():
            network.embed(*inputs)

    speed = clips / timed(table.device, embed, 1.0, 1, 2 if table.small else 50)
    count = MARS_TEST_CLIPS.get(name)
    return [(speed, "clips/s"), (count / speed / 60, "minutes") if count else "clips of its own length"]


def at_mars_size(table: Table) -> Value:
    """Return the seconds for distances and mars-official scores of MARS's test part, by the device."""
    queries, gallery, dimension = (200, 200, 32) if table.small else (MARS_QUERIES, MARS_GALLERY, 3072)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((gallery, dimension)).astype(np.float32)
    labels = Rows(rng.integers(1, 627, gallery), rng.integers(1, 7, gallery))
    clock = clock_of(table.device)
    began = clock()
    distance = prepared(features, World()).to(features[:queries])
    evaluate(distance, labels.part(np.arange(queries)), labels)
    return clock() - began, "s"


def made(table: Table, name: str) -> Value:
    """Return the frames a second that a network (random weights) parses or finds joints in."""
    sizes: dict[str, Any] = {"depths": (1, 1, 1, 1), "width": 4} if table.small else {}
    dtype = torch.bfloat16 if table.on_gpu else torch.float32
    frames = np.random.default_rng(0).integers(0, 255, (16 if table.on_gpu else 1, 256, 128, 3), np.uint8)
    work: Callable[[], object]
    if name.startswith("JPPNet"):
        parser = place_model(JPPNet(**sizes, **({"context": 8} if table.small else {})).eval(), table.device, dtype)
        work = lambda: parse_frames(frames, parser, FAST)  # noqa: E731
    else:
        estimator = place_model(PoseHG3D(**sizes).eval(), table.device, dtype)
        nn.init.ones_(estimator.hm.bias)
        work = lambda: estimate_skeletons(frames, estimator)  # noqa: E731
    return len(frames) / timed(table.device, work, 1.0, 1, 2 if table.small else 50), "frames/s"
