"""Check that a data set on disk holds what its tables promise: every name, frame, mask and skeleton, file by file."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sptskm.common.errors import DataError
from sptskm.data import usable
from sptskm.data.dataset import read_any
from sptskm.data.derived import MADE, describe_method, record_of
from sptskm.data.files import (
    MASK_THRESHOLD,
    SKELETON_SHAPE,
    is_there,
    lost_mask,
    read_frame,
    read_mask,
    read_skeleton,
)
from sptskm.data.mars import MarsFolders
from sptskm.data.parallel import in_parallel
from sptskm.data.skeletons import normalise
from sptskm.data.stale import is_stale
from sptskm.data.tracklets import JUNK_PID, Modality, Readable, Tracklets

JUNK_LABEL = "00-1"  # identity -1 in frame names
KEPT = 20  # problems reported in full; all are counted
SPLITS = ("train", "test")
NOBODY = "no tracklet has an identity: they can be embedded and searched, not trained on or evaluated"
READERS: dict[Modality, Callable[[Readable], NDArray[Any]]] = {
    "frames": read_frame,
    "masks": read_mask,
    "skeletons": read_skeleton,
}


class Problem(NamedTuple):
    """A file that cannot be used, and why in one sentence with its path."""

    path: Readable
    sentence: str


class Count(NamedTuple):
    """Files of one modality in one split."""

    split: str
    modality: Modality
    absent: bool
    """There is no folder for it in either split, which is no problem: each stream needs only its own inputs."""
    promised: int
    found: int
    unreadable: int


@dataclass(frozen=True)
class Report:
    """The result of `check_dataset`; `problems` are the first of `num_problems`."""

    counts: tuple[Count, ...]
    tracklets: int
    frames_without_skeleton: int
    """Frames in which too few joints were found, see `sptskm.data.usable`; they are masked and are no problem."""
    tracklets_without_skeleton: int
    """Tracklets without any valid skeleton; they keep their row, but SMIN cannot use them."""
    upside_down: int
    """Tracklets whose heads are not above their feet; they can be used, unless others in the data stand upright."""
    partial_skeletons: int
    """Frames with missing joints; these joints are masked."""
    empty_masks: int
    """Masks that show nobody, see `sptskm.data.usable`; a few are no problem, a majority is one."""
    full_masks: int
    """Masks in which nearly every pixel belongs to the person."""
    size_mismatches: int
    """Masks whose size differs from that of their frame."""
    mislabelled: int
    """Tracklets whose frame names state a different identity than their row of the table."""
    nobody: str
    """What can be done without any identity, in words; empty where there are some."""
    methods: str
    """The methods that made the masks and skeletons, in words."""
    num_problems: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Return whether every file is there, readable and of the right size, and names and tables agree."""
        return self.num_problems == 0

    def text(self) -> str:
        """Format the counts and the first problems as a table for a terminal."""
        layout = "{:<6} {:<10} {:>10} {:>10} {:>10}"
        lines = [layout.format("split", "modality", "promised", "found", "unreadable")]
        for split, modality, absent, promised, found, unreadable in self.counts:
            told = ("absent", "") if absent else (found, unreadable)
            lines.append(layout.format(split, modality, promised, *told))
        lines += [
            f"frames without a skeleton: {self.frames_without_skeleton}",
            f"frames with a partial skeleton: {self.partial_skeletons}",
            f"tracklets without a skeleton: {self.tracklets_without_skeleton} of {self.tracklets}",
            *([f"tracklets with heads below feet, where y is down: {self.upside_down}"] if self.upside_down else []),
            f"empty masks: {self.empty_masks}; full masks: {self.full_masks}",
            f"masks of another size than their frame: {self.size_mismatches}",
            *filter(None, [self.methods, self.nobody]),
            f"tracklets whose names and table disagree on the identity: {self.mislabelled}",
            f"problems: {self.num_problems}" + (f", the first {KEPT}:" if self.num_problems > KEPT else ""),
        ]
        return "\n".join(lines + [f"  {problem.sentence}" for problem in self.problems])


