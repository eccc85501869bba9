"""Compute what many GPUs send each other in a training step, and where mining over all of them stops paying.

    python benchmarks/scaling.py                # the tables of docs/scaling.md: from formulas, no measurement
    python benchmarks/scaling.py --measure      # 1 and 2 ranks on this CPU against the formulas

Bytes are those that a rank sends (and receives) in a ring: 2 (W-1)/W of an all-reduce's, (W-1)/W of an all-gather's
whole. Times assume the speeds below and no overlap but that of the gradient with the backward pass.
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gpu_rows.counting import count
from gpu_rows.runs import together_do
from gpu_rows.step import CLASSES, Step, config_of
from torch import Tensor, nn

from sptskm.common.console import table as text_table
from sptskm.config import STREAMS, Config
from sptskm.training.streams import stream_of
from sptskm.training.world import World, join

GIGA, MEGA = 1e9, 1e6
INSIDE, LATENCY_INSIDE = 400 * GIGA, 10e-6  # bytes/s of a ring over NVLink; seconds of a small collective
NETWORKS = {"8 x 400 Gbit/s": 400 * GIGA, "100 Gbit/s": 12.5 * GIGA}
"""Network of a node of eight GPUs, and the bytes/s of a ring through it: a ring leaves a node once."""
LATENCY_BETWEEN = 30e-6
GPUS_OF_A_NODE = 8
# a step's time is its FLOPs at this speed: that of a tuned ResNet-50, of which Lambda reports 3,079 images/s on an H200
REACHED = 3079 * 24.5e9
WORLDS = (8, 64, 512)
LOADED = 1186  # clips a second that a core loads from a pack, augmenting left to the device (docs/benchmarks.md)
JPEG, MASK = 6000, 400  # bytes of a 256 x 128 frame of MARS and of a bilevel mask, about


@dataclass(frozen=True)
class Shape:
    """What the traffic of a stream depends on."""

    parameters: int
    layers: int
    """Layers of batch normalisation over all ranks."""
    channels: int
    """Their channels, all together."""
    embedding: int

    @classmethod
    def of(cls, config: Config) -> "Shape":
        """Read it off the network."""
        with torch.device("meta"):
            network: Any = stream_of(config).model(CLASSES, False)
        norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        return cls(trained, len(norms), sum(m.num_features for m in norms), int(network.embedding_dim))


@dataclass(frozen=True)
class Traffic:
    """Bytes that a rank sends in a step, by purpose, and the number of collectives it waits for."""

    gradient: float
    statistics: float
    mining: float
    waits: int

    @classmethod
    def of(cls, shape: Shape, ranks: int, clips: int) -> "Traffic":
        """Compute it for `clips` clips a rank: float32 everywhere."""
        ring = (ranks - 1) / ranks
        rows = ranks * clips
        forward = ring * 4 * ranks * (2 * shape.channels + shape.layers)  # moments and count of every rank
        backward = 2 * ring * 4 * 2 * shape.channels
        # embeddings and 8 bytes of label are gathered; the gradient of all embeddings is summed over ranks
        mining = ring * rows * (4 * shape.embedding + 8) + 2 * ring * rows * 4 * shape.embedding
        return cls(2 * ring * 4 * shape.parameters, forward + backward, mining, 2 * shape.layers + 3 + 1)

    def seconds(self, ranks: int, network: str) -> tuple[float, float, float]:
        """Return seconds of the gradient, of the statistics and of mining, each by the slowest link of its ring."""
        inside = ranks <= GPUS_OF_A_NODE
        speed, latency = (INSIDE, LATENCY_INSIDE) if inside else (NETWORKS[network], LATENCY_BETWEEN)
        waits = (self.waits - 4) * latency
        return self.gradient / speed, self.statistics / speed + waits, self.mining / speed + 3 * latency


def computing(config: Config, clips: int) -> float:
    """Return the seconds of a rank's arithmetic."""
    return count(config, clips).whole.flops / REACHED


def whole(traffic: Traffic, ranks: int, network: str, step: float) -> float:
    """Return the seconds of a step: the gradient is sent during the backward pass, two thirds of the arithmetic."""
    gradient, statistics, mining = traffic.seconds(ranks, network)
    return step + statistics + mining + max(0.0, gradient - 2 / 3 * step)


