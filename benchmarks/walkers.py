"""Train the demo's recipe by several seeds, and on several sets of generated walkers, and tell mean and spread.

    python benchmarks/walkers.py --out runs/walkers --worlds 0 1 --seeds 0 1 2

A world is a set of people, cameras and outfits drawn by `sptskm synth --seed WORLD`. An interrupted command goes
on where it stopped. With --kernel avx2 PyTorch computes as on an older processor, which rounds differently.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

OLDER = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
Numbers = dict[tuple[str, str], float]
"""mAP by subset of queries and ranking."""


def main(words: Sequence[str] | None = None) -> None:
    """Run all worlds and seeds and print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("runs/walkers"))
    options.add_argument("--config", type=Path, default=Path("configs/demo"))
    options.add_argument("--worlds", type=int, nargs="+", default=[0])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--kernel", choices=["avx2"], help="instructions that PyTorch may use (default: all)")
    options.add_argument("overrides", nargs="*", help="settings for `sptskm local`")
    chosen = options.parse_args(words)
    found = []
    for world in chosen.worlds:
        data = chosen.out / f"world-{world}"
        if not data.is_dir():
            run(["synth", str(data), "--seed", str(world)], chosen.kernel)
        for seed in chosen.seeds:
            folder = chosen.out / f"{chosen.kernel or 'own'}-{world}-{seed}"
            settings = [f"data.root={data}", f"train.seed={seed}", *chosen.overrides]
            if not (folder / "final/results.json").is_file():
                run(
                    ["local", "--stream", "all", "--config", str(chosen.config), "--run", str(folder), *settings],
                    chosen.kernel,
                )
            found.append(numbers(folder))
            print(f"world {world}, seed {seed}: {told(found[-1])}", flush=True)
    print(table(found))


def run(words: Sequence[str], kernel: str | None) -> None:
    """Run a command of sptskm, and raise CalledProcessError if it fails."""
    environment = {**os.environ, **(OLDER if kernel else {})}
    subprocess.run([sys.executable, "-m", "sptskm.cli", *words], check=True, env=environment)


def numbers(folder: Path) -> Numbers:
    """Return the mAP in percent of every ranking and subset of queries."""
    lines = json.loads((folder / "final/results.json").read_text())["results"]
    return {(line["queries"], line["stream"]): 100 * line["mAP"] for line in lines}


def told(found: Numbers) -> str:
    """Return the numbers of one run in a line."""
    return ", ".join(f"{queries} {stream} {value:.1f}" for (queries, stream), value in found.items())


def table(found: Sequence[Numbers]) -> str:
    """Return mean and standard deviation of all runs in Markdown, and in how many fused is above every stream."""
    values = defaultdict(list)
    for one in found:
        for key, value in one.items():
            values[key].append(value)
    lines = ["| queries | stream | mAP | runs |", "|---|---|---|---|"]
    for (queries, stream), of in values.items():
        spread = f" +- {stdev(of):.1f}" if len(of) > 1 else ""
        lines.append(f"| {queries} | {stream} | {mean(of):.1f}{spread} | {len(of)} |")
    for queries in dict.fromkeys(key[0] for key in values):
        streams = [stream for of, stream in values if of == queries and stream != "fused"]
        best = [one[queries, "fused"] >= max(one[queries, stream] for stream in streams) for one in found]
        lines.append(f"\nfused is the best on {queries} queries in {sum(best)} of {len(found)} runs")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
