"""Alignment of masks, and their store. Legend: H rows, W columns, M silhouettes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.handmade import TRAIN, write_files
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.config import GaitClips
from sptskm.data.mars import read_mars
from sptskm.data.silhouettes import MaskReader, SilhouetteStore, align_silhouette, store_of

CLIPS = GaitClips(height=32, width=22, least_rows=4)


def person(top: int, left: int, tall: int, wide: int, size: tuple[int, int] = (128, 64)) -> NDArray[np.uint8]:
    """A mask of a block on a thin foot that points to the right."""
    mask = np.zeros(size, np.uint8)
    mask[top : top + tall, left : left + wide] = 255
    mask[top + tall - 2 : top + tall, left : left + wide + wide // 2] = 255
    return mask


def silhouette(mask: NDArray[np.uint8], height: int = 32, width: int = 22, least: int = 4) -> NDArray[np.bool_]:
    found = align_silhouette(mask, height, width, least)
    assert found is not None
    assert found.shape == (height, width)
    return found


def test_a_person_fills_the_height_and_stands_in_the_middle_wherever_it_was_in_its_mask() -> None:
    one, two = silhouette(person(10, 5, 64, 16)), silhouette(person(50, 30, 64, 16))
    assert np.array_equal(one, two)
    assert one.any(axis=1).all()
    columns = one.sum(axis=0)
    assert abs(columns @ (np.arange(22) + 0.5) / columns.sum() - 11) <= 0.5


def test_a_larger_image_of_a_person_has_the_same_silhouette() -> None:
    one = person(10, 5, 64, 16)
    double = cv2.resize(one, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(silhouette(one), silhouette(double))


def test_a_mirrored_mask_has_the_mirrored_silhouette() -> None:
    mask = person(10, 5, 64, 16)
    assert np.array_equal(silhouette(mask[:, ::-1])[:, ::-1], silhouette(mask))


def test_what_is_wider_than_the_silhouette_is_cut_off_and_what_is_narrower_has_room() -> None:
    assert silhouette(np.full((40, 64), 255, np.uint8)).all()
    assert silhouette(person(0, 0, 100, 4)).sum(axis=1).max() < 5


@pytest.mark.parametrize(("tall", "there"), [(29, False), (30, True)])
def test_a_person_of_too_few_rows_gives_no_silhouette(tall: int, there: bool) -> None:
    assert (align_silhouette(person(10, 5, tall, 10), 64, 44, 30) is not None) == there


def test_an_empty_mask_gives_no_silhouette() -> None:
    assert align_silhouette(np.zeros((128, 64), np.uint8), 64, 44, 1) is None


def walkers_of(root: Path) -> tuple[MaskReader, np.ndarray]:
    """The small data set by hand, whose masks are full, and the rows of its training part."""
    table = read_mars(write_files(root, (16, 8)))
    return MaskReader(table, CLIPS), table.train


def stored(reader: MaskReader, rows: np.ndarray) -> SilhouetteStore:
    return store_of(reader, rows, (reader[int(row)] for row in rows))


def test_the_store_gives_back_what_was_aligned(tmp_path: Path) -> None:
    reader, rows = walkers_of(tmp_path)
    table, drawn = reader.table, person(2, 10, 40, 9, (64, 32))
    cv2.imwrite(str(table.path(1, 1, "masks")), drawn)
    store = stored(reader, rows)
    starts, counts = store.spans(rows)
    assert counts.tolist() == [walk.frames for walk in TRAIN]
    found = store.take(np.array([starts[1] + 1, starts[0]]))
    assert (found.shape, found.dtype) == ((2, 32, 22), torch.uint8)
    assert np.array_equal(found[0].numpy(), silhouette(drawn))
    assert store.bits_MP.shape == (sum(walk.frames for walk in TRAIN), 88), "a bit a pixel"


def test_frames_without_a_person_are_left_out_and_so_may_be_whole_tracklets(tmp_path: Path) -> None:
    reader, rows = walkers_of(tmp_path)
    nobody = np.zeros((16, 8), np.uint8)
    for row, frame in ((0, 0), (0, 1), (2, 3)):
        cv2.imwrite(str(reader.table.path(row, frame, "masks")), nobody)
    store = stored(reader, rows)
    assert store.spans(rows)[1].tolist() == [0, 3, 3, 1]
    assert store.has_any(rows).tolist() == [False, True, True, True]


def test_masks_of_nobody_are_refused_in_a_sentence_that_names_the_key(tmp_path: Path) -> None:
    table = read_mars(write_files(tmp_path))
    reader = MaskReader(table, GaitClips(least_rows=17))
    with pytest.raises(DataError, match=r"no mask of 4 tracklets shows a person in at least 17 rows.*least_rows"):
        stored(reader, table.train)


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    reader, rows = walkers_of(tmp_path)
    path = reader.table.path(1, 2, "masks")
    path.unlink()
    with pytest.raises(DataError, match=path.name):
        stored(reader, rows)


def test_a_tracklet_that_was_not_read_is_no_tracklet_of_the_store(tmp_path: Path) -> None:
    reader, rows = walkers_of(tmp_path)
    with pytest.raises(KeyError, match="row 3"):
        stored(reader, rows[:2]).spans(rows[3:])
