"""Read frames, masks and skeletons from their files; an unusable file raises one sentence that names its path."""

import io
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy.io
from numpy.typing import NDArray

try:
    import simplejpeg
except ImportError:  # an optional extra; OpenCV decodes to the same pixels
    simplejpeg = None

from sptskm.common.errors import DataError
from sptskm.common.matlab import parsed_mat
from sptskm.common.paths import is_file
from sptskm.data import bilevel, images, usable
from sptskm.data.skeletons import normalise
from sptskm.data.tracklets import Modality, Readable, Tracklets

ATTEMPTS = 3
PAUSE_S = 0.2
MASK_THRESHOLD = 30  # grey value above which a mask pixel belongs to the person, as published
SKELETON_KEY = "new_joint"
SKELETON_SHAPE = (14, 4)
MOST_OF_A_SKELETON = 1 << 24  # largest memory in bytes of a .mat file, which may hold other variables too
BYTES_OF_A_PIXEL = 8  # largest size in a file: 4 channels of 16 bits
# MATLAB files begin with free text; scipy puts the date there, which would change every run.
_MAT_TEXT = b"MATLAB 5.0 MAT-file, written by sptskm".ljust(116)


def read_frame(file: Readable) -> NDArray[np.uint8]:
    """Read a frame (H, W, 3) in RGB; with simplejpeg installed the pixels are the same, in two thirds of the time.

    Raises DataError for a file that cannot be read or decoded, that its decoder warns about, or that has more pixels
    than `images.MAX_PIXELS`.
    """
    content = _bytes(file, "frame")
    header = _header(file, "frame", content)
    if simplejpeg is not None and header.kind == "JPEG" and not header.app1:
        try:
            return np.asarray(simplejpeg.decode_jpeg(content, "RGB"), np.uint8)
        except ValueError:
            pass  # damaged, or a kind that simplejpeg does not support: OpenCV decides
    return _decoded(file, "frame", content, cv2.IMREAD_COLOR_RGB)


def read_mask(file: Readable) -> NDArray[np.uint8]:
    """Read a mask (H, W) with 255 on the person and 0 elsewhere; any image is accepted and thresholded at its own size.

    Masks written by `bilevel` are read in a third of the time of others. Raises DataError as `read_frame`.
    """
    content = _bytes(file, "mask")
    mask_HW = bilevel.decode(content)
    if mask_HW is not None:
        return mask_HW
    is_grey = _header(file, "mask", content).grey
    image = _decoded(file, "mask", content, cv2.IMREAD_GRAYSCALE if is_grey else cv2.IMREAD_COLOR)
    # as published; decoders convert colours to other grey values
    grey_HW = image if is_grey else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.threshold(grey_HW, MASK_THRESHOLD, 255, cv2.THRESH_BINARY)[1], np.uint8)


