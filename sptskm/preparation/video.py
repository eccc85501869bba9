"""Convert your own footage, videos and boxes of tracked people, to tracklets and a manifest.

There is no detector or tracker here: use any that writes MOT's text format (see boxes.py).
Legend: B boxes, H rows, W columns.
"""

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

from sptskm.common.atomic import naming, write_text
from sptskm.common.console import progress
from sptskm.common.errors import ConfigError, DataError
from sptskm.common.reading import read_json
from sptskm.data.manifest import FASTEST, Entry, write_entries
from sptskm.data.names import natural
from sptskm.preparation.blazepose import square_around
from sptskm.preparation.boxes import Boxes, read_boxes, read_yolo_boxes
from sptskm.preparation.work import SQUARES, square_of

MANIFEST = "manifest.csv"
QUALITY = 95  # of the JPEGs
NO_BOXES = (
    "wanted boxes in MOT's text format, of people that were tracked by, for example, "
    "`yolo track source={video} classes=0 save_txt=True` (pip install ultralytics; --boxes is its folder of labels) or "
    "`boxmot track --detector yolov8n --tracker bytetrack --source {video} --save-txt` (pip install boxmot)"
)
SMALLEST = 8  # pixels of the shorter edge of the smallest usable box


@dataclass(frozen=True)
class Cut:
    """Options for cutting tracklets from videos."""

    min_frames: int = 1
    """Tracks with fewer frames are left out."""
    every: int = 1
    """Use every n-th frame of the video."""


@dataclass(frozen=True)
class _Done:
    """Note of the tracklets made from a video."""

    source: dict[str, Any]
    frames: dict[str, int]
    """Number of frames of each tracklet, by its name."""
    useless: int
    fps: float = 0.0
    """Frames per second of the tracklets; 0 if the video does not tell."""


def tracklets_of(video: Path, boxes: Path, out: Path, cut: Cut) -> tuple[list[Entry], int, int]:
    """Cut the tracklets of a video to `out`/frames; return their manifest entries and two counts of boxes.

    The first count is of unusable boxes, with less than SMALLEST pixels inside the picture; the second of those left
    out (see boxes.py).

    A tracklet holds the boxes of one track as JPEGs named by the frame number, and beside them the squares around the
    boxes, which BlazePose uses. Boxes are cut at the borders of the picture. Identities are unknown: every track is its
    own identity, and the camera is the video. Raises DataError or FileNotFoundError naming the file.
    """
    opened, home = _Video(video), out / "frames"
    found = read_yolo_boxes(boxes, opened.size) if boxes.is_dir() else read_boxes(boxes)
    source = {"boxes": found.digest, "bytes": video.stat().st_size, "squares": True, **vars(cut)}
    note = home / f"{video.stem}.json"
    if found.left_out:
        source["left_out"] = found.left_out  # older versions took these for people
    done = read_json(note, _Done) if note.is_file() else None
    if done is None or done.source != source:
        done = _Done(source, *_cut(opened, found, home, cut), opened.fps / cut.every)
        home.mkdir(parents=True, exist_ok=True)  # where no box was of use
        write_text(note, json.dumps(vars(done), indent=1))
    fps = f"{done.fps:g}" if 0 < done.fps <= FASTEST else ""
    entries = [Entry(name, name, video.stem, "gallery", f"frames/{name}", fps=fps) for name in done.frames]
    return entries, done.useless, found.left_out


