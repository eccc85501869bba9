"""Make masks or skeletons for all tracklets of a data set, in shards that may be killed at any moment.

The unit of work is a block: consecutive frames of one tracklet, always cut at the same places, because the last bits
of a network depend on the other frames of its batch. A block with a missing file is made again as a whole. So the
results after any number of kills have the same bytes as after an undisturbed run.
Legend: N frames of a block, H rows, W columns, 3 = blue, green, red.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sptskm.common.atomic import write_text
from sptskm.common.console import progress
from sptskm.common.errors import DataError
from sptskm.common.reading import read_json
from sptskm.config import ConfigError
from sptskm.data import Tracklets
from sptskm.data.derived import HOME, SETTINGS, Made, home_of, read_derived, write_frames, write_method
from sptskm.data.files import read_frame
from sptskm.data.stale import fingerprint_of, is_stale
from sptskm.data.tracklets import Modality
from sptskm.data.usable import Skeletons

PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]
Bytes = NDArray[np.uint8]

AHEAD = 2  # blocks that are read while one is computed
SQUARES = "_square"  # ending of a folder beside that of a tracklet's frames
SHOWN = 20  # files that a message lists


@dataclass(frozen=True)
class Maker:
    """A method that makes masks, skeletons, or both from frames."""

    writers: Mapping[Made, Callable[[Path, NDArray[Any]], None]]
    """Function for each kind of result that writes one result to its file atomically."""
    compute: Callable[[Bytes, Sequence[Bytes | None]], Iterable[Mapping[Made, NDArray[Any]]]]
    """Maps frames (N, H, W, 3) of one size, and the squares around them if kept, to N results."""
    settings: Mapping[str, Any]
    """Settings that change the results; all results of a data set share them."""
    looks_around: bool = False
    """Whether it uses the square around a frame, see `square_of`."""
    block: int = 16
    """Largest number of frames computed together."""

    @property
    def kinds(self) -> tuple[Made, ...]:
        """Return the kinds that it makes."""
        return tuple(self.writers)


@dataclass(frozen=True)
class FrameRange:
    """Consecutive frames of a tracklet; stored as numbers, because a data set may have a million of them."""

    row: int
    start: int
    stop: int

    def paths(self, table: Tracklets, modality: Modality) -> list[Path]:
        """Return the paths of its frames or results."""
        return [table.path(self.row, frame, modality) for frame in range(self.start, self.stop)]


@dataclass
class ShardResult:
    """Result of making a shard."""

    made: int = 0
    kept: int = 0
    """Number of files that existed before."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reasons by path of the missing result."""
    stale: int = 0
    """Number of files that were removed because they were made from other frames."""

    skeletons: Skeletons = Skeletons()  # noqa: RUF009 - a tuple
    """Counts of imported frames with a whole skeleton, a partial one or none."""

    def text(self, what: str) -> str:
        """Return the counts in one line; a cause that many files share counts as one failure."""
        causes = len(set(self.failed.values()))
        files = f" ({len(self.failed):,} files)" if causes < len(self.failed) else ""
        said = f"{self.made:,} {what}, {self.kept:,} were there, {causes:,} failed{files}"
        if any(self.skeletons):
            said += "; frames with a whole skeleton {:,}, a partial one {:,}, without one {:,}".format(*self.skeletons)
        return f"{said}; {self.stale:,} of other frames were removed first" if self.stale else said


def precision_of(method: str, asked: PrecisionName, gpu: bool) -> PrecisionName:
    """Resolve "auto": float16 for JPPNet on a GPU, else float32. Raises ConfigError for half without a GPU."""
    if asked == "auto":
        return "float16" if gpu and method == "jppnet" else "float32"
    if asked != "float32" and not gpu:
        raise ConfigError(f"--precision is {asked} and there is no GPU, wanted float32: CPUs are slow and coarse in it")
    return asked


def shard_rows(table: Tracklets, shard: int, shards: int) -> NDArray[np.int64]:
    """Return the tracklets of one of `shards` disjoint parts with about equally many frames. Raises ConfigError."""
    if shards < 1:
        raise ConfigError(f"shards is {shards}, wanted at least 1")
    if not 0 <= shard < shards:
        raise ConfigError(f"shard is {shard} of {shards}, wanted 0 to {shards - 1}")
    middles_N = np.cumsum(table.lengths) - table.lengths / 2
    return np.flatnonzero((middles_N * shards / table.lengths.sum()).astype(int) == shard)


