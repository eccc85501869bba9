"""Charts and pictures of insight are judged by their pixels: the right colours in the right places.

Shapes: T frames, C cameras, V = 14 joints.
"""

from pathlib import Path

import numpy as np
import pytest
from helpers.drawing import image_of
from numpy.typing import NDArray

from sptskm.data.skeletons import JOINTS
from sptskm.evaluation import CameraPairs
from sptskm.evaluation.insight import Attention, Joints
from sptskm.report.charts import (
    camera_figure,
    cmc_figure,
    distance_figure,
    read_curves,
    training_figure,
    weight_figure,
)
from sptskm.report.colours import BLUE, GREEN, LINE, ORANGE, PURPLE, Colour
from sptskm.report.insight_pictures import attention_sheet, joint_figure
from sptskm.report.ranked import COLOURS
from sptskm.report.strips import shortened, spread
from sptskm.report.style import Image
from sptskm.report.tensorboard import Board


def _like(picture: Image, colour: Colour, tolerance: int = 5) -> NDArray[np.bool_]:
    return np.asarray((np.abs(picture.astype(int) - colour) <= tolerance).all(axis=2))


def _is_picture(picture: Image) -> bool:
    return picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


def test_the_better_pair_of_cameras_is_the_darker_and_an_unknown_one_is_grey() -> None:
    matrix_CC = np.array([[0.9, 0.1], [np.nan, 0.5]])
    picture = image_of(camera_figure, CameraPairs(np.array([1, 2]), matrix_CC, matrix_CC), ["$one$", "two"], "title")
    height, width = picture.shape[:2]
    grey = _like(picture, LINE, 0)
    y, x = np.nonzero(grey[: height * 4 // 5, : width // 2])
    assert len(y) > 5000
    # beside the number in the middle of each cell: best, middling, worst
    below, left = int(np.median(y)) + 30, int(np.median(x)) + 30
    above, right = below - np.ptp(x), left + np.ptp(x)
    cells = [int(picture[at].sum()) for at in ((above, left), (below, right), (above, right))]
    assert cells[0] < cells[1] < cells[2]


def test_many_cameras_still_make_a_figure() -> None:
    matrix_CC = np.full((30, 30), 0.5)
    names = ["a name that is far too long"] * 30
    assert image_of(camera_figure, CameraPairs(np.arange(30), matrix_CC, matrix_CC), names, "title").any()


def test_nearer_pairs_are_farther_to_the_left() -> None:
    rng = np.random.default_rng(0)
    picture = image_of(distance_figure, rng.normal(0, 1, 500), rng.normal(8, 1, 500), "title")[90:]
    filled = (0.5 * np.array(COLOURS["right"]) + 127.5).astype(int)
    same = np.nonzero(_like(picture, (filled[0], filled[1], filled[2]), 6))[1]
    different = np.nonzero(_like(picture, COLOURS["wrong"], 10))[1]
    assert same.size > 500
    assert np.median(same) < picture.shape[1] / 2 < np.median(different)


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0]])
def test_distances_that_are_all_the_same_make_a_figure_too(values: list[float]) -> None:
    assert image_of(distance_figure, np.array(values), np.array(values), "title").any()


def test_curves_of_a_run_are_read_back_and_drawn(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for step in range(3):
        board.scalars({"loss/total": 3.0 - step, "validation/mAP": 0.1 * step}, step)
    board.close()
    curves = read_curves(tmp_path)
    assert curves["loss/total"].tolist() == [[0, 1, 2], [3, 2, 1]]
    picture = image_of(training_figure, curves, "smin")
    middle = picture.shape[1] // 2
    assert _like(picture[:, :middle], ORANGE).sum() > 200
    assert _like(picture[:, middle:], GREEN).sum() > 200
    assert not _like(picture, BLUE).any()


def test_a_run_of_one_point_and_without_held_out_people_shows_its_loss_alone() -> None:
    picture = image_of(training_figure, {"loss/total": np.array([[0.0], [1.0]])}, "smin")
    assert _like(picture[60:], ORANGE).sum() > 20
    both = {"loss/total": np.array([[0.0], [1.0]]), "validation/mAP": np.array([[0.0], [0.5]])}
    assert picture.shape[1] < image_of(training_figure, both, "smin").shape[1]


def test_a_run_that_is_gone_has_no_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "gone") == {}
    assert read_curves(tmp_path) == {}


def _attention(map_hw: list[list[float]]) -> Attention:
    frames = np.full((2, 3, 64, 32), 0.5, np.float32)
    return Attention("key", frames, np.zeros((2, 64, 32)), np.array([map_hw, map_hw]), 0.1)