def _cut(video: "_Video", boxes: Boxes, home: Path, cut: Cut) -> tuple[dict[str, int], int]:
    """Cut all tracklets; return the number of frames of each by its name, and the number of unusable boxes."""
    work = home / f".{video.path.stem}.partial"
    shutil.rmtree(work, ignore_errors=True)
    counts: Counter[str] = Counter()
    useless, last = 0, int(boxes.frames_B[-1])
    for number, picture in progress(video.pictures(last), f"frames of {video.path.name}", total=last):
        first, stop = np.searchsorted(boxes.frames_B, [number, number + 1])
        if (number - 1) % cut.every or first == stop:
            continue
        for track, corners in zip(boxes.tracks_B[first:stop].tolist(), boxes.corners_B4[first:stop], strict=True):
            name = f"{video.path.stem}-{track}"
            if _write_crop(work / name / f"{number:06d}.jpg", picture, corners):
                counts[name] += 1
            else:
                useless += 1
    kept = {name: counts[name] for name in sorted(counts, key=natural) if counts[name] >= cut.min_frames}
    for name in kept:
        for folder in (name, name + SQUARES):
            shutil.rmtree(home / folder, ignore_errors=True)
            (work / folder).rename(home / folder)
    shutil.rmtree(work, ignore_errors=True)
    return kept, useless


class _Video:
    """A video with its size, frame rate and pictures. Raises DataError for a file that is not a video."""

    def __init__(self, path: Path) -> None:
        self.path = path
        capture = self._opened()
        self.size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        self.fps = fps if np.isfinite(fps) else 0.0
        capture.release()

    def _opened(self) -> cv2.VideoCapture:
        # an absolute path, as text before a colon would be read as a protocol
        capture = cv2.VideoCapture(str(self.path.absolute()))
        if not capture.isOpened():
            raise DataError(f"{self.path}: cannot be read as a video")
        return capture

    def pictures(self, last: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield frame numbers from 1 and pictures (H, W, 3), blue first, up to the frame `last`."""
        capture = self._opened()
        try:
            for number in range(1, last + 1):
                found, picture = capture.read()
                if not found:
                    what = "cannot be read as a video" if number == 1 else f"ends after frame {number - 1}"
                    raise DataError(f"{self.path}: {what}, but its boxes go to frame {last}")
                yield number, np.asarray(picture, np.uint8)
        finally:
            capture.release()


def _write_crop(path: Path, picture: NDArray[np.uint8], corners_4: NDArray[np.int64]) -> bool:
    """Write the crop of a box; return False and write nothing if too little of it is inside the picture."""
    height, width = picture.shape[:2]
    left, top, right, bottom = np.clip(corners_4, 0, [width, height, width, height]).tolist()
    if right - left < SMALLEST or bottom - top < SMALLEST:
        return False
    square = square_around(picture, (left, top, right, bottom))
    for place, shown in ((path, picture[top:bottom, left:right]), (square_of(path), square)):
        place.parent.mkdir(parents=True, exist_ok=True)
        _, content = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        with naming(place):
            place.write_bytes(content.tobytes())
    return True


def prepare_videos(videos: Sequence[Path], out: Path, boxes: Path | None, cut: Cut) -> tuple[Path, str]:
    """Write the manifest of the tracklets of all videos; return its path and a line about its content.

    Without `boxes`, the boxes of a video are beside it, as NAME.txt. Raises as `tracklets_of`, and ConfigError.
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
        tracked = boxes or video.with_suffix(".txt")
        if not tracked.exists():
            raise FileNotFoundError(f"{tracked}: no such file, {NO_BOXES.format(video=video.name)}")
        own, small, others = tracklets_of(video, tracked, out, cut)
        entries, useless, left_out = entries + own, useless + small, left_out + others
    if not entries:
        names = ", ".join(str(video) for video in videos)
        outside = f"; {useless} boxes have less than {SMALLEST} pixels inside the picture" if useless else ""
        raise DataError(f"{names}: no track has {cut.min_frames} frames, wanted some; lower --min-frames{outside}")
    write_entries(out / MANIFEST, entries)
    said = f"{out / MANIFEST}: {len(entries)} tracklets of {len(videos)} videos, {useless} boxes outside the picture"
    if left_out:
        said += f", {left_out} boxes left out that are not to be considered or no pedestrians"
    return out / MANIFEST, said
