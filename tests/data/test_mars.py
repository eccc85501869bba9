"""The table of a data set in the MARS layout."""

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from helpers.handmade import TEST, TRAIN, Walk, write_tables
from helpers.oracles import SHARED, needs_shared

from sptskm.common.errors import DataError
from sptskm.data import Tracklets, hold_out, read_mars


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tables(tmp_path / "mars")


def test_rows_are_those_of_the_tables_training_first(root: Path) -> None:
    table = read_mars(root)
    walks = (*TRAIN, *TEST)
    assert len(table) == len(walks)
    assert table.pids.tolist() == [walk.pid for walk in walks] == [3, 3, 5, 5, -1, 0, 2, 2]
    assert table.camids.tolist() == [walk.camid for walk in walks]
    assert table.lengths.tolist() == [walk.frames for walk in walks]
    assert table.train.tolist() == [0, 1, 2, 3]
    assert table.test.tolist() == [4, 5, 6, 7]
    assert [table.stems(row) for row in range(len(walks))] == [walk.stems() for walk in walks]
    assert table.keys_N.tolist() == [walk.stems()[0] for walk in walks]


def test_the_training_part_is_read_without_a_look_at_the_test_part(root: Path) -> None:
    whole = read_mars(root)
    for name in ("test_name.txt", "tracks_test_info.mat", "query_IDX.mat"):
        (root / "info" / name).unlink()
    part = read_mars(root, test=False)
    assert len(part) == len(part.train) == whole.num_train
    assert part.keys_N.tolist() == whole.keys_N[: whole.num_train].tolist()
    assert part.pids_N.tolist() == whole.pids_N[: whole.num_train].tolist()
    assert (len(part.test), len(part.query)) == (0, 0)
    assert part.training_fingerprint == whole.training_fingerprint
    assert part.fingerprint != whole.fingerprint


def test_query_rows_point_into_the_test_rows(root: Path) -> None:
    table = read_mars(root)
    assert table.query.tolist() == [2]
    assert table.pids[table.test[table.query]].tolist() == [2]