def test_attention_is_bright_where_it_lies() -> None:
    picture = image_of(attention_sheet, [_attention([[2.0, 0.0], [0.0, 0.0]])])
    pair = picture[64:224, 150:312].astype(int).sum(axis=2)
    seen = pair[:, 82:162]
    assert np.ptp(pair[5:155, 5:75]) == 0
    assert seen[:40, :20].mean() > 1.5 * seen[-40:, -20:].mean()


def test_an_even_attention_is_not_made_to_look_like_more() -> None:
    even, nearly = (image_of(attention_sheet, [_attention([[1.0, value]])]) for value in (1.0, 1.001))
    assert np.abs(even[64:224].astype(int) - nearly[64:224]).max() <= 6


def test_no_attention_is_no_picture() -> None:
    with pytest.raises(ValueError, match="at least one"):
        image_of(attention_sheet, [])


def test_joints_that_matter_are_drawn_larger() -> None:
    skeleton_V4 = np.random.default_rng(0).normal(size=(len(JOINTS), 4))
    sizes = []
    for changes in ([0.5] + 13 * [0.0], 14 * [0.5]):
        picture = image_of(joint_figure, Joints(np.array(changes), np.full(14, np.nan), 1, skeleton_V4))
        sizes.append(_like(picture[:, : picture.shape[1] // 3], ORANGE).sum())
    assert sizes[1] > 2 * sizes[0] > 0


def test_long_names_lose_their_middle_and_lines_are_joined() -> None:
    assert shortened("short", 8) == "short"
    assert shortened("two\nlines", 20) == "two lines"
    assert shortened("abcdefghijklmnop", 7) == "abc…nop"


@pytest.mark.parametrize(("length", "places"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (12, [2, 6, 10])])
def test_frames_are_spread_over_a_tracklet(length: int, places: list[int]) -> None:
    assert spread(length, 3) == places


@pytest.mark.parametrize(
    "names", [("ssin",), ("smin", "fused"), ("ssin", "smin", "fused"), ("ssin", "smin", "fused", "reranked")]
)
def test_the_cmc_figure_has_the_colours_of_its_streams_and_no_others(names: tuple[str, ...]) -> None:
    ranks = np.arange(1, 51)
    cmc = {name: 1 - loss / ranks for name, loss in zip(names, (0.4, 0.6, 0.2, 0.05), strict=False)}
    picture = image_of(cmc_figure, {name: cmc[name] for name in names}, "mars-official, 5 queries")
    assert _is_picture(picture)
    assert not (picture[:, -3:] < 200).any(), "the legend is cut off"
    for name, colour in (("ssin", BLUE), ("smin", ORANGE), ("fused", GREEN), ("reranked", PURPLE)):
        assert (_like(picture, colour, 5).sum() > 300) == (name in names)


def test_curves_are_in_percent_with_the_better_one_above() -> None:
    picture = image_of(cmc_figure, {"ssin": np.full(50, 1.0), "smin": np.full(50, 0.3)}, "flat")
    plot = picture[60:]  # below the legend; its upper edge is at 100 %
    above, below = (np.nonzero(_like(plot, colour, 5))[0].mean() / len(plot) for colour in (BLUE, ORANGE))
    assert above < 0.1
    assert 0.6 < below < 0.9


def test_curves_that_are_short_or_unknown_still_make_a_figure() -> None:
    assert _is_picture(image_of(cmc_figure, {"other": np.array([0.5, 0.75]), "smin": np.full(50, np.nan)}, "$1 and $2"))


def test_the_weight_figure_marks_the_chosen_weight_and_both_ends() -> None:
    weights = np.linspace(0, 1, 21)
    curve = np.stack([weights, 0.6 - (weights - 0.5) ** 2], axis=1)
    low, high = image_of(weight_figure, curve, 0.2, "held out"), image_of(weight_figure, curve, 0.8, "held out")
    assert _is_picture(low)
    band = slice(45, 80)
    label_low, label_high = (np.nonzero(_like(picture[band], GREEN, 5))[1] for picture in (low, high))
    assert label_low.mean() < low.shape[1] / 2 < label_high.mean()
    ssin, smin = (np.nonzero(_like(low, colour, 5))[1] for colour in (BLUE, ORANGE))
    assert ssin.max() < low.shape[1] / 2 < smin.min()


def test_ends_that_were_not_tried_are_not_annotated() -> None:
    curve = np.array([[0.2, 0.5], [0.4, 0.6], [0.6, 0.55]])
    picture = image_of(weight_figure, curve, 0.4, "held out")
    assert _like(picture, GREEN, 5).sum() > 300
    assert not _like(picture, BLUE, 5).any()
    assert not _like(picture, ORANGE, 5).any()
