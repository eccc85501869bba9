"""Read masks and key points from other tools' files, and write our own files.

Nothing is guessed: the caller names the kind of a mask and the layout of key points. Any other file is refused in one
sentence with its path.
Legend: H rows, W columns, 3 = blue, green, red; F frames, K key points of the layout, C = channels, V = 14 joints,
4 = x, y, z, confidence.
"""

from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.common.arrays import read_npy
from sptskm.common.atomic import write_bytes
from sptskm.common.errors import DataError
from sptskm.common.matlab import parsed_mat
from sptskm.data import bilevel
from sptskm.data.files import MASK_THRESHOLD, SKELETON_KEY, SKELETON_SHAPE, decode_picture, mat_bytes
from sptskm.preparation import keypoint_json
from sptskm.preparation.layouts import Channels, PointLayout, shape_of
from sptskm.preparation.parsing import LABELS, labels_of_colours, mask_of

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
MaskKind = Literal["labels", "colours", "binary", "silhouette"]

LARGEST_CONFIDENCE = 1.1
LIGHT = 255 - MASK_THRESHOLD  # lowest grey value of a white pixel after compression
_JPEG = b"\xff\xd8"
MAT_VARIABLES = (SKELETON_KEY, "joints")
"""The published reader uses the first; the second is in an alternative that is disabled there."""


def mask_from(path: Path, kind: MaskKind, size: tuple[int, int], *, invert: bool = False) -> Bytes:
    """Read a mask (H, W), 255 on the person and 0 elsewhere, for a frame of `size` (rows, columns).

    `labels`: JPPNet's label image, 0 = background to 19, stored without loss. `colours`: its `_vis.png`.
    `binary`: an image of two values; the lighter one is the person, whatever the values are (0 and 1 too). An image of
    one value is empty if black, else full. An image of more values is cut as in SSIN, person where grey > 30, but only
    if it is black and white with soft or JPEG borders (half of the values above 30 are 225 or more): on other images
    this threshold would empty a label image and lose dress and face of a colour picture.
    `silhouette`: like binary, but refused if more than half of the outermost pixels are person, as in an inverted
    image. `invert` exchanges person and background of these two kinds.
    Raises FileNotFoundError, or DataError naming the path, the value found and the value wanted. A size other than the
    frame's is refused as well, because nothing is resized. Raises ValueError for an unknown kind.
    """
    if kind not in get_args(MaskKind) or (invert and kind in ("labels", "colours")):
        raise DataError(
            f"masks of kind {kind!r} with invert={invert} are unknown, wanted {', '.join(get_args(MaskKind))}, "
            "and invert with binary or silhouette alone"
        )
    content = read_content(path, "mask")
    image = _decoded(path, content)
    if image.shape[:2] != size:
        raise DataError(f"mask {path}: is {_by(image.shape)}, wanted {_by(size)} like its frame")
    if kind == "labels":
        return _of_labels(path, content, image)
    if kind == "colours":
        return _of_colours(path, image)
    mask_HW = _two_values(path, image)
    mask_HW = 255 - mask_HW if invert else mask_HW
    if kind == "silhouette":
        _check_border(path, mask_HW, invert)
    return mask_HW