def check_dataset(root: Path, decode: bool = True, workers: int | None = None) -> Report:
    """Look for every file that the tables in `root` promise and, with `decode`, read it as training does.

    A data set without a problem can be trained on, extracted and packed, as far as its modalities allow; one without
    identities can be extracted from and searched. Without `decode` only missing and empty files are found. `workers`
    processes share the tracklets (all cores when None). Raises DataError or FileNotFoundError if the tables themselves
    cannot be used.
    """
    table = read_any(root)
    present = {modality: table.has(modality) for modality in READERS}
    problems = _mislabelled(table, Path(root)) if isinstance(table.place, MarsFolders) else []
    total = Counter({"mislabelled": len(problems), "problem": len(problems)})
    del problems[KEPT:]
    looked_at = in_parallel(_Look(table, present, decode), range(len(table)), workers, chunk=8)
    lost = ""
    for tally in tqdm(looked_at, "check", len(table), disable=None):
        total.update(tally.counts)
        problems += tally.problems[: KEPT - len(problems)]
        lost = lost or tally.lost
    general = _problems_of_whole(table, Path(root), present, total, lost)
    total["problem"] += len(general)
    problems = [*general, *problems][:KEPT]
    return _report(table, present, total, tuple(problems))


def _problems_of_whole(
    table: Tracklets, root: Path, present: Mapping[Modality, bool], total: Counter[str], lost: str
) -> list[Problem]:
    """Return the problems of the data set as a whole, which show even if each file can be read."""
    if not any(present.values()):
        return [Problem(root, f"{root}: holds no folder of frames, masks or skeletons")]
    found, masks = [], total["mask"]
    if total["lost mask"] > usable.MOST_LOST * masks:
        found.append(
            f"{total['lost mask']} of {masks} masks show nothing where SSIN looks (grey values above {MASK_THRESHOLD} "
            f"are the person): {lost}, wanted 0 and 255 in 8 bits; `sptskm prepare masks --from` brings such in"
        )
    elif total["empty mask"] > usable.MOST_EMPTY * masks:
        found.append(f"{total['empty mask']} of {masks} masks are empty masks, wanted a person in most of them")
    for part, rows in (("training", table.train), ("test", table.test)):
        if (
            present["skeletons"]
            and len(rows)
            and not total["problem"]
            and not total[f"{part} tracklet with a skeleton"]
        ):
            folder = table.folder(int(rows[0]), "skeletons")
            found.append(f"{folder}: no skeleton found for any of {len(rows)} {part} tracklets")
    return [Problem(root, sentence) for sentence in found]


def _mislabelled(table: Tracklets, root: Path) -> list[Problem]:
    """Return tracklets whose frame names and table disagree on the identity.

    This happens when the list of names is sorted anew: every range of the table then points to other frames.
    """
    problems = []
    for row, pid in enumerate(table.pids_N.tolist()):
        label = JUNK_LABEL if pid == JUNK_PID else f"{pid:04d}"
        stems = table.stems(row)
        if other := next((stem for stem in stems if stem[:4] != label), None):
            split = SPLITS[row >= table.num_train]
            number = row - table.num_train * (split == "test") + 1
            path = root / "info" / f"{split}_name.txt"
            sentence = f"{path}: {other} belongs to row {number} of the {split} table, wanted a name with {label}"
            problems.append(Problem(path, sentence))
    return problems


class _Tally(NamedTuple):
    counts: Counter[str]
    problems: list[Problem]
    lost: str
    """A mask whose encoding hides the person, and how it is stored; empty if there is none."""


