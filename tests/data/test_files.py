"""Frames, masks and skeletons from their files."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.data import files
from sptskm.data.files import ATTEMPTS, read_frame, read_mask, read_skeleton

READERS = {"frame": (read_frame, "a.jpg"), "mask": (read_mask, "a.png"), "skeleton": (read_skeleton, "a.mat")}
Reader = Callable[[Path], NDArray[np.generic]]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, without making them."""
    made: list[float] = []
    monkeypatch.setattr("sptskm.data.files.time.sleep", made.append)
    return made


def written(path: Path, image: NDArray[np.uint8]) -> Path:
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def whole(kind: str, path: Path) -> Path:
    """A usable file of this kind."""
    if kind == "skeleton":
        scipy.io.savemat(path, {"new_joint": np.ones((14, 4))})
        return path
    return written(path, np.random.default_rng(0).integers(0, 255, (16, 8, 3), dtype=np.uint8))


def test_frames_are_red_green_blue(tmp_path: Path) -> None:
    blue_green_red = np.zeros((6, 4, 3), np.uint8)
    blue_green_red[...] = (10, 90, 200)
    frame = read_frame(written(tmp_path / "a.png", blue_green_red))
    assert (frame.shape, frame.dtype) == ((6, 4, 3), np.uint8)
    assert frame[0, 0].tolist() == [200, 90, 10]


def test_grey_frames_get_three_channels(tmp_path: Path) -> None:
    frame = read_frame(written(tmp_path / "a.png", np.full((6, 4), 77, np.uint8)))
    assert frame[2, 2].tolist() == [77, 77, 77]


def test_masks_are_0_or_255_from_any_grey_or_coloured_image(tmp_path: Path) -> None:
    grey = np.array([[0, 29, 30, 31, 255]], np.uint8)
    assert read_mask(written(tmp_path / "a.png", grey)).tolist() == [[0, 0, 0, 255, 255]]
    coloured = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 0]]], np.uint8)  # grey 29, 150 and 0
    assert read_mask(written(tmp_path / "b.png", coloured)).tolist() == [[0, 255, 0]]


@pytest.mark.parametrize(
    ("ending", "channels", "scale"),
    [
        (".png", 1, 1),
        (".png", 3, 1),
        (".png", 4, 1),
        (".png", 1, 256),
        (".png", 3, 256),
        (".jpg", 1, 1),
        (".jpg", 3, 1),
    ],
)
def test_a_mask_is_where_its_colour_image_made_grey_is_above_30(
    ending: str, channels: int, scale: int, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).integers(0, 60, (40, 24, channels)) * scale
    path = written(tmp_path / f"a{ending}", values.astype(np.uint8 if scale == 1 else np.uint16))
    grey = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2GRAY)
    mask = read_mask(path)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.where(grey > 30, 255, 0))
    assert 0.3 < (mask > 0).mean() < 0.7


def test_skeletons_come_as_float32_with_their_nans(tmp_path: Path) -> None:
    joints = np.random.default_rng(0).normal(size=(14, 4))
    joints[3, 1] = np.nan
    scipy.io.savemat(tmp_path / "a.mat", {"new_joint": joints})
    skeleton = read_skeleton(tmp_path / "a.mat")
    assert skeleton.dtype == np.float32
    np.testing.assert_array_equal(skeleton, joints.astype(np.float32))


