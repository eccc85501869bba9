"""Compare containers for packed tracklets: clips per second, open time, round trips, disk space, files, write time.

    python benchmarks/containers.py [--tracklets 2000 --frames 30 --folder DIR --network-folder DIR --counter FILE]

Every container holds the very bytes of JPEG frames and PNG masks. A clip is 4 consecutive frames and their masks of a
random tracklet, read but not decoded. "Cold" is after posix_fadvise(DONTNEED) on every file (directory entries stay
cached), and each clip is then of another tracklet. `--network-folder` is where a network file system shows `--folder`;
`--counter` is a file that begins with the number of look-ups, opens and reads it has served, as three uint64.
`pip install lmdb h5py pyarrow pylance zarr` for all containers; those whose package is missing are named.

Legend: R records (2m is frame m, 2m + 1 its mask), S = R + 1 their borders, N tracklets.
"""

import argparse
import importlib
import importlib.util
import io
import multiprocessing
import os
import struct
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.common.console import table as text_table

T = 4  # frames of a clip
H, W = 256, 128
SHARD_BYTES = 2**28
SECONDS = 2.0  # of reading, at most
Records = Sequence[bytes]
Clip = list[Any]  # frame, mask, frame, mask, ...: bytes, or what has their interface
Reader = Callable[[int], Clip]  # from the number of the first frame
Writer = Callable[[Any, Records, int, Path], None]
Opener = Callable[[Any, Path, int], Reader]


class Container(NamedTuple):
    """Functions that write tracklets of equal length to a folder and open it, with a library."""

    title: str
    library: str
    write: Writer
    open: Opener


