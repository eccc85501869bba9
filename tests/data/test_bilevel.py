"""PNGs of one bit a pixel. Legend: H rows, W columns."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.data import bilevel
from sptskm.data.files import read_mask

SIZES = [(1, 1), (5, 7), (6, 8), (3, 9), (256, 128)]


def mask_of(height: int = 20, width: int = 13) -> NDArray[np.uint8]:
    return np.where(np.random.default_rng(0).random((height, width)) < 0.4, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_is_read_here_and_by_others(size: tuple[int, int]) -> None:
    mask_HW, content = mask_of(*size), bilevel.encode(mask_of(*size))
    found = bilevel.decode(content)
    assert found is not None
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, mask_HW)
    buffer = np.frombuffer(content, np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED), mask_HW)
    np.testing.assert_array_equal(cv2.imdecode(buffer, cv2.IMREAD_COLOR), mask_HW[..., None].repeat(3, 2))


def test_everything_but_0_is_white() -> None:
    found = bilevel.decode(bilevel.encode(np.array([[0, 1, 254, 255]], np.uint8)))
    assert found is not None
    assert found.tolist() == [[0, 255, 255, 255]]


def test_a_silhouette_takes_less_than_its_bits() -> None:
    mask_HW = np.zeros((256, 128), np.uint8)
    cv2.ellipse(mask_HW, (64, 128), (30, 110), 3, 0, 360, 255, -1)
    assert len(bilevel.encode(mask_HW)) < 256 * 128 / 8 / 4


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_PNG_BILEVEL, 1]])
def test_other_pngs_are_left_to_opencv(options: list[int]) -> None:
    assert bilevel.decode(cv2.imencode(".png", mask_of(), options)[1].tobytes()) is None
    assert bilevel.decode(b"") is None
    assert bilevel.decode(cv2.imencode(".jpg", mask_of())[1].tobytes()) is None


def test_no_byte_of_it_can_change_unnoticed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content, path = bilevel.encode(mask_of()), tmp_path / "a.png"
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        found = bilevel.decode(bytes(damaged))
        assert found is None or np.array_equal(found, mask_of()), f"byte {place}"
    for size in range(len(content)):
        assert bilevel.decode(content[:size]) is None
    path.write_bytes(content[:-20])
    with pytest.raises(DataError, match=rf"^mask {path}: corrupt"):
        read_mask(path)
    capfd.readouterr()  # the decoder's own complaints


def test_rows_with_a_filter_are_left_to_opencv(tmp_path: Path) -> None:
    content = bilevel.encode(mask_of(20, 16))
    rows = np.frombuffer(zlib.decompress(content[41:-16]), np.uint8).reshape(20, 3).copy()
    rows[4] = [1, rows[4, 1], (int(rows[4, 2]) - int(rows[4, 1])) % 256]  # "Sub": less the byte before
    packed = zlib.compress(rows.tobytes())
    chunk = b"IDAT" + packed
    path = tmp_path / "a.png"
    path.write_bytes(
        content[:33] + struct.pack(">I", len(packed)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[-12:]
    )
    assert bilevel.decode(path.read_bytes()) is None
    np.testing.assert_array_equal(read_mask(path), mask_of(20, 16))


@pytest.mark.parametrize(("height", "width"), [(0, 8), (8, 0), (0, 0)])
def test_a_mask_without_pixels_is_no_mask(height: int, width: int) -> None:
    packed = zlib.compress(bytes(height * (1 + -(-width // 8))))
    chunks = {b"IHDR": struct.pack(">II", width, height) + b"\x01\0\0\0\0", b"IDAT": packed, b"IEND": b""}
    content = b"".join(
        struct.pack(">I", len(inside)) + kind + inside + struct.pack(">I", zlib.crc32(kind + inside))
        for kind, inside in chunks.items()
    )
    assert bilevel.decode(b"\x89PNG\r\n\x1a\n" + content) is None
