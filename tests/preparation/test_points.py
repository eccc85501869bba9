"""Key points that have no frames, such as a depth sensor's: files of whole walks and a table."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.keypoints import seen_by_kinect

from sptskm import cli
from sptskm.common.endings import EXIT_BAD_INPUT
from sptskm.data import read_dataset
from sptskm.data.files import read_skeletons
from sptskm.data.skeleton_scale import unit_of
from sptskm.data.skeletons import JOINTS
from sptskm.preparation.layouts import LAYOUTS

LINES = (("anna", "1", "train"), ("anna", "2", "train"), ("bert", "1", "query"), ("bert", "2", "gallery"))


@pytest.fixture(params=["kinect-20", "kinect-25"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def table(layout: str, tmp_path: Path) -> Path:
    """Return the manifest of four walks of two people; one walk lacks a wrist for a while and ends without anybody."""
    path = tmp_path / "walks.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["tracklet", "pid", "camera", "split", "skeleton", "fps"])
        for number, (pid, camera, split) in enumerate(LINES):
            points_FK3 = seen_by_kinect(layout, 9 + number, number)
            if number == 1:
                points_FK3[2:4, LAYOUTS[layout].index("left wrist")] = np.nan
                points_FK3[-1] = 0
            np.save(tmp_path / f"{pid}-{camera}.npy", points_FK3)
            rows.writerow([f"{pid}-{camera}", pid, camera, split, f"{pid}-{camera}.npy", 30])
    return path


def bring(table: Path, *words: str) -> int:
    return cli.main(["prepare", "points", str(table), "--out", str(table.parent / "data"), *words])


def test_walks_of_a_depth_sensor_become_a_data_set_without_frames(
    table: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bring(table, "--layout", layout, "--channels", "xyz") == 0
    assert "4 tracklets, 42 frames, 2 partial, 1 without a skeleton" in capsys.readouterr().out
    found = read_dataset(table.parent / "data" / "manifest.csv")
    assert [found.lengths[row] for row in range(4)] == [9, 10, 11, 12]
    assert len(found.query) == 1
    assert found.fps(0) == 30
    head, ankle = JOINTS.index("head"), JOINTS.index("right ankle")
    for row in range(4):
        skeletons_FV4 = read_skeletons(found, row, range(8))
        assert np.isfinite(skeletons_FV4).all()
        assert (skeletons_FV4[:, head, 1] < skeletons_FV4[:, ankle, 1]).all(), "y points down"
        assert skeletons_FV4[:, :, 0].mean() == pytest.approx(0.1, abs=0.2), "x points right"
    assert (read_skeletons(found, 1, range(10))[2:4, JOINTS.index("left wrist"), 3] == 0).all()
    assert unit_of("auto", found) == 1.0
    assert found.derived.methods["skeletons"]["as"] == f"{layout} xyz"
    assert cli.main(["check", str(table.parent / "data" / "manifest.csv")]) == 0


def test_people_are_split_on_the_way_if_the_table_does_not_say_how(table: Path, layout: str) -> None:
    rows = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text("".join(",".join(row[:3] + row[4:]) + "\n" for row in rows))
    assert bring(table, "--layout", layout, "--channels", "xyz") == EXIT_BAD_INPUT
    assert bring(table, "--layout", layout, "--channels", "xyz", "--test-share", "1") == 0
    assert not read_dataset(table.parent / "data" / "manifest.csv").num_train


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--layout", "kinect-20"], "--channels is missing"),
        ([], "--layout is missing"),
        (["--layout", "kinect-25", "--channels", "xyzc"], "wanted (25, 4) or (frames, 25, 4)"),
        (["--layout", "kinct-25", "--channels", "xyz"], "layout 'kinct-25' with channels 'xyz' is unknown"),
        (["--layout", "kinect-25", "--channels", "xyc"], "wanted 0 to 1; key points in space are --channels xyz"),
    ],
)
@pytest.mark.parametrize("layout", ["kinect-25"])
def test_what_is_not_said_or_does_not_fit_is_refused_in_a_sentence(
    table: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bring(table, *words) == EXIT_BAD_INPUT
    assert sentence in capsys.readouterr().err
    assert not (table.parent / "data" / "manifest.csv").exists()


@pytest.mark.parametrize("layout", ["kinect-25"])
def test_walks_without_anybody_tables_of_frames_and_a_second_time_are_refused(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--layout", "kinect-25", "--channels", "xyz"]
    before = {path: np.load(path) for path in table.parent.glob("*.npy")}
    for path, points_FK3 in before.items():
        np.save(path, points_FK3 * 0)
    assert bring(table, *words) == EXIT_BAD_INPUT
    assert "none of 42 frames has a skeleton" in capsys.readouterr().err
    for path, points_FK3 in before.items():
        np.save(path, points_FK3)
    assert bring(table, *words) == 0
    assert bring(table, *words) == EXIT_BAD_INPUT
    assert "exists already" in capsys.readouterr().err
    table.write_text(table.read_text().replace("skeleton", "frames"))
    assert bring(table, *words) == EXIT_BAD_INPUT
    assert "has frames, wanted a file of key points in the column skeleton" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["kinect-25"])
def test_a_manifest_of_key_points_that_are_no_skeletons_names_the_command_that_converts_them(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(table)]) == EXIT_BAD_INPUT
    assert "wanted (9, 14, 4) numbers; `sptskm prepare points` converts other key points" in capsys.readouterr().out


def change(table: Path, what: Callable[[np.ndarray], np.ndarray], only: str = "*") -> None:
    for path in table.parent.glob(f"{only}.npy"):
        np.save(path, what(np.load(path)))


SWAPPED = [
    LAYOUTS["kinect-25"].index(" ".join({"left": "right", "right": "left"}.get(word, word) for word in name.split()))
    for name in LAYOUTS["kinect-25"]
]
ORDER = np.random.default_rng(1).permutation(25)


@pytest.mark.parametrize("layout", ["kinect-25"])
@pytest.mark.parametrize(
    ("what", "only", "sentence"),
    [
        (lambda points: points * [1, -1, 1], "*", "in 4 of 4 walks the feet lie from the head toward -y as kinect-25"),
        (
            lambda points: points[..., [0, 2, 1]],
            "*",
            "toward -z as kinect-25 has the axes, anna-1 the first, wanted +y",
        ),
        (lambda points: points[:, ORDER], "*", "is the order of the points kinect-25?"),
        (lambda points: 1000 * points, "anna-1", "anna-1 has a sum of bones of "),
        (
            lambda points: np.where(np.nan_to_num(points) == 0, -1, points),
            "*",
            "points have the coordinates -1, -1, -1, wanted",
        ),
    ],
)
def test_key_points_of_other_axes_orders_units_or_signs_of_absence_are_refused(
    table: Path,
    what: Callable[[np.ndarray], np.ndarray],
    only: str,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(table, what, only)
    assert bring(table, "--layout", "kinect-25", "--channels", "xyz") == EXIT_BAD_INPUT
    assert sentence in capsys.readouterr().err
    assert not (table.parent / "data" / "manifest.csv").exists()


@pytest.mark.parametrize("layout", ["kinect-25"])
@pytest.mark.parametrize("what", [lambda points: points[:, SWAPPED], lambda points: points * [-1, 1, 1]])
def test_walkers_in_a_mirror_are_told_by_their_knees(
    table: Path, what: Callable[[np.ndarray], np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    change(table, what)
    assert bring(table, "--layout", "kinect-25", "--channels", "xyz") == 0
    assert "knees bend backward in 4 of 4 walks" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["kinect-25"])
@pytest.mark.parametrize(
    ("factor", "sentence"),
    [(1, "skeleton sum to 4"), (1000, " mm\n"), (1 / 0.0254, "which is no person's in any of m, cm, mm")],
)
def test_the_unit_that_was_recognised_is_told(
    table: Path, factor: float, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(table, lambda points: factor * points)
    assert bring(table, "--layout", "kinect-25", "--channels", "xyz") == 0
    told = capsys.readouterr().out
    assert sentence in told
    assert "knees" not in told


@pytest.mark.parametrize("layout", ["kinect-25"])
def test_a_walk_that_is_there_twice_is_refused(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text(table.read_text().replace("bert-2.npy", "anna-1.npy"))
    assert bring(table, "--layout", "kinect-25", "--channels", "xyz") == EXIT_BAD_INPUT
    assert "tracklets anna-1 and bert-2 have the same key points" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["kinect-25"])
def test_a_walk_without_any_skeleton_is_named(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(table, lambda points: 0 * points, "anna-2")
    assert bring(table, "--layout", "kinect-25", "--channels", "xyz") == 0
    assert "; anna-2 has no skeleton at all; " in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["kinect-25"])
def test_a_place_that_is_no_folder_is_refused_in_a_sentence(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (table.parent / "data").write_text("in the way")
    assert bring(table, "--layout", "kinect-25", "--channels", "xyz") == EXIT_BAD_INPUT
    assert "data: Not a directory, wanted a folder for the data set" in capsys.readouterr().err
