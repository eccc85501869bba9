"""Pictures are judged by their pixels: the right colours in the right places.

Shapes: B clips, T frames, H rows, W columns, V = 14 joints, k queries, R results, P places.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import scipy.io
from helpers.drawing import image_of
from numpy.typing import NDArray

from sptskm.data import Tracklets
from sptskm.data.mars import MarsFolders
from sptskm.data.tracklets import Modality
from sptskm.report import strips, style
from sptskm.report.colours import LEFT_LIMBS, LINE, RIGHT_LIMBS, Colour
from sptskm.report.figures import clip_sheet, silhouette_sheet, skeleton_sheet
from sptskm.report.ranked import COLOURS, QUERY, Outcome, Ranked, Result, ranked_grid
from sptskm.report.strips import skeleton_of
from sptskm.report.style import Image

HIT, MISS, JUNK = (COLOURS[outcome] for outcome in get_args(Outcome)[:3])
RANKED_GAP = 6  # pixels between two tracklets
STIX_LETTER = "\ue000"
LEGEND = 50  # rows above this one hold title and legend
PERSON = np.array(
    [
        [0, -0.5, 0],
        [0, -0.35, 0],
        *([-0.12, -0.33, 0], [-0.16, -0.2, 0.03], [-0.16, -0.05, -0.05]),
        *([0.12, -0.33, 0], [0.16, -0.2, 0.03], [0.16, -0.05, -0.05]),
        *([-0.07, 0, 0], [-0.07, 0.25, -0.05], [-0.07, 0.5, 0]),
        *([0.07, 0, 0], [0.07, 0.25, 0.05], [0.07, 0.5, 0.15]),
    ]
)


def _clips(clips: int, frames: int, height: int = 64, width: int = 32) -> tuple[NDArray[Any], NDArray[Any]]:
    """Grey frames and masks that cover their middle half in both directions."""
    masks = np.zeros((clips, frames, height, width), np.float32)
    masks[..., height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
    return np.full((clips, frames, 3, height, width), 0.5, np.float32), masks


def _skeletons(clips: int, length: int, confidence: float = 0.8) -> NDArray[np.float64]:
    """(B, 4, T, V), all in the same pose."""
    person = np.concatenate([PERSON, np.full((14, 1), confidence)], axis=1)
    return np.tile(person.T[None, :, None, :], (clips, 1, length, 1))


def _like(picture: Image, colour: Colour, tolerance: int = 0) -> NDArray[np.bool_]:
    return np.asarray((np.abs(picture.astype(int) - colour) <= tolerance).all(axis=2))


def _places(picture: Image, colour: Colour) -> NDArray[np.float64]:
    """(P, 2): x and y of the middle of every large thing in one colour, row by row; legends are too small."""
    found = cv2.connectedComponentsWithStats(_like(picture, colour).astype(np.uint8))
    stats, middles = found[2][1:], found[3][1:]
    large = np.asarray(middles[stats[:, cv2.CC_STAT_AREA] > 300], np.float64)
    return large[np.lexsort((large[:, 0], large[:, 1].round(-1)))]


def _is_picture(picture: Image) -> bool:
    return picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


def test_a_clip_sheet_grows_with_the_clips_up_to_eight() -> None:
    one, two, eight, twelve = (clip_sheet(*_clips(clips, 4)) for clips in (1, 2, 8, 12))
    assert all(map(_is_picture, (one, two, eight, twelve)))
    assert one.shape[0] < two.shape[0] < eight.shape[0]
    assert np.array_equal(eight, twelve)


def test_a_clip_sheet_widens_with_the_frames() -> None:
    assert clip_sheet(*_clips(1, 4)).shape[1] < clip_sheet(*_clips(1, 8)).shape[1]


@pytest.mark.parametrize(("height", "width"), [(64, 32), (256, 128)])
def test_frames_of_any_size_are_shown_equally_large(height: int, width: int) -> None:
    assert clip_sheet(*_clips(2, 3, height, width)).shape == clip_sheet(*_clips(2, 3)).shape


def test_the_mask_outline_changes_pixels_along_the_edge_of_the_mask_only() -> None:
    frames, masks = _clips(1, 1)
    plain, outlined = clip_sheet(frames, np.zeros_like(masks)), clip_sheet(frames, masks)
    frame_y, frame_x = np.nonzero(_like(plain, (128, 128, 128)))
    left, right, top, bottom = frame_x.min(), frame_x.max(), frame_y.min(), frame_y.max()
    y, x = np.nonzero((plain != outlined).any(axis=2))
    quarter_x, quarter_y = (right + 1 - left) / 4, (bottom + 1 - top) / 4
    expected = (left + quarter_x, right - quarter_x, top + quarter_y, bottom - quarter_y)
    assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx(expected, abs=2)
    near_x = np.minimum(abs(x - x.min()), abs(x - x.max())) <= 3
    near_y = np.minimum(abs(y - y.min()), abs(y - y.max())) <= 3
    assert (near_x | near_y).all()


def test_a_silhouette_sheet_shows_at_most_eight_clips_and_eight_silhouettes_white_on_black() -> None:
    silhouettes = _clips(9, 8, 64, 44)[1]
    picture = silhouette_sheet(silhouettes)
    assert _is_picture(picture)
    assert np.array_equal(picture, silhouette_sheet(silhouettes[:8]))
    assert silhouette_sheet(_clips(1, 30)[1]).shape == silhouette_sheet(_clips(1, 8)[1]).shape
    white = _places(silhouette_sheet(silhouettes[:2])[LEGEND:], (255, 255, 255))
    assert len(white) > 16, "the middles of all silhouettes, beside the page"


def test_a_skeleton_sheet_shows_at_most_six_clips_and_eight_moments() -> None:
    assert np.array_equal(skeleton_sheet(_skeletons(9, 8), None), skeleton_sheet(_skeletons(6, 8), None))
    assert skeleton_sheet(_skeletons(1, 64), None).shape == skeleton_sheet(_skeletons(1, 8), None).shape
    assert _is_picture(skeleton_sheet(_skeletons(1, 1), None))


def test_the_left_limbs_of_who_faces_the_viewer_are_on_the_right_of_the_picture() -> None:
    picture = skeleton_sheet(_skeletons(1, 1), None)[LEGEND:]
    left, right = (np.nonzero(_like(picture, colour, 5))[1] for colour in (LEFT_LIMBS, RIGHT_LIMBS))
    assert left.size > 100
    assert right.size > 100
    assert left.min() > right.max()


def test_joints_grow_with_their_confidence() -> None:
    sure, unsure = (skeleton_sheet(_skeletons(1, 1, confidence), None)[LEGEND:] for confidence in (1.0, 0.1))
    assert _like(sure, LEFT_LIMBS, 5).sum() > 1.3 * _like(unsure, LEFT_LIMBS, 5).sum()


@pytest.mark.parametrize("nothing", ["invalid", "nan", "zeros"])
def test_frames_without_a_skeleton_are_empty_boxes(nothing: str) -> None:
    skeletons, valid = _skeletons(1, 2), np.array([[True, True]])
    whole = skeleton_sheet(skeletons, valid)[LEGEND:]
    skeletons[:, :, 0] = {"invalid": 7.0, "nan": np.nan, "zeros": 0.0}[nothing]
    valid[0, 0] = nothing != "invalid"
    half = skeleton_sheet(skeletons, valid)[LEGEND:]
    drawn = _like(whole, LEFT_LIMBS, 5)
    middle = int(np.nonzero(drawn)[1].mean())
    assert np.array_equal(_like(half, LEFT_LIMBS, 5)[:, middle:], drawn[:, middle:])
    assert drawn[:, :middle].any()
    assert not _like(half, LEFT_LIMBS, 5)[:, :middle].any()


def test_clips_without_any_skeleton_make_a_picture_too() -> None:
    picture = skeleton_sheet(_skeletons(2, 4), np.zeros((2, 4), bool))
    assert not _like(picture[LEGEND:], LEFT_LIMBS, 5).any()


@pytest.fixture
def table(tmp_path: Path) -> Tracklets:
    """Five tracklets of four frames: dark frames and one pose; no skeleton in the middle of the last."""
    stems = [f"{pid:04d}C{pid % 2 + 1}T0001F{frame:03d}" for pid in range(1, 6) for frame in range(1, 5)]
    for number, stem in enumerate(stems):
        frame, skeleton = (tmp_path / kind / stem[:4] / stem for kind in ("frames", "skeletons"))
        frame.parent.mkdir(parents=True, exist_ok=True)
        skeleton.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"{frame}.jpg", np.full((64, 32, 3), 40, np.uint8))
        joints = _skeletons(1, 1)[0, :, 0].T if number < 16 else np.full((14, 4), np.nan)
        scipy.io.savemat(f"{skeleton}.mat", {"new_joint": joints})
    starts = np.arange(0, 20, 4)
    return Tracklets(
        keys_N=np.array(stems)[starts],
        stems_M=np.array(stems, np.bytes_),
        starts_N=starts,
        stops_N=starts + 4,
        pids_N=np.arange(1, 6),
        camids_N=np.arange(1, 6) % 2 + 1,
        clothes_N=np.full(5, -1),
        num_train=0,
        query=np.array([0]),
        place=MarsFolders({("test", kind): tmp_path / kind for kind in get_args(Modality)}, num_train=0),
    )


def _grid(table: Tracklets, right_kR: Any, rows: Any = (1, 2, 3), title: str = "fused, $ queries $ from best") -> Image:
    """Queries whose results are right (1), wrong (0) or not ranked (-1)."""
    outcomes: dict[int, Outcome] = {1: "right", 0: "wrong", -1: "junk"}
    queries = []
    for k, line in enumerate(right_kR):
        results = [
            Result(rows[n % len(rows)], outcomes[right], n + 1 if right >= 0 else 0, {"fused": 0.1 * n, "SSIN": 1.0})
            for n, right in enumerate(line)
        ]
        queries.append(Ranked(k, ["AP 50 %"], results))
    return image_of(ranked_grid, table, queries, title)


def _forget(table: Tracklets, *kinds: str) -> None:
    for kind in kinds:
        for file in table.folder(0, kind).rglob("*.*"):  # type: ignore[arg-type]
            file.unlink()


def _dark(picture: Image) -> int:
    """Pixels of the frames on disk."""
    return int(_like(picture, (40, 40, 40), 2).sum())


def test_right_results_are_framed_green_and_wrong_ones_red_in_ranked_order(table: Tracklets) -> None:
    picture = _grid(table, [[1, 0, 1], [0, 0, 1]])
    query, hit, miss = (_places(picture, colour) for colour in (QUERY, HIT, MISS))
    assert _is_picture(picture)
    assert [len(query), len(hit), len(miss)] == [2, 3, 3]
    upper, lower = query[:, 1]
    assert hit[:, 1] == pytest.approx([upper, upper, lower], abs=2)
    assert miss[:, 1] == pytest.approx([upper, lower, lower], abs=2)
    assert query[0, 0] < hit[0, 0] < miss[0, 0] < hit[1, 0]
    assert query[1, 0] < miss[1, 0] < miss[2, 0] < hit[2, 0]


def test_the_query_and_at_most_eight_results_are_shown(table: Tracklets) -> None:
    picture = _grid(table, [[1] * 13])
    assert len(_places(picture, QUERY)) == 1
    assert len(_places(picture, HIT)) == 8


def test_what_is_not_ranked_is_framed_grey(table: Tracklets) -> None:
    picture = _grid(table, [[-1, 1, 0]])
    junk, hit = _places(picture, JUNK), _places(picture, HIT)
    assert len(junk) == len(hit) == len(_places(picture, MISS)) == 1
    assert junk[0, 0] < hit[0, 0]


def test_queries_may_have_different_numbers_of_results(table: Tracklets) -> None:
    picture = _grid(table, [[1, 0, 0], [1], []])
    assert len(_places(picture, QUERY)) == 3
    assert len(_places(picture, HIT)) == len(_places(picture, MISS)) == 2


def test_no_query_is_an_empty_grid(table: Tracklets) -> None:
    assert _is_picture(_grid(table, []))


def test_masks_are_outlined_in_the_strips(table: Tracklets) -> None:
    plain = _grid(table, [[1, 0]])
    image = np.zeros((64, 32), np.uint8)
    image[16:48, 8:24] = 255
    for frame in range(4):
        mask = table.path(1, frame, "masks")
        mask.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(mask), image)
    outlined = _grid(table, [[1, 0]])
    yellow = [(picture[LEGEND:, :, 0].astype(int) - picture[LEGEND:, :, 2] > 60).sum() for picture in (plain, outlined)]
    assert yellow[1] > yellow[0] + 3 * 100


def test_distances_are_told(table: Tracklets) -> None:
    """Text is judged by that it changes with the numbers, and where."""
    result = Result(1, "right", 1, {"fused": 0.123, "SSIN": 1.0})
    pictures = [
        image_of(ranked_grid, table, [Ranked(0, [], [replace(result, distances=distances)])], "title")
        for distances in ({"fused": 0.123, "SSIN": 1.0}, {"fused": 0.123, "SSIN": 2.0}, {"fused": np.inf, "SSIN": 1.0})
    ]
    changed = [np.nonzero((picture != pictures[0]).any(axis=2))[0] for picture in pictures[1:]]
    assert changed[0].size > 5
    assert changed[1].max() < changed[0].min()


def test_a_tracklet_shows_frames_and_its_middle_skeleton(table: Tracklets) -> None:
    whole = _grid(table, [[1]])
    without = _grid(table, [[1]], [4])
    assert _dark(whole) == _dark(without) > 2 * 3 * 3000
    assert _like(whole[LEGEND:], LEFT_LIMBS, 20).sum() > 1.5 * _like(without[LEGEND:], LEFT_LIMBS, 20).sum() > 0


def test_without_frames_the_skeleton_is_drawn_larger(table: Tracklets) -> None:
    both = _grid(table, [[1, 0]])
    _forget(table, "frames")
    alone = _grid(table, [[1, 0]])
    assert _dark(both) > 0
    assert _dark(alone) == 0
    rows = [np.ptp(np.nonzero(_like(picture[LEGEND:], LEFT_LIMBS, 20))[0]) for picture in (both, alone)]
    assert rows[1] > 1.5 * rows[0]


def test_a_data_set_without_skeletons_shows_its_frames_only(table: Tracklets) -> None:
    both = _grid(table, [[1, 0]])
    _forget(table, "skeletons")
    frames = _grid(table, [[1, 0]])
    assert _dark(frames) == _dark(both) > 0
    assert not _like(frames[LEGEND:], LEFT_LIMBS, 20).any()
    assert frames.shape[0] < both.shape[0]


def test_a_tracklet_with_neither_is_a_grey_box_in_its_frame(table: Tracklets) -> None:
    _forget(table, "frames", "skeletons")
    picture = _grid(table, [[1, 0]])
    boxes = _places(picture, LINE)
    assert len(_places(picture, HIT)) == len(_places(picture, MISS)) == 1
    assert _like(picture, LINE).sum() > 3 * 10_000
    assert len(boxes) >= 3


def test_corrupt_files_are_left_out(table: Tracklets) -> None:
    whole = _grid(table, [[1, 0]])
    for kind in ("frames", "skeletons"):
        for file in table.folder(0, kind).rglob("0002*.*"):  # type: ignore[arg-type]
            file.write_bytes(b"no such format")
    picture = _grid(table, [[1, 0]])
    assert len(_places(picture, HIT)) == 1
    assert _dark(picture) == pytest.approx(_dark(whole) * 2 / 3, rel=0.01)
    assert _like(picture, LINE).sum() > 10_000 > _like(whole, LINE).sum()


@pytest.mark.parametrize("outcome", [1, -1])
def test_long_names_are_cut_so_that_captions_stay_below_their_pictures(table: Tracklets, outcome: int) -> None:
    names = {number: f"person-{number:05d}-of-the-night" for number in range(1, 6)}
    places = {number: f"front-door-{number}-of-a-house" for number in range(1, 6)}
    plain = _grid(table, [[outcome] * 8])
    picture = _grid(replace(table, pid_names=names, camera_names=places), [[outcome] * 8])
    frames = np.flatnonzero(_like(plain, COLOURS["right" if outcome > 0 else "junk"]).sum(axis=0) > 100)
    gaps = np.flatnonzero(np.diff(frames) == 1 + RANKED_GAP)
    assert len(gaps) == 7
    caption = picture[-50:]
    assert (caption[:, frames[0] : frames[-1]] < 200).any(axis=(0, 2)).mean() > 0.5
    for place in frames[gaps]:
        assert (caption[:, place + 2 : place + RANKED_GAP - 1] > 200).all()
    assert (caption[:, frames[-1] + 2 :] > 200).all()


def test_letters_that_no_font_has_are_one_line_in_the_log(caplog, recwarn) -> None:
    style._tell_of_boxes.cache_clear()
    for words in ("\u5f20\u4f1f", "\u524d\u95e8"):
        canvas = strips.Canvas(40, 200)
        canvas.text(20, 20, words)
        assert (canvas.picture() < 200).any()
        assert style.text_width(words, 12) > 0
    assert caplog.text.count("no font of this machine has some letters") == 1
    assert not [str(one.message) for one in recwarn if "Glyph" in str(one.message)]


def test_letters_of_other_scripts_come_from_a_font_that_has_them(caplog, monkeypatch) -> None:
    """By a font that matplotlib brings, and a letter that only this one has."""

    def picture(words: str) -> Image:
        style.families.cache_clear()
        style._tell_of_boxes.cache_clear()
        canvas = strips.Canvas(40, 200)
        canvas.text(20, 20, words)
        return canvas.picture()

    monkeypatch.setattr(style, "OTHER_SCRIPTS", ("nowhere to be found",))
    boxes, plain = picture(STIX_LETTER), picture("plain")
    assert "install nowhere to be found" in caplog.text
    caplog.clear()
    monkeypatch.setattr(style, "OTHER_SCRIPTS", ("nowhere to be found", "STIXNonUnicode"))
    found = picture(STIX_LETTER)
    assert not caplog.text
    assert not np.array_equal(found, boxes)
    assert np.array_equal(picture("plain"), plain)
    monkeypatch.undo()
    style.families.cache_clear()


def test_outfits_get_a_line_of_their_own(table: Tracklets) -> None:
    plain = _grid(table, [[1]])
    table.clothes_N[:2] = 3
    assert table.has_clothes
    assert _grid(table, [[1]]).shape[0] > plain.shape[0]


def test_the_lines_of_queries_and_results_with_outfits_stand_side_by_side(table: Tracklets) -> None:
    """Of a search, in which queries have no remarks; text is judged by where it changes."""

    def picture(query: int, found: int) -> Image:
        table.clothes_N[:2] = query, found
        return image_of(ranked_grid, table, [Ranked(0, [], [Result(1, "right", 1, {"distance": 0.5})])], "title")

    changed = [np.nonzero((picture(*pair) != picture(3, 3)).any(axis=2))[0] for pair in ((8, 3), (3, 8))]
    assert changed[0].size > 5
    assert set(changed[0]) == set(changed[1])


def test_a_tracklet_whose_middle_has_no_skeleton_shows_the_nearest_that_it_has(table: Tracklets) -> None:
    nobody = np.full((14, 4), np.nan)
    assert np.array_equal(skeleton_of(table, 1, 2), skeleton_of(table, 1, 0))  # type: ignore[arg-type]
    for frame in (1, 2):
        scipy.io.savemat(table.path(1, frame, "skeletons"), {"new_joint": nobody})
    scipy.io.savemat(table.path(1, 3, "skeletons"), {"new_joint": 2 * _skeletons(1, 1)[0, :, 0].T})
    nearest = skeleton_of(table, 1, 2)
    assert nearest is not None
    np.testing.assert_allclose(nearest, 2 * _skeletons(1, 1)[0, :, 0].T, rtol=1e-6)
    assert skeleton_of(table, 4, 2) is None


def test_pictures_need_neither_a_display_nor_pyplot() -> None:
    code = (
        "import sys, numpy; from sptskm.report.charts import cmc_figure; from sptskm.report.style import pixels;"
        "assert pixels(lambda: cmc_figure({'ssin': numpy.full(50, 0.5)}, 'x')).any();"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    hidden = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    subprocess.run([sys.executable, "-c", code], check=True, env=hidden, cwd=Path(__file__).parents[2])