def lost_mask(file: Readable) -> str:
    """Describe how a mask is stored if it shows something that thresholding loses; else return an empty text.

    It is meant for masks in which `read_mask` finds a single value: stored as 0 and 1, in 16 bits, in dark colours, or
    as a transparency. Raises DataError for a file that cannot be read.
    """
    found = cv2.imdecode(np.frombuffer(_bytes(file, "mask"), np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        return ""
    image = np.atleast_3d(found)
    if (image == image[0, 0]).all():
        return ""
    bits, channels = 8 * image.dtype.itemsize, image.shape[2]
    kind = {1: "grey", 2: "grey with transparency", 4: "colours with transparency"}.get(channels, "colours")
    values = np.unique(image[..., : 3 if channels >= 3 else 1])
    return f"{kind} of {bits} bits with values from {values[0]} to {values[-1]}"


def decode_picture(file: Readable, kind: str, content: bytes, flags: int) -> NDArray[Any]:
    """Check the header of a picture of any depth and colour, then decode it. Raises DataError."""
    _header(file, kind, content)
    return _decoded(file, kind, content, flags)


def _header(file: Readable, kind: str, content: bytes) -> images.Header:
    try:
        return images.read_header(content)
    except ValueError as error:
        raise _corrupt(file, kind, error) from None


def _decoded(file: Readable, kind: str, content: bytes, flags: int) -> NDArray[Any]:
    try:
        return images.decode_image(content, flags)
    except ValueError as error:
        raise _corrupt(file, kind, error) from None


def _corrupt(file: Readable, kind: str, error: ValueError) -> DataError:
    return DataError(f"{kind} {file}: corrupt, not a readable image" + (f" ({error})" if str(error) else ""))


def read_skeleton(file: Readable) -> NDArray[np.float32]:
    """Read a skeleton (14, 4) of x, y, z, confidence as stored; `sptskm.data.usable` decides which joints are usable.

    Raises DataError.
    """
    skeleton = parsed_mat(_bytes(file, "skeleton"), f"skeleton {file}", SKELETON_KEY, most=MOST_OF_A_SKELETON)
    if skeleton.shape != SKELETON_SHAPE or skeleton.dtype.kind not in "fiu":
        raise DataError(f"skeleton {file}: {SKELETON_KEY} is {skeleton.dtype} {skeleton.shape}, wanted 14x4 numbers")
    with np.errstate(over="ignore"):  # numbers too large for float32 become infinite and count as missing
        return skeleton.astype(np.float32)


def read_skeletons(table: Tracklets, row: int, frames: Sequence[int], strict: bool = True) -> NDArray[np.float32]:
    """Read the skeletons (F, 14, 4) of some frames of a tracklet and fill missing joints with `usable.fill_joints`.

    A frame without a skeleton is NaN throughout, and so is a frame whose file is missing. A corrupt file raises
    DataError if `strict`, and counts as missing otherwise.
    """
    raw_FV4, every = raw_skeletons(table, row, frames, strict), range(int(table.lengths[row]))
    if list(frames) != list(every) and usable.is_doubtful(raw_FV4):
        return np.asarray(usable.fill_joints(raw_skeletons(table, row, every, strict))[list(frames)], np.float32)
    return np.asarray(usable.fill_joints(raw_FV4), np.float32)


def raw_skeletons(table: Tracklets, row: int, frames: Sequence[int], strict: bool) -> NDArray[np.float32]:
    """Read the skeletons (F, 14, 4) of some frames of a tracklet as stored. Raises as `read_skeletons`."""
    whole = table.place.whole(row)
    if whole is not None:
        return whole[list(frames)]
    skeletons = np.full((len(frames), *SKELETON_SHAPE), np.nan, np.float32)
    for place, file in enumerate(table.files(row, frames, "skeletons")):
        if _exists(file):
            found = read_skeleton(file) if strict else read_or_none(read_skeleton, file)
            skeletons[place] = np.nan if found is None else found
    return skeletons


def training_skeletons(
    table: Tracklets, row: int, length: int, normalised: bool, unit: float | None
) -> NDArray[np.float32]:
    """Read the skeletons (length, 14, 4) of a tracklet's first frames as input of SMIN; unusable frames are all NaN.

    With a `unit`, coordinates are multiplied by it and `normalise` keeps sizes. Raises DataError for a corrupt file.
    """
    skeletons_FV4 = read_skeletons(table, row, range(length))
    if unit is not None:
        skeletons_FV4[..., :3] *= unit
    return usable.finite(normalise(skeletons_FV4, scaled=unit is None) if normalised else skeletons_FV4)


def is_there(table: Tracklets, row: int, modality: Modality) -> bool:
    """Return whether a tracklet has files of a modality, judged by its first frame."""
    if modality == "skeletons" and table.place.whole(row) is not None:
        return is_file(table.folder(row, modality))
    return _exists(table.files(row, [0], modality)[0])


def _exists(file: Readable) -> bool:
    """Return whether a file exists. Raises OSError if the system refuses access, for example by permissions."""
    return is_file(file) if isinstance(file, Path) else file.is_file()


def read_or_none(read: Callable[[Readable], NDArray[Any]], file: Readable) -> NDArray[Any] | None:
    """Read a file; return None if it is missing or corrupt. Raises DataError for a file that cannot be read.

    Existence is checked first, because reading retries a missing file several times.
    """
    try:
        return read(file) if _exists(file) else None
    except DataError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise
        return None


def mat_bytes(name: str, array: NDArray[np.generic]) -> bytes:
    """Return the bytes of a level 5 .mat file with one array; equal arrays give equal files."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {name: array})
    return _MAT_TEXT + buffer.getvalue()[len(_MAT_TEXT) :]


def _bytes(file: Readable, kind: str) -> bytes:
    try:
        content = read_retrying(file)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise DataError(f"{kind} {file}: {reason} (after {ATTEMPTS} attempts)") from error
    if not content:
        raise DataError(f"{kind} {file}: empty file")
    return content


def read_retrying(file: Readable) -> bytes:
    """Read all bytes of a file. Raises OSError as `retried` does."""
    return retried(lambda: _content(file) if isinstance(file, Path) else file.read_bytes())


def retried(read: Callable[[], bytes]) -> bytes:
    """Call `read` up to ATTEMPTS times, because network file systems fail briefly; then raise the last OSError."""
    for attempt in range(ATTEMPTS):
        try:
            return read()
        except OSError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE_S)
    raise AssertionError("unreachable")


def _content(path: Path) -> bytes:
    """Read all bytes of a regular file, without the extra buffers of `read_bytes`. Raises OSError and DataError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # do not wait for a pipe's writer
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise DataError(f"{path}: cannot be read, it is no file")
        if state.st_size > (most := images.most_pixels() * BYTES_OF_A_PIXEL):
            raise DataError(
                f"{path}: has {state.st_size:,} bytes, wanted at most {most:,}; "
                f"the variable {images.VARIABLE} raises that"
            )
        content = os.read(descriptor, state.st_size)
        while len(content) < state.st_size and (more := os.read(descriptor, state.st_size - len(content))):
            content += more
        return content
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)
