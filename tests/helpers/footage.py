"""A video of bright walking boxes, and the boxes as a tracker writes them."""

from pathlib import Path

import cv2
import numpy as np

SIZE = (120, 160)  # rows, columns
FRAMES = 12


def place(track: int, frame: int) -> tuple[int, int]:
    """Left and top of a walker's box in a frame, from 1."""
    return 10 + 4 * frame + 60 * track, 30


def write_video(path: Path, frames: int = FRAMES, tracks: tuple[int, ...] = (0, 1)) -> Path:
    """Grey with a bright box a walker, whose brightness tells the walker."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, SIZE[::-1])
    for frame in range(1, frames + 1):
        picture = np.full((*SIZE, 3), 40, np.uint8)
        for track in tracks:
            left, top = place(track, frame)
            picture[top : top + 64, left : left + 32] = 120 + 80 * track
        writer.write(picture)
    writer.release()
    return path


def write_boxes(path: Path, tracks: tuple[int, ...] = (0, 1), frames: int = FRAMES) -> Path:
    """In MOT's order: track by track, with what a tracker adds."""
    lines = [
        f"{frame},{track},{place(track, frame)[0]},{place(track, frame)[1]},32,64,0.9,-1,-1,-1\n"
        for track in tracks
        for frame in range(1, frames + 1)
    ]
    path.write_text("".join(lines))
    return path
