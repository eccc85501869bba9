"""Read boxes of tracked people in MOT's text format: `frame,track,left,top,width,height,consider,class,...`.

Frames count from 1 and pixels from 0 (MOTChallenge's files count pixels from 1; the difference is smaller than the
accuracy of a box). Two optional columns are used, as in MOTChallenge's ground truth: lines whose `consider` is 0 are
ignored, and only class 1, the pedestrian, is a person. Trackers write -1 for unknown values. A line with ten columns
ends in world coordinates instead of a class, unless the last two are -1. BoxMOT's nine columns (`... ,confidence,class
from 1,detection`) are read by the same rule. ultralytics writes a folder, see `read_yolo_boxes`.
Legend: B boxes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.common.tables import read_rows

WANTED = "wanted frame,track,left,top,width,height"
NAMES = ("frame", "track", "left", "top", "width", "height", "consider", "class", "visibility", "z")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
PEDESTRIAN = 1
FARTHEST = 2**31
"""Limit of frames and pixels; a track may be any number that a float represents exactly."""
LARGEST_TRACK = 2**53


@dataclass(frozen=True)
class Boxes:
    """The boxes of a video, sorted by frame and track."""

    frames_B: NDArray[np.int64]
    """From 1."""
    tracks_B: NDArray[np.int64]
    corners_B4: NDArray[np.int64]
    """Left, top, right, bottom in pixels; right and bottom are exclusive."""
    left_out: int = 0
    """Number of lines that are not to be considered, or of another class than pedestrian."""
    digest: str = ""
    """Hash of the files they were read from."""


def read_boxes(path: Path) -> Boxes:
    """Read the boxes of a video.

    Raises FileNotFoundError, and DataError naming the line if it is malformed, if its frame or track is not a whole
    number, or if a track has a second box in one frame.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, wanted boxes in MOT's text format")
    lines: list[tuple[str, list[float]]] = []
    left_out = 0
    for place, line in read_rows(path):
        words = line[0].split() if len(line) == 1 else line  # some trackers separate by blanks
        numbers = _numbers(words, f"{path}: {place}")
        if _is_person(numbers):
            lines.append((f"{path}: {place}", numbers[:6]))
        else:
            left_out += 1
    if not lines:
        what = f"none of its {left_out} lines is a pedestrian to consider" if left_out else "is empty"
        raise DataError(f"{path}: {what}, wanted lines such as 1,7,100,50,64,128")
    return _boxes(lines, left_out, sha256(path.read_bytes()).hexdigest())


def _boxes(lines: Sequence[tuple[str, list[float]]], left_out: int, digest: str) -> Boxes:
    """Check and sort lines of frame, track, left, top, width, height; each comes with its place in the file."""
    boxes: dict[tuple[int, int], list[float]] = {}
    places: dict[tuple[int, int], str] = {}
    for place, numbers in lines:
        _check(numbers, place)
        key = int(numbers[0]), int(numbers[1])
        if key in boxes:
            raise DataError(
                f"{place} is a second box of track {key[1]} in frame {key[0]}, beside {places[key]}, wanted one"
            )
        boxes[key], places[key] = numbers[2:], place.rpartition(": ")[2]
    ordered = sorted(boxes)
    left, top, width, height = np.array([boxes[key] for key in ordered]).T
    corners = np.stack([left, top, left + width, top + height], axis=1)
    frames_B, tracks_B = np.array(ordered, np.int64).T
    return Boxes(frames_B, tracks_B, np.rint(corners).astype(np.int64), left_out, digest)


