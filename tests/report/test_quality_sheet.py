"""The pictures of quality, judged by their pixels. Shapes: H rows, W columns, F frames, V = 14 joints."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sptskm.data import Tracklets, read_mars
from sptskm.data.files import read_skeleton
from sptskm.data.skeletons import normalise
from sptskm.preparation.formats import write_mask
from sptskm.preparation.quality import measure, worst
from sptskm.report.colours import LEFT_LIMBS, OUTLINE, PALE, RIGHT_LIMBS, Colour
from sptskm.report.quality_pictures import FRAMES_SHOWN, MOMENTS_SHOWN, normalisation_sheet, sheet
from sptskm.report.style import Image

HEAD = 56  # rows above this one hold title and legend


def pixels(picture: Image, colour: Colour) -> NDArray[np.bool_]:
    """(H, W) below the legend; the outline is blended with what is below it."""
    tolerance = 50 if colour == OUTLINE else 0
    return np.asarray((abs(picture.astype(int) - colour) <= tolerance).all(axis=2))[HEAD:]


@pytest.fixture
def copied(walkers: Path, tmp_path: Path) -> Tracklets:
    """The table of a copy that may be changed."""
    shutil.copytree(walkers, tmp_path / "copy")
    return read_mars(tmp_path / "copy")


def test_every_measure_is_a_row_and_every_frame_a_column(walkers: Path) -> None:
    table = read_mars(walkers)
    one, two = sheet(table, {"height": [(0, 0, 0.5)]}), sheet(table, {"height": [(0, 0, 0.5)], "flipped": []})
    wide = sheet(table, {"height": [(row, 1, 0.5) for row in range(6)]})
    wider = sheet(table, {"height": [(row, 1, 0.5) for row in range(FRAMES_SHOWN)]})
    widest = sheet(table, {"height": [(row, 1, 0.5) for row in range(FRAMES_SHOWN + 5)]})
    for picture in (one, two, wide, wider, widest):
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
    assert two.shape[0] - HEAD > 1.8 * (one.shape[0] - HEAD)
    assert one.shape[0] == wide.shape[0]
    assert one.shape[1] < wide.shape[1] < wider.shape[1]
    np.testing.assert_array_equal(wider, widest)


def test_a_frame_shows_its_mask_s_outline_and_its_skeleton_below(walkers: Path) -> None:
    picture = sheet(read_mars(walkers), {"height": [(0, 0, 0.5)]})
    outline, left, right = (pixels(picture, colour) for colour in (OUTLINE, LEFT_LIMBS, RIGHT_LIMBS))
    assert outline.sum() > 100
    assert left.sum() > 20
    assert right.sum() > 20
    assert np.flatnonzero(outline.any(axis=1)).max() < np.flatnonzero((left | right).any(axis=1)).min()


def test_what_is_missing_is_grey_and_no_failure(copied: Tracklets) -> None:
    whole = sheet(copied, {"height": [(0, 0, 0.5)]})
    copied.path(0, 0, "skeletons").write_bytes(b"x")
    headless = sheet(copied, {"height": [(0, 0, 0.5)]})
    assert not pixels(headless, LEFT_LIMBS).any()
    assert pixels(headless, PALE).sum() > pixels(whole, PALE).sum() + 5000
    copied.path(0, 0, "masks").unlink()
    bare = sheet(copied, {"height": [(0, 0, 0.5)]})
    assert not pixels(bare, OUTLINE).any()
    copied.path(0, 0, "frames").unlink()
    nothing = sheet(copied, {"height": [(0, 0, 0.5)]})
    assert pixels(nothing, PALE).sum() > pixels(bare, PALE).sum() + 5000
    assert nothing.shape == whole.shape


def test_without_a_frame_the_mask_itself_is_shown(copied: Tracklets) -> None:
    copied.path(0, 0, "frames").unlink()
    picture = sheet(copied, {"no skeleton": [(0, 0, 1.0)]})
    assert pixels(picture, (0, 0, 0)).sum() > 1000
    assert pixels(picture, OUTLINE).sum() > 100


def test_a_mask_of_another_size_is_drawn_to_the_frame(copied: Tracklets) -> None:
    write_mask(copied.path(0, 0, "masks"), np.pad(np.full((20, 20), 255, np.uint8), 10))
    assert pixels(sheet(copied, {"mask size": [(0, 0, 1.0)]}), OUTLINE).sum() > 100


def test_the_worst_frames_of_a_data_set_fit_on_a_sheet(walkers: Path) -> None:
    table = read_mars(walkers)
    found = worst(measure(table, range(8), ["masks", "skeletons"]), count=3)
    picture = sheet(table, found)
    assert len(found) > 2
    assert pixels(picture, OUTLINE).any()


def test_a_faultless_data_set_has_a_sheet_that_says_so(walkers: Path) -> None:
    picture = sheet(read_mars(walkers), {})
    assert picture.shape[0] > HEAD
    assert (picture[HEAD:] != 255).any(), "a sentence"


def tracklets(walkers: Path, count: int) -> dict[str, NDArray[Any]]:
    """Stored skeletons by the name of their tracklet, turned and made smaller, as before normalisation."""
    table = read_mars(walkers)
    turned = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]) * 0.4
    found = {}
    for row in range(count):
        frames = range(int(table.lengths[row]))
        skeletons = np.stack([read_skeleton(table.path(row, frame, "skeletons")) for frame in frames])
        found[str(table.keys_N[row])] = np.concatenate([skeletons[..., :3] @ turned, skeletons[..., 3:]], axis=2)
    return found


def test_before_and_after_normalisation_are_two_rows_for_each_tracklet(walkers: Path) -> None:
    one, three = (normalisation_sheet(tracklets(walkers, count)) for count in (1, 3))
    assert three.shape[0] - HEAD > 2.8 * (one.shape[0] - HEAD)
    assert three.shape[1] == one.shape[1]
    before, after = np.array_split(one[HEAD:], 2)
    for half in (before, after):
        assert (half == LEFT_LIMBS).all(axis=2).sum() > 20 * MOMENTS_SHOWN
    assert (before != after[: len(before)]).any(axis=2).mean() > 0.02


def test_what_is_normal_already_looks_the_same_after(walkers: Path) -> None:
    (name, skeletons), *_ = tracklets(walkers, 1).items()
    picture = normalisation_sheet({name: normalise(skeletons)})[HEAD:]
    height = 116  # of a row, with the gap below it
    first, second = picture[:110, 142:], picture[height : height + 110, 142:]
    np.testing.assert_array_equal(first, second)


def test_frames_without_a_skeleton_and_tracklets_without_any_are_grey(walkers: Path) -> None:
    (name, skeletons), *_ = tracklets(walkers, 1).items()
    whole = normalisation_sheet({name: skeletons})
    skeletons[0] = np.nan
    assert pixels(normalisation_sheet({name: skeletons}), PALE).sum() > pixels(whole, PALE).sum() + 5000
    skeletons[:] = np.nan
    empty = normalisation_sheet({name: skeletons})
    assert not pixels(empty, LEFT_LIMBS).any()
    assert empty.shape == whole.shape
    assert normalisation_sheet({}).shape[1] == whole.shape[1]
