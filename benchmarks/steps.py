"""Count the work of a training step and measure it on a CPU, beside a plain version of the published code.

    python benchmarks/steps.py [--only count,parts,pair] [--rounds 7]

"count": FLOPs and bytes of a step at the published batch by part of the network, and the least time they take on GPUs
by their datasheets. "parts": where the time goes here. "pair": steps of this project and of
benchmarks/gpu_rows/plain.py, each in a process of its own with one thread, in turns; seconds are of processor time, so
that other programs disturb them less, and the ratio is the median over pairs. Both compute the same numbers from the
same weights, which is checked first. docs/gpu.md holds what was found.
"""

import argparse
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from gpu_rows.counting import DEVICES, count, watched
from gpu_rows.plain import PlainSMIN, PlainSSIN, smoothed_cross_entropy, triplet
from gpu_rows.step import CLASSES, Step, config_of
from torch import Tensor, nn

from sptskm.common.console import table as text_table
from sptskm.config import STREAMS
from sptskm.training.memory import keep_freed_memory

PAIR_CLIPS = {"ssin": 4, "smin": 32}
NEAR = 1e-5


def counts() -> None:
    """Print the work of a step of every stream in bfloat16 and the least time for it."""
    for name, spec in STREAMS.items():
        clips = spec.defaults.sampling.identities * spec.defaults.sampling.tracklets
        found = count(config_of(name, False, "train.precision=bfloat16"), clips)
        rows = [[part, f"{w.flops / 1e9:.1f}", f"{w.bytes / 1e9:.2f}", w.operations] for part, w in found.parts.items()]
        whole = found.whole
        rows.append(
            ["forward, loss, backward", *(f"{x / 1e9:.1f}" for x in (whole.flops, whole.bytes)), whole.operations]
        )
        rows.append(["optimiser, norm of the gradient", "-", f"{found.optimiser / 1e9:.2f}", "-"])
        print(f"\n{text_table([f'{spec.title}, {clips} clips, bfloat16', 'GFLOP', 'GB', 'operations'], rows)}")
        print(f"saved for the backward pass {found.saved / 1e9:.2f} GB, least traffic {found.least_bytes / 1e9:.2f} GB")
        for device, (flops, speed) in DEVICES.items():
            arithmetic, traffic = (1e3 * seconds for seconds in found.floor(device))
            moved = 1e3 * (whole.bytes + found.optimiser) / speed
            print(
                f"{device} ({flops / 1e12:.0f} TFLOP/s, {speed / 1e12:.2f} TB/s): at least {arithmetic:.2f} ms of "
                f"arithmetic and {traffic:.2f} ms of traffic; {moved:.1f} ms of traffic operation by operation"
            )


def parts() -> None:
    """Print the seconds of each part of a step in float32 on this CPU, one thread."""
    for name, spec in STREAMS.items():
        clips = PAIR_CLIPS.get(name, 4)
        step = Step(config_of(name, False), clips, torch.device("cpu"))
        watched(step)  # the first one asks for new memory
        found, _ = watched(step)
        rows = [
            [part, f"{w.seconds:.3f}", f"{w.flops / 1e9:.1f}", f"{w.flops / 1e9 / max(w.seconds, 1e-9):.0f}"]
            for part, w in found.items()
        ]
        head = [f"{spec.title}, {clips} clips, float32, here", "seconds", "GFLOP", "GFLOP/s"]
        print(f"\n{text_table(head, rows)}")


def plain_network(name: str, ours: nn.Module, dropout: float = 0.5) -> nn.Module:
    """Return the plain network with the weights of ours."""
    state = {key.removeprefix("backbone."): value.clone() for key, value in ours.state_dict().items()}
    network = PlainSSIN(CLASSES, dropout) if name == "ssin" else PlainSMIN(CLASSES, state["A"].clone(), dropout)
    network.load_state_dict(state)
    return network.train()


def plain_loss(name: str, logits: list[Tensor], embedding: Tensor, labels: Tensor) -> Tensor:
    """Return the published total."""
    entropies = [smoothed_cross_entropy(one, labels) for one in logits]
    if name == "ssin":
        identity = 0.4 * entropies[0] + 0.1 * entropies[1] + 0.5 * entropies[2]
        return 0.5 * identity + 0.5 * triplet(embedding, labels)
    return 0.8 * entropies[0] + 0.2 * triplet(embedding, labels)


