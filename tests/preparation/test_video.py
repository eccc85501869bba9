"""Footage and boxes of tracked people become tracklets that can be prepared and read."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.blazepose_weights import blazepose_file
from helpers.footage import FRAMES, write_boxes, write_video
from helpers.networks import write_posehg3d

from sptskm.cli import main
from sptskm.data import read_dataset
from sptskm.data.check import check_dataset
from sptskm.data.files import read_frame, read_skeletons
from sptskm.synthetic import TINY
from sptskm.synthetic.casting import cast
from sptskm.synthetic.filming import film
from sptskm.synthetic.scenes import build_camera


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_boxes(tmp_path / "door.txt")
    return write_video(tmp_path / "door.avi")


def prepare(*arguments: object) -> int:
    return main(["prepare", "video", *map(str, arguments)])


def test_every_track_becomes_a_tracklet_of_its_own_pictures(video: Path, tmp_path: Path) -> None:
    assert prepare(video, "--out", tmp_path / "out") == 0
    table = read_dataset(tmp_path / "out" / "manifest.csv")
    assert table.keys_N.tolist() == ["door-0", "door-1"]
    assert table.lengths.tolist() == [FRAMES, FRAMES]
    assert [table.camera_name(row) for row in (0, 1)] == ["door", "door"]
    assert len(set(table.pids_N.tolist())) == 2, "who is who is not known"
    for row, brightness in ((0, 120), (1, 200)):
        for file in table.files(row, range(FRAMES), "frames"):
            frame = read_frame(file)
            assert frame.shape == (64, 32, 3)
            assert abs(float(frame.mean()) - brightness) < 4


def test_each_third_frame_of_tracks_that_are_long_enough(video: Path, tmp_path: Path) -> None:
    write_boxes(tmp_path / "door.txt", tracks=(0,))
    with (tmp_path / "door.txt").open("a") as file:
        file.write("1,5,10,30,32,64\n2,5,10,30,32,64\n")
    assert prepare(video, "--out", tmp_path / "out", "--every", 3, "--min-frames", 2) == 0
    table = read_dataset(tmp_path / "out" / "manifest.csv")
    assert table.keys_N.tolist() == ["door-0"]
    assert table.stems(0) == ["000001", "000004", "000007", "000010"]


def test_the_same_command_cuts_nothing_again_and_another_does(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(video, "--out", out) == 0
    first = {path: path.stat().st_mtime_ns for path in (out / "frames").rglob("*.jpg")}
    assert prepare(video, "--out", out) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "frames").rglob("*.jpg")} == first
    assert prepare(video, "--out", out, "--every", 2, "--min-frames", 1) == 0
    assert len(list((out / "frames").rglob("*.jpg"))) == len(first) // 2


def test_boxes_outside_the_picture_are_cut_or_left_out_and_counted(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "door.txt").write_text("1,0,-16,30,32,64\n2,0,-40,30,32,64\n3,0,150,100,32,64\n")
    assert prepare(video, "--out", tmp_path / "out", "--min-frames", 1) == 0
    table = read_dataset(tmp_path / "out" / "manifest.csv")
    assert [read_frame(file).shape for file in table.files(0, [0, 1], "frames")] == [(64, 16, 3), (20, 10, 3)]
    assert "1 tracklets of 1 videos, 1 boxes outside the picture" in capsys.readouterr().out


def test_masks_are_made_in_the_same_breath_and_skeletons_by_a_published_network_after_it(
    video: Path, tmp_path: Path
) -> None:
    weights = write_posehg3d(tmp_path)
    out = tmp_path / "out"
    assert prepare(video, "--out", out, "--method", "grabcut") == 0
    words = ["skeletons", "--data", str(out / "manifest.csv"), "--weights", str(weights), "--device", "cpu"]
    assert main(["prepare", *words]) == 0
    report = check_dataset(out / "manifest.csv", workers=1)
    assert report.ok, report.text()
    assert {(count.modality, count.found) for count in report.counts if count.split == "test"} == {
        ("frames", 2 * FRAMES),
        ("masks", 2 * FRAMES),
        ("skeletons", 2 * FRAMES),
    }


def test_masks_of_tracklets_that_were_cut_by_other_boxes_are_made_again(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(video, "--out", out, "--method", "grabcut") == 0
    write_boxes(tmp_path / "door.txt", tracks=(0,))
    moved = (tmp_path / "door.txt").read_text().splitlines()
    lines = [line.split(",") for line in moved]
    lines = [[f, t, str(float(left) + 7), *rest] for f, t, left, *rest in lines]
    (tmp_path / "door.txt").write_text("".join(",".join(line) + "\n" for line in lines))
    assert prepare(video, "--out", out) == 0
    report = check_dataset(out / "manifest.csv", workers=1)
    assert [problem.sentence.split(" in ")[0] for problem in report.problems] == ["masks of tracklet door-0"]
    assert prepare(video, "--out", out, "--method", "grabcut") == 0
    assert check_dataset(out / "manifest.csv", workers=1).ok


def test_a_precision_that_the_device_does_not_have_is_refused(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--method", "blazepose", "--device", "cpu", "--precision", "float16")
    assert prepare(video, "--out", tmp_path / "out", *words) == 2
    assert "--precision is float16 with blazepose" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1,0,10,30,32,64\n1,0,10\n", "line 2 is 1,0,10, wanted frame,track,left,top,width,height"),
        ("1,0,10,30,thirty,64\n", "line 1 is 1,0,10,30,thirty,64, where width is no number, wanted"),
        ("1,-1,10,30,32,64\n", "line 1 has the track -1, as detections have that no tracker has joined"),
        ("0,1,10,30,32,64\n", "line 1 has the frame 0, wanted frames from 1"),
        ("1,1,10,30,0,64\n", "line 1 has a box of 0 x 64 pixels"),
        ("", "is empty, wanted lines such as"),
        (
            "1,0,-90,30,32,64\n",
            "door.avi: no track has 8 frames, wanted some; lower --min-frames; 1 boxes have",
        ),
        ("40,0,10,30,32,64\n", "ends after frame 12, but its boxes go to frame 40"),
    ],
)
def test_what_is_wrong_with_boxes_is_one_sentence(
    text: str, sentence: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "door.txt").write_text(text)
    assert prepare(video, "--out", tmp_path / "out") == 2
    assert sentence in capsys.readouterr().err


def test_what_is_no_video_or_has_no_boxes_is_one_sentence(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = tmp_path / "door.txt"
    noise = tmp_path / "noise.avi"
    noise.write_bytes(b"no video" * 100)
    assert prepare(noise, "--boxes", boxes, "--out", tmp_path / "out") == 2
    assert f"{noise}: cannot be read as a video" in capsys.readouterr().err
    assert prepare(noise, "--out", tmp_path / "out") == 2
    assert f"{tmp_path / 'noise.txt'}: no such file, wanted boxes in MOT's text format" in capsys.readouterr().err
    assert prepare(video, noise, "--boxes", boxes, "--out", tmp_path / "out") == 2
    assert "--boxes is one file for 2 videos" in capsys.readouterr().err
    assert prepare(video, video, "--out", tmp_path / "out") == 2
    assert "two videos are called door" in capsys.readouterr().err
    assert prepare(video, "--min-frames", 13, "--out", tmp_path / "out") == 2
    assert "door.avi: no track has 13 frames, wanted some; lower --min-frames" in capsys.readouterr().err


def test_boxes_left_out_are_said_and_their_lines_are_no_tracklets(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "door.txt").write_text("1,0,10,30,32,64,1,1,1\n1,5,10,30,32,64,1,3,1\n2,0,10,30,32,64,0,1,1\n")
    assert prepare(video, "--out", tmp_path / "out", "--min-frames", 1) == 0
    assert "2 boxes left out that are not to be considered or no pedestrians" in capsys.readouterr().out
    assert read_dataset(tmp_path / "out" / "manifest.csv").keys_N.tolist() == ["door-0"]


@pytest.mark.parametrize("name", ["door[1]", "door:1", "film:door", "d%03d r", "Tür 图片", "door*", "~door"])
def test_a_video_may_be_called_as_its_owner_likes(
    video: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for ending in (".avi", ".txt"):
        video.with_suffix(ending).rename(f"{name}{ending}")
    assert prepare(f"{name}.avi", "--out", "out") == 0
    table = read_dataset(Path("out/manifest.csv"))
    assert table.lengths.tolist() == [FRAMES, FRAMES]
    assert table.camera_name(0) == name
    assert read_frame(table.files(0, [0], "frames")[0]).shape == (64, 32, 3)


@pytest.mark.parametrize("note", ["", "[]", '{"source": 1}', '{"source": {}, "frames": {"a": "b"}, "useless": 0}'])
def test_a_broken_note_of_what_was_made_is_one_sentence(
    video: Path, tmp_path: Path, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(video, "--out", tmp_path / "out") == 0
    (tmp_path / "out" / "frames" / "door.json").write_text(note)
    assert prepare(video, "--out", tmp_path / "out") == 2
    assert f"sptskm: {tmp_path / 'out' / 'frames' / 'door.json'}: " in capsys.readouterr().err


def write_person(folder: Path) -> tuple[Path, tuple[int, int, int, int]]:
    """A video of one generated walker before a wall, 25 frames a second, and the box around the person."""
    role = cast(TINY, "train", 0)[0]
    footage = film(role.walker, role.outfit, build_camera(role.camid, 0), 4, "none", np.random.default_rng(0))
    person = cv2.imdecode(np.frombuffer(footage.frames[0], np.uint8), cv2.IMREAD_COLOR)
    picture = cv2.copyMakeBorder(person, 60, 44, 100, 92, cv2.BORDER_REPLICATE)
    writer = cv2.VideoWriter(str(folder / "hall.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, picture.shape[1::-1])
    for _ in range(10):
        writer.write(picture)
    writer.release()
    return folder / "hall.avi", (100, 60, person.shape[1], person.shape[0])


def test_the_network_looks_at_the_picture_around_a_box_that_is_too_tight(tmp_path: Path) -> None:
    blazepose_file()
    video, (left, top, width, height) = write_person(tmp_path)
    for name, margin in (("loose", 0), ("tight", round(height * 0.12))):
        box = f"{left},{top + margin},{width},{height - 2 * margin}"
        (tmp_path / "hall.txt").write_text("".join(f"{frame},1,{box}\n" for frame in range(1, 9)))
        assert prepare(video, "--out", tmp_path / name, "--method", "blazepose") == 0
    loose, tight = (read_skeletons(read_dataset(tmp_path / n / "manifest.csv"), 0, [0])[0] for n in ("loose", "tight"))
    alone = tmp_path / "alone"
    shutil.copytree(tmp_path / "tight" / "frames" / "hall-1", alone / "hall-1")
    (alone / "manifest.csv").write_text("tracklet,pid,camera,split,frames\nhall-1,a,c,train,hall-1\n")
    assert main(["prepare", "--data", str(alone / "manifest.csv")]) == 0
    cropped = read_skeletons(read_dataset(alone / "manifest.csv"), 0, [0])[0]
    seen, unseen = (np.linalg.norm(found[:, :3] - loose[:, :3], axis=1).mean() for found in (tight, cropped))
    assert not unseen < 1.5 * seen, f"{seen} and {unseen} metres from those of the loose box"


def test_the_rate_of_a_video_is_in_the_manifest_by_every_frame_that_is_taken(tmp_path: Path) -> None:
    video, (left, top, width, height) = write_person(tmp_path)
    (tmp_path / "hall.txt").write_text("".join(f"{f},1,{left},{top},{width},{height}\n" for f in range(1, 11)))
    for every, fps in ((1, 25.0), (2, 12.5)):
        words = ("--out", tmp_path / "out", "--every", every, "--min-frames", 1)
        assert prepare(video, *words) == 0
        assert read_dataset(tmp_path / "out" / "manifest.csv").fps(0) == fps


def test_boxes_of_a_yolo_folder_are_those_of_mot_s_text(video: Path, tmp_path: Path) -> None:
    assert prepare(video, "--out", tmp_path / "mot") == 0
    width, height = 160, 120
    labels = tmp_path / "labels"
    labels.mkdir()
    for line in (tmp_path / "door.txt").read_text().splitlines():
        frame, track, left, top, w, h = (float(value) for value in line.split(",")[:6])
        shares = f"{(left + w / 2) / width} {(top + h / 2) / height} {w / width} {h / height}"
        with (labels / f"door_{int(frame)}.txt").open("a") as file:
            file.write(f"0 {shares} 0.9 {int(track)}\n2 {shares} 0.9 {int(track) + 50}\n0 {shares} 0.25\n")
    assert prepare(video, "--out", tmp_path / "yolo", "--boxes", labels) == 0
    content = [{p.name: p.read_bytes() for p in (tmp_path / n / "frames").rglob("*.jpg")} for n in ("mot", "yolo")]
    assert content[0] == content[1]
