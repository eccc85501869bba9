"""One's own footage: videos and boxes of tracked people become tracklets and a manifest.

No detector or tracker is written here: whatever you use writes MOT's text format (see boxes.py).
Legend: B boxes, H rows, W columns.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.atomic import naming, write_text
from sptskm.common.errors import ConfigError, DataError
from sptskm.common.reading import read_json
from sptskm.data.manifest import Entry, natural, write_entries
from sptskm.preparation.boxes import Boxes, read_boxes
from sptskm.report.console import progress

MANIFEST = "manifest.csv"
QUALITY = 95  # of the JPEGs
SMALLEST = 8  # pixels of the shorter edge of a box that is worth a frame


@dataclass(frozen=True)
class Cut:
    """How tracklets are cut from videos."""

    min_frames: int = 1
    """A track with fewer is left out."""
    every: int = 1
    """Take each so-manieth frame of the video."""


@dataclass(frozen=True)
class _Done:
    """What was made of a video, as its note says."""

    source: dict[str, Any]
    frames: dict[str, int]
    """Of each tracklet, by its name."""
    useless: int


def tracklets_of(video: Path, boxes: Path, out: Path, cut: Cut) -> tuple[list[Entry], int, int]:
    """Cut the tracklets of a video to `out`/frames; return what a manifest says of them, and two counts of boxes.

    The first are those of no use, the second those left out (see boxes.py).

    A tracklet is the boxes of one track as JPEGs named by the frame number. Boxes are cut at the borders of the
    picture; of no use is one with less than SMALLEST pixels inside. Identities are not known: every track is its own,
    and the camera is the video. Raises DataError or FileNotFoundError naming the file.
    """
    found, home = read_boxes(boxes), out / "frames"
    source = {"boxes": hashlib.sha256(boxes.read_bytes()).hexdigest(), "bytes": video.stat().st_size, **vars(cut)}
    note = home / f"{video.stem}.json"
    if found.left_out:
        source["left_out"] = found.left_out  # these were taken for people once
    done = read_json(note, _Done) if note.is_file() else None
    if done is None or done.source != source:
        done = _Done(source, *_cut(video, found, home, cut))
        write_text(note, json.dumps(vars(done), indent=1))
    entries = [Entry(name, name, video.stem, "gallery", f"frames/{name}") for name in done.frames]
    return entries, done.useless, found.left_out


def _cut(video: Path, boxes: Boxes, home: Path, cut: Cut) -> tuple[dict[str, int], int]:
    """Frames of each tracklet by its name, and boxes of no use."""
    work = home / f".{video.stem}.partial"
    shutil.rmtree(work, ignore_errors=True)
    counts: Counter[str] = Counter()
    useless, last = 0, int(boxes.frames_B[-1])
    for number, picture in progress(_pictures(video, last), f"frames of {video.name}", total=last):
        first, stop = np.searchsorted(boxes.frames_B, [number, number + 1])
        if (number - 1) % cut.every or first == stop:
            continue
        for track, corners in zip(boxes.tracks_B[first:stop].tolist(), boxes.corners_B4[first:stop], strict=True):
            name = f"{video.stem}-{track}"
            if _write_crop(work / name / f"{number:06d}.jpg", picture, corners):
                counts[name] += 1
            else:
                useless += 1
    kept = {name: counts[name] for name in sorted(counts, key=natural) if counts[name] >= cut.min_frames}
    for name in kept:
        shutil.rmtree(home / name, ignore_errors=True)
        (work / name).rename(home / name)
    shutil.rmtree(work, ignore_errors=True)
    return kept, useless


def _pictures(video: Path, last: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Frame numbers from 1 and pictures (H, W, 3), blue first, up to the last one wanted."""
    # an absolute path, as what stands before a colon would be a protocol
    capture = cv2.VideoCapture(str(video.absolute()))
    try:
        for number in range(1, last + 1):
            found, picture = capture.read()
            if not found:
                what = "cannot be read as a video" if number == 1 else f"ends after frame {number - 1}"
                raise DataError(f"{video}: {what}, but its boxes go to frame {last}")
            yield number, np.asarray(picture, np.uint8)
    finally:
        capture.release()


def _write_crop(path: Path, picture: NDArray[np.uint8], corners_4: NDArray[np.int64]) -> bool:
    """Whether enough of a box is inside the picture to be written."""
    height, width = picture.shape[:2]
    left, top, right, bottom = np.clip(corners_4, 0, [width, height, width, height]).tolist()
    if right - left < SMALLEST or bottom - top < SMALLEST:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    _, content = cv2.imencode(".jpg", picture[top:bottom, left:right], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    with naming(path):
        path.write_bytes(content.tobytes())
    return True


def prepare_videos(videos: Sequence[Path], out: Path, boxes: Path | None, cut: Cut) -> tuple[Path, str]:
    """Write the manifest of the tracklets of all videos; its place, and what it holds in a line.

    Without `boxes` those of a video lie beside it, as NAME.txt. Raises as `tracklets_of`, and ConfigError.
    """
    stems = Counter(video.stem for video in videos)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        raise ConfigError(f"two videos are called {twice[0]}, wanted different names: they name cameras and tracklets")
    if boxes is not None and len(videos) > 1:
        raise ConfigError(f"--boxes is one file for {len(videos)} videos, wanted NAME.txt beside each of them")
    if min(vars(cut).values()) < 1:
        raise ConfigError(f"min-frames and every are {cut.min_frames} and {cut.every}, wanted at least 1")
    entries: list[Entry] = []
    useless = left_out = 0
    for video in videos:
        if not video.is_file():
            raise FileNotFoundError(f"{video}: no such file, wanted a video")
        own, outside, others = tracklets_of(video, boxes or video.with_suffix(".txt"), out, cut)
        entries, useless, left_out = entries + own, useless + outside, left_out + others
    if not entries:
        raise DataError(f"no track has {cut.min_frames} frames; lower --min-frames")
    write_entries(out / MANIFEST, entries)
    said = f"{out / MANIFEST}: {len(entries)} tracklets of {len(videos)} videos, {useless} boxes outside the picture"
    if left_out:
        said += f", {left_out} boxes left out that are not to be considered or no pedestrians"
    return out / MANIFEST, said
