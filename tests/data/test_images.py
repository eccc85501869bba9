"""Pictures that are damaged, turned or far too large: the same answer with and without the faster decoder."""

import errno
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.io
from helpers.handmade import write_files
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.data import bilevel, files, images, read_mars
from sptskm.data.files import read_frame, read_mask, read_or_none, read_skeleton, read_skeletons

PNG = b"\x89PNG\r\n\x1a\n"
EXIF_6 = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # turned by a quarter
Bytes = NDArray[np.uint8]


@pytest.fixture(params=["simplejpeg", "OpenCV"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which library is at hand."""
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(files, "simplejpeg", None)
    return str(request.param)


def photo(shape: tuple[int, int] = (128, 64), seed: int = 0) -> Bytes:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 5, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC).astype(int)
    return (smooth + rng.integers(-20, 20, (*shape, 3))).clip(0, 255).astype(np.uint8)


def encoded(image: Bytes, ending: str = ".jpg", *options: int) -> bytes:
    return bytes(cv2.imencode(ending, image, options)[1].tobytes())


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(height: int, width: int, packed: bytes, depth: int = 8) -> bytes:
    header = struct.pack(">II", width, height) + bytes([depth, 0, 0, 0, 0])
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def refusal(read: Callable[[Path], Bytes], path: Path, content: bytes) -> str:
    """The sentence, without the path."""
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value).partition(f"{path}: ")[2]


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("read", [read_frame, read_mask])
def test_zeros_within_a_jpeg_are_refused_though_decoders_go_on(
    read: Callable[[Path], Bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good, rng = encoded(photo()), np.random.default_rng(0)
    for at in rng.integers(0, len(good) - 512, 20).tolist():
        content = good[:at] + bytes(512) + good[at + 512 :]
        assert refusal(read, tmp_path / "a.jpg", content).startswith("corrupt, not a readable image")
    assert "JPEG" not in capfd.readouterr().err, "the sentence says it"


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("left_out", [1, 2, 20, 3000])
def test_a_jpeg_without_its_end_is_refused(left_out: int, tmp_path: Path) -> None:
    assert "corrupt" in refusal(read_frame, tmp_path / "a.jpg", encoded(photo())[:-left_out])


def test_a_whole_jpeg_is_no_complaint_and_what_others_say_meanwhile_is_passed_on(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = cv2.imdecode

    def noisy(*arguments: Any) -> object:
        sys.stderr.write("a line of somebody else\n")
        sys.stderr.flush()
        return decode(*arguments)

    monkeypatch.setattr(cv2, "imdecode", noisy)
    assert images.decode_image(encoded(photo()), cv2.IMREAD_COLOR).shape == (128, 64, 3)
    assert capfd.readouterr().err == "a line of somebody else\n"


@pytest.mark.parametrize(
    "before",
    [
        b"",
        segment(0xFE, b"a comment" * 100),  # which puts it behind the first 512 bytes
        segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0") + segment(0xE2, bytes(4000)),
        b"\xff\xff\xff",  # which may precede any marker
    ],
)
def test_a_frame_is_turned_wherever_it_says_so(before: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, path = encoded(photo()), tmp_path / "a.jpg"
    path.write_bytes(plain[:2] + before + segment(0xE1, EXIF_6) + plain[2:])
    found = read_frame(path)
    assert found.shape == (64, 128, 3)
    monkeypatch.setattr(files, "simplejpeg", None)
    np.testing.assert_array_equal(found, read_frame(path))


@pytest.mark.usefixtures("decoder")
def test_the_word_exif_anywhere_else_turns_nothing(tmp_path: Path) -> None:
    plain, path = encoded(photo()), tmp_path / "a.jpg"
    path.write_bytes(plain[:2] + segment(0xFE, EXIF_6) + plain[2:])
    assert read_frame(path).shape == (128, 64, 3)


def test_a_flipped_bit_anywhere_in_a_png_is_refused(tmp_path: Path) -> None:
    colour, rng = encoded(photo((32, 16)), ".png"), np.random.default_rng(0)
    text = colour[:33] + chunk(b"tEXt", b"Author\0somebody") + colour[33:]
    for good in (text, bilevel.encode(np.eye(32, dtype=np.uint8))):
        for bit in rng.integers(0, 8 * len(good), 60).tolist():
            damaged = bytearray(good)
            damaged[bit // 8] ^= 1 << bit % 8
            assert "corrupt" in refusal(read_mask, tmp_path / "a.png", bytes(damaged))


def test_a_png_that_ends_early_or_holds_too_little_is_refused(tmp_path: Path) -> None:
    rows = bytes(32 * 17)
    for content in (
        png(32, 16, zlib.compress(rows))[:-12],
        png(32, 16, zlib.compress(rows)[:-4]),
        png(32, 16, zlib.compress(rows[:100])),
        png(32, 16, zlib.compress(bytes(32 * 3)[:50]), depth=1),
    ):
        assert "corrupt" in refusal(read_mask, tmp_path / "a.png", content)


HUGE = 60_000
WIDE = struct.pack(">HH", HUGE, HUGE)


def resized_jpeg() -> bytes:
    """Its header promises 3.6 thousand million pixels."""
    content = encoded(photo((16, 8)))
    at = content.index(b"\xff\xc0")
    return content[: at + 5] + WIDE + content[at + 9 :]


def resized_bmp() -> bytes:
    content = encoded(photo((16, 8)), ".bmp")
    return content[:18] + struct.pack("<ii", HUGE, -HUGE) + content[26:]


def resized_webp(ending: bytes) -> bytes:
    side = (HUGE - 1).to_bytes(3, "little")
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + side + side if ending == b"VP8X" else b""
    body = body or b"VP8L" + struct.pack("<IBI", 5, 0x2F, 0x3FFF | 0x3FFF << 14)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


@pytest.mark.parametrize("read", [read_frame, read_mask])
@pytest.mark.parametrize(
    "content",
    [
        png(HUGE, HUGE, zlib.compress(bytes(1000))),
        png(HUGE, HUGE, zlib.compress(bytes(1000)), depth=1),
        resized_jpeg(),
        resized_bmp(),
        resized_webp(b"VP8X"),
        resized_webp(b"VP8L"),
    ],
    ids=["png", "bilevel", "jpeg", "bmp", "webp", "lossless webp"],
)
def test_too_many_pixels_are_refused_by_the_header(
    read: Callable[[Path], Bytes], content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", None)  # is not asked
    said = refusal(read, tmp_path / "a", content)
    assert "wanted at most 33,554,432 pixels; the variable SPTSKM_MAX_PIXELS raises that" in said


@pytest.mark.parametrize(("value", "refused"), [("", True), ("99", True), ("800", False), ("many", True)])
def test_the_limit_can_be_raised(value: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(photo((40, 20))))
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    monkeypatch.setenv("SPTSKM_MAX_PIXELS", value)
    if refused:
        with pytest.raises(DataError, match=r"SPTSKM_MAX_PIXELS (raises that|is 'many', wanted a number of pixels)"):
            read_frame(path)
    else:
        assert read_frame(path).shape == (40, 20, 3)


def test_a_small_mask_takes_no_gigabytes(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    stream = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    for name, content in (("a", png(HUGE, HUGE, stream)), ("b", png(100, 100, stream, depth=1))):
        (tmp_path / f"{name}.png").write_bytes(content)
    script = """
import resource, sys
from contextlib import suppress
from pathlib import Path
from sptskm.common.errors import DataError
from sptskm.data.files import read_mask
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    with suppress(DataError):
        read_mask(Path(name))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert len(grown) == 2
    assert max(map(int, grown)) < 50_000  # KiB


@pytest.mark.parametrize("ending", [".png", ".bmp", ".webp", ".jpg"])
def test_every_kind_that_is_read_gives_its_size(ending: str, tmp_path: Path) -> None:
    for channels in (1, 3):
        content = encoded(photo((37, 53))[..., :channels], ending)
        header = images.read_header(content)
        assert (header.height, header.width) == (37, 53)
        (tmp_path / "a").write_bytes(content)
        assert read_frame(tmp_path / "a").shape == (37, 53, 3)
    lossless = encoded(photo((37, 53)), ".webp", cv2.IMWRITE_WEBP_QUALITY, 101)
    assert images.read_header(lossless)[:3] == ("WebP", 37, 53)


# a whole picture of one red pixel: not every build of OpenCV writes GIF
GIF = b"GIF89a\1\0\1\0\x80\0\0\xff\0\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2\x44\1\0;"


@pytest.mark.parametrize(
    "content", [encoded(photo((8, 4)), ".tiff"), encoded(photo((8, 4)), ".ppm"), GIF], ids=["tiff", "ppm", "gif"]
)
def test_other_kinds_of_pictures_are_refused(content: bytes, tmp_path: Path) -> None:
    assert "not a readable image" in refusal(read_frame, tmp_path / "a.jpg", content)


def test_a_file_without_end_is_not_read_into_memory(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.mat"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 40)  # takes nothing on the disk
        with pytest.raises(DataError, match=r"has 1,099,511,627,776 bytes, wanted at most 268,435,456; the var"):
            {"a.jpg": read_frame, "a.png": read_mask, "a.mat": read_skeleton}[name](tmp_path / name)


def test_a_pipe_and_a_folder_under_the_name_of_a_frame_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(DataError, match=rf"^{tmp_path / name}.jpg: cannot be read, it is no file$"):
            read_frame(tmp_path / f"{name}.jpg")


def mat_of(element: bytes) -> bytes:
    return b"MATLAB 5.0".ljust(124) + b"\0\1IM" + element


def matrix(kind: int, shape: tuple[int, int], content: bytes = b"", name: bytes = b"new_joint") -> bytes:
    """A variable that promises whatever shape."""
    flags = struct.pack("<IIII", 6, 8, kind, 0)
    sides = struct.pack("<IIii", 5, 8, *shape)
    called = struct.pack("<II", 1, len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0")
    body = flags + sides + called + content
    return struct.pack("<II", 14, len(body)) + body


DOUBLE, CELL = 6, 1
NUMBERS = struct.pack("<II", 9, 14 * 4 * 8) + bytes(14 * 4 * 8)
INFLATED = zlib.compress(matrix(DOUBLE, (14, 4), NUMBERS + bytes(1 << 26)), 9)


@pytest.mark.parametrize(
    "content",
    [
        mat_of(matrix(DOUBLE, (10**6, 10**6), NUMBERS)),
        mat_of(matrix(CELL, (60_000, 60_000), NUMBERS)),
        mat_of(struct.pack("<II", 15, len(INFLATED)) + INFLATED),
        mat_of(matrix(DOUBLE, (14, 4), struct.pack("<II", 9, 2**31) + bytes(64))),
    ],
    ids=["shape", "cells", "inflated", "length"],
)
def test_a_skeleton_that_promises_gigabytes_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(
        DataError, match=rf"^skeleton {path}: (corrupt, not a readable \.mat|new_joint (promises|is of))"
    ):
        read_skeleton(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_a_compressed_skeleton_is_read(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"other": np.ones(9), "new_joint": np.ones((14, 4))}, do_compression=True)
    assert read_skeleton(tmp_path / "a.mat").tolist() == np.ones((14, 4)).tolist()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_skeleton_that_cannot_be_read_is_not_a_missing_one(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, opened, told = read_mars(write_files(tmp_path)), os.open, os.strerror(number)
    monkeypatch.setattr("sptskm.data.files.time.sleep", lambda _: None)

    def failing(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith((".mat", ".png")) and "bbox" in str(path):
            raise OSError(number, told, str(path))
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "open", failing)
    for strict in (True, False):
        with pytest.raises(DataError, match=rf"^skeleton .*{told}.*\(after 3 attempts\)$"):
            read_skeletons(table, 0, [0], strict)
    with pytest.raises(DataError, match=rf"^mask .*{told}.*\(after 3 attempts\)$"):
        read_or_none(read_mask, table.files(0, [0], "masks")[0])
    monkeypatch.setattr(os, "open", opened)
    missing = table.path(0, 0, "masks")
    missing.unlink()
    assert read_or_none(read_mask, missing) is None
    missing.write_bytes(b"corrupt")
    assert read_or_none(read_mask, missing) is None