def check(name: str) -> str:
    """Return how far apart loss, embeddings and gradients of both are (float64, no dropout).

    Raises RuntimeError if they are further apart than NEAR.
    """
    config = config_of(name, False, "model.dropout=0.0", "train.precision=float64", *SHRUNK[name])
    step = Step(config, 4, torch.device("cpu"))
    plain = plain_network(name, step.network, 0.0).double()
    output = step.network(*step.inputs)
    total = step.stream.loss(output, step.labels, lambda rows: rows)["total"]
    logits, embedding = plain(*step.inputs)
    wanted = plain_loss(name, logits, embedding, step.labels)
    total.backward()
    wanted.backward()
    own = {key.removeprefix("backbone."): p.grad for key, p in step.network.named_parameters() if p.grad is not None}
    gradients = {key: (own[key], p.grad) for key, p in plain.named_parameters() if p.grad is not None}
    apart = max(float((a - b).norm()) for a, b in gradients.values()) / float(
        torch.stack([b.norm() for _, b in gradients.values()]).norm()
    )
    found = [float((total - wanted).detach().abs()), float((output.embedding - embedding).detach().abs().max()), apart]
    if max(found) > NEAR:
        raise RuntimeError(f"{name}: the two versions differ by {max(found):.1e}, wanted at most {NEAR:g}")
    return f"{name}: apart by {found[0]:.1e} in the loss, {found[1]:.1e} in embeddings, {found[2]:.1e} in gradients"


SHRUNK = {"ssin": ["clips.frames=2", "clips.height=128", "clips.width=128"], "smin": ["clips.frames=12"]}


def worker(way: Connection, name: str, ours: bool) -> None:
    """Do a step whenever asked, and answer with its processor and clock seconds."""
    torch.set_num_threads(1)
    if ours:
        keep_freed_memory()
    step: Any = Step(config_of(name, False), PAIR_CLIPS[name], torch.device("cpu"))
    if not ours:
        step = plain_step(name, step)
    while way.recv():
        began = time.process_time(), time.perf_counter()
        step()
        way.send((time.process_time() - began[0], time.perf_counter() - began[1]))


def plain_step(name: str, step: Step) -> Any:
    """Return a function that does a step of the plain version on the same clips."""
    network, inputs, labels = plain_network(name, step.network), step.inputs, step.labels
    if name == "ssin":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(network.parameters(), lr=3e-4, weight_decay=5e-4)
    else:
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    del step

    def do() -> float:
        logits, embedding = network(*inputs)
        loss = plain_loss(name, logits, embedding, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return do


def pair(rounds: int) -> None:
    """Print the seconds of steps of both versions in turns, and their ratio."""
    rows = []
    for name in PAIR_CLIPS:
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as alone:  # whose memory is free again afterwards
            print(alone.apply(check, (name,)))
        ways, processes = [], []
        for ours in (True, False):
            here, there = multiprocessing.Pipe()
            processes.append(context.Process(target=worker, args=(there, name, ours)))
            ways.append(here)
            processes[-1].start()
        found = []
        for _ in range(rounds + 2):
            found.append([])
            for way in ways:
                way.send(True)
                found[-1].append(way.recv())
        for way, process in zip(ways, processes, strict=True):
            way.send(False)
            process.join()
        seconds = np.array(found)[2:]  # two steps of each do not count
        ratios = seconds[:, 1, 0] / seconds[:, 0, 0]
        median = np.median(seconds, axis=0)
        rows.append(
            [
                f"{STREAMS[name].title}, {PAIR_CLIPS[name]} clips", f"{median[0, 0]:.3f}", f"{median[1, 0]:.3f}",
                f"{np.median(ratios):.2f}", f"{ratios.min():.2f} to {ratios.max():.2f}",
                f"{np.median(seconds[:, 1, 1] / seconds[:, 0, 1]):.2f}",
            ]
        )  # fmt: skip
    head = [f"float32, one thread, {rounds} pairs", "ours s", "plain s", "plain / ours", "range", "by the clock"]
    print(f"\n{text_table(head, rows)}")


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="count,parts,pair")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for part in options.only.split(","):
        {"count": counts, "parts": parts, "pair": lambda: pair(options.rounds)}[part]()


if __name__ == "__main__":
    main()