class _Raw(NamedTuple):
    """The skeletons of a tracklet as stored in its files, with a flag for each that could be read."""

    skeletons_FV4: NDArray[np.float32]
    read_F: NDArray[np.bool_]

    @classmethod
    def of(cls, length: int) -> "_Raw":
        return cls(np.full((length, *SKELETON_SHAPE), np.nan, np.float32), np.zeros(length, bool))


@dataclass(frozen=True, eq=False)
class _Look:
    """Checks tracklets one by one; can be sent to worker processes."""

    table: Tracklets
    present: dict[Modality, bool]
    decode: bool

    def __call__(self, row: int) -> _Tally:
        """Check the files of a tracklet."""
        counts: Counter[str] = Counter()
        problems: list[Problem] = []
        lost = ""
        sizes: dict[int, tuple[int, ...]] = {}  # (height, width) by frame
        length = int(self.table.lengths[row])
        raw = _Raw.of(length)
        for modality in self._separate(row, counts, problems):
            for frame, file in enumerate(self.table.files(row, range(length), modality)):
                try:
                    array = self._array(row, file, modality, counts)
                    if modality == "frames":
                        sizes[frame] = array.shape[:2]
                    elif modality == "skeletons" and self.decode:
                        raw.skeletons_FV4[frame], raw.read_F[frame] = array, True
                    elif modality == "skeletons":
                        counts["has"] = 1
                    elif self.decode:
                        _compare_sizes(file, array, sizes.get(frame, ()), counts)
                        lost = _count_mask(file, array, counts) or lost
                except DataError as error:
                    problems.append(Problem(file, str(error)))
            if modality == "skeletons" and self.decode:
                self._count_skeletons(row, raw, counts, problems)
        problems += self._stale(row)
        counts["problem"] = len(problems)
        part = "test" if row >= self.table.num_train else "training"
        counts[f"{part} tracklet with a skeleton"] = counts.pop("has", 0)
        return _Tally(counts, problems[:KEPT], lost)

    def _count_skeletons(self, row: int, raw: "_Raw", counts: Counter[str], problems: list[Problem]) -> None:
        """Count the skeletons of a tracklet that SMIN can use."""
        try:
            given_FV4 = usable.finite(normalise(usable.fill_joints(raw.skeletons_FV4)))
        except ValueError as error:
            folder = self.table.folder(row, "skeletons")
            problems.append(Problem(folder, f"tracklet {self.table.keys_N[row]} in {folder}: {error}"))
            return
        valid_F = ~np.isnan(given_FV4).all(axis=(1, 2))
        counts["no skeleton"] += int((raw.read_F & ~valid_F).sum())
        counts["partial skeleton"] += usable.counted(raw.skeletons_FV4).partial
        counts["has"] = int(valid_F.any())
        counts["upside down"] = int(not usable.is_upright(given_FV4))

    def _stale(self, row: int) -> list[Problem]:
        """Return the masks and skeletons that, by their record, were made from other frames than the current ones."""
        if not (self.decode and self.present["frames"]):
            return []
        problems = []
        for made in (made for made in MADE if self.present[made]):
            folder, key = self.table.folder(row, made), self.table.keys_N[row]
            try:
                if not is_stale(self.table, row, made) or not is_there(self.table, row, made):
                    continue
                sentence = (
                    f"{made} of tracklet {key} in {folder}: were made of other frames than lie there now; "
                    f"`sptskm prepare {made}` with the options of before makes them again"
                )
                if self.table.derived.root is not None:
                    record = record_of(self.table.derived.root, made, folder, key)
                    sentence += f"; where you have brought new {made} yourself, remove {record}"
            except (DataError, OSError) as error:
                sentence = str(error)
            problems.append(Problem(folder, sentence))
        return problems

    def _separate(self, row: int, counts: Counter[str], problems: list[Problem]) -> list[Modality]:
        """Return the modalities with one file per frame; skeletons stored in one array are checked here."""
        separate: list[Modality] = [modality for modality, present in self.present.items() if present]
        if "skeletons" not in separate:
            return separate
        part, path = SPLITS[row >= self.table.num_train], self.table.folder(row, "skeletons")
        try:
            whole_FV4 = self.table.place.whole(row)
        except DataError as error:
            problems.append(Problem(path, str(error)))
            for count in ("found", "unreadable"):
                counts[f"{part} skeletons {count}"] += int(self.table.lengths[row])
            whole_FV4 = np.empty((0, *SKELETON_SHAPE), np.float32)
        if whole_FV4 is None:
            return separate
        if not path.is_file():
            problems.append(Problem(path, f"skeletons {path}: no such file"))
            whole_FV4 = whole_FV4[:0]
        counts[f"{part} skeletons found"] += len(whole_FV4)
        if len(whole_FV4):
            self._count_skeletons(row, _Raw(whole_FV4, np.ones(len(whole_FV4), bool)), counts, problems)
        return [modality for modality in separate if modality != "skeletons"]

    def _array(self, row: int, file: Readable, modality: Modality, counts: Counter[str]) -> NDArray[Any]:
        """Return the content of a file, or an empty array when nothing is to be decoded. Raises DataError."""
        kind, split = modality.removesuffix("s"), SPLITS[row >= self.table.num_train]
        if not file.is_file():
            raise DataError(f"{kind} {file}: no such file")
        counts[f"{split} {modality} found"] += 1
        try:
            if isinstance(file, Path) and file.stat().st_size == 0:
                raise DataError(f"{kind} {file}: empty file")
            return READERS[modality](file) if self.decode else np.empty(0)
        except DataError:
            counts[f"{split} {modality} unreadable"] += 1
            raise