def prepare_shard(root: Path, table: Tracklets, method: Maker, shard: int = 0, shards: int = 1) -> ShardResult:
    """Make the missing and the outdated results of a shard, and write its summary.

    A method that makes both kinds keeps the existing files of either kind. A frame that cannot be read is skipped and
    named in the outcome. Raises ConfigError when the data set holds results of another method.
    """
    rows = shard_rows(table, shard, shards)
    ledger, outcome = Ledger(root, table, method.kinds, method.settings), ShardResult()
    for row in rows.tolist():
        outcome.stale += ledger.remove_stale(row)
    lacking: dict[FrameRange, list[Made]] = {}
    for made in method.kinds:
        for block in missing_blocks(table, rows, made, method.block):
            lacking.setdefault(block, []).append(made)
    blocks = sorted(lacking, key=lambda block: (block.row, block.start))
    missing = sum((block.stop - block.start) * len(kinds) for block, kinds in lacking.items())
    outcome.kept = int(table.lengths[rows].sum()) * len(method.kinds) - missing
    named = f"{' and '.join(method.kinds)} {shard + 1} of {shards}"
    for block, images in progress(_read_ahead(table, blocks, method.looks_around), named, total=len(blocks)):
        wanted = replace(method, writers={made: method.writers[made] for made in lacking[block]})
        _make(table, block, images, wanted, outcome, ledger)
    for made in method.kinds:
        write_note(root, made, f"{shard:04d}-of-{shards:04d}", outcome, method.settings)
    return outcome


class Ledger:
    """Record of the method and frames of a data set's masks, skeletons or both while they are made.

    The method of the data set and the frames of a tracklet are recorded right before the first result is written, so an
    attempt without results leaves no record. Raises ConfigError when there are results of another method.
    """

    def __init__(self, root: Path, table: Tracklets, kinds: Sequence[Made], method: Mapping[str, Any]) -> None:
        self.root, self.table, self.kinds, self.method = root, table, tuple(kinds), dict(method)
        self.begun: dict[Made, int] = {}
        self.check()

    def check(self) -> None:
        """Raise ConfigError when there are results of another method."""
        for made in self.kinds:
            self._check(made)

    def _check(self, made: Made) -> None:
        found = read_derived(self.root).methods.get(made)
        if found is None:
            return
        if "precision" in self.method:
            found = {"precision": "float32", **found}  # older records lack it; only CPUs made results then
        changed = [key for key in self.method if found.get(key) != self.method[key]]
        if not changed or not _any_result(self.table, made):
            return
        said = "; ".join(f"{key}: {found.get(key)} -> {self.method[key]}" for key in changed)
        end = "remove them and this file"
        end = f"give --precision {found['precision']}, or {end}" if changed == ["precision"] else end
        file = home_of(self.root) / HOME / made / SETTINGS
        raise ConfigError(f"{file}: the {made} there were made otherwise ({said}); {end}")

    def begin(self, row: int, made: Made) -> None:
        """Record the method and the frames of a tracklet's results; called before each result."""
        if made not in self.begun:
            self._check(made)
            write_method(self.root, made, self.method)
        if self.begun.get(made) != row:
            with suppress(DataError):  # a frame that cannot be read is reported where it is used
                folder, key = self.table.folder(row, made), str(self.table.keys_N[row])
                write_frames(self.root, made, folder, key, fingerprint_of(self.table, row))
            self.begun[made] = row

    def remove_stale(self, row: int) -> int:
        """Remove a tracklet's results if they were made from other frames; return the number of removed files."""
        stale = [made for made in self.kinds if self._is_stale(row, made)]
        results = [self.table.path(row, frame, made) for made in stale for frame in range(self.table.lengths[row])]
        there = [path for path in results if path.is_file()]
        for path in there:
            path.unlink()
        return len(there)

    def _is_stale(self, row: int, made: Made) -> bool:
        try:
            return is_stale(self.table, row, made)
        except (DataError, OSError):  # the frames' content is unknown, so nothing is removed
            return False


def _any_result(table: Tracklets, made: Made) -> bool:
    return any(
        table.path(row, frame, made).is_file() for row in range(len(table)) for frame in range(table.lengths[row])
    )


def write_note(root: Path, made: Made, shard: str, outcome: ShardResult, settings: Mapping[str, Any]) -> None:
    """Write the shard's summary as JSON."""
    text = json.dumps({**vars(outcome), "settings": dict(settings)}, indent=1)
    write_text(home(root, made) / f"shard-{shard}.json", text)


def home(root: Path, made: Made) -> Path:
    """Return the folder for the records of a data set's masks or skeletons; create it if needed."""
    folder = home_of(root) / HOME / made
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def missing_blocks(table: Tracklets, rows: Iterable[int], made: Made, size: int) -> Iterator[FrameRange]:
    """Yield the blocks of at most `size` frames with a missing result.

    Folders are listed, which costs less than a look-up of every file.
    """
    names: dict[Path, set[str]] = {}
    for row in rows:
        results = [table.path(row, frame, made) for frame in range(table.lengths[row])]
        folder = results[0].parent
        if folder not in names:
            names = {folder: {path.name for path in folder.iterdir()} if folder.is_dir() else set()}
        for start in range(0, len(results), size):
            stop = min(start + size, len(results))
            if not {path.name for path in results[start:stop]} <= names[folder]:
                yield FrameRange(int(row), start, stop)


@dataclass(frozen=True)
class SquaredFrame:
    """A frame (H, W, 3), and the square of the video's picture around it if that was kept."""

    frame: Bytes
    around: Bytes | None


