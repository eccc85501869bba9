"""Measure the speed of SSIN's training clips against bare decoding and a plain loader; also memory and opened files.

    python benchmarks/data.py [--data data/walkers --batch 32 --seconds 1.5 --rounds 3 --gpu 4700]

A clip is 4 consecutive frames of 256 x 128 and their masks. Every line is a PyTorch loader whose processes and whose
reader share the cores named, one process a core; the lines take turns, and the best of the rounds counts. Ratios are of
clips a second of processor time, so that other programs disturb them less. Files are in the page cache. "on the
device": enlarging, cropping and flipping are left to the GPU, as in training on one; else the loader does them. The
bytes of a batch are handed over, not read: pinning and moving them is not in the numbers. "JPEG decoding" is OpenCV's;
our lines decode by simplejpeg where it is installed. Last comes skeletons.py: SMIN's clips.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import timeit
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from sptskm.common.console import table as text_table
from sptskm.config import SsinClips
from sptskm.data import Tracklets, bilevel, read_dataset
from sptskm.data.clips import FrameSource, TrainClips
from sptskm.data.files import read_frame, read_mask
from sptskm.data.images import read_header
from sptskm.data.packs.writing import pack
from sptskm.data.sampler import Draw
from sptskm.data.tracklets import Readable
from sptskm.data.windows import random_window
from sptskm.synthetic.casting import Sizes
from sptskm.synthetic.writer import write_dataset

SIZES = Sizes(train_ids=20, test_ids=1, cameras=3, tracklets_per_camera=(1, 2), frames=(24, 36), distractors=0, junk=0)
ITSELF = [sys.executable, __file__, "--run"]
CLIPS = SsinClips()
T = CLIPS.frames
WARM = 6  # batches of each process that do not count: all places of the ring, and more


class Bare(Dataset[int]):
    """Frames and masks of the same windows, decoded and thrown away."""

    def __init__(self, table: Tracklets, decode: Callable[[Readable, Readable], object]) -> None:
        self.table, self.decode = table, decode

    def __getitem__(self, draws: list[Draw]) -> int:
        for draw in draws:
            frames = random_window(int(self.table.lengths[draw.row]), T, draw.generator(0)).tolist()
            files = (self.table.files(draw.row, frames, modality) for modality in ("frames", "masks"))
            for frame, mask in zip(*files, strict=True):
                self.decode(frame, mask)
        return 0


class Straightforward(Dataset[Any]):
    """The published steps, one frame after the other, without any optimisation.

    Read both files as colour images, cut the grey of the mask at 30, stack, resize or enlarge and crop, flip, divide by
    255, convert to float32 planes; stack frames to clips and clips to batches.
    """

    def __init__(self, table: Tracklets) -> None:
        self.table = table

    def __getitem__(self, draws: list[Draw]) -> Any:
        return default_collate([self.clip(draw) for draw in draws])

    def clip(self, draw: Draw) -> tuple[Tensor, Tensor, int]:
        rng = draw.generator(0)
        window = random_window(int(self.table.lengths[draw.row]), T, rng)
        enlarge, flip = rng.random() >= 0.5, rng.random() < 0.5
        top, left = int(rng.integers(33)), int(rng.integers(17))
        frames, masks = [], []
        for frame in window.tolist():
            image = self.stacked(draw.row, frame)
            image = cv2.resize(image, (144, 288) if enlarge else (128, 256), interpolation=cv2.INTER_LINEAR)
            image = image[top : top + 256, left : left + 128] if enlarge else image
            image = image[:, ::-1] if flip else image
            frames.append(torch.from_numpy((image[..., :3].astype(np.float32) / 255).transpose(2, 0, 1).copy()))
            masks.append(torch.from_numpy((image[..., 3] / 255).astype(np.float32)))
        return torch.stack(frames), torch.stack(masks), draw.row

    def stacked(self, row: int, frame: int) -> NDArray[np.uint8]:
        image = cv2.cvtColor(cv2.imread(str(self.table.path(row, frame, "frames"))), cv2.COLOR_BGR2RGB)
        grey = cv2.cvtColor(cv2.imread(str(self.table.path(row, frame, "masks"))), cv2.COLOR_BGR2GRAY)
        return np.dstack([image, np.where(grey > 30, 255, 0).astype(np.uint8)])


def opencv(content: bytes) -> object:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def contents(table: Tracklets) -> dict[str, tuple[bytes, bytes]]:
    """Return the JPEG of every training frame by its name, and its mask as other programs write it (8 bits a pixel)."""
    found = {}
    for row in table.train.tolist():
        files = (table.files(row, range(int(table.lengths[row])), kind) for kind in ("frames", "masks"))
        for frame, mask in zip(*files, strict=True):
            found[frame.name] = frame.read_bytes(), cv2.imencode(".png", read_mask(mask))[1].tobytes()
    return found


def batches_of(table: Tracklets, size: int) -> Iterator[list[Draw]]:
    """Yield batches of random tracklets without end."""
    rng, position = np.random.default_rng(0), 0
    while True:
        yield [Draw(int(row), 0, position + k) for k, row in enumerate(rng.choice(table.train, size))]
        position += size


def loader_of(data: Dataset[Any], batches: Iterator[list[Draw]], workers: int) -> DataLoader[Any]:
    sampler: Any = batches  # any iterable will do
    return DataLoader(
        data, batch_size=None, sampler=sampler, num_workers=workers, worker_init_fn=lambda _: cv2.setNumThreads(0)
    )


@contextmanager
def on_cores(cores: list[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    yield
    os.sched_setaffinity(0, before)


def processor_seconds() -> float:
    """Return the CPU time of this process and of its loader processes."""
    stats = (Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split() for process in active_children())
    return time.process_time() + sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def measured(data: Dataset[Any], table: Tracklets, options: argparse.Namespace, cores: list[int]) -> NDArray[Any]:
    """Measure clips per second and clips per second of CPU time."""
    with on_cores(cores):
        coming = iter(loader_of(data, batches_of(table, options.batch), len(cores)))
        for _ in range(WARM * len(cores)):
            next(coming)
        began, used, count = time.perf_counter(), processor_seconds(), 0
        while time.perf_counter() < began + options.seconds:
            next(coming)
            count += options.batch
        return count / np.array([time.perf_counter() - began, processor_seconds() - used])


def speeds(files: Tracklets, packed: Tracklets, options: argparse.Namespace) -> str:
    """Measure the clips per second of every line on one core and on two."""
    source, later = FrameSource(files, CLIPS), FrameSource(files, CLIPS, on_device=True)
    memory = contents(files)

    def ours(frame: Readable, mask: Readable) -> object:
        return read_frame(frame), read_mask(mask)

    lines: dict[str, Dataset[Any]] = {
        "JPEG decoding, from memory": Bare(files, lambda frame, _: opencv(memory[frame.name][0])),
        "JPEG decoding, from files": Bare(files, lambda frame, _: opencv(frame.read_bytes())),
        "JPEG and PNG (8 bits) decoding, from memory": Bare(files, lambda frame, _: [*map(opencv, memory[frame.name])]),
        "JPEG and PNG decoding, from files": Bare(files, lambda *pair: [opencv(file.read_bytes()) for file in pair]),
        "our frames alone, from files": Bare(files, lambda frame, _: read_frame(frame)),
        "our frames and masks, from files": Bare(files, ours),
        "our frames and masks, from a pack": Bare(packed, ours),
        "our loader, from files": TrainClips(source, 0),
        "our loader, from a pack": TrainClips(replace(source, table=packed), 0),
        "our loader, from files, on the device": TrainClips(later, 0),
        "our loader, from a pack, on the device": TrainClips(replace(later, table=packed), 0),
        "straightforward loader, from files": Straightforward(files),
    }
    cores, rows = sorted(os.sched_getaffinity(0)), []
    counts = [count for count in (1, 2) if count <= len(cores)]
    best = {(name, count): np.zeros(2) for name in lines for count in counts}
    for name, count in list(best) * options.rounds:
        best[name, count] = np.maximum(best[name, count], measured(lines[name], files, options, cores[:count]))
    for name in lines:
        row: list[object] = [name]
        for count in counts:
            (speed, own), base, plain = (best[some, count] for some in (name, next(iter(lines)), next(reversed(lines))))
            row += [f"{speed:.0f}", f"{own:.0f}", f"{own / base[1]:.2f}", f"{own / plain[1]:.1f}"]
        rows.append([*row, f"{options.gpu / (T * best[name, 1][1]):.1f}"])
    header = [text for count in counts for text in (f"clips/s on {count}", "/core-s", "x JPEG", "x plain")]
    return text_table(["", *header, "cores/GPU"], rows)


def masks_as_pngs(table: Tracklets) -> str:
    """Measure decoding time and size of masks with one bit and with eight bits a pixel."""
    masks = [read_mask(*table.files(row, [0], "masks")) for row in table.train.tolist()]
    eight, one = [cv2.imencode(".png", mask)[1].tobytes() for mask in masks], [bilevel.encode(mask) for mask in masks]
    ways = (
        ("8 bits, OpenCV", eight, opencv),
        ("1 bit, OpenCV", one, opencv),
        ("1 bit, ours", one, bilevel.decode),
    )
    lines = []
    for name, some, decode in ways:
        took = min(timeit.repeat(lambda some=some, decode=decode: [*map(decode, some)], number=1, repeat=9)) / len(some)
        lines.append([name, f"{1e6 * took:.0f}", f"{np.mean([len(content) for content in some]):.0f}"])
    return text_table(["a mask as a PNG", "us to decode", "bytes"], lines)


def verification(packed: Tracklets) -> str:
    """Measure the share of verifying checksums and headers in loading frames and masks from a pack."""
    clips = [[packed.files(row, range(T), kind) for kind in ("frames", "masks")] for row in packed.train.tolist()]
    pairs = [pair for frames, masks in clips for pair in zip(frames, masks, strict=True)]
    contents = [(frame.read_bytes(), mask.read_bytes()) for frame, mask in pairs]

    def load() -> None:
        for row in packed.train.tolist():
            files = (packed.files(row, range(T), kind) for kind in ("frames", "masks"))
            for frame, mask in zip(*files, strict=True):
                read_frame(frame)
                read_mask(mask)

    def verify() -> None:
        for (frame, mask), (frame_content, mask_content) in zip(pairs, contents, strict=True):
            frame.read_bytes()
            mask.read_bytes()
            read_header(frame_content)
            zlib.crc32(mask_content)

    loading, verifying = (min(timeit.repeat(what, number=1, repeat=15)) / len(pairs) for what in (load, verify))
    lines = [["loading", f"{1e6 * loading:.1f}", ""]]
    lines.append(["verifying, of that", f"{1e6 * verifying:.1f}", f"{verifying / loading:.1%} (goal: under 3 %)"])
    return text_table(["a frame and its mask", "us", "share"], lines)


def growth(table: Tracklets, workers: int = 8, epochs: int = 3, per_epoch: int = 80) -> str:
    """Measure the memory of many loader processes after each epoch; pages shared by n processes count 1/n for each."""
    coming = iter(loader_of(TrainClips(FrameSource(table, CLIPS), 0), batches_of(table, 8), workers))
    sizes = []
    for _ in range(epochs):
        for _ in islice(coming, per_epoch):
            pass
        maps = [Path(f"/proc/{process.pid}/smaps_rollup").read_text() for process in active_children()]
        sizes.append(sum(int(text.split("\nPss:")[1].split()[0]) for text in maps) / 1024)
    told = f"{', '.join(f'{size:.0f}' for size in sizes)} MiB: {sizes[-1] / sizes[0] - 1:+.1%}"
    return f"{workers} loader processes after epochs 1 to {epochs} of {per_epoch} batches of 8 clips hold {told}"


def opened_files(root: Path) -> str:
    """Count the files that all processes open in one epoch."""
    with tempfile.NamedTemporaryFile("r") as log:
        strace = ["strace", "-f", "-qq", "-e", "trace=openat", "-e", "signal=none", "-o", log.name]
        told = subprocess.run([*strace, *ITSELF, "epoch", str(root)], check=True, capture_output=True, text=True).stdout
        opened = re.findall(rf'"{root}/[^"]*?(\.\w+)"', log.read())
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(opened).most_common())
    return f"opened in an epoch from {root.name} of {told.strip()}: {kinds}"


def epoch(table: Tracklets) -> None:
    batches = ([Draw(int(row), 0, int(row))] for row in table.train)
    count = sum(1 for _ in loader_of(TrainClips(FrameSource(table, CLIPS), 0), batches, 2))
    print(f"{count} clips ({T * count} frames, {T * count} masks)")


def forever(table: Tracklets) -> None:
    """Read batches without end; print a line when both loader processes have made some."""
    for number, _ in enumerate(loader_of(TrainClips(FrameSource(table, CLIPS), 0), batches_of(table, 32), 2)):
        if number == 2 * WARM:
            print("ready", flush=True)


def left_after_kill(root: Path) -> str:
    """Measure what stays in /dev/shm when a run with working loader processes gets SIGKILL."""
    before, command = shared_memory(), [*ITSELF, "forever", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        process.stdout.readline()
        amid = shared_memory()
        process.kill()
    began = time.monotonic()
    with suppress(ProcessLookupError):  # until none of its group is left
        while time.monotonic() < began + 30:
            os.killpg(process.pid, 0)
            time.sleep(0.1)
    after, took = shared_memory(), time.monotonic() - began
    held, left = (f"{len(now[0] - before[0])} names and {now[1] - before[1]:.0f} MiB" for now in (amid, after))
    return f"/dev/shm: {held} of a running loader of two processes, {left} {took:.0f} s after its SIGKILL"


def shared_memory() -> tuple[set[str], float]:
    """Return the names in /dev/shm, and the MiB in use there."""
    state = os.statvfs("/dev/shm")
    return set(os.listdir("/dev/shm")), (state.f_blocks - state.f_bfree) * state.f_frsize / 2**20  # noqa: PTH208


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="files of 256 x 128 in the MARS layout (default: generated)")
    parser.add_argument("--batch", type=int, default=32, help="clips (default: 32)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a measurement (default: 1.5)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpu", type=float, default=4700, help="frames/s that a GPU takes (default: 4700, an H200)")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)  # one of the two, and a data set
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more processes than this machine has cores
    if options.run:
        {"epoch": epoch, "forever": forever}[options.run[0]](read_dataset(options.run[1]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        files, packed = (options.data or Path(scratch) / "files").resolve(), Path(scratch).resolve() / "pack"
        if options.data is None:
            write_dataset(files, SIZES, seed=0)
        table = read_dataset(files)
        pack(table, packed)
        jpegs = "simplejpeg" if find_spec("simplejpeg") else "OpenCV"
        print(f"{len(table.train)} training tracklets, our JPEGs by {jpegs}; load {os.getloadavg()[0]:.1f}", flush=True)
        print(masks_as_pngs(table), flush=True)
        print(verification(read_dataset(packed)), flush=True)
        print(speeds(table, read_dataset(packed), options), flush=True)
        print(f"load {os.getloadavg()[0]:.1f}", growth(table), left_after_kill(files), sep="\n", flush=True)
        if shutil.which("strace"):
            print(opened_files(files), opened_files(packed), sep="\n", flush=True)
    subprocess.run([sys.executable, Path(__file__).with_name("skeletons.py")], check=True)


if __name__ == "__main__":
    main()
