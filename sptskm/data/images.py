"""Read the headers of pictures before decoding, and decode pictures with the decoder's warnings taken as errors.

The size is known before memory is allocated for pixels, so that a small file cannot ask for gigabytes. Damage that
the format itself reveals is found here: the checksum of every chunk of a PNG, the markers of a JPEG.
Sources: ITU T.81 annex B (JPEG markers), W3C PNG section 5, RFC 9649 (WebP), and the headers of BMP files.
"""

import os
import struct
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError

MAX_PIXELS = 1 << 25
"""Largest number of pixels of a picture, about 8K video (7680 x 4320). The variable SPTSKM_MAX_PIXELS raises it."""
VARIABLE = "SPTSKM_MAX_PIXELS"
_PNG = b"\x89PNG\r\n\x1a\n"
_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of JPEG that begin with the picture's size
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_WARNINGS = (  # warnings of libjpeg, which then continues
    "Corrupt JPEG data",
    "Premature end of JPEG",
    "Invalid SOS parameters",
    "Inconsistent progression sequence",
    "Unknown Adobe color transform",
    "Warning: unknown JFIF",
)


class Header(NamedTuple):
    """The format and size of a picture."""

    kind: str
    """JPEG, PNG, BMP or WebP."""
    height: int
    width: int
    grey: bool = False
    """Whether a PNG has only grey values."""
    app1: bool = False
    """Whether a JPEG has, anywhere in its header, Exif or other data that may tell how to rotate it."""


def read_header(content: bytes) -> Header:
    """Read the format and size of a picture from its header.

    Raises ValueError: with a message for damage or too many pixels, without one for an unknown format.
    """
    for signature, read in _READERS.items():
        if content.startswith(signature):
            try:
                header = read(content)
            except (IndexError, struct.error):
                raise ValueError("ends too early") from None
            check_size(header.height, header.width)
            return header
    raise ValueError


def check_size(height: int, width: int) -> None:
    """Raise ValueError for an empty picture and for one with more pixels than allowed."""
    if height < 1 or width < 1:
        raise ValueError(f"is {height}x{width}, wanted some pixels")
    if height * width > MAX_PIXELS and height * width > (most := most_pixels()):
        raise ValueError(f"is {height}x{width}, wanted at most {most:,} pixels; the variable {VARIABLE} raises that")


def most_pixels() -> int:
    """Return the largest number of pixels that a picture may have. Raises DataError if the variable is no number."""
    text = os.environ.get(VARIABLE, "")
    if text and not text.isdecimal():
        raise DataError(f"{VARIABLE} is {text!r}, wanted a number of pixels")
    return int(text or MAX_PIXELS)


def _jpeg(content: bytes) -> Header:
    """Read a JPEG header from marker to marker up to the first scan."""
    at, size, app1 = 2, None, False
    while True:
        if content[at] != 0xFF:
            raise ValueError(f"has no marker at byte {at}")
        while content[at] == 0xFF:  # any number of fill bytes may precede a marker
            at += 1
        marker = content[at]
        if marker == _SCAN and size:
            return Header("JPEG", size[0], size[1], app1=app1)
        if marker in (_SCAN, _END) or (marker in _SIZES and size):
            raise ValueError(f"has the marker {marker:02x} at byte {at}, where another is wanted")
        app1 |= marker == _APP1
        if marker in _SIZES:
            size = struct.unpack_from(">HH", content, at + 4)  # after the length and one byte of precision
        at += 1 + int.from_bytes(content[at + 1 : at + 3], "big")


def _png(content: bytes) -> Header:
    """Read a PNG header and verify the checksum of every chunk up to the last one."""
    if content[12:16] != b"IHDR":
        raise ValueError("begins with another chunk than IHDR")
    height, width = struct.unpack_from(">II", content, 16)[::-1]
    at, view = len(_PNG), memoryview(content)
    while True:
        length, kind = struct.unpack_from(">I4s", content, at)
        (wanted,) = struct.unpack_from(">I", content, at + 8 + length)
        if zlib.crc32(view[at + 4 : at + 8 + length]) != wanted:
            raise ValueError(f"has a damaged chunk {kind.decode('ascii', 'replace')!r} at byte {at}")
        at += 12 + length
        if kind == b"IEND":
            return Header("PNG", height, width, grey=content[25] == 0)


def _bmp(content: bytes) -> Header:
    (length,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<HH" if length == 12 else "<ii", content, 18)
    return Header("BMP", abs(height), abs(width))  # a negative height means that the first row is on top


def _webp(content: bytes) -> Header:
    kind = content[12:16]
    if content[8:12] != b"WEBP" or struct.unpack_from("<I", content, 4)[0] + 8 > len(content):
        raise ValueError("ends before its last byte")
    if kind == b"VP8X":
        sides = (1 + int.from_bytes(content[at : at + 3], "little") for at in (27, 24))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        sides = (1 + (bits >> shift & 0x3FFF) for shift in (14, 0))
    else:
        sides = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26)[::-1])
    height, width = sides
    return Header("WebP", height, width)


_READERS: dict[bytes, Callable[[bytes], Header]] = {b"\xff\xd8\xff": _jpeg, _PNG: _png, b"BM": _bmp, b"RIFF": _webp}


def decode_image(content: bytes, flags: int) -> NDArray[Any]:
    """Decode a picture with OpenCV and its imread `flags`.

    Raises ValueError if OpenCV refuses the picture or its JPEG decoder prints a warning.
    """
    with _decoder_warnings() if content[:2] == b"\xff\xd8" else _no_warnings() as warnings:
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        except cv2.error as error:
            raise ValueError(str(error.err or error).strip()) from None
    if warnings:
        raise ValueError(warnings[0])
    if image is None:
        raise ValueError
    return np.asarray(image)


@contextmanager
def _no_warnings() -> Iterator[list[str]]:
    yield []


_stderr_lock = threading.Lock()
# No process may be forked while standard error is redirected.
os.register_at_fork(
    before=_stderr_lock.acquire, after_in_parent=_stderr_lock.release, after_in_child=_stderr_lock.release
)


@contextmanager
def _decoder_warnings() -> Iterator[list[str]]:
    """Collect libjpeg's warnings: OpenCV accepts such a picture and only prints them to standard error.

    Anything else written to standard error meanwhile is passed on.
    """
    warnings: list[str] = []
    with _stderr_lock, tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield warnings
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            for line in file.read().splitlines(keepends=True):
                text = line.decode(errors="replace").strip()
                if text.startswith(_WARNINGS):
                    warnings.append(text)
                else:
                    os.write(2, line)