def square_of(frame: Path) -> Path:
    """Return the path of the square around a frame that was cut from a video; the file may not exist."""
    return frame.parent.with_name(frame.parent.name + SQUARES) / f"{frame.stem}.jpeg"


def _read_ahead(
    table: Tracklets, blocks: Sequence[FrameRange], around: bool
) -> Iterator[tuple[FrameRange, list[SquaredFrame | DataError]]]:
    """Yield blocks with their frames, decoded while other blocks are computed."""
    waiting: deque[tuple[FrameRange, Future[list[SquaredFrame | DataError]]]] = deque()
    with ThreadPoolExecutor(1) as reader:
        for block in blocks:
            waiting.append((block, reader.submit(_read, block.paths(table, "frames"), around)))
            if len(waiting) > AHEAD:
                block, images = waiting.popleft()
                yield block, images.result()
        for block, images in waiting:
            yield block, images.result()


def _read(frames: Iterable[Path], around: bool) -> list[SquaredFrame | DataError]:
    images: list[SquaredFrame | DataError] = []
    for path in frames:
        try:
            square = read_frame(square_of(path))[..., ::-1] if around and square_of(path).is_file() else None
            images.append(SquaredFrame(read_frame(path)[..., ::-1], square))
        except DataError as error:
            images.append(error)
    return images


def _make(  # inputs, method and records
    table: Tracklets,
    block: FrameRange,
    images: Sequence[SquaredFrame | DataError],
    method: Maker,
    outcome: ShardResult,
    ledger: Ledger,
) -> None:
    """Write the results of a block; the outcome names frames that cannot be read."""
    by_kind = [block.paths(table, made) for made in method.kinds]
    paths = [dict(zip(method.kinds, own, strict=True)) for own in zip(*by_kind, strict=True)]
    pairs = list(zip(paths, images, strict=True))
    for own, error in pairs:
        if isinstance(error, DataError):
            outcome.failed |= {str(path): str(error) for path in own.values()}
    readable = [(own, image) for own, image in pairs if not isinstance(image, DataError)]
    for folder in {path.parent for own, _ in readable for path in own.values()}:
        folder.mkdir(parents=True, exist_ok=True)
    for _, group in groupby(readable, key=lambda pair: pair[1].frame.shape):
        places, pictures = zip(*group, strict=True)
        frames_NHW3 = np.stack([picture.frame for picture in pictures])
        found = method.compute(frames_NHW3, [picture.around for picture in pictures])
        for own, results in zip(places, found, strict=True):
            for made, path in own.items():
                ledger.begin(block.row, made)
                method.writers[made](path, results[made])
                outcome.made += 1


def verify_results(root: Path, table: Tracklets, made: Made, compare: bool = True) -> tuple[bool, str]:
    """Return whether every frame has its own mask or skeleton, and a text on the missing ones, with reasons.

    With `compare` all frames are read, to find tracklets whose results were made from other frames.
    """
    missing = list(missing_blocks(table, range(len(table)), made, size=1))
    total = int(table.lengths.sum())
    reasons: dict[str, str] = {}
    for file in sorted(home(root, made).glob("shard-*.json")):
        reasons |= _failed(file)
    lines = [f"{total - len(missing):,} of {total:,} {made} are there"]
    lines += _listed([str(path) for block in missing for path in block.paths(table, made)], reasons)
    stale = [str(table.keys_N[row]) for row in range(len(table)) if compare and is_stale(table, row, made)]
    if stale:
        shown_keys = ", ".join(stale[:SHOWN]) + (", ..." if len(stale) > SHOWN else "")
        lines.append(
            f"{len(stale):,} tracklets have other frames now than their {made} were made of: {shown_keys}; "
            f"`sptskm prepare {made}` makes these again"
        )
    return not missing and not stale, "\n".join(lines)


def _listed(missing: Sequence[str], reasons: Mapping[str, str]) -> list[str]:
    """Return a line for each cause, with the first file concerned, for up to SHOWN causes."""
    files: dict[str, list[str]] = {}
    for path in missing:
        files.setdefault(reasons.get(path, f"{path} is not made yet"), []).append(path)
    lines = []
    for concerned in list(files.values())[:SHOWN]:
        others = f" (and {len(concerned) - 1:,} others)" if len(concerned) > 1 else ""
        lines.append(f"{concerned[0]}{others}: {reasons.get(concerned[0], 'not made yet')}")
    left = sum(map(len, list(files.values())[SHOWN:]))
    return lines + ([f"... and {left:,} more"] if left else [])


@dataclass(frozen=True)
class _Note:
    """What is read of a shard's note: why files could not be made, by their paths."""

    failed: dict[str, str]


def _failed(file: Path) -> dict[str, str]:
    """Return the reasons in a shard's note; none if it cannot be read, as the reasons only explain."""
    try:
        return read_json(file, _Note).failed
    except (OSError, DataError):
        return {}
