"""Write a generated data set in the layout of MARS: walkers whose identity is in how they move.

Shapes: N tracklets, Q queries. Ids of train and test are disjoint; -1 is junk, 0 a distractor.
"""

import csv
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sptskm.common.atomic import naming, partial_folder
from sptskm.common.errors import ConfigError
from sptskm.common.paths import exists, is_folder
from sptskm.data.files import mat_bytes
from sptskm.data.parallel import in_parallel
from sptskm.synthetic.casting import Role, Sizes, cast
from sptskm.synthetic.filming import FilmedTracklet, film
from sptskm.synthetic.scenes import build_camera

_LOG = logging.getLogger(__name__)

_SKELETON_BYTES = 14 * 4 * 8

DEMO = Sizes(
    train_ids=48,
    test_ids=24,
    cameras=6,
    tracklets_per_camera=(1, 2),
    frames=(24, 36),
    distractors=24,
    junk=12,
)
TINY = Sizes(
    train_ids=6,
    test_ids=5,
    cameras=3,
    tracklets_per_camera=(2, 3),
    frames=(8, 12),
    distractors=2,
    junk=2,
)


def write_dataset(root: Path, sizes: Sizes, seed: int, workers: int | None = None, *, sized: bool = True) -> None:
    """Write the frames, masks, skeletons, tables and clothes.csv of a data set like MARS to `root`.

    Skeletons are in metres, or unless `sized` all of one size, as of an estimator without scale. The bytes depend on
    sizes, seed and `sized` alone. `workers` processes share the tracklets (all cores when None). The folder
    gets its name only when it is complete; the remains of a killed process are removed. Raises FileExistsError if
    `root` is anything but an empty folder, BlockingIOError while another process writes it, and ConfigError, a
    ValueError, for less than one worker or a seed below 0.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}, wanted at least 1")
    if seed < 0:
        raise ConfigError(f"seed is {seed}, wanted at least 0")
    train, test = cast(sizes, "train", seed), cast(sizes, "test", seed)
    root = Path(root)
    if exists(root) and (not is_folder(root) or any(root.iterdir())):
        raise FileExistsError(f"{root} already holds something, wanted a new or an empty folder")
    with partial_folder(root.resolve()) as folder:
        for role in (*train, *test):
            for kind in ("", "_mask", "_joint3d"):
                (folder / f"bbox_{role.split}{kind}" / role.label).mkdir(parents=True, exist_ok=True)
        _write_tables(folder, train, test)
        _film_all([_Job(folder, role, seed, sized) for role in (*train, *test)], workers)


@dataclass(frozen=True)
class _Job:
    folder: Path
    role: Role
    seed: int
    sized: bool


def _film_all(jobs: list[_Job], workers: int | None) -> None:
    total = sum(job.role.frames for job in jobs)
    _report(in_parallel(_film_one, jobs, workers, chunk=4), total)


def _report(frame_counts: Iterable[int], total: int) -> None:
    """Show progress on a terminal, or log it after every fifth of the frames elsewhere."""
    done, told = 0, 0
    with tqdm(total=total, unit="frame", desc="synthetic data set", disable=None) as bar:
        for count in frame_counts:
            done += count
            bar.update(count)
            if bar.disable and 5 * done // total > told:
                told = 5 * done // total
                _LOG.info("synthetic data set: %d of %d frames", done, total)


def _film_one(job: _Job) -> int:
    """Write one tracklet's files and return its number of frames."""
    role = job.role
    rng = np.random.default_rng([job.seed, role.split == "test", role.index])
    camera = build_camera(role.camid, job.seed)
    footage = film(role.walker, role.outfit, camera, role.frames, role.flaw, rng, job.sized)
    _write_footage(job.folder, role, footage)
    return role.frames


def _write_footage(folder: Path, role: Role, footage: FilmedTracklet) -> None:
    place, stems = f"bbox_{role.split}", role.stems()
    blank = mat_bytes("new_joint", np.zeros((14, 4)))[:-_SKELETON_BYTES]
    for row, stem in enumerate(stems):
        inside = Path(role.label) / stem
        skeleton = blank + footage.skeletons[row].astype("<f8").tobytes(order="F")
        _write((folder / place / inside).with_suffix(".jpg"), footage.frames[row])
        _write((folder / f"{place}_mask" / inside).with_suffix(".png"), footage.masks[row])
        _write((folder / f"{place}_joint3d" / inside).with_suffix(".mat"), skeleton)


def _write(path: Path, content: bytes) -> None:
    with naming(path):
        path.write_bytes(content)


def _write_tables(folder: Path, train: list[Role], test: list[Role]) -> None:
    info = folder / "info"
    info.mkdir()
    for name, roles in (("train", train), ("test", test)):
        lines = "".join(f"{stem}.jpg\r\n" for role in roles for stem in role.stems())
        _write(info / f"{name}_name.txt", lines.encode("ascii"))
        table = mat_bytes(f"track_{name}_info", _table(roles))
        _write(info / f"tracks_{name}_info.mat", table)
    rows = [[row for row, role in enumerate(test, start=1) if role.query]]
    query = mat_bytes("query_IDX", np.array(rows, dtype=np.uint16))
    _write(info / "query_IDX.mat", query)
    with naming(folder / "clothes.csv"), (folder / "clothes.csv").open("w", newline="", encoding="ascii") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["tracklet", "clothes"])
        writer.writerows([r.stems()[0], r.clothes] for r in (*train, *test) if r.pid > 0)


def _table(roles: list[Role]) -> NDArray[np.int32]:
    """Return the table (N, 4): first and last line of the name list (from 1, inclusive), pid, camera."""
    ends = np.cumsum([role.frames for role in roles])
    rows = [(end - role.frames + 1, end, role.pid, role.camid) for role, end in zip(roles, ends, strict=True)]
    return np.array(rows, dtype=np.int32)
