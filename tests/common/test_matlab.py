"""Arrays of numbers from MATLAB files of every version and machine; whatever is damaged ends in a sentence."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from sptskm.common.errors import DataError
from sptskm.common.matlab import parsed_mat, read_mat

TABLE = np.arange(12).reshape(3, 4)


def written(content: dict[str, Any], **how: Any) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, content, **how)
    return file.getvalue()


@pytest.mark.parametrize("how", [{}, {"do_compression": True}, {"format": "4"}])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_numbers_of_every_type_are_read_as_the_library_reads_them(dtype: str, how: dict[str, Any]) -> None:
    array = TABLE.astype(dtype)
    if "format" in how and dtype in ("i1", "u4", "i8", "u8"):
        pytest.skip("version 4 has no such numbers")
    content = written(
        {"other": "text", "a": array, "b": np.ones((2, 3, 4))} if not how.get("format") else {"a": array}, **how
    )
    found = parsed_mat(content, "x.mat", "a")
    wanted = scipy.io.loadmat(io.BytesIO(content))["a"]
    assert found.dtype == wanted.dtype
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("shape", [(1, 1), (0, 4), (5, 1), (2, 3, 4)])
def test_arrays_of_every_shape_are_read(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).random(shape)
    assert parsed_mat(written({"a": array}), "x.mat", "a").tolist() == array.tolist()


def test_a_file_of_a_big_endian_machine_is_read() -> None:
    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    numbers = element(9, np.array([[1.5, 2.5]], ">f8").tobytes())
    parts = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 1, 2)) + element(1, b"a") + numbers
    content = b"MATLAB 5.0".ljust(124) + b"\1\0MI" + element(14, parts)
    assert parsed_mat(content, "x.mat", "a").tolist() == [[1.5, 2.5]]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"a": np.array([[TABLE]], object)}, "a is of MATLAB's class cell, wanted an array of numbers"),
        ({"a": {"b": TABLE}}, "a is of MATLAB's class struct, wanted"),
        ({"a": "text"}, "a is of MATLAB's class char, wanted"),
        ({"a": TABLE > 3}, "a is of MATLAB's class logical, wanted"),
        ({"a": TABLE + 1j}, "a is of MATLAB's class complex, wanted"),
        ({"b": TABLE}, "holds b, wanted the variable a"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(tmp_path: Path, content: dict[str, Any], told: str) -> None:
    (tmp_path / "x.mat").write_bytes(written(content))
    with pytest.raises(DataError, match=f"^{tmp_path}/x.mat: {told}"):
        read_mat(tmp_path / "x.mat", "a")


def test_the_first_of_several_names_counts_and_one_that_stands_twice_is_refused() -> None:
    one, two = written({"a": TABLE}), written({"b": TABLE + 1})
    assert parsed_mat(one + two[128:], "x.mat", "b", "a").tolist() == (TABLE + 1).tolist()
    with pytest.raises(DataError, match=r"^x\.mat: holds the variable a twice, wanted it once$"):
        parsed_mat(one + one[128:], "x.mat", "a")


@pytest.mark.parametrize(
    "content", [b"", b"MATLAB", b"\0", b"MATLAB 7.3 MAT-file".ljust(512), b"\x89HDF\r\n\x1a\n" * 40]
)
def test_what_is_no_such_file_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"^x\.mat: corrupt, not a readable \.mat file \(.*\)$|holds nothing"):
        parsed_mat(content, "x.mat", "a")


def test_a_compressed_variable_that_becomes_too_large_is_refused() -> None:
    content = written({"a": np.zeros((1000, 1000))}, do_compression=True)
    with pytest.raises(DataError, match="of more than 100,000 bytes"):
        parsed_mat(content, "x.mat", "a", most=100_000)
    assert parsed_mat(content, "x.mat", "a").shape == (1000, 1000)


def test_a_checksum_that_is_wrong_is_found() -> None:
    content = bytearray(written({"a": TABLE}, do_compression=True))
    content[-1] ^= 1
    with pytest.raises(DataError, match="a compressed element is damaged"):
        parsed_mat(bytes(content), "x.mat", "a")


@pytest.mark.parametrize("how", [{}, {"do_compression": True}, {"format": "4"}])
def test_no_damage_ends_in_anything_but_numbers_or_a_sentence(how: dict[str, Any]) -> None:
    """With the library one in three hundred such files ended the process."""
    whole = written({"a": TABLE.astype(float)}, **how)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(4000):
        content = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(content)))
            word = struct.pack("<I", int(rng.choice([0, 1, 15, 2**31 - 1, 2**32 - 1, int(rng.integers(2**32))])))
            content[at : at + 4] = word[: int(rng.integers(1, 5))]
        try:
            found = parsed_mat(bytes(content[: int(rng.integers(len(content) - 8, len(content) + 9))]), "x.mat", "a")
        except DataError:
            refused += 1
        else:
            assert found.dtype.kind in "fiu"
    assert refused > 500


def test_a_deflated_element_that_is_cut_off_is_refused() -> None:
    packed = zlib.compress(written({"a": TABLE})[128:])[:-6]
    content = b"MATLAB 5.0".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(packed)) + packed
    with pytest.raises(DataError, match="a compressed element is cut off"):
        parsed_mat(content, "x.mat", "a")
