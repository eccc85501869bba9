"""Silhouettes from colours alone, on drawn people."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sptskm.data.files import read_frame, read_mask
from sptskm.preparation.grabcut import body_prior, person_mask

Bytes = NDArray[np.uint8]


def person(height: int = 128, width: int = 64, shift: int = 0, seed: int = 0) -> tuple[Bytes, Bytes]:
    """A frame with a person in two colours before noise in a third, and where that person is."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    centre = width // 2 + shift
    parts = (
        ((centre, round(0.13 * height)), (round(0.09 * width), round(0.06 * height)), (90, 140, 200)),
        ((centre, round(0.37 * height)), (round(0.2 * width), round(0.18 * height)), (40, 40, 190)),
        ((centre, round(0.72 * height)), (round(0.16 * width), round(0.22 * height)), (120, 40, 30)),
    )
    frame = np.full((height, width, 3), (150, 170, 140), np.float64)
    for middle, axes, colour in parts:
        cv2.ellipse(mask, middle, axes, 0, 0, 360, 255, cv2.FILLED)
        cv2.ellipse(frame, middle, axes, 0, 0, 360, colour, cv2.FILLED)
    frame += rng.normal(0, 8, frame.shape)
    return np.clip(frame, 0, 255).astype(np.uint8), mask


def iou(found: Bytes, wanted: Bytes) -> float:
    return float(np.logical_and(found, wanted).sum() / np.logical_or(found, wanted).sum())


@pytest.mark.parametrize("shift", [-6, 0, 6])
def test_a_person_of_other_colours_than_the_background_is_cut_out(shift: int) -> None:
    frame, wanted = person(shift=shift)
    found = person_mask(frame)
    assert found.shape == wanted.shape
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 255}
    assert iou(found, wanted) > 0.95
    assert iou(found, wanted) > iou(body_prior(128, 64), wanted)


def test_generated_walkers_are_cut_out_far_better_than_by_the_prior(walkers: Path) -> None:
    paths = sorted((walkers / "bbox_train").rglob("*.jpg"))[::12]
    masks = [read_mask(walkers / "bbox_train_mask" / path.parent.name / f"{path.stem}.png") for path in paths]
    found = [iou(person_mask(read_frame(path)), mask) for path, mask in zip(paths, masks, strict=True)]
    prior = [iou(body_prior(*mask.shape), mask) for mask in masks]
    assert len(found) >= 10
    assert np.mean(found) > np.mean(prior) + 0.15
    assert np.mean(found) > 0.7


def test_the_same_frame_gives_the_same_mask_whatever_was_drawn_before() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    first = person_mask(frame)
    cv2.setRNGSeed(99)
    person_mask(person(seed=3)[0])
    np.testing.assert_array_equal(person_mask(frame), first)


def test_the_frame_itself_is_untouched() -> None:
    frame, _ = person()
    before = frame.copy()
    person_mask(frame)
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_frame_of_one_colour_gets_the_prior(grey: int) -> None:
    frame = np.full((64, 32, 3), grey, np.uint8)
    np.testing.assert_array_equal(person_mask(frame), body_prior(64, 32))


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_is_never_empty_and_never_all(seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (48, 24, 3), dtype=np.uint8)
    found = person_mask(frame)
    assert found.any()
    assert not found.all()
    assert set(np.unique(found)) == {0, 255}


def test_what_stands_apart_in_the_person_s_colours_is_left_out() -> None:
    frame, wanted = person()
    frame[100:124, 4:10] = (40, 40, 190)
    found = person_mask(frame)
    assert not found[100:124, 4:10].any()
    assert iou(found, wanted) > 0.95


@pytest.mark.parametrize(("height", "width"), [(16, 8), (256, 128), (100, 37), (60, 90)])
def test_the_prior_covers_the_middle_and_leaves_the_sides(height: int, width: int) -> None:
    prior = body_prior(height, width)
    assert prior.shape == (height, width)
    assert prior[height // 3, width // 2] == prior[height // 2, width // 2] == 255
    assert not prior[:, [0, -1]].any()
    assert not prior[[0]].any()
    assert 0.2 < (prior > 0).mean() < 0.5
    assert person_mask(np.full((height, width, 3), 7, np.uint8)).any()


@pytest.mark.parametrize(
    ("frame", "wanted"),
    [
        (np.zeros((64, 32), np.uint8), r"uint8 \(64, 32\), wanted uint8 \(height, width, 3\)"),
        (np.zeros((64, 32, 3), np.float32), r"float32 \(64, 32, 3\), wanted uint8"),
        (np.zeros((15, 8, 3), np.uint8), "frame is 15x8, wanted at least 16x8"),
        (np.zeros((16, 7, 3), np.uint8), "frame is 16x7, wanted at least 16x8"),
    ],
)
def test_other_arrays_and_tiny_frames_are_refused(frame: Bytes, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        person_mask(frame)