def tables() -> None:
    """Print bytes and times of each stream for 8, 64 and 512 GPUs, each with the published batch (weak scaling)."""
    for name, spec in STREAMS.items():
        config = config_of(name, False, "train.precision=bfloat16")
        shape = Shape.of(config)
        published = config.sampling.identities * config.sampling.tracklets
        rows = []
        for clips in (published, published // 8):
            step = computing(config, clips)
            for ranks in WORLDS:
                traffic = Traffic.of(shape, ranks, clips)
                cells = []
                for network in NETWORKS:
                    took = whole(traffic, ranks, network, step)
                    sent = traffic.gradient + traffic.statistics + traffic.mining
                    parts = " + ".join(f"{1e3 * x:.1f}" for x in traffic.seconds(ranks, network))
                    cells += [parts, f"{step / took:.0%}", f"{sent / took / GIGA:.1f}"]
                megabytes = (traffic.gradient, traffic.statistics, traffic.mining)
                first = f"{ranks} x {clips} = {ranks * clips}"
                rows.append([first, *(f"{x / MEGA:.1f}" for x in megabytes), f"{1e3 * step:.1f}", *cells])
        head = [f"{spec.title}: GPUs x clips", "gradient MB", "BN MB", "mining MB", "arithmetic ms"]
        for network in NETWORKS:
            head += [f"{network}: ms", "of linear", "GB/s"]
        print(f"\n{text_table(head, rows)}")
        print(f"{shape.parameters / 1e6:.1f} M numbers trained, {shape.layers} BN layers of {shape.channels} channels")
        if "frames" in spec.needs:
            feeding(config, published)


def feeding(config: Config, clips: int) -> None:
    """Print what the loaders and the file system must give."""
    rate = clips / computing(config, clips)
    frames = rate * config.clips.frames  # type: ignore[union-attr]
    pixels = config.clips.height * config.clips.width  # type: ignore[union-attr]
    rows = [
        [gpus, f"{gpus * rate:.0f}", f"{gpus * frames * (JPEG + MASK) / MEGA:.0f}", f"{2 * gpus * frames:.0f}",
         f"{gpus * frames * 4 * pixels / GIGA:.1f}", f"{gpus * rate / LOADED:.1f}"]
        for gpus in (1, *WORLDS)
    ]  # fmt: skip
    head = ["GPUs", "clips/s", "MB/s read", "files/s, unpacked", "GB/s to the devices", "cores that load"]
    print(f"\n{text_table(head, rows)}")


def mining(seed: int = 0) -> None:
    """Print how the hardest negative and the active share of a batch-hard triplet change with the size of the batch.

    Distances of unit embeddings are simulated: negatives around 1.35 (identities far apart) or 1.0 (alike), with the
    spread of 64 free dimensions, 4 clips of an identity around 0.7.
    """
    rng = np.random.default_rng(seed)
    rows = []
    before: dict[float, float] = {}
    for batch in (32, 64, 256, 1024, 4096, 16384, 131072):
        cells = []
        for mean in (1.35, 1.0):
            negatives = np.array([rng.normal(mean, mean / np.sqrt(128), batch - 4).min() for _ in range(400)])
            positives = rng.normal(0.7, 0.1, (400, 3)).max(axis=1)
            active = float((positives + 0.3 > negatives).mean())
            change = "-" if mean not in before else f"{negatives.mean() - before[mean]:+.3f}"
            before[mean] = float(negatives.mean())
            cells += [f"{negatives.mean():.3f}", change, f"{active:.0%}"]
        rows.append([batch, *cells])
    head = ["clips mined in", "hardest, far", "change", "active", "hardest, alike", "change", "active"]
    print(f"\n{text_table(head, rows)}")


class Counting(World):
    """A world that adds up the bytes of its collectives."""

    sent: dict[str, float] = {}  # noqa: RUF012 - of this process

    def sum(self, tensor: Tensor) -> Tensor:
        """Count an all-reduce."""
        self.sent["sum"] = self.sent.get("sum", 0) + 2 * (self.size - 1) / self.size * tensor.nbytes
        return super().sum(tensor)

    def gather(self, tensor: Tensor) -> Tensor:
        """Count an all-gather, and the all-reduce of its gradient."""
        ring = (self.size - 1) / self.size
        back = 2 * ring * self.size * tensor.nbytes if tensor.requires_grad else 0
        self.sent["gather"] = self.sent.get("gather", 0) + ring * self.size * tensor.nbytes + back
        return super().gather(tensor)


def measure_rank(name: str, clips: int, norms: str = "sync") -> dict[str, float]:
    """Return what this rank of two (or one) counts and measures in steps, gradients shared, and BN if it is "sync"."""
    torch.set_num_threads(1)
    with join(1, 2.0) as joined:
        world = Counting(joined.rank, joined.size, joined.local_rank)
        config = config_of(name, False, "model.width=16", "train.precision=float32")
        step = Step(config, clips // world.size, world.device)
        model = world.wrap(step.network, norms)
        step.forward, step.gather = model, world.gather
        found: dict[str, float] = {"latency": timed_sum(world, 1), "large": timed_sum(world, 2**22)}
        step()
        Counting.sent = {}
        step()
        found |= {f"bytes of {key}": value for key, value in Counting.sent.items()}
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        return found | {"step": float(np.median(seconds))}


def timed_sum(world: World, numbers: int) -> float:
    """Return the median seconds of an all-reduce."""
    x, seconds = torch.zeros(numbers), []
    for _ in range(20):
        began = time.perf_counter()
        world.sum(x)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[5:]))


def measured() -> None:
    """Print bytes counted and seconds measured on 1 and 2 ranks beside the formulas."""
    for name in ("ssin", "smin"):
        clips = 8 if name == "ssin" else 64
        shape = Shape.of(config_of(name, False, "model.width=16"))
        one, half = (together_do(1, "gloo", measure_rank, name, count)[0]["step"] for count in (clips, clips // 2))
        two = together_do(2, "gloo", measure_rank, name, clips)[0]
        apart = together_do(2, "gloo", measure_rank, name, clips, "local")[0]
        wanted = Traffic.of(shape, 2, clips // 2)
        counted = two["bytes of sum"] + two["bytes of gather"]
        formula = wanted.statistics + wanted.mining
        speed = 2 * (2 - 1) / 2 * 4 * 2**22 / two["large"]
        sent = (wanted.gradient + formula) / speed + wanted.waits * two["latency"]
        without = (wanted.gradient + wanted.mining) / speed + 4 * two["latency"]
        print(
            f"{STREAMS[name].title}, width 16, {clips} clips: BN and mining send {counted / MEGA:.3f} MB, by the "
            f"formula {formula / MEGA:.3f}; one rank {one:.3f} s, with half the clips {half:.3f} s; a collective takes "
            f"{1e6 * two['latency']:.0f} µs and sends {speed / GIGA:.2f} GB/s, so two ranks {half + sent:.3f} s by the "
            f"model, measured {two['step']:.3f} s; with BN per rank {half + without:.3f} s by the model, measured "
            f"{apart['step']:.3f} s"
        )


def main() -> None:
    """Print the tables, or the measurements that check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        measured()
    else:
        tables()
        mining()


if __name__ == "__main__":
    main()