def _count_mask(file: Readable, mask_HW: NDArray[np.uint8], counts: Counter[str]) -> str:
    """Count a mask; return its file and how it is stored if the encoding hides the person, else an empty text."""
    counts["mask"] += 1
    state = usable.mask_state(mask_HW)
    counts[f"{state} mask"] += bool(state)
    if state and (mask_HW == mask_HW[0, 0]).all() and (stored := lost_mask(file)):
        counts["lost mask"] += 1
        return f"{file} is {stored}"
    return ""


def _compare_sizes(file: Readable, mask_HW: NDArray[Any], frame: tuple[int, ...], counts: Counter[str]) -> None:
    if len(frame) == 2 and mask_HW.shape != frame:
        counts["mismatch"] += 1
        height, width = mask_HW.shape
        raise DataError(f"mask {file}: is {height}x{width}, wanted {frame[0]}x{frame[1]} like its frame")


def _report(
    table: Tracklets, present: dict[Modality, bool], total: Counter[str], problems: tuple[Problem, ...]
) -> Report:
    promised = {"train": table.lengths[table.train].sum(), "test": table.lengths[table.test].sum()}
    counts = [
        Count(
            split=split,
            modality=modality,
            absent=not present[modality],
            promised=int(promised[split]),
            found=total[f"{split} {modality} found"],
            unreadable=total[f"{split} {modality} unreadable"],
        )
        for split in SPLITS
        for modality in READERS
    ]
    has = total["training tracklet with a skeleton"] + total["test tracklet with a skeleton"]
    without = len(table) - has if present["skeletons"] else 0
    return Report(
        counts=tuple(counts),
        tracklets=len(table),
        frames_without_skeleton=total["no skeleton"],
        tracklets_without_skeleton=without,
        upside_down=total["upside down"],
        partial_skeletons=total["partial skeleton"],
        empty_masks=total["empty mask"],
        full_masks=total["full mask"],
        size_mismatches=total["mismatch"],
        mislabelled=total["mislabelled"],
        nobody="" if (table.pids_N != JUNK_PID).any() else NOBODY,
        methods="; ".join(
            f"{made} by {describe_method(table.derived.methods.get(made))}" for made in MADE if present[made]
        ),
        num_problems=total["problem"],
        problems=problems,
    )
