"""TensorBoard's projector: every tracklet a point with a thumbnail, within the limits of a browser.

Legend: N tracklets, D feature length, K components, E edge of a thumbnail in pixels.
"""

import math
import shutil
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sptskm.data import Tracklets
from sptskm.data.tracklets import DISTRACTOR_PID, JUNK_PID
from sptskm.evaluation import Features
from sptskm.evaluation.results import Results, title_of
from sptskm.report import strips
from sptskm.report.colours import LINE
from sptskm.report.strips import Box, Canvas
from sptskm.report.style import Image
from sptskm.report.tensorboard import Board, clear

SPRITE: Final = 8192  # pixels an edge that graphics cards take; TensorBoard shows nothing of a larger sprite
LARGEST: Final = 64  # edge of a thumbnail
SHOWN: Final = 2000  # points that a browser still moves smoothly
DIMENSIONS: Final = 128


def tile(count: int) -> int:
    """Return the edge in pixels of `count` square thumbnails that form a square grid in one sprite."""
    return max(1, min(LARGEST, SPRITE // max(1, math.isqrt(max(0, count - 1)) + 1)))


def sample(rows_N: NDArray[np.int64], limit: int = SHOWN) -> NDArray[np.int64]:
    """Return at most `limit` of these rows, evenly spaced."""
    if len(rows_N) <= limit:
        return rows_N
    return rows_N[np.linspace(0, len(rows_N) - 1, limit).round().astype(int)]


def reduced(features_ND: NDArray[np.float32], dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    """Return the principal components with the largest variance.

    They suffice for the projector and keep the file small.
    """
    if features_ND.shape[1] <= dimensions:
        return features_ND
    centred_ND = features_ND.astype(np.float64) - features_ND.mean(axis=0, dtype=np.float64)
    # from the products of the N tracklets, who are fewer than the numbers of a long feature
    squares_K, components_NK = np.linalg.eigh(centred_ND @ centred_ND.T)
    scaled_NK = components_NK * np.sqrt(np.clip(squares_K, 0, None))
    return np.ascontiguousarray(scaled_NK[:, ::-1][:, :dimensions], np.float32)


def write_projector(results: Results, folder: Path) -> None:
    """Write the test tracklets as points by their features in each stream, with identity, camera and role.

    Tracklets without features are left out. An earlier projector in `folder` is replaced.
    """
    clear(folder)
    for old in folder.glob("00000"):
        shutil.rmtree(old)
    table, test = results.table, results.table.test
    points = sample(np.arange(len(test)))
    edge = tile(len(points))
    found = [_thumbnail(table, row, edge) for row in test[points].tolist()]
    lines = [_line(table, row) for row in test[points].tolist()]
    empty: Image = np.full((edge, edge, 3), LINE, np.uint8)
    images_N = np.stack([empty if one is None else one for one in found]) if any(i is not None for i in found) else None
    board = Board(folder)
    for features in results.test.features:
        _add(board, features, points, lines, images_N)
    board.close()


def _add(
    board: Board, features: Features, points: NDArray[np.int64], lines: list[list[str]], images: Image | None
) -> None:
    valid = np.flatnonzero(features.valid_N[points])
    if len(valid) < 2:
        return
    header = ["identity", "camera", "role", "tracklet"]
    thumbnails = None if images is None else np.moveaxis(images[valid], 3, 1).astype(np.float32) / np.float32(255)
    vectors = reduced(features.features_ND[points[valid]])
    board.embedding(title_of(features.stream), vectors, [header, *(lines[n] for n in valid)], thumbnails)


def _line(table: Tracklets, row: int) -> list[str]:
    return [table.pid_name(row), table.camera_name(row), _role(table, row), str(table.keys_N[row])]


def _role(table: Tracklets, row: int) -> str:
    pid = int(table.pids_N[row])
    if pid in (JUNK_PID, DISTRACTOR_PID):
        return "junk" if pid == JUNK_PID else "distractor"
    return "query" if row - table.num_train in table.query else "gallery"


def _thumbnail(table: Tracklets, row: int, edge: int) -> Image | None:
    """Draw the middle frame on white, or the skeleton where the frame is missing; None where both are."""
    middle = int(table.lengths[row]) // 2
    image = strips.frame_of(table, row, middle)
    canvas = Canvas(edge, edge)
    if image is not None:
        scale = edge / max(image.shape[:2])
        tall, wide = (max(1, round(length * scale)) for length in image.shape[:2])
        canvas.paste(strips.fitted(image, tall, wide), (edge - wide) // 2, (edge - tall) // 2)
        return canvas.pixels
    skeleton_V4 = strips.skeleton_of(table, row, middle)
    if skeleton_V4 is None:
        return None
    strips.Views(skeleton_V4[None], edge, edge, 2).draw(canvas, Box(0, 0, edge, edge), skeleton_V4)
    return canvas.pixels