@pytest.mark.parametrize("kind", READERS)
def test_a_missing_file_is_one_sentence_after_three_attempts(kind: str, tmp_path: Path, pauses: list[float]) -> None:
    read, name = READERS[kind]
    with pytest.raises(DataError, match=rf"^{kind} {tmp_path / name}: no such file \(after 3 attempts\)$"):
        read(tmp_path / name)
    assert ATTEMPTS == 3
    assert len(pauses) == 2


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_a_truncated_file_is_one_sentence_at_once(
    kind: str, share: float, tmp_path: Path, pauses: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    read, name = READERS[kind]
    path = whole(kind, tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=rf"^{kind} {path}: corrupt, not a readable"):
        read(path)
    assert not pauses
    capfd.readouterr()  # the decoders' own complaints


@pytest.mark.parametrize("kind", READERS)
def test_something_else_under_the_name_is_one_sentence(kind: str, tmp_path: Path) -> None:
    read, name = READERS[kind]
    (tmp_path / name).write_text("<html>moved</html>" * 20)
    with pytest.raises(DataError, match=rf"^{kind} {tmp_path / name}: corrupt"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=rf"^{kind} {tmp_path / name}: empty file$"):
        read(tmp_path / name)


@pytest.mark.parametrize("kind", READERS)
def test_a_file_system_that_fails_for_a_moment_is_asked_again(
    kind: str, tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, name = READERS[kind]
    path, failures = whole(kind, tmp_path / name), [OSError(116, "Stale file handle")] * 2

    def unsteady(path: Path) -> bytes:
        if failures:
            raise failures.pop()
        return path.read_bytes()

    monkeypatch.setattr("sptskm.data.files._content", unsteady)
    assert read(path).size > 0
    assert len(pauses) == 2
    failures += [OSError(116, "Stale file handle")] * 5
    with pytest.raises(DataError, match=rf"^{kind} {path}: .*Stale file handle \(after 3 attempts\)$"):
        read(path)
    assert len(failures) == 2, "no fourth attempt"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"joint": np.ones((14, 4))}, "holds joint, wanted the variable new_joint"),
        ({"new_joint": np.ones((16, 4))}, r"new_joint is float64 \(16, 4\), wanted 14x4 numbers"),
        ({"new_joint": "nobody"}, "new_joint is of MATLAB's class char, wanted an array of numbers"),
        ({"new_joint": np.full((14, 4), 1j)}, "new_joint is of MATLAB's class complex, wanted"),
    ],
)
def test_a_mat_file_with_other_content_says_what_it_holds(
    tmp_path: Path, content: dict[str, object], message: str
) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, content)
    with pytest.raises(DataError, match=rf"^skeleton {path}: .*{message}"):
        read_skeleton(path)


def photo(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Something with edges, gradients and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 5, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC).astype(int)
    return (smooth + rng.integers(-20, 20, (*shape, 3))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(256, 128), (37, 53), (64, 32)])
@pytest.mark.parametrize(
    "options",
    [
        [cv2.IMWRITE_JPEG_QUALITY, 95],
        [cv2.IMWRITE_JPEG_QUALITY, 50, cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
        [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422],
    ],
)
def test_the_faster_decoder_gives_the_pixels_of_opencv(
    shape: tuple[int, int], options: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("simplejpeg")
    for number, image in enumerate((photo(shape), photo(shape)[..., 0])):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(cv2.imencode(".jpg", image, options)[1].tobytes())
        fast = read_frame(path)
        with monkeypatch.context() as context:
            context.setattr(files, "simplejpeg", None)
            np.testing.assert_array_equal(fast, read_frame(path))


def test_a_frame_that_says_how_it_is_turned_is_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    plain = cv2.imencode(".jpg", photo((64, 32)))[1].tobytes()
    path = tmp_path / "turned.jpg"
    path.write_bytes(plain[:2] + b"\xff\xe1" + (len(turned) + 2).to_bytes(2, "big") + turned + plain[2:])
    found = read_frame(path)
    assert found.shape == (32, 64, 3)
    monkeypatch.setattr(files, "simplejpeg", None)
    np.testing.assert_array_equal(found, read_frame(path))


def test_a_frame_cut_short_is_read_or_refused_as_by_opencv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = cv2.imencode(".jpg", photo((64, 32)))[1].tobytes()
    for length in (100, len(content) // 2, len(content) - 2):
        path = tmp_path / f"{length}.jpg"
        path.write_bytes(content[:length])
        found = [outcome_of(path)]
        with monkeypatch.context() as context:
            context.setattr(files, "simplejpeg", None)
            found.append(outcome_of(path))
        assert found[0] == found[1]


def outcome_of(path: Path) -> bytes | str:
    try:
        return read_frame(path).tobytes()
    except DataError as error:
        return str(error)
