"""Arrays of outside: types, shapes and lengths are looked at, and headers before memory is taken."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sptskm.common.arrays import ArraySpec, read_npy, read_npz
from sptskm.common.errors import DataError

WANTED = {
    "features": ArraySpec("f", ("N", "D")),
    "keys": ArraySpec("U", ("N",)),
    "points": ArraySpec("iu", ("N", 2)),
    "name": ArraySpec("U"),
}
GOOD: dict[str, Any] = {
    "features": np.arange(6, dtype=np.float32).reshape(2, 3),
    "keys": np.array(["a", "bcd"]),
    "points": np.array([[1, 2], [3, 4]]),
    "name": np.array("ssin"),
}


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **GOOD | arrays)
    return path


def header(shape: str, dtype: str = "'<f4'") -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def replaced(path: Path, name: str, content: bytes) -> Path:
    """One array of a good file as these bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in GOOD.items():
            whole = io.BytesIO()
            np.save(whole, array)
            archive.writestr(f"{key}.npy", content if key == name else whole.getvalue())
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_as_they_were_written(tmp_path: Path, save: Any) -> None:
    more = {"features": np.asfortranarray(GOOD["features"]), "points": GOOD["points"].astype(">i2")}
    save(tmp_path / "a.npz", **GOOD | more)
    found = read_npz(tmp_path / "a.npz", WANTED)
    assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in GOOD.items()}
    assert found["points"].dtype == np.int16, "in the byte order of this machine"
    found["features"][0] = 1  # may be written to


def test_empty_arrays_and_those_that_need_not_be_there(tmp_path: Path) -> None:
    none = {"features": np.zeros((0, 3), np.float32), "keys": np.array([], str), "points": np.zeros((0, 2), int)}
    assert read_npz(saved(tmp_path / "a.npz", **none), WANTED)["features"].shape == (0, 3)
    found = read_npz(saved(tmp_path / "b.npz", method=np.array("x")), WANTED, {"method": ArraySpec("U")})
    assert found["method"] == "x"
    assert "method" not in read_npz(saved(tmp_path / "c.npz"), WANTED, {"method": ArraySpec("U")})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"features": np.zeros((2, 3), int)}, r"features is int64 \(2, 3\), wanted floats \(N, D\)"),
        ({"features": np.zeros(2, np.float32)}, r"features is float32 \(2,\), wanted floats \(N, D\)"),
        ({"features": np.zeros((3, 3))}, r"keys has 2 rows \(N\), wanted 3 as features has"),
        ({"points": np.zeros((2, 3), int)}, r"points is int64 \(2, 3\), wanted whole numbers \(N, 2\)"),
        ({"keys": np.array([1, 2])}, r"keys is int64 \(2,\), wanted texts"),
        ({"keys": np.array(["a", None])}, "keys holds object, wanted numbers or texts"),
        ({"keys": np.array(["a", "\ud800"])}, "keys holds characters that are none"),
        ({"points": np.array([[1 + 2j, 2], [3, 4]])}, "points holds complex128, wanted"),
        ({"points": np.zeros(2, [("a", int)])}, "points holds .*, wanted numbers or texts"),
        ({"name": np.array(["ssin"])}, "name is .*wanted one value of texts"),
        ({"more": np.array(1)}, "holds the array 'more', wanted features, keys"),
    ],
)
def test_another_array_is_one_sentence(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = saved(tmp_path / "a.npz", **change)
    with pytest.raises(DataError, match=sentence) as caught:
        read_npz(path, WANTED)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_array_and_one_that_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **{name: array for name, array in GOOD.items() if name != "keys"})
    with pytest.raises(DataError, match="lacks the array keys"):
        read_npz(path, WANTED)
    with zipfile.ZipFile(saved(path), "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("keys.npy", b"")
    with pytest.raises(DataError, match="holds the array keys twice"):
        read_npz(path, WANTED)


@pytest.mark.parametrize(
    "content",
    [
        header("(1000000000000, 1000)"),
        header("(1000000000000, 1000)") + bytes(24),
        header("(-1, -24)") + bytes(96),
        header("(2, 3)") + bytes(23),
        header("(2, 3)") + bytes(25),
        header("(2, 3)", "'|O'") + bytes(24),
        header("(2, 3)", "'<M8[s]'") + bytes(48),
        header("(" * 2000),
        header("(2, 3.5)") + bytes(24),
        b"\x93NUMPY\x09\x00" + bytes(20),
        b"\x93NUMPY\x01\x00\xff\xff",
        b"",
    ],
)
def test_a_header_that_promises_something_else_is_refused_before_reading(tmp_path: Path, content: bytes) -> None:
    path = replaced(tmp_path / "a.npz", "features", content)
    with pytest.raises(DataError, match=f"^{path}: "):
        read_npz(path, WANTED)
    (alone := tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match=f"^{alone}: "):
        read_npy(alone)


def test_one_flipped_bit_in_the_numbers_is_seen(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz")
    content = bytearray(path.read_bytes())
    content[content.index(GOOD["features"].tobytes()) + 5] ^= 16
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable .npz file .*CRC"):
        read_npz(path, WANTED)


def test_no_file_of_changed_bytes_ends_otherwise_than_in_a_sentence(tmp_path: Path) -> None:
    content, path = saved(tmp_path / "a.npz").read_bytes(), tmp_path / "b.npz"
    draw = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content[: draw.integers(1, len(content) + 1)] if draw.random() < 0.3 else content)
        for place in draw.integers(0, len(changed), draw.integers(1, 6)):
            changed[place] = draw.integers(0, 256)
        path.write_bytes(changed)
        try:
            found = read_npz(path, WANTED)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - either is right
        else:
            assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in GOOD.items()}


def test_an_absent_file_is_not_called_corrupt(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "a.npz", WANTED)
    with pytest.raises(IsADirectoryError):
        read_npy(tmp_path)


def test_an_array_alone_may_be_asked_for_by_type_and_shape(tmp_path: Path) -> None:
    np.save(path := tmp_path / "a.npy", np.zeros((5, 14, 4), np.float32))
    assert read_npy(path).shape == (5, 14, 4)
    assert read_npy(path, ArraySpec("f", (5, 14, 4))).shape == (5, 14, 4)
    with pytest.raises(DataError, match=r"is float32 \(5, 14, 4\), wanted floats \(6, 14, 4\)"):
        read_npy(path, ArraySpec("f", (6, 14, 4)))
