"""Boxes in MOT's text format: numbers that are whole, people that are to be considered, each once a frame."""

import re
from pathlib import Path

import pytest

from sptskm.common.errors import DataError
from sptskm.preparation.boxes import Boxes, read_boxes, read_yolo_boxes

TRACKED = "1,7,10,20,40,80,0.9,-1,-1,-1\n2,7,11,20,40,80,0.4,-1,-1,-1\n"


def of(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "door.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def told(boxes: Boxes) -> list[tuple[int, int]]:
    return list(zip(boxes.frames_B.tolist(), boxes.tracks_B.tolist(), strict=True))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_boxes_are_read_in_the_encodings_of_shells(tmp_path: Path, encoding: str) -> None:
    boxes = read_boxes(of(tmp_path, TRACKED.replace("\n", "\r\n").encode(encoding)))
    assert told(boxes) == [(1, 7), (2, 7)]
    assert boxes.corners_B4.tolist() == [[10, 20, 50, 100], [11, 20, 51, 100]]
    assert boxes.left_out == 0


@pytest.mark.parametrize(
    "rest", ["", ",", ",1", ",-1", ",0.3,-1,-1,-1", ",1,1,0.8", ",1,1", ",1,1,-1,-1", ",1,,", ",1,4.2,3.1,0", ",1,0,1"]
)
def test_lines_of_trackers_and_of_pedestrians_are_people(tmp_path: Path, rest: str) -> None:
    boxes = read_boxes(of(tmp_path, f"1,7,10,20,40,80{rest}\n"))
    assert (told(boxes), boxes.left_out) == ([(1, 7)], 0)


@pytest.mark.parametrize("rest", [",0,1,0.8", ",0,1", ",0", ",0,-1,-1,-1", ",1,3,1", ",1,12,1", ",1,2", ",1,7,-1,-1"])
def test_lines_that_are_not_to_be_considered_and_other_classes_are_left_out_and_counted(
    tmp_path: Path, rest: str
) -> None:
    line = f"1,7,10,20,40,80{rest}\n"
    boxes = read_boxes(of(tmp_path, line + "2,7,10,20,40,80,1,1,1\n" + line.replace("1,7", "3,7", 1)))
    assert (told(boxes), boxes.left_out) == ([(2, 7)], 2)
    with pytest.raises(DataError, match="none of its 1 lines is a pedestrian to consider"):
        read_boxes(of(tmp_path, line))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("1.5,7,10,20,40,80", "has the frame 1.5, wanted a whole number"),
        ("1,7.5,10,20,40,80", "has the track 7.5, wanted a whole number"),
        ("1,9223372036854775808,10,20,40,80", "has the track 9.22.*e.18, wanted a whole number below"),
        ("1,9007199254740993,10,20,40,80", "has the track 9007199254740992, wanted a whole number below"),
        ("4294967296,7,10,20,40,80", "has the frame 4294967296, wanted a whole number below"),
        (f"{'9' * 5000},7,10,20,40,80", "wanted frame,track"),
        ("nan,7,10,20,40,80", "where frame is no number"),
        ("1,inf,10,20,40,80", "where track is no number"),
        ("1,7_5,10,20,40,80", "where track is no number"),
        ("1,7,1e999,20,40,80", "wanted frame,track,left,top,width,height"),
        ("1,7,1e300,20,40,80", "has a box with 1e.300 pixels, wanted fewer"),
        ("1,7,10,20,1e300,80", "has a box with 1e.300 pixels, wanted fewer"),
        ("1,7,10,20,-40,80", "has a box of -40 x 80 pixels"),
        ("1,7,10,20,40,80,pedestrian", "where consider is no number"),
        ("1,7,10,20,40,80,1,car", "where class is no number"),
        ("frame,track,left,top,width,height", "where frame is no number"),
        ("1,7,10,20,40", "wanted frame,track,left,top,width,height"),
        ("1;7;10;20;40;80", "wanted frame,track,left,top,width,height"),
        ("-1,7,10,20,40,80", "has the frame -1, wanted frames from 1"),
        ("1,-0.5,10,20,40,80", "has the track -0.5, wanted frames from 1 and tracks from 0"),
    ],
)
def test_a_line_that_is_none_is_told_by_its_own_number(tmp_path: Path, line: str, sentence: str) -> None:
    path = of(tmp_path, "\n\n1,3,10,20,40,80\n\n" + line + "\n")
    with pytest.raises(DataError, match=f"^{path}: line 5 .*{sentence}"):
        read_boxes(path)


@pytest.mark.parametrize("again", ["1,7,10,20,40,80,0.9,-1,-1,-1", "1,7,90,20,40,80", "1.0,7,10,20,40,80"])
def test_a_second_box_of_a_track_in_a_frame_is_refused(tmp_path: Path, again: str) -> None:
    with pytest.raises(DataError, match="line 3 is a second box of track 7 in frame 1, beside line 1, wanted one"):
        read_boxes(of(tmp_path, TRACKED + again))
    assert told(read_boxes(of(tmp_path, TRACKED + "1,7,10,20,40,80,0,1,1"))) == [(1, 7), (2, 7)], "left out"


def test_what_trackers_write_is_read_with_blanks_and_with_boxmot_s_nine_columns(tmp_path: Path) -> None:
    for text, left_out in (
        ("1,7,100,50,64,128,0.913000,1,4\n1,8,9,9,30,60,0.500000,3,5\n", 1),
        ("1 7 100 50 64 128 -1 -1 -1 -1\n", 0),
    ):
        boxes = read_boxes(of(tmp_path, text))
        assert (boxes.tracks_B.tolist(), boxes.corners_B4.tolist()) == ([7], [[100, 50, 164, 178]])
        assert boxes.left_out == left_out


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("door_1.txt", "0 0.5 0.5 0.2", "line 1 is 0 0.5 0.5 0.2, wanted class x y width height"),
        ("door_1.txt", "0 100 50 64 128 7", "the box in shares of the picture"),
        ("door_1.txt", "0 0.5 0.5 0.2 0.4 0.91", "holds no box of a tracked person"),
        ("door.txt", "0 0.5 0.5 0.2 0.4 7", "does not end in the number of a frame"),
        ("door_1.txt", "0 0.5 0.5 0.2 0.4 7\n0 0.5 0.5 0.2 0.4 7", "line 2 is a second box of track 7 in frame 1"),
    ],
)
def test_a_yolo_folder_that_tells_no_tracks_is_refused(tmp_path: Path, name: str, line: str, said: str) -> None:
    (tmp_path / name).write_text(line + "\n")
    with pytest.raises(DataError, match=re.escape(said)):
        read_yolo_boxes(tmp_path, (640, 480))