def test_query_numbers_and_ranges_are_wide_enough_for_arithmetic(tmp_path: Path) -> None:
    """The published query file is uint16, which wraps."""
    walks = [Walk(10 + i % 9000, 1 + i % 6, 2, 1 + i // 9000) for i in range(40_000)]
    root = write_tables(tmp_path, test=walks, query=[1, 40_000])
    table = read_mars(root)
    assert table.query.tolist() == [0, 39_999]
    assert table.query.dtype == table.starts_N.dtype == table.pids.dtype == np.int64
    assert table.stops_N[-1] == sum(walk.frames for walk in (*TRAIN, *walks))
    assert table.stems(len(table) - 1) == walks[-1].stems()


def test_a_table_of_small_unsigned_numbers_does_not_wrap_at_the_offset(tmp_path: Path) -> None:
    train, test = ([Walk(pid, 1, 20_000), Walk(pid, 2, 20_000)] for pid in (1, 2))
    root = write_tables(tmp_path, train=train, test=test, query=[1])
    for name in ("train", "test"):
        path = root / "info" / f"tracks_{name}_info.mat"
        table = scipy.io.loadmat(path)[f"track_{name}_info"].astype(np.uint16)
        scipy.io.savemat(path, {f"track_{name}_info": table})
    assert read_mars(root).stops_N.tolist() == [20_000, 40_000, 60_000, 80_000]


def test_files_lie_in_folders_named_by_the_first_four_letters(root: Path) -> None:
    table = read_mars(root)
    assert table.path(0, 1, "frames") == root / "bbox_train" / "0003" / "0003C1T0001F002.jpg"
    assert table.path(0, 1, "masks") == root / "bbox_train_mask" / "0003" / "0003C1T0001F002.png"
    assert table.path(7, 0, "skeletons") == root / "bbox_test_joint3d" / "0002" / "0002C3T0001F001.mat"


def test_junk_lies_in_the_folder_00_minus_1(root: Path) -> None:
    table = read_mars(root)
    row = table.pids.tolist().index(-1)
    assert table.path(row, 0, "frames") == root / "bbox_test" / "00-1" / "00-1C1T0001F001.jpg"


@pytest.mark.parametrize(
    ("made", "modality"),
    [
        ("bbox_train/bbox_train", "frames"),
        ("bbox_train_mask/bbox_train_mask", "masks"),
        ("bbox_train/bbox_train_mask", "masks"),
        ("bbox_train_joint3d/bbox_train_joint3d", "skeletons"),
        ("bbox_train_joint3d", "skeletons"),
    ],
)
def test_doubled_folders_of_copies_in_the_wild_are_found(root: Path, made: str, modality: str) -> None:
    (root / made).mkdir(parents=True)
    table = read_mars(root)
    assert table.path(0, 0, modality).parent == root / made / "0003"  # type: ignore[arg-type]
    assert table.folder(0, modality) == root / made  # type: ignore[arg-type]
    assert table.folder(7, "frames") == root / "bbox_test", "the other split is looked for on its own"


def test_clothes_are_labels_by_tracklet_and_unknown_where_the_file_is_silent(root: Path) -> None:
    assert not read_mars(root).has_clothes
    (root / "clothes.csv").write_text(
        "tracklet,clothes\n0003C1T0001F001,red\n0003C2T0001F001,blue\n0005C1T0001F001,red\n"
        "0002C1T0001F001,\n0002C3T0001F001,blue\nunknown,green\n"
    )
    table = read_mars(root)
    red, blue, *rest = table.clothes_N.tolist()
    assert red != blue
    assert min(red, blue) >= 0
    assert rest == [red, -1, -1, -1, -1, blue]
    assert table.has_clothes


def test_clothes_without_the_promised_columns_are_refused(root: Path) -> None:
    (root / "clothes.csv").write_text("track;clothes\na;b\n")
    with pytest.raises(DataError, match=r"clothes\.csv: columns are \['track;clothes'\], wanted tracklet,clothes"):
        read_mars(root)


@pytest.mark.parametrize("row", [(1, 99, 3, 1), (1, 11, 3, 1), (0, 2, 3, 1), (3, 2, 3, 1), (-4, 2, 3, 1)])
def test_a_range_beyond_the_name_list_names_the_file_and_the_row(root: Path, row: tuple[int, ...]) -> None:
    path = root / "info" / "tracks_train_info.mat"
    table = scipy.io.loadmat(path)["track_train_info"]
    table[1] = row
    scipy.io.savemat(path, {"track_train_info": table})
    wanted = rf"{path}: row 2 covers lines {row[0]} to {row[1]}, wanted a range within the 10 lines of its name list"
    with pytest.raises(DataError, match=wanted):
        read_mars(root)


@pytest.mark.parametrize("query", [[0], [5], [1, 9]])
def test_a_query_beyond_the_test_table_is_refused(tmp_path: Path, query: list[int]) -> None:
    root = write_tables(tmp_path, query=query)
    with pytest.raises(DataError, match=rf"query_IDX spans {query[0]} to {query[-1]}, wanted 1 to 4"):
        read_mars(root)


@pytest.mark.parametrize("line", ["../../etc/passwd.jpg", "/etc/0001C1T0001F001.jpg", "..0001.jpg", "a\\b.jpg"])
def test_a_path_in_a_name_list_is_refused(root: Path, line: str) -> None:
    path = root / "info" / "test_name.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=rf"{path}: holds a path, wanted bare file names"):
        read_mars(root)


def test_unix_line_ends_read_the_same(root: Path) -> None:
    before = read_mars(root).fingerprint
    for path in (root / "info").glob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").rstrip())
    assert read_mars(root).fingerprint == before


@pytest.mark.parametrize(
    "name", ["train_name.txt", "test_name.txt", "tracks_train_info.mat", "tracks_test_info.mat", "query_IDX.mat"]
)
def test_a_missing_file_of_info_is_named(root: Path, name: str) -> None:
    (root / "info" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{root}/info/{name}: no such file"):
        read_mars(root)


def test_unusable_tables_are_one_sentence(root: Path) -> None:
    path = root / "info" / "tracks_train_info.mat"
    scipy.io.savemat(path, {"track_train_info": np.zeros((3, 5))})
    with pytest.raises(DataError, match=r"track_train_info has shape \(3, 5\), wanted \(tracklets, 4\)"):
        read_mars(root)
    scipy.io.savemat(path, {"tracks": np.zeros((3, 4))})
    with pytest.raises(DataError, match="holds tracks, wanted the variable track_train_info"):
        read_mars(root)
    path.write_bytes(b"<html>not found</html>" * 50)
    with pytest.raises(DataError, match=rf"{path}: corrupt, not a readable \.mat file"):
        read_mars(root)
    (root / "info" / "train_name.txt").write_text("\n")
    with pytest.raises(DataError, match=r"train_name\.txt: is empty"):
        read_mars(root)


def test_the_fingerprint_does_not_change_with_the_place(tmp_path: Path) -> None:
    a, b = (read_mars(write_tables(tmp_path / name)) for name in ("here", "there"))
    assert a.fingerprint == b.fingerprint
    assert a.place != b.place


@pytest.mark.parametrize(
    "changes",
    [
        {"train": (*TRAIN[:3], Walk(5, 2, 1))},
        {"train": (*TRAIN[:3], Walk(7, 4, 1))},
        {"train": (*TRAIN[:2], Walk(5, 1, 3), Walk(5, 4, 2))},
        {"test": (Walk(7, 4, 1), *TEST), "query": (4,)},
        {"query": (4,)},
        {"query": (3, 4)},
        {"train": (*TRAIN[:3], Walk(5, 4, 1, number=2))},
    ],
)
def test_the_fingerprint_changes_with_the_content(
    root: Path, tmp_path: Path, changes: dict[str, tuple[Walk, ...]]
) -> None:
    changed = read_mars(write_tables(tmp_path / "changed", **changes))  # type: ignore[arg-type]
    assert changed.fingerprint != read_mars(root).fingerprint


@pytest.fixture(scope="session")
def mars(tmp_path_factory: pytest.TempPathFactory) -> Tracklets:
    """The real tables of MARS, with name lists made from them (the real lists name the same ids)."""
    source, root = SHARED / "data" / "mars-info", tmp_path_factory.mktemp("mars")
    (root / "info").mkdir()
    for name in ("tracks_train_info.mat", "tracks_test_info.mat", "query_IDX.mat"):
        (root / "info" / name).write_bytes((source / name).read_bytes())
    for name in ("train", "test"):
        table = scipy.io.loadmat(source / f"tracks_{name}_info.mat")[f"track_{name}_info"]
        lines = []
        for number, (first, last, pid, camid) in enumerate(table.tolist()):
            start = f"{'00-1' if pid < 0 else f'{pid:04d}'}C{camid}T{number % 10000:04d}F"
            lines += [f"{start}{frame:03d}.jpg\r\n" for frame in range(1, last - first + 2)]
        (root / "info" / f"{name}_name.txt").write_bytes("".join(lines).encode())
    return read_mars(root)


@needs_shared
def test_the_real_training_set_has_the_published_counts(mars: Tracklets) -> None:
    pids, lengths = mars.pids[mars.train], mars.lengths[mars.train]
    assert (len(mars.train), len(np.unique(pids)), lengths.sum()) == (8298, 625, 509_914)
    assert np.bincount(mars.camids[mars.train])[1:].tolist() == [1816, 1957, 1321, 750, 1880, 574]
    assert (lengths.min(), lengths.max(), np.median(lengths)) == (5, 900, 36)
    per_identity = Counter(pids.tolist()).values()
    assert (sum(n < 4 for n in per_identity), sum(n == 1 for n in per_identity)) == (45, 1)


@needs_shared
def test_the_real_test_set_has_the_published_counts(mars: Tracklets) -> None:
    pids, lengths = mars.pids[mars.test], mars.lengths[mars.test]
    assert (len(mars.test), len(np.unique(pids)), lengths.sum()) == (12_180, 636, 681_089)
    assert (lengths.min(), lengths.max(), np.median(lengths)) == (2, 920, 30)
    assert (lengths[pids == 0].sum(), lengths[pids == -1].sum()) == (147_743, 23_380)
    assert ((pids == 0).sum(), (pids == -1).sum()) == (3248, 870)


@needs_shared
def test_the_real_queries_have_the_published_counts(mars: Tracklets) -> None:
    rows = mars.test[mars.query]
    assert (len(rows), len(np.unique(mars.pids[rows])), (mars.lengths[rows] < 30).sum()) == (1980, 626, 855)
    assert np.bincount(mars.camids[rows])[1:].tolist() == [524, 456, 319, 191, 384, 106]
    assert len(set(zip(mars.pids[rows].tolist(), mars.camids[rows].tolist(), strict=True))) == 1980
    assert mars.pids[rows].min() > 0


@needs_shared
@pytest.mark.parametrize(("min_length", "identities", "tracklets"), [(1, 625, 8298), (30, 622, 4699), (31, 620, 4421)])
def test_length_filters_keep_the_published_identities(
    mars: Tracklets, min_length: int, identities: int, tracklets: int
) -> None:
    split = hold_out(mars, 0, seed=0, min_length=min_length)
    assert (len(split.classes), len(split.train)) == (identities, tracklets)


@needs_shared
def test_the_fingerprint_of_the_real_set_depends_on_its_queries(mars: Tracklets) -> None:
    other = dataclasses.replace(mars, query=mars.query[::-1].copy())
    assert len(mars.fingerprint) == 16
    assert other.fingerprint != mars.fingerprint


@pytest.mark.parametrize(("rows", "sentence"), [([], "query_IDX is empty"), ([2, 2], "query_IDX repeats a row")])
def test_queries_that_cannot_be_are_refused_before_any_training(walkers, tmp_path, rows, sentence):
    copy = tmp_path / "data"
    shutil.copytree(walkers / "info", copy / "info")
    scipy.io.savemat(copy / "info" / "query_IDX.mat", {"query_IDX": np.array([rows], np.uint16)})
    with pytest.raises(DataError, match=sentence):
        read_mars(copy)


def changed(root: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Save the variable of a .mat file in `info` as `change` makes it."""
    path, key = root / "info" / f"{name}.mat", name.replace("tracks", "track")
    scipy.io.savemat(path, {key: change(scipy.io.loadmat(path)[key])})


def put(row: int, column: int, value: float) -> Callable[[Any], Any]:
    def change(table: Any) -> Any:
        table = table.astype(np.float64) if value != int(value or 0) or value != value else table.astype(np.int64)
        table[row, column] = value
        return table

    return change


def cells(table: Any) -> Any:
    found = np.empty(table.shape, object)
    for place in np.ndindex(table.shape):
        found[place] = np.array([[table[place]]])
    return found


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("tracks_test_info", put(2, 2, 2.5), "row 3, column 3 is 2.5, wanted whole numbers"),
        ("tracks_train_info", lambda table: table + 0.25, "row 1, column 1 is 1.25, wanted whole numbers"),
        ("tracks_test_info", lambda table: table * np.nan, "row 1, column 1 is nan, wanted whole numbers"),
        ("tracks_test_info", lambda table: table * np.inf, "is (inf|nan), wanted whole numbers"),
        ("tracks_test_info", put(1, 3, 2**40), "row 2, column 4 is 1099511627776, wanted whole numbers"),
        ("tracks_test_info", lambda table: table + 1j, "is of MATLAB's class complex, wanted an array of numbers"),
        ("tracks_test_info", cells, "is of MATLAB's class cell, wanted an array of numbers"),
        ("tracks_test_info", lambda _: "1 2 3 4", "is of MATLAB's class char, wanted"),
        ("tracks_test_info", lambda table: {"pid": table}, "is of MATLAB's class struct, wanted"),
        ("tracks_test_info", lambda table: table > 1, "is of MATLAB's class logical, wanted"),
        ("tracks_test_info", lambda table: table[None], r"has shape \(1, 4, 4\), wanted \(tracklets, 4\)"),
        ("tracks_test_info", lambda table: table[:0], r"has shape \(0, 4\), wanted \(tracklets, 4\)"),
        ("tracks_test_info", put(0, 2, -3), "identity of row 1 is -3, wanted -1 or more"),
        ("tracks_train_info", put(1, 2, 0), "identity of row 2 is 0, wanted 1 or more"),
        ("tracks_train_info", put(1, 2, -1), "identity of row 2 is -1, wanted 1 or more"),
        ("tracks_train_info", put(1, 3, -1), "camera of row 2 is -1, wanted 0 or more"),
        ("tracks_train_info", put(1, 0, 2), "0003C1T0001F001 and 0003C1T0001F002 share frames"),
        ("tracks_train_info", lambda table: table[[0, 1, 2, 2]], "2 tracklets are called 0005C1T0001F001"),
        ("tracks_test_info", put(2, 2, 5), "the identity 5 is in training and in test"),
        ("query_IDX", lambda query: query + 0.5, "query_IDX: entry 1 is 3.5, wanted whole numbers"),
        ("query_IDX", cells, "is of MATLAB's class cell"),
        ("query_IDX", lambda _: np.array([[1, 2], [3, 4]]), "wanted one row or one column"),
        ("query_IDX", lambda query: query * 0 + 1, "the query of test row 1 is junk, wanted a person"),
        ("query_IDX", lambda query: query * 0 + 2, "the query of test row 2 is a distractor, wanted a person"),
    ],
)
def test_numbers_of_tables_are_looked_at_and_never_cast(
    root: Path, name: str, change: Callable[[Any], Any], sentence: str
) -> None:
    changed(root, name, change)
    with pytest.raises(DataError, match=sentence) as caught:
        read_mars(root)
    assert str(caught.value).startswith(str(root / "info" / f"{name}.mat"))


def test_a_second_query_of_one_person_at_one_camera_is_refused_as_mars_has_none(tmp_path: Path) -> None:
    root = write_tables(tmp_path, test=(*TEST, Walk(2, 3, 1, number=2)), query=(4, 5))
    with pytest.raises(DataError, match="query_IDX has 2 queries of identity 2 at camera 3, wanted one"):
        read_mars(root)


@pytest.mark.parametrize("save", [{"format": "4"}, {"do_compression": True}])
@pytest.mark.parametrize("dtype", [float, np.float32, np.int16, np.uint64])
def test_the_same_numbers_of_another_type_or_save_are_the_same_table(root: Path, dtype: type, save: Any) -> None:
    before = read_mars(root).fingerprint
    for name, key in (("tracks_train_info", "track_train_info"), ("query_IDX", "query_IDX")):
        path = root / "info" / f"{name}.mat"
        table = scipy.io.loadmat(path)[key]
        if save.get("format") == "4" and dtype is np.uint64:
            pytest.skip("MATLAB 4 knows no such numbers")
        scipy.io.savemat(path, {key: (table.T if key == "query_IDX" else table).astype(dtype)}, **save)
    assert read_mars(root).fingerprint == before


def test_a_header_that_promises_a_million_million_rows_is_refused(root: Path) -> None:
    path = root / "info" / "tracks_train_info.mat"
    content = bytearray(path.read_bytes())
    place = content.index(np.array([4, 4], np.int32).tobytes())
    content[place : place + 8] = np.array([2**31 - 1, 4], np.int32).tobytes()
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path}: track_train_info promises \(2147483647, 4\) numbers"):
        read_mars(root)


@pytest.mark.parametrize(
    ("encoded", "sentence"),
    [
        (lambda text: text.encode("utf-8-sig"), ""),
        (lambda text: text.encode("utf-16"), ""),
        (lambda text: text.replace("\r\n", "\r").encode(), ""),
        (lambda text: text.encode("utf-16-le"), "line 1 holds a zero byte"),
        (lambda text: text.encode() + b"0007C1T0001F001\xe9.jpg\n", r"line 11 \(byte 225\) is not UTF-8 text"),
        (lambda text: (text + text[:21]).encode(), "has 0003C1T0001F001 2 times, wanted each frame once"),
        (lambda text: text.replace("\r\n", " ").encode(), "has 10 words in 1 lines, wanted one name in each"),
        (lambda text: text.replace("0003C1T0001F002", "\x1b[31m").encode(), r"has the control character '\\x1b'"),
    ],
)
def test_name_lists_in_any_encoding_are_the_same_or_refused(
    root: Path, encoded: Callable[[str], bytes], sentence: str
) -> None:
    before, path = read_mars(root), root / "info" / "train_name.txt"
    path.write_bytes(encoded(path.read_bytes().decode()))
    if not sentence:
        assert read_mars(root).fingerprint == before.fingerprint
        assert read_mars(root).stems(0) == before.stems(0)
    else:
        with pytest.raises(DataError, match=f"^{path}: {sentence}"):
            read_mars(root)


def test_frame_names_may_have_any_letters(tmp_path: Path) -> None:
    root = write_tables(tmp_path)
    path = root / "info" / "train_name.txt"
    path.write_text(path.read_text().replace("0003C1T0001F00", "Jürgen图"), encoding="utf-8")
    table = read_mars(root)
    assert table.stems(0) == ["Jürgen图1", "Jürgen图2"]
    assert table.keys_N[0] == "Jürgen图1"
    assert table.path(0, 1, "masks").name == "Jürgen图2.png"
    assert table.fingerprint != read_mars(write_tables(tmp_path / "other")).fingerprint


CLOTHES = ("0003C1T0001F001,red", "0003C2T0001F001,blue", "0005C1T0001F001,red", "0002C3T0001F001,blue")


def clothes(root: Path, *lines: str, encoding: str = "utf-8") -> Path:
    (root / "clothes.csv").write_text("\n".join(["tracklet,clothes", *lines]) + "\n", encoding=encoding)
    return root / "clothes.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("named", ["{}", "{}.jpg", "0003/{}.JPG", "D:\\mars\\{}.png", "  {} "])
def test_clothes_find_their_tracklets_also_by_the_file_of_the_first_frame(
    root: Path, named: str, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    clothes(root, *CLOTHES)
    before = read_mars(root).clothes_N.tolist()
    clothes(root, *(line.replace(line[:15], named.format(line[:15])) for line in CLOTHES), encoding=encoding)
    assert read_mars(root).clothes_N.tolist() == before
    assert max(before) == 1
    assert not caplog.records


def test_clothes_that_name_nobody_are_counted_and_refused_where_all_do(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = clothes(root, *CLOTHES, "anna,red", "berta,blue")
    read_mars(root)
    assert caplog.messages == [f"{path}: 2 of 6 lines name no tracklet (line 6, anna), 4 of 8 tracklets have no outfit"]
    clothes(root, "anna,red", "berta,blue")
    with pytest.raises(DataError, match=rf"{path}: none of its 2 lines names a tracklet \(line 2, anna\), wanted"):
        read_mars(root)
    assert not read_mars(root, test=False).has_clothes, "lines may be of the test part, which is not opened"


@pytest.mark.parametrize("again", ["0003C1T0001F001,blue", "0003C1T0001F001.jpg,red"])
def test_a_tracklet_with_two_lines_of_clothes_is_refused(root: Path, again: str) -> None:
    path = clothes(root, *CLOTHES, again)
    with pytest.raises(DataError, match=rf"{path}: line 6 names 0003C1T0001F001.* again, which line 2 does"):
        read_mars(root)
