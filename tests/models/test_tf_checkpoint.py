"""TensorFlow's checkpoint format V2, written by `tf_writer` and by TensorFlow itself."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.oracles import SHARED, needs_shared
from helpers.tf_writer import CODES, data_file, entry, header, index_file, message, write_checkpoint, write_index
from numpy.typing import NDArray

from sptskm.common.checksums import masked_checksum
from sptskm.models.tf_checkpoint import find_prefix, open_checkpoint

Variables = dict[str, NDArray]
PREFIX = "model.ckpt-205632"


def some_variables() -> Variables:
    rng = np.random.default_rng(0)
    variables: Variables = {
        f"net/layer{i}/{leaf}": rng.standard_normal(shape, np.float32)
        for i in range(20)
        for leaf, shape in (("w", (3, 3, 2, i + 1)), ("b", (i + 1,)))
    }
    variables |= {f"kinds/{kind}": rng.integers(0, 2, (2, 3)).astype(kind) for kind in CODES}
    return variables | {"global_step": np.array(205632, np.int64), "empty": np.zeros((0, 4), np.float32)}


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / PREFIX, {"a/w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2)})


def test_stored_checksums_are_masked_as_in_every_leveldb_table() -> None:
    empty_block = bytes.fromhex("00000000 01000000 00")
    assert masked_checksum(empty_block) == 0xB0A1F2C0


@pytest.mark.parametrize(("shards", "block_bytes"), [(1, 4096), (1, 1), (3, 200)])
def test_what_was_written_is_read_back_exactly(tmp_path: Path, shards: int, block_bytes: int) -> None:
    wanted = some_variables()
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / PREFIX, wanted, shards, block_bytes))
    assert checkpoint.variables.keys() == wanted.keys()
    for name, values in wanted.items():
        variable = checkpoint.variables[name]
        assert (variable.dtype, variable.shape) == (values.dtype.name, values.shape)
        found = checkpoint.read(name)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("given", [PREFIX, f"{PREFIX}.index", f"{PREFIX}.data-00000-of-00001", "checkpoint", "."])
@pytest.mark.parametrize("text", [PREFIX, f"/home/someone/JPPNet-s2/{PREFIX}", rf"C:\weights\{PREFIX}"])
def test_a_checkpoint_is_found_by_its_prefix_its_files_its_folder_and_after_it_was_moved(
    tmp_path: Path, given: str, text: str
) -> None:
    write_checkpoint(tmp_path / PREFIX, {"a": np.ones(2)}, text=text)
    assert find_prefix(tmp_path / given) == tmp_path / PREFIX
    assert list(open_checkpoint(tmp_path / given).variables) == ["a"]


def test_what_belongs_to_no_checkpoint_has_no_prefix(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"PK")
    assert find_prefix(tmp_path / "weights.pth") is None
    assert find_prefix(tmp_path / "nowhere") is None
    with pytest.raises(FileNotFoundError, match=r"nowhere: no index file, wanted <prefix>\.index"):
        open_checkpoint(tmp_path / "nowhere")


def test_a_folder_or_text_file_that_leads_nowhere_is_named(tmp_path: Path, prefix: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty.checkpoint: no such file; give the prefix"):
        find_prefix(tmp_path / "empty")
    (tmp_path / "checkpoint").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"checkpoint: names no checkpoint, wanted a line model_checkpoint_path"):
        find_prefix(tmp_path)
    write_checkpoint(prefix, {"a": np.ones(2)})
    index_file(prefix).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{PREFIX}\.index: no such file, wanted it for {tmp_path}"):
        find_prefix(tmp_path)


def test_only_the_data_files_asked_for_are_opened(tmp_path: Path) -> None:
    prefix = write_checkpoint(tmp_path / PREFIX, {"a": np.ones(2), "b": np.ones(3)}, shards=2)
    data_file(prefix, 1, 2).unlink()
    checkpoint = open_checkpoint(prefix)
    assert checkpoint.read("a").tolist() == [1, 1]
    with pytest.raises(FileNotFoundError, match=r"data-00001-of-00002: no such file, but variable b lies in it"):
        checkpoint.read("b")
    with pytest.raises(ValueError, match=rf"{PREFIX}: holds no variable c"):
        checkpoint.read("c")


def test_a_damaged_or_short_data_file_is_refused(prefix: Path) -> None:
    checkpoint, path = open_checkpoint(prefix), data_file(prefix)
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"00000-of-00001: damaged, variable a/w has checksum [0-9a-f]{8}, wanted"):
        checkpoint.read("a/w")
    assert checkpoint.read("a/w", verify=False).shape == (2, 3)
    assert checkpoint.read("b").tolist() == [1, 1]
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="cut short, has 39 bytes, but b ends at byte 40"):
        checkpoint.read("b")


def test_an_index_with_any_byte_wrong_or_cut_anywhere_is_refused_or_read_rightly(prefix: Path) -> None:
    wanted, path = open_checkpoint(prefix).variables, index_file(prefix)
    content, without_meaning = path.read_bytes(), 0
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        with contextlib.suppress(ValueError):
            assert open_checkpoint(prefix).variables == wanted
            without_meaning += 1
        path.write_bytes(content[:at])
        with pytest.raises(ValueError, match=rf"index: not a TensorFlow checkpoint index, or cut short: {at} bytes"):
            open_checkpoint(prefix)
    assert without_meaning < 60  # the table's properties and the end of the footer


def test_an_index_that_is_something_else_is_refused(prefix: Path) -> None:
    index_file(prefix).write_bytes(b"<html>" * 100)
    with pytest.raises(ValueError, match=r"not a TensorFlow checkpoint index, .* wanted 0xdb4775248b80fb57"):
        open_checkpoint(prefix)


@pytest.mark.parametrize(
    ("pairs", "compression", "message"),
    [
        ({b"": header(1)}, 1, r"compressed \(snappy\), wanted it as TensorFlow's Saver writes it"),
        ({b"": header(1)}, 2, r"compressed \(kind 2\)"),
        ({b"": header(1, endianness=1)}, 0, "written on a big-endian machine"),
        ({b"a": entry(np.ones(2))}, 0, "has no header"),
        ({b"": b"\x0b"}, 0, "damaged, field 1 has wire type 3"),
        ({b"": b"\x0a\x05"}, 0, "damaged, 5 bytes wanted where 0 are left"),
        ({b"": b"\x80" * 12}, 0, "damaged, a number does not end"),
        ({b"": header(1), b"a": message(1, b"x")}, 0, "damaged, field 1 is no number"),
        ({b"": header(1), b"\xff": entry(np.ones(2))}, 0, "damaged, a name is not UTF-8"),
    ],
)
def test_an_index_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, pairs: dict[bytes, bytes], compression: int, message: str
) -> None:
    write_index(tmp_path / PREFIX, pairs, compression=compression)
    with pytest.raises(ValueError, match=rf"^checkpoint {tmp_path}.*\.index: {message}"):
        open_checkpoint(tmp_path / PREFIX)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: entry(values, code=7), "variable a is of type 7, wanted one of float32, float64"),
        (lambda values: entry(values) + b"\x3a\x00", r"variable a is stored in slices \(a partitioned variable\)"),
        (lambda values: entry(values, code=2), r"variable a has 8 bytes, wanted 16 for float64 \(2,\)"),
    ],
)
def test_a_variable_that_cannot_be_read_is_refused_only_when_asked_for(
    tmp_path: Path, change: Callable[[NDArray], bytes], message: str
) -> None:
    values = np.ones(2, np.float32)
    prefix = write_checkpoint(tmp_path / PREFIX, {"a": values, "b": values})
    write_index(prefix, {b"": header(1), b"a": change(values), b"b": entry(values, offset=8)})
    checkpoint = open_checkpoint(prefix)
    assert checkpoint.read("b").tolist() == [1, 1]
    with pytest.raises(ValueError, match=message):
        checkpoint.read("a")


@needs_shared
def test_a_checkpoint_of_tensorflow_is_read_exactly() -> None:
    folder = SHARED / "oracles" / "tf_ckpt_small"
    checkpoint = open_checkpoint(folder)
    with np.load(folder / "expected.npz") as expected:
        assert checkpoint.variables.keys() == {name.replace("|", "/") for name in expected}
        for name in expected:
            np.testing.assert_array_equal(checkpoint.read(name.replace("|", "/")), expected[name])


@needs_shared
def test_the_writer_of_the_tests_writes_what_tensorflow_writes(tmp_path: Path) -> None:
    folder = SHARED / "oracles" / "tf_ckpt_small"
    with np.load(folder / "expected.npz") as expected:
        prefix = write_checkpoint(tmp_path / PREFIX, {name.replace("|", "/"): expected[name] for name in expected})
    assert data_file(prefix).read_bytes() == data_file(folder / PREFIX).read_bytes()
    ours, theirs = index_file(prefix).read_bytes(), index_file(folder / PREFIX).read_bytes()
    first = theirs.index(bytes.fromhex("00000000 01000000 00"))  # the block of properties, after that of variables
    assert ours[:first] == theirs[:first]
