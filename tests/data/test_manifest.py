"""One's own data as a manifest: its three forms, what is refused with which line, and the table."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from sptskm.common.errors import DataError
from sptskm.data import manifest as manifest_module
from sptskm.data import read_any, read_dataset
from sptskm.data.files import is_there, read_frame, read_skeletons
from sptskm.data.forms import write_lines
from sptskm.data.manifest import FIELDS, Entry, images, read_entries, read_manifest, write_entries
from sptskm.data.names import natural
from sptskm.data.packs.unpacking import unpack
from sptskm.data.packs.writing import pack
from sptskm.data.tracklets import JUNK_PID

ENTRIES = [
    Entry("anna-1", "anna", "door", "train", "walks/anna-1", "masks/anna-1", "anna-1.npy", 'red, or "crimson"', "May"),
    Entry("anna-2", "anna", "gate", "train", "walks/anna-2", clothes="blé\u2028coat"),
    Entry("berta/1", "berta", "door", "query", "walks/berta_*.jpg"),
    Entry("berta/2", "berta", "gate", "gallery", "walks/berta 2"),
    Entry("nobody", "", "gate", "junk", "walks/nobody"),
]
LISTED = [
    *ENTRIES,
    Entry("carl-1", "carl", "door", "distractor", ("carl/1.jpg", "carl/2.jpg")),
    Entry("carl-2", "carl", "door", "distractor", ("carl/2[b].jpg",)),
    Entry("carl-3", "carl", "door", "distractor", ("carl/3.jpg",)),
    Entry("carl-4", "carl", "door", "distractor", "carl/4*.jpg"),
]
HEADER = "tracklet,pid,camera,split,frames"


def draw(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((4, 2, 3), number, np.uint8))


def frames(folder: Path, count: int, ending: str = ".jpg") -> None:
    draw(*(folder / f"{number}{ending}" for number in range(1, count + 1)))


def csv(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_what_is_written_is_what_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "new" / f"m{ending}"
    write_entries(path, ENTRIES)
    assert read_entries(path) == ENTRIES
    assert [item.name for item in path.parent.iterdir()] == [path.name], "nothing else stays behind"


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_lists_of_frames_stay_lists_beside_folders_and_patterns(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"m{ending}"
    write_entries(path, LISTED)
    found = read_entries(path)
    if ending == ".parquet":  # the only file of a list has become a pattern that is it alone
        assert found[6].frames == "carl/2[[]b].jpg"
        found[6] = LISTED[6]
    assert found == LISTED


def test_a_list_does_not_fit_into_csv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m\.csv: line 6 has a list of frames, which CSV cannot hold; wanted \.jsonl"):
        write_entries(tmp_path / "m.csv", LISTED)
    assert not list(tmp_path.iterdir())


def test_parquet_of_other_programs_may_hold_numbers_dates_and_gaps(tmp_path: Path) -> None:
    import datetime

    import pyarrow
    from pyarrow import parquet

    columns = {
        "tracklet": ["a", "b"],
        "pid": [7.0, 12.0],
        "camera": [1, 2],
        "split": ["train", "train"],
        "frames": ["a", "b"],
        "clothes": [float("nan"), 3.0],
        "time": [datetime.date(2024, 5, 1), None],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
    assert read_entries(tmp_path / "m.parquet") == [
        Entry("a", "7", "1", "train", "a", time="2024-05-01"),
        Entry("b", "12", "2", "train", "b", clothes="3"),
    ]


def test_csv_of_a_spreadsheet_may_begin_with_a_mark_and_hold_spaces_and_blank_lines(tmp_path: Path) -> None:
    path = csv(tmp_path / "m.csv", "", "a, anna ,door,train,x", ",,,,", "", header=HEADER.replace(",", ", "))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(DataError, match="line 4 has no tracklet"):
        read_entries(path)
    path.write_bytes(path.read_bytes().replace(b",,,,", b""))
    assert read_entries(path) == [Entry("a", "anna", "door", "train", "x")]
    jsonl = tmp_path / "m.jsonl"
    jsonl.write_bytes(b"\xef\xbb\xbf" + json.dumps(dict(zip(HEADER.split(","), "abc", strict=False))).encode())
    with pytest.raises(DataError, match="line 1 lacks the column split"):
        read_entries(jsonl)


GOOD = "a,anna,door,train,x"


@pytest.mark.parametrize(
    ("lines", "header", "sentence"),
    [
        ([], HEADER, "is empty, wanted a line for each tracklet"),
        ([GOOD], f"{HEADER},colour", "line 1 has the column 'colour', wanted some of tracklet, pid"),
        ([GOOD], HEADER.replace(",camera", ""), "line 1 lacks the column camera, wanted tracklet, camera"),
        ([GOOD + ",x"], f"{HEADER},frames", "line 1 has the columns .* wanted each once"),
        ([GOOD], "tracklet;pid;camera;split;frames", "has the column 'tracklet;pid;camera;split;frames'"),
        ([GOOD, "b,anna,door,train,x,red"], HEADER, "line 3 has 1 more values than columns"),
        ([GOOD, "b,anna,,train,x"], HEADER, "line 3 has no camera"),
        ([GOOD, "b,anna,door,train"], HEADER, "line 3 has no frames"),
        ([GOOD, "b,,door,train,x"], HEADER, "line 3 has no pid, wanted one unless split is distractor or junk"),
        ([GOOD, "b,anna,door,test,x"], HEADER, "line 3 has split test, wanted train, query, gallery, distractor, junk"),
        ([GOOD, "b,anna,door,train,x", "a,anna,door,train,x"], HEADER, "line 4 repeats tracklet a of line 2"),
        ([GOOD, "b,anna,door,train,x/../../y"], HEADER, r"line 3 has the path x/\.\./\.\./y, wanted one without \.\."),
        ([GOOD, "../b,anna,door,train,x"], HEADER, r"line 3 has the path \.\./b, wanted one without \.\."),
        (
            [GOOD, "/b,anna,door,train,x"],
            HEADER,
            "line 3 has the tracklet /b, wanted a name that does not begin with /",
        ),
        ([GOOD, 'b,"anna'], HEADER, "is not CSV"),
        (
            [GOOD, "b,anna,door,,x"],
            HEADER,
            "line 3 has no split, wanted train, .*`sptskm import manifest FILE OUT --test-s",
        ),
        (
            ["a,anna,door,x"],
            HEADER.replace(",split", ""),
            "line 1 lacks the column split, .*`sptskm import manifest FILE",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_line(
    tmp_path: Path, lines: list[str], header: str, sentence: str
) -> None:
    path = csv(tmp_path / "m.csv", *lines, header=header)
    with pytest.raises(DataError, match=sentence) as caught:
        read_entries(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("{", "line 3: column 2 is not JSON"),
        ("[1]", r"line 3 is \[1\], wanted an object"),
        ({"colour": "red"}, "line 3 has the column 'colour'"),
        ({"pid": True}, "line 3: pid is True, wanted text or a number"),
        ({"camera": ["door"]}, r"line 3: camera is \['door'\], wanted text"),
        ({"frames": []}, "line 3 has no frames"),
        ({"frames": ["a.jpg", 0]}, "line 3: frames lists 0, wanted names of files"),
        ({"frames": ["a.jpg", "b.gif"]}, r"line 3 lists the frame 'b\.gif', wanted \.jpg"),
        ({"frames": ["a.jpg", ""]}, r"line 3 lists the frame '', wanted \.jpg"),
        ({"frames": ["x/a.jpg", "../b.jpg"]}, r"line 3 has the path \.\./b\.jpg"),
        ({"masks": "../m"}, r"line 3 has the path \.\./m"),
        ({"skeleton": "../s.npy"}, r"line 3 has the path \.\./s\.npy"),
    ],
)
def test_lines_of_json_are_checked_alike(tmp_path: Path, change: object, sentence: str) -> None:
    good = {"tracklet": "a", "pid": 3, "camera": 1, "split": "train", "frames": "x"}
    third = json.dumps(good | {"tracklet": "b"} | change) if isinstance(change, dict) else change
    path = tmp_path / "m.jsonl"
    path.write_text(f"{json.dumps(good)}\n\n{third}\n")
    with pytest.raises(DataError, match=sentence):
        read_entries(path)


def test_files_that_are_no_manifest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file"):
        read_entries(tmp_path / "none.csv")
    other = tmp_path / "m.xlsx"
    other.write_bytes(b"PK")
    for act in (lambda: read_entries(other), lambda: write_entries(other, ENTRIES)):
        with pytest.raises(DataError, match=r"m\.xlsx: ends in \.xlsx, wanted \.csv, \.tsv, \.jsonl"):
            act()
    for name in ("m.csv", "m.jsonl"):
        (tmp_path / name).write_bytes(f"{HEADER}\nJ\xfcrgen".encode("latin-1"))
        with pytest.raises(DataError, match="is not UTF-8 text"):
            read_entries(tmp_path / name)
    (tmp_path / "m.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_entries(tmp_path / "m.parquet")


def test_nothing_is_written_that_would_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    for entries, sentence in (
        ([], "is empty"),
        ([ENTRIES[0], ENTRIES[0]], "tracklet anna-1 repeats tracklet anna-1"),
        ([replace(ENTRIES[0], split="")], "tracklet anna-1 has no split"),
        ([replace(ENTRIES[0], frames="../x")], r"tracklet anna-1 has the path \.\./x"),
    ):
        with pytest.raises(DataError, match=sentence):
            write_entries(path, entries)
    assert not path.exists()


def test_a_split_may_be_missing_where_one_is_about_to_be_made(tmp_path: Path) -> None:
    path = csv(tmp_path / "m.csv", "a,anna,door,x", header=HEADER.replace(",split", ""))
    assert read_entries(path, split=False) == [Entry("a", "anna", "door", "", "x")]
    csv(path, "a,,door,,x")
    with pytest.raises(DataError, match="line 2 has no pid"):
        read_entries(path, split=False)


@pytest.fixture
def walks(tmp_path: Path) -> Path:
    """Two training identities, two test identities, distractors and junk, in folders of 1 to 3 frames."""
    lines = [
        "q,p2,cam10,query,q",
        "t10,p10,cam2,train,t10,blue",
        "g,p2,cam9,gallery,g,red",
        "j,,cam9,junk,j",
        "t9,p9,cam10,train,t9,red",
        "d,whoever,cam9,distractor,d",
    ]
    for number, line in enumerate(lines):
        frames(tmp_path / line.split(",")[0], number % 3 + 1)
    return csv(tmp_path / "m.csv", *lines, header=f"{HEADER},clothes")


def test_the_table_has_training_rows_first_and_then_the_others_in_order(walks: Path) -> None:
    table = read_dataset(walks)
    assert table.keys_N.tolist() == ["t10", "t9", "q", "g", "j", "d"]
    assert table.num_train == 2
    assert table.test[table.query].tolist() == [2]
    assert table.lengths.tolist() == [2, 2, 1, 3, 1, 3]
    assert table.stems(3) == ["1", "2", "3"]
    assert [table.pid_name(row) for row in range(6)] == ["p10", "p9", "p2", "p2", "-1", "0"]
    assert [table.camera_name(row) for row in range(6)] == ["cam2", "cam10", "cam10", "cam9", "cam9", "cam9"]
    assert read_frame(table.path(3, 2, "frames")).shape == (4, 2, 3)


def test_names_are_numbered_in_natural_order_those_of_training_first(walks: Path) -> None:
    table = read_manifest(walks)
    assert table.pids_N.tolist() == [2, 1, 3, 3, -1, 0]
    assert table.camids_N.tolist() == [1, 2, 2, 3, 3, 3]
    assert table.clothes_N.tolist() == [0, 1, -1, 1, -1, -1]
    assert table.has_clothes


def test_clothes_are_called_what_the_manifest_calls_them_also_in_a_pack(walks: Path, tmp_path: Path) -> None:
    said = {entry.tracklet: entry.clothes for entry in read_entries(walks)}
    assert set(said.values()) > {""}
    table = read_manifest(walks)
    assert {str(key): table.clothes_name(row) for row, key in enumerate(table.keys_N)} == said
    pack(table, tmp_path / "pack", workers=1)
    packed = read_dataset(tmp_path / "pack")
    assert {str(key): packed.clothes_name(row) for row, key in enumerate(packed.keys_N)} == said
    manifest = unpack(tmp_path / "pack", tmp_path / "files")
    assert {entry.tracklet: entry.clothes for entry in read_entries(manifest)} == said


def test_numbers_do_not_depend_on_whether_the_test_part_is_read(walks: Path) -> None:
    whole = read_manifest(walks)
    for place in ("q", "g", "j", "d"):
        (walks.parent / place).rename(walks.parent / f"gone-{place}")
    part = read_manifest(walks, test=False)
    cut = len(part)
    assert cut == whole.num_train == part.num_train
    for name in ("keys_N", "pids_N", "camids_N", "clothes_N", "lengths"):
        assert getattr(part, name).tolist() == getattr(whole, name)[:cut].tolist()
    assert part.training_fingerprint == whole.training_fingerprint
    assert len(part.query) == 0


def test_names_that_differ_in_zeros_only_have_an_order_of_their_own() -> None:
    names = ["01", "1", "001", "p1", "p01", "²", "1²2", "x", "10", "9", ""]
    assert len({str(natural(name)) for name in names}) == len(names)
    backwards = names[::-1]
    assert sorted(names, key=natural) == sorted(backwards, key=natural)
    assert sorted(["f10", "f9", "f1"], key=natural) == ["f1", "f9", "f10"]


def test_without_training_lines_a_table_can_only_be_tested_on(tmp_path: Path) -> None:
    frames(tmp_path / "x", 1)
    path = csv(tmp_path / "m.csv", "a,anna,door,query,x")
    assert len(read_manifest(path)) == 1
    with pytest.raises(DataError, match="has no line of split train, wanted some to train on"):
        read_manifest(path, test=False)


def one(tmp_path: Path, **values: object) -> Path:
    line = {"tracklet": "a", "pid": "anna", "camera": "door", "split": "train"} | values
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(line))
    return path


def test_frames_of_a_folder_come_in_natural_order_without_other_files(tmp_path: Path) -> None:
    draw(*(tmp_path / "x" / name for name in ("f10.PNG", "f9.PNG", "f1.PNG")))
    for other in ("._f1.PNG", "notes.txt", "Thumbs.db"):
        (tmp_path / "x" / other).write_bytes(b"x")
    table = read_manifest(one(tmp_path, frames="x/"))
    assert table.stems(0) == ["f1", "f9", "f10"]
    assert table.path(0, 2, "frames") == tmp_path / "x" / "f10.PNG"
    assert read_frame(table.path(0, 2, "frames")).shape == (4, 2, 3)


def test_a_pattern_takes_its_frames_from_a_folder_of_several_tracklets(tmp_path: Path) -> None:
    draw(*(tmp_path / "x" / name for name in ("a1.jpg", "a2.jpg", "a10.jpg", "b1.jpg", "A1.jpg", "ba1.jpg")))
    assert read_manifest(one(tmp_path, frames="x/a*.jpg")).stems(0) == ["a1", "a2", "a10"]
    assert read_manifest(one(tmp_path, frames="x/a[12].jpg")).stems(0) == ["a1", "a2"]
    assert read_manifest(one(tmp_path, frames="x/?1.jpg")).stems(0) == ["A1", "a1", "b1"]
    assert read_manifest(one(tmp_path, frames="x/b1.jpg")).stems(0) == ["b1"]


@pytest.mark.parametrize("name", ["walk [1].jpg", "door[1]", "br*", "who?", "walk.jpg", "d[1]/e[2]", "file:walk"])
def test_a_folder_may_be_called_like_a_pattern_or_a_protocol(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="tracklet a has no images in "):
        read_manifest(one(tmp_path, frames=name))
    frames(tmp_path / name, 2)
    frames(tmp_path / "walk 1.jpg", 1)  # what the first pattern would be in another folder
    table = read_manifest(one(tmp_path, frames=name))
    assert table.stems(0) == ["1", "2"]
    assert table.path(0, 1, "frames") == tmp_path / name / "2.jpg"
    assert table.folder(0, "masks") == tmp_path / f"{name}_mask"
    assert read_manifest(one(tmp_path, frames=f"{name}/*")).stems(0) == ["1", "2"], "as manifests of before say it"
    assert table.fingerprint == read_manifest(one(tmp_path, frames=f"{name}/*")).fingerprint


def test_what_names_no_folder_says_that_it_was_taken_for_a_pattern(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in door\[1\] \(a pattern, as there is no such folder\), wanted images"):
        read_manifest(one(tmp_path, frames="door[1]"))


def test_names_of_frames_may_have_any_letters(tmp_path: Path) -> None:
    names = ["Bild für Anna 1", "图片_002", "🚶 10", "é"]
    draw(*(tmp_path / "x" / f"{name}.jpg" for name in names))
    table = read_manifest(one(tmp_path, frames="x"))
    assert sorted(table.stems(0)) == sorted(names)
    assert [read_frame(file).shape for file in table.files(0, range(4), "frames")] == [(4, 2, 3)] * 4
    assert table.files(0, [0], "masks")[0].name == f"{table.stems(0)[0]}.png"
    assert len(table.fingerprint) == 16
    listed = read_manifest(one(tmp_path, frames=[f"x/{stem}.jpg" for stem in table.stems(0)]))
    assert listed.fingerprint == table.fingerprint


def test_a_name_in_another_encoding_than_utf_8_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / os.fsdecode(b"J\xfcrgen.jpg")).write_bytes(b"x")
    with pytest.raises(DataError, match=r"m\.jsonl: the name 'J\\udcfcrgen' is not UTF-8"):
        read_manifest(one(tmp_path, frames="x"))


def test_two_tracklets_that_share_a_frame_are_refused(tmp_path: Path) -> None:
    draw(*(tmp_path / "x" / f"{name}.jpg" for name in ("a1", "a2", "b1")))
    lines = ["q,p,door,query,x/a*", "g,p,gate,gallery,{}"]
    shared = {"x": "share the frame a1 in x", "x/?1.jpg": "share the frame a1", "x/b*": ""}
    for frames_of_g, sentence in {**shared, str(tmp_path / "x"): "share the frame a1"}.items():
        path = csv(tmp_path / "m.csv", lines[0], lines[1].format(frames_of_g))
        if sentence:
            with pytest.raises(DataError, match=f"m.csv: the tracklets q and g {sentence}"):
                read_manifest(path)
        else:
            assert len(read_manifest(path)) == 2


@pytest.mark.parametrize("pid", ["-1", "-3", "-1.0", "-01", " -1 "])
@pytest.mark.parametrize("split", ["train", "query", "gallery"])
def test_a_negative_number_is_no_person(tmp_path: Path, pid: str, split: str) -> None:
    path = csv(tmp_path / "m.csv", f"a,{pid},door,{split},x")
    with pytest.raises(DataError, match=r"line 2 has the pid -.*, wanted a name, or split junk for what is nobody"):
        read_entries(path)
    csv(path, f"a,{pid},door,junk,x", "b,0,door,train,x", "c,anna-1,door,train,x")
    assert len(read_entries(path)) == 3


@pytest.mark.parametrize("name", ["pid", "camera", "clothes"])
@pytest.mark.parametrize("unknown", ["nan", "NaN", "-1", "-3.0"])
def test_what_programs_write_for_the_unknown_is_no_name(tmp_path: Path, name: str, unknown: str) -> None:
    line = {"tracklet": "a", "pid": "anna", "camera": "door", "split": "gallery", "frames": "x", "clothes": "red"}
    path = csv(tmp_path / "m.csv", ",".join((line | {name: unknown}).values()), header=",".join(line))
    with pytest.raises(DataError, match=f"line 2.* {name} .*{unknown}, wanted a name"):
        read_entries(path)
    csv(path, ",".join((line | {name: "Nan"}).values()), header=",".join(line))
    assert getattr(read_entries(path)[0], name) == "Nan"


@pytest.mark.parametrize(("first", "second"), [("train", "query"), ("gallery", "train"), ("train", "gallery")])
def test_an_identity_in_training_and_in_test_is_refused_with_both_lines(
    tmp_path: Path, first: str, second: str
) -> None:
    path = csv(tmp_path / "m.csv", f"a,anna,door,{first},x", "n,anna,door,junk,x", f"b,anna,gate,{second},y")
    with pytest.raises(DataError, match=f"line 4 has anna in {second}, and line 2 in {first}, wanted each identity"):
        read_entries(path)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("a," + "9" * 5000 + ",door,train,x", r"line 2: pid has a name of 5000 characters \(9999"),
        ("a,anna," + "d" * 300 + ",train,x", "line 2: camera has a name of 300 characters"),
        ("a,an\x1b[31mna,door,train,x", r"line 2: pid has the control character '\\x1b' in a name"),
        ('a,"an\nna",door,train,x', r"line 2: pid has the control character '\\n'"),
        ("a\tb,anna,door,train,x", r"line 2 has the control character '\\t'"),
        ('a,anna,door,train,"x\ny"', r"line 2 has the control character '\\n'"),
        ("a, \u3000 ,door,train,x", "line 2 has no pid"),
        ("  ,anna,door,train,x", "line 2 has no tracklet"),
    ],
)
def test_a_label_that_cannot_be_shown_is_refused(tmp_path: Path, line: str, sentence: str) -> None:
    with pytest.raises(DataError, match=rf"m\.csv: {sentence}"):
        read_entries(csv(tmp_path / "m.csv", line))


def test_the_two_ways_of_writing_an_umlaut_are_one_name(tmp_path: Path) -> None:
    frames(tmp_path / "x", 1)
    frames(tmp_path / "y", 1)
    lines = [
        f"{name},{name},{name},gallery,{folder},{name}" for name, folder in (("Ju\u0308rg", "x"), ("J\u00fcrg", "y"))
    ]
    with pytest.raises(DataError, match="line 3 repeats tracklet Jürg of line 2"):
        read_entries(csv(tmp_path / "m.csv", *lines, header=f"{HEADER},clothes"))
    table = read_manifest(csv(tmp_path / "m.csv", lines[0], f"b{lines[1][4:]}", header=f"{HEADER},clothes"))
    assert set(table.pids_N.tolist()) == set(table.camids_N.tolist()) == {1}
    assert table.clothes_N.tolist() == [0, 0]


def test_labels_that_differ_only_by_capitals_are_two_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames(tmp_path / "x", 1)
    frames(tmp_path / "y", 1)
    table = read_manifest(csv(tmp_path / "m.csv", "a,anna,door,train,x", "b,anna,Door,train,y"))
    assert table.camids_N.tolist() == [2, 1]
    assert caplog.messages == [
        f"{tmp_path / 'm.csv'}: the cameras Door and door are taken for two, though only capitals differ"
    ]


@pytest.mark.parametrize("name", ["m.csv", "M.CSV", "m.tsv", "m.Jsonl", "m.PARQUET"])
def test_a_manifest_in_capitals_or_with_tabs_is_a_manifest(tmp_path: Path, name: str) -> None:
    frames(tmp_path / "x", 2)
    write_entries(tmp_path / name, [Entry("a", "anna", "door", "train", "x")])
    assert read_dataset(tmp_path / name).stems(0) == ["1", "2"]
    assert read_dataset(tmp_path / name, labelled=False).stems(0) == ["1", "2"]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_where_only_the_files_matter_nothing_but_tracklets_and_frames_is_wanted(tmp_path: Path, name: str) -> None:
    frames(tmp_path / "x", 2)
    frames(tmp_path / "y", 2)
    bare = [{"tracklet": "a", "frames": "x"}, {"tracklet": "b", "frames": "y"}]
    write_lines(tmp_path / name, bare)
    assert read_any(tmp_path / name).pids_N.tolist() == [JUNK_PID, JUNK_PID]
    write_lines(tmp_path / name, [{**line, "pid": "anna", "camera": "door", "split": "train"} for line in bare])
    assert read_any(tmp_path / name).num_train == 2
    write_lines(tmp_path / name, [{**line, "pid": "anna", "camera": "", "split": "train"} for line in bare])
    with pytest.raises(DataError, match=r"(line|row) [12] has no camera"):
        read_any(tmp_path / name)


def test_a_file_that_is_no_manifest_is_not_taken_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"m\.xlsx: ends in \.xlsx, wanted \.csv"):
        read_dataset(tmp_path / "m.xlsx")
    (tmp_path / "data.csv" / "info").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"data\.csv/info/train_name\.txt"):
        read_dataset(tmp_path / "data.csv")
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file, wanted a manifest"):
        read_dataset(tmp_path / "none.csv")


def test_a_list_is_taken_as_it_is_and_no_folder_is_looked_at(tmp_path: Path) -> None:
    path = one(tmp_path, frames=["x/10.jpg", "x/9.jpg"])
    table = read_manifest(path)
    assert table.stems(0) == ["10", "9"]
    assert table.path(0, 0, "frames") == tmp_path / "x" / "10.jpg"
    assert read_manifest(one(tmp_path, frames=["only.jpg"])).path(0, 0, "frames") == tmp_path / "only.jpg"
    with pytest.raises(
        DataError, match=r"m\.jsonl: tracklet a lists y/2\.jpg, which is not in x, wanted frames of one"
    ):
        read_manifest(one(tmp_path, frames=["x/1.jpg", "y/2.jpg"]))
    with pytest.raises(DataError, match=r"m\.jsonl: line 1 lists the frame 'x/1\.jpg' twice, wanted each once"):
        read_manifest(one(tmp_path, frames=["x/1.jpg", "x/2.jpg", "x/1.jpg"]))


@pytest.mark.parametrize(
    ("made", "named", "sentence"),
    [
        ([], "x", "tracklet a has no images in x, wanted images of one kind"),
        (["x/notes.txt"], "x", "tracklet a has no images in x"),
        (["x/1.jpg"], "x/2*.jpg", r"tracklet a has no images in x/2\*\.jpg"),
        (["x/1.jpg", "x/2.png", "x/3.png"], "x", r"tracklet a has 1 \.jpg and 2 \.png in x, wanted images of one kind"),
        ([], ["x/1.jpg", "x/2.png"], r"tracklet a has 1 \.jpg and 1 \.png in its list"),
    ],
)
def test_a_tracklet_has_frames_and_all_of_one_kind(
    tmp_path: Path, made: list[str], named: object, sentence: str
) -> None:
    for name in made:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=sentence):
        read_manifest(one(tmp_path, frames=named))


def test_paths_may_be_absolute(tmp_path: Path) -> None:
    frames(tmp_path / "far" / "x", 2)
    (tmp_path / "near").mkdir()
    table = read_manifest(one(tmp_path / "near", frames=str(tmp_path / "far" / "x")))
    assert table.path(0, 1, "frames") == tmp_path / "far" / "x" / "2.jpg"
    assert table.folder(0, "masks") == tmp_path / "far" / "x_mask"


def test_masks_and_skeletons_lie_beside_the_frames_unless_they_are_named(tmp_path: Path) -> None:
    frames(tmp_path / "x", 1, ".png")
    table = read_manifest(one(tmp_path, frames="x"))
    assert table.path(0, 0, "frames") == tmp_path / "x" / "1.png"
    assert table.path(0, 0, "masks") == tmp_path / "x_mask" / "1.png"
    assert table.path(0, 0, "skeletons") == tmp_path / "x_joint3d" / "1.mat"
    for pattern in ("x/1*.png", "x/*", ["x/1.png"]):
        assert read_manifest(one(tmp_path, frames=pattern)).folder(0, "masks") == tmp_path / "x_mask"
    table = read_manifest(one(tmp_path, frames="x", masks="m", skeleton="s"))
    assert table.path(0, 0, "masks") == tmp_path / "m" / "1.png"
    assert table.path(0, 0, "skeletons") == tmp_path / "s" / "1.mat"


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    """A manifest of a tracklet of two frames; its s.npy is for the test to write."""
    frames(tmp_path / "x", 2)
    return one(tmp_path, frames="x", skeleton="s.npy")


def test_skeletons_may_lie_together_in_one_array(npy: Path) -> None:
    skeletons = np.random.default_rng(0).normal(size=(2, 14, 4))
    skeletons[1, 3, 0] = np.nan
    table = read_manifest(npy)
    assert not is_there(table, 0, "skeletons")
    assert np.isnan(read_skeletons(table, 0, [0, 1])).all(), "a tracklet without skeletons"
    np.save(npy.parent / "s.npy", skeletons)
    assert is_there(table, 0, "skeletons")
    found = read_skeletons(table, 0, [1, 0])
    assert found[0, 3, 3] == 0, "a joint is missing, the others stay"
    np.testing.assert_array_equal(np.delete(found[0], 3, axis=0), np.delete(skeletons[1], 3, axis=0).astype(np.float32))
    np.testing.assert_array_equal(found[1], skeletons[0].astype(np.float32))
    with pytest.raises(
        DataError, match=r"s\.npy: holds the skeletons of a whole tracklet, wanted a folder to write to"
    ):
        table.path(0, 0, "skeletons")


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: path.write_bytes(b"no array"), "corrupt, not a readable .npy file"),
        (lambda path: path.write_bytes(b""), "corrupt, not a readable .npy file"),
        (lambda path: np.save(path, np.zeros((3, 14, 4))), r"is float64 \(3, 14, 4\), wanted \(2, 14, 4\) numbers"),
        (lambda path: np.save(path, np.full((2, 14, 4), "x")), r"wanted \(2, 14, 4\) numbers"),
        (lambda path: np.save(path, np.array([{}] * 2), allow_pickle=True), "corrupt, not a readable .npy file"),
        (lambda path: np.savez(path.open("wb"), a=np.zeros(1)), r"holds several arrays, wanted one of \(2, 14, 4\)"),
    ],
)
def test_an_array_of_other_things_is_refused(npy: Path, write: Callable[[Path], object], sentence: str) -> None:
    write(npy.parent / "s.npy")
    with pytest.raises(DataError, match=sentence):
        read_skeletons(read_manifest(npy), 0, [0])


def test_a_folder_of_thousands_of_tracklets_is_listed_once_and_not_searched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, length = 2000, 3
    names = [f"{tracklet:04d}T{frame}.jpg" for tracklet in range(count) for frame in range(length)]
    listings, looked_at = [], []
    monkeypatch.setattr(manifest_module.os, "listdir", lambda folder: listings.append(folder) or names[::-1])
    match = manifest_module.fnmatch.filter
    monkeypatch.setattr(
        manifest_module.fnmatch,
        "filter",
        lambda inside, pattern: looked_at.append(len(inside)) or match(inside, pattern),
    )
    path = csv(tmp_path / "m.csv", *(f"{n},{n},1,train,all/{n:04d}T*.jpg" for n in range(count)))
    table = read_manifest(path)
    assert table.lengths.tolist() == [length] * count
    assert listings == [tmp_path / "all"]
    assert sum(looked_at) == len(names)


def test_a_folder_that_cannot_be_listed_is_not_one_without_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert images(tmp_path / "none") == []
    (tmp_path / "file").write_bytes(b"")
    assert images(tmp_path / "file") == []
    monkeypatch.setattr(manifest_module.os, "listdir", Mock(side_effect=PermissionError))
    with pytest.raises(PermissionError):
        images(tmp_path)


def test_every_column_has_a_name_in_the_text() -> None:
    text = manifest_module.__doc__ or ""
    assert ",".join(FIELDS) in text


@pytest.mark.parametrize("fps", ["fast", "0", "-25", "nan", "inf", "1e9"])
def test_a_frame_rate_that_is_none_is_refused_by_its_line(tmp_path: Path, fps: str) -> None:
    (tmp_path / "m.csv").write_text(f"tracklet,pid,camera,split,frames,fps\na,b,c,train,f,{fps}\n")
    with pytest.raises(DataError, match=r"m\.csv: line 2 has fps .*, wanted frames per second"):
        read_entries(tmp_path / "m.csv")


def test_a_folder_in_the_place_of_its_manifest_is_refused_with_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("tracklet,pid,camera,split,frames\n")
    with pytest.raises(
        DataError, match=r"is a folder without the tables of MARS \(info\), wanted its manifest, .*csv$"
    ):
        read_dataset(tmp_path)