def generate(tracklets: int, frames: int) -> list[bytes]:
    """Generate smooth noise with grain, whose JPEGs have 6 to 10 KB, and masks of circles."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((3 * H, 3 * W, 3)).astype(np.float32)
    records = []
    for _ in range(tracklets):
        colours, grain = rng.uniform(0, 255, (16, 8, 3)).astype(np.float32), np.float32(rng.uniform(0, 9))
        smooth = cv2.resize(colours, (W, H), interpolation=cv2.INTER_CUBIC)
        for top, left in rng.integers((0, 0), (2 * H, 2 * W), (frames, 2)).tolist():
            image = (smooth + grain * noise[top : top + H, left : left + W]).clip(0, 255).astype(np.uint8)
            mask = np.zeros((H, W), np.uint8)
            for x, y, radius in rng.integers((40, 40, 8), (88, 216, 36), (6, 3)).tolist():
                cv2.circle(mask, (x, y), radius, 255, -1)
            jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
            records += [jpeg.tobytes(), cv2.imencode(".png", mask)[1].tobytes()]
    return records


def name(record: int, frames: int) -> str:
    """Return the path of a record: a folder for every identity, with twelve tracklets."""
    tracklet, frame = divmod(record // 2, frames)
    return f"{tracklet // 12:04d}/{tracklet:06d}F{frame:03d}.{'png' if record % 2 else 'jpg'}"


def write_files(_: Any, records: Records, frames: int, folder: Path) -> None:
    for record, content in enumerate(records):
        path = folder / name(record, frames)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def open_files(_: Any, folder: Path, frames: int) -> Reader:
    return lambda frame: [(folder / name(record, frames)).read_bytes() for record in range(2 * frame, 2 * (frame + T))]


def write_tar(_: Any, records: Records, frames: int, folder: Path) -> None:
    """Write shards and, last, an index with the place of every record's bytes."""
    sizes_R, offsets_R = np.array([*map(len, records)], np.int32), np.zeros(len(records), np.int64)
    shards_N = (np.cumsum(sizes_R, dtype=np.int64) // SHARD_BYTES)[:: 2 * frames]
    for shard in range(shards_N[-1] + 1):
        with tarfile.open(folder / f"{shard:03d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for record in np.flatnonzero(np.repeat(shards_N, 2 * frames) == shard).tolist():
                info, offsets_R[record] = tarfile.TarInfo(name(record, frames)), tar.offset + tarfile.BLOCKSIZE
                info.size = len(records[record])
                tar.addfile(info, io.BytesIO(records[record]))
    np.savez(folder / "index.npz", offsets=offsets_R, sizes=sizes_R, shards=shards_N)


def open_tar(_: Any, folder: Path, frames: int, parts: Sequence[slice] = (slice(None),)) -> Reader:
    """Read a clip by one os.pread for each part of its eight adjacent records."""
    with np.load(folder / "index.npz") as index:
        offsets_R, sizes_R, shards_N = index["offsets"], index["sizes"], index["shards"]
    files = [os.open(path, os.O_RDONLY) for path in sorted(folder.glob("*.tar"))]

    def clip(frame: int) -> Clip:
        here, values = slice(2 * frame, 2 * (frame + T)), [memoryview(b"")] * (2 * T)
        places = list(zip(offsets_R[here].tolist(), sizes_R[here].tolist(), strict=True))
        for part in parts:
            begin, end = places[part][0][0], sum(places[part][-1])
            block = memoryview(os.pread(files[shards_N[frame // frames]], end - begin, begin))
            values[part] = [block[offset - begin : offset - begin + size] for offset, size in places[part]]
        return values

    return clip


def write_lmdb(lmdb: Any, records: Records, _: int, folder: Path) -> None:
    """Write each record under its own key, in order, all in one transaction."""
    size = 2 * sum(map(len, records)) + 2**24
    with lmdb.open(str(folder), map_size=size) as environment, environment.begin(write=True) as transaction:
        for record, content in enumerate(records):
            transaction.put(struct.pack(">q", record), content, append=True)


def open_lmdb(lmdb: Any, folder: Path, _: int) -> Reader:
    transaction = lmdb.open(str(folder), readonly=True, lock=False).begin()
    return lambda frame: [transaction.get(struct.pack(">q", record)) for record in range(2 * frame, 2 * (frame + T))]


def joined(records: Records) -> tuple[Any, Any]:
    """Join all bytes, and return them with the borders between records."""
    return np.frombuffer(b"".join(records), np.uint8), np.cumsum([0, *map(len, records)])


def cut(content: Any, starts_S: Any) -> Reader:
    """Return a reader for the arrays of `joined` on disk."""

    def clip(frame: int) -> Clip:
        borders = starts_S[2 * frame : 2 * (frame + T) + 1].tolist()
        block = memoryview(content[borders[0] : borders[-1]])
        return [block[a - borders[0] : b - borders[0]] for a, b in pairwise(borders)]

    return clip


def write_hdf5(h5py: Any, records: Records, _: int, folder: Path) -> None:
    with h5py.File(folder / "data.h5", "w", libver="latest") as file:
        file["content"], file["starts"] = joined(records)


def open_hdf5(h5py: Any, folder: Path, _: int) -> Reader:
    file = h5py.File(folder / "data.h5")
    return cut(file["content"], file["starts"][:])


def write_zarr(zarr: Any, records: Records, _: int, folder: Path) -> None:
    content, starts_S = joined(records)
    plain = {"compressors": None, "filters": None, "chunks": (2**16,), "shards": (SHARD_BYTES,)}
    zarr.create_array(folder / "data.zarr", shape=content.shape, dtype=np.uint8, **plain)[:] = content
    np.save(folder / "starts.npy", starts_S)


def open_zarr(zarr: Any, folder: Path, _: int) -> Reader:
    return cut(zarr.open_array(folder / "data.zarr", mode="r"), np.load(folder / "starts.npy"))


def batches(records: Records, frames: int) -> Any:
    """Yield an Arrow record batch for each tracklet."""
    pyarrow = importlib.import_module("pyarrow")
    schema = pyarrow.schema({"frame": pyarrow.binary(), "mask": pyarrow.binary()})
    cuts = (records[first : first + 2 * frames] for first in range(0, len(records), 2 * frames))
    made = (pyarrow.record_batch([pyarrow.array(some[kind::2]) for kind in (0, 1)], schema=schema) for some in cuts)
    return pyarrow.RecordBatchReader.from_batches(schema, made)


def pairs(table: Any) -> Clip:
    return [value.as_py() for pair in zip(table["frame"], table["mask"], strict=True) for value in pair]


def write_arrow(pyarrow: Any, records: Records, frames: int, folder: Path) -> None:
    content = batches(records, frames)
    with pyarrow.ipc.new_file(str(folder / "data.arrow"), content.schema) as file:
        file.write_table(content.read_all())


def open_arrow(pyarrow: Any, folder: Path, frames: int, kind: str = "memory_map") -> Reader:
    """Open with pyarrow's memory_map, or with its OSFile, which reads a whole tracklet for a clip."""
    file = pyarrow.ipc.open_file(getattr(pyarrow, kind)(str(folder / "data.arrow")))
    return lambda frame: pairs(file.get_batch(frame // frames).slice(frame % frames, T))


def write_parquet(parquet: Any, records: Records, frames: int, folder: Path) -> None:
    """Write each tracklet, uncompressed, as one row group."""
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False, "row_group_size": frames}
    parquet.write_table(batches(records, frames).read_all(), folder / "data.parquet", **plain)


def open_parquet(parquet: Any, folder: Path, frames: int) -> Reader:
    file = parquet.ParquetFile(folder / "data.parquet")
    return lambda frame: pairs(file.read_row_group(frame // frames, use_threads=False).slice(frame % frames, T))


def write_lance(lance: Any, records: Records, frames: int, folder: Path) -> None:
    lance.write_dataset(batches(records, frames), folder / "data.lance", max_bytes_per_file=SHARD_BYTES)


def open_lance(lance: Any, folder: Path, _: int) -> Reader:
    dataset = lance.dataset(folder / "data.lance")
    return lambda frame: pairs(dataset.take(list(range(frame, frame + T))))


CONTAINERS = [
    Container("plain files", "os", write_files, open_files),
    Container("tar, 8 preads", "tarfile", write_tar, partial(open_tar, parts=[slice(i, i + 1) for i in range(2 * T)])),
    Container("tar, 1 pread", "tarfile", write_tar, open_tar),
    Container("LMDB (mmap)", "lmdb", write_lmdb, open_lmdb),
    Container("HDF5, one array", "h5py", write_hdf5, open_hdf5),
    Container("Arrow IPC (mmap)", "pyarrow", write_arrow, open_arrow),
    Container("Arrow IPC (file)", "pyarrow", write_arrow, partial(open_arrow, kind="OSFile")),
    Container("Parquet", "pyarrow.parquet", write_parquet, open_parquet),
    Container("Lance", "lance", write_lance, open_lance),
    Container("Zarr 3, sharded", "zarr", write_zarr, open_zarr),
]
ready: Barrier  # shared by the processes of one measurement


class Job(NamedTuple):
    """Work of one process: the container's number, its folder, the first frames of clips (cold: each only once)."""

    number: int
    folder: Path
    frames: int
    firsts: list[int]
    cold: bool
    counter: Path | None = None


def start(barrier: Barrier) -> None:
    global ready
    ready = barrier


def served(counter: Path | None) -> int:
    return int(np.fromfile(counter, np.uint64, 3).sum()) if counter else 0


def work(job: Job) -> list[float]:
    """Measure the seconds to open (without import), clips per second, and round trips to open and per clip."""
    container = CONTAINERS[job.number]
    try:
        library = importlib.import_module(container.library)
        trips, began, clips = [served(job.counter)], time.perf_counter(), 0
        read = container.open(library, job.folder, job.frames)
        opened = time.perf_counter() - began
        trips.append(served(job.counter))
        ready.wait(60)
        began = time.perf_counter()
        while time.perf_counter() < began + SECONDS and not (job.cold and clips == len(job.firsts)):
            read(job.firsts[clips % len(job.firsts)])
            clips += 1
        took = time.perf_counter() - began
    except BaseException:
        ready.abort()
        raise
    return [opened, clips / took, trips[1] - trips[0], (served(job.counter) - trips[1]) / clips]


def measure(job: Job, processes: int) -> NDArray[np.float64]:
    """Return the means over all processes, but the sum of their clips per second; they share the clips equally."""
    context, parts = multiprocessing.get_context("spawn"), [job.firsts[i::processes] for i in range(processes)]
    try:
        with context.Pool(processes, start, (context.Barrier(processes),)) as pool:
            found = pool.map(work, [job._replace(firsts=firsts) for firsts in parts], 1)
    except Exception as error:
        print(f"{CONTAINERS[job.number].title} from {job.folder}: {error}")
        return np.full(4, np.nan)
    return np.asarray(np.mean(found, axis=0) * (1, processes, 1, 1))


def write(job: Job, records: Records) -> list[str]:
    """Write and sync all records, check them by reading, and return number of files, MiB and seconds."""
    container = CONTAINERS[job.number]
    library, began = importlib.import_module(container.library), time.perf_counter()
    container.write(library, records, job.frames, job.folder)
    os.sync()
    took, read = time.perf_counter() - began, container.open(library, job.folder, job.frames)
    for first in (0, len(records) // 2 - T):
        assert [*map(bytes, read(first))] == records[2 * first :][: 2 * T], f"{container.title}: other bytes"
    sizes = [path.stat().st_size for path in files(job.folder)]
    return [f"{len(sizes)}", f"{sum(sizes) / 2**20:.0f}", f"{took:.1f}"]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def row(job: Job, records: Records, network: Path | None) -> list[str]:
    """Return one line of the table."""
    cells = [CONTAINERS[job.number].title, *write(job, records)]
    warm, both = measure(job, 1), measure(job, 2)
    for path in files(job.folder):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    cold = measure(job._replace(cold=True), 1)
    cells += [f"{warm[0] * 1e3:.0f}", f"{cold[0] * 1e3:.0f}", *(f"{found[1]:.0f}" for found in (warm, both, cold))]
    if network:
        for path in files(job.folder):
            path.read_bytes()  # what serves it has it in memory
        job = job._replace(folder=network / job.folder.name, cold=True)
        halves = job._replace(firsts=job.firsts[::2]), job._replace(firsts=job.firsts[1::2])
        alone, eight = measure(halves[0], 1), measure(halves[1], 8)
        cells += [f"{alone[2]:.0f}", f"{alone[0] * 1e3:.0f}", f"{alone[3]:.1f}", f"{alone[1]:.0f}", f"{eight[1]:.0f}"]
    return cells


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracklets", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=30, help="of each tracklet")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--network-folder", type=Path)
    parser.add_argument("--counter", type=Path)
    options = parser.parse_args()
    rng, frames = np.random.default_rng(0), options.frames
    starts = rng.permutation(options.tracklets) * frames
    firsts = (starts + rng.integers(0, frames - T + 1, options.tracklets)).tolist()
    header = ["", "files", "MiB", "write s", "open ms", "cold", "clips/s", "2 procs", "cold"]
    header += ["net: trips to open", "ms", "trips/clip", "clips/s", "8 procs"] if options.network_folder else []
    records, rows = generate(options.tracklets, frames), []
    for number, container in enumerate(CONTAINERS):
        if importlib.util.find_spec(container.library.split(".")[0]) is None:
            print(f"{container.title}: {container.library} is not installed")
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            job = Job(number, Path(folder), frames, firsts, False, options.counter)
            rows.append(row(job, records, options.network_folder))
    print(text_table(header, rows))


if __name__ == "__main__":
    main()