def read_content(path: Path, what: str) -> bytes:
    """Read a file that is not empty. Raises FileNotFoundError and DataError; `what` begins the sentence."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{what} {path}: no such file") from None
    except OSError as error:
        raise DataError(f"{what} {path}: cannot be read ({error.strerror})") from error
    if not content:
        raise DataError(f"{what} {path}: empty file")
    return content


def _decoded(path: Path, content: bytes) -> Bytes:
    """Decode an image to (H, W) or (H, W, 3); three equal channels become one."""
    image = decode_picture(path, "mask", content, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        channels = 1 if image.ndim == 2 else image.shape[2]
        raise DataError(f"mask {path}: has {channels} channels of {image.dtype}, wanted 1 or 3 of uint8")
    if image.ndim == 3 and (image == image[..., :1]).all():
        image = image[..., 0]
    return np.asarray(image, np.uint8)


def _of_labels(path: Path, content: bytes, image: Bytes) -> Bytes:
    if content.startswith(_JPEG):
        raise DataError(f"mask {path}: is a JPEG, which changes values, wanted labels in a PNG")
    if image.ndim == 3:
        raise DataError(f"mask {path}: is a colour image, wanted labels 0 to {len(LABELS) - 1}, or the kind colours")
    if image.max() >= len(LABELS):
        raise DataError(f"mask {path}: holds the label {image.max()}, wanted 0 to {len(LABELS) - 1}")
    return mask_of(image)


def _of_colours(path: Path, image: Bytes) -> Bytes:
    image_HW3 = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    try:
        return mask_of(labels_of_colours(image_HW3[..., ::-1]))
    except ValueError as error:
        raise DataError(f"mask {path}: {error}") from None


def _two_values(path: Path, image: Bytes) -> Bytes:
    grey_HW = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    values = np.unique(grey_HW)
    if len(values) <= 2:
        darker = int(values[0]) if len(values) == 2 else 0
        return np.where(grey_HW > darker, 255, 0).astype(np.uint8)
    above = grey_HW > MASK_THRESHOLD
    light = np.count_nonzero(grey_HW >= LIGHT) / (np.count_nonzero(above) or 1)
    if light < 0.5:
        raise DataError(
            f"mask {path}: holds {len(values)} grey values, {light:.0%} of those above {MASK_THRESHOLD} being "
            f"{LIGHT} or more, wanted two values, or black and white with soft borders"
        )
    return np.where(above, 255, 0).astype(np.uint8)


def _check_border(path: Path, mask_HW: Bytes, inverted: bool) -> None:
    inner_HW = np.zeros(mask_HW.shape, bool)
    inner_HW[1:-1, 1:-1] = True
    share = float((mask_HW[~inner_HW] > 0).mean())
    if share > 0.5:
        hint = "invert=False" if inverted else "invert=True"
        raise DataError(f"mask {path}: {share:.0%} of its border is person, wanted at most half; {hint} exchanges both")


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"


def points_from(path: Path, layout: PointLayout, channels: Channels) -> Floats:
    """Read the key points (F, K, C) of one frame or one tracklet, in float64 and the file's units.

    `.mat` with `new_joint` or else `joints`, `.npy` and nested lists in `.json` hold (K, C), (C, K) or frames of
    either. OpenPose's `.json` is one frame: the person with the highest mean confidence is taken, all values are NaN
    without a person. COCO's list of results has one frame for each image, in the order of the names, with the person
    of the highest score (see `results_from` for lists that cover many tracklets).
    Raises FileNotFoundError, DataError for a file that cannot be read or has other content, and ValueError for unknown
    layouts and channels.
    """
    shape = shape_of(layout, channels)
    content, ending = read_content(path, "key points"), path.suffix.lower()
    if ending == ".json":
        return _oriented(path, keypoint_json.points(path, content, shape, channels), shape)
    if ending == ".mat":
        return _oriented(path, parsed_mat(content, f"key points {path}", *MAT_VARIABLES), shape)
    if ending == ".npy":
        return _oriented(path, _npy(path), shape)
    raise DataError(f"key points {path}: end with {ending or 'nothing'}, wanted .mat, .npy or .json")


def results_from(path: Path, layout: PointLayout, channels: Channels) -> dict[str, Floats]:
    """Read key points (K, C) by image from COCO's list of results: the person of the highest score in each image.

    Images are named by `file_name`, or else by `image_id`, without folder and ending, like the frames in the tables.
    Raises as `points_from`.
    """
    content = read_content(path, "key points")
    return keypoint_json.results(path, content, shape_of(layout, channels), channels)


class NoConfidence(DataError):
    """Raised when the values given as confidences cannot be confidences."""


def check_confidence(points_FKC: Floats, channels: Channels, what: str) -> None:
    """Raise NoConfidence if the confidences cannot be such; depths are often given in their place.

    Heat maps exceed 1 slightly, and some tools write -1 for a missing point.
    """
    if "c" not in channels:
        return
    confidence = points_FKC[..., channels.index("c")]
    confidence = confidence[np.isfinite(confidence)]
    wrong = confidence[(confidence > LARGEST_CONFIDENCE) | ((confidence < 0) & (confidence != -1))]
    if wrong.size:
        raise NoConfidence(
            f"{what}: have the confidence {wrong[0]:g} as --channels {channels} says, wanted 0 to 1; key points in "
            "space are --channels xyz, or xyzc with a confidence"
        )


def _npy(path: Path) -> NDArray[Any]:
    try:
        return read_npy(path)
    except DataError as error:
        raise DataError(f"key points {error}") from None


def _oriented(path: Path, array: NDArray[Any], shape: tuple[int, int]) -> Floats:
    """Convert (K, C), (C, K), or frames of either to (F, K, C); no layout has as few points as channels."""
    if array.dtype.kind in "fiu" and array.ndim in (2, 3):
        if array.shape[-2:] == shape[::-1]:
            array = array.swapaxes(-1, -2)
        if array.shape[-2:] == shape:
            return np.array(array, np.float64).reshape(-1, *shape)
    raise DataError(
        f"key points {path}: hold {array.dtype} {array.shape}, wanted {shape} or (frames, {shape[0]}, {shape[1]})"
    )


def write_mask(path: Path, mask_HW: Bytes) -> None:
    """Write a mask (H, W) of 0 and 255 as a one-bit PNG into an existing folder, atomically.

    Raises ValueError for another array.
    """
    if mask_HW.ndim != 2 or mask_HW.dtype != np.uint8 or mask_HW.size == 0:
        raise DataError(f"mask {path}: is {mask_HW.dtype} {mask_HW.shape}, wanted uint8 (height, width)")
    other = mask_HW[(mask_HW != 0) & (mask_HW != 255)]
    if other.size:
        raise DataError(f"mask {path}: holds the value {other[0]}, wanted 0 and 255")
    write_bytes(path, bilevel.encode(mask_HW))


def write_skeleton(path: Path, joints_V4: NDArray[np.floating[Any]]) -> None:
    """Write a skeleton (14, 4) of float32 or float64 as `new_joint` in a .mat file, atomically; NaN may occur.

    `sptskm.data.files.read_skeleton` gives float32 back: float32 bit for bit, float64 rounded. Equal skeletons
    give equal files. The folder must exist. Raises ValueError for another array.
    """
    if joints_V4.shape != SKELETON_SHAPE or joints_V4.dtype not in (np.float32, np.float64):
        raise DataError(f"skeleton {path}: is {joints_V4.dtype} {joints_V4.shape}, wanted float32 or float64 (14, 4)")
    write_bytes(path, mat_bytes(SKELETON_KEY, joints_V4))