def read_yolo_boxes(folder: Path, size: tuple[int, int]) -> Boxes:
    """Read the output of `yolo track ... save_txt=True` (ultralytics): a file NAME_12.txt for each frame, from 1.

    A line is `class x y width height [confidence] track`, with the middle and size of the box as shares of the
    picture's `size` (width, height). Only people (class 0) with a track are used. Raises DataError with file and line.
    """
    lines: list[tuple[str, list[float]]] = []
    left_out, digest = 0, sha256()
    for frame, file in sorted((_frame_of(path), path) for path in folder.glob("*.txt")):
        digest.update(f"{frame}:".encode() + file.read_bytes())
        for place, (line,) in ((place, line[:1]) for place, line in read_rows(file)):
            values = _values(line.split(), f"{file}: {place}")
            if values[0] != 0 or values[-1] != int(values[-1]) or len(values) < 6:
                left_out += 1
                continue
            x, y, width, height = np.array(values[1:5]) * (*size, *size)
            lines.append((f"{file}: {place}", [frame, values[-1], x - width / 2, y - height / 2, width, height]))
    if not lines:
        raise DataError(f"{folder}: holds no box of a tracked person, wanted files NAME_1.txt, ... of `yolo track`")
    return _boxes(lines, left_out, digest.hexdigest())


def _frame_of(path: Path) -> int:
    """Return the number after the last underscore of a file name. Raises DataError if there is none."""
    number = path.stem.rpartition("_")[2]
    if not (number.isascii() and number.isdigit() and 0 < int(number) < FARTHEST):
        raise DataError(f"{path}: does not end in the number of a frame, wanted NAME_1.txt, NAME_2.txt, ...")
    return int(number)


def _values(words: Sequence[str], place: str) -> list[float]:
    wanted = "wanted class x y width height [confidence] track"
    if not 5 <= len(words) <= 7 or not all(_NUMBER.fullmatch(word) for word in words):
        raise DataError(f"{place} is {' '.join(words)[:60]}, {wanted}")
    values = [float(word) for word in words]
    if not np.isfinite(values).all() or min(values[1:5]) < -1 or max(values[1:5]) > 2:
        raise DataError(f"{place} is {' '.join(words)[:60]}, {wanted}, the box in shares of the picture")
    return values


def _numbers(line: Sequence[str], place: str) -> list[float]:
    """Read the values of a line, six or more; a missing optional value is NaN."""
    shown = ",".join(line)[:60]
    if len(line) < 6:
        raise DataError(f"{place} is {shown}, {WANTED}")
    numbers: list[float] = []
    for name, text in zip(NAMES, line, strict=False):
        given = text.strip() or len(numbers) < 6
        if given and not _NUMBER.fullmatch(text.strip()):
            raise DataError(f"{place} is {shown}, where {name} is no number, {WANTED}")
        numbers.append(float(text) if given else np.nan)
    if not np.isfinite(numbers[:6]).all():
        raise DataError(f"{place} is {shown}, {WANTED}")
    return numbers


def _is_person(numbers: Sequence[float]) -> bool:
    """Return whether a line is to be considered and its class, if given, is pedestrian."""
    if len(numbers) > 6 and numbers[6] == 0:
        return False
    has_class = len(numbers) > 7 and numbers[7] >= 1 and (len(numbers) < 10 or set(numbers[8:10]) == {-1})
    return not has_class or numbers[7] == PEDESTRIAN


def _check(numbers: Sequence[float], place: str) -> None:
    frame, track, *box = numbers[:6]
    if frame < 1 or track < 0:
        what = f"the frame {frame:.16g}" if frame < 1 else f"the track {track:.16g}"
        joined = ", as detections have that no tracker has joined" if track == -1 else ""
        raise DataError(f"{place} has {what}{joined}, wanted frames from 1 and tracks from 0")
    for name, number, most in (("frame", frame, FARTHEST), ("track", track, LARGEST_TRACK)):
        if number != int(number) or number >= most:
            raise DataError(f"{place} has the {name} {number:.17g}, wanted a whole number below {most}")
    if min(box[2:]) <= 0:
        raise DataError(f"{place} has a box of {box[2]:g} x {box[3]:g} pixels, wanted some")
    if max(map(abs, box)) >= FARTHEST:
        raise DataError(f"{place} has a box with {max(box, key=abs):g} pixels, wanted fewer than {FARTHEST}")
