"""What `check_dataset` passes can be trained on, extracted and packed; what cannot be, it names."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from helpers.handmade import write_files

from sptskm.common.errors import DataError
from sptskm.data import Tracklets, read_mars
from sptskm.data.check import check_dataset
from sptskm.data.clips import read_images
from sptskm.data.files import read_mask
from sptskm.data.packs.writing import pack
from sptskm.data.skeleton_store import load_skeletons


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_files(tmp_path / "data", (32, 16))


def write_png(path: Path, image: object) -> None:
    path.write_bytes(cv2.imencode(".png", np.asarray(image))[1].tobytes())


def person(path: Path) -> np.ndarray:
    return (read_mask(path) > 0).astype(np.uint8)


def in_16_bits(path: Path) -> None:
    write_png(path, person(path).astype(np.uint16) * 255)


def as_alpha(path: Path) -> None:
    write_png(path, np.dstack([np.full((*person(path).shape, 3), 255, np.uint8), person(path) * 255]))


ENCODINGS: dict[str, Callable[[Path], None]] = {
    "grey of 8 bits with values from 0 to 1": lambda path: write_png(path, person(path)),
    "grey of 8 bits with values from 0 to 19": lambda path: write_png(path, person(path) * 19),
    "grey of 16 bits with values from 0 to 255": in_16_bits,
    "colours with transparency of 8 bits with values from 255 to 255": as_alpha,
    "colours of 8 bits with values from 0 to 40": lambda path: write_png(
        path, np.dstack([person(path) * v for v in (0, 9, 40)])
    ),
}


@pytest.mark.parametrize("said", ENCODINGS)
def test_masks_in_whose_encoding_training_sees_nobody_are_a_problem_that_names_it(root: Path, said: str) -> None:
    for path in root.glob("bbox_*_mask/*/*.png"):
        ENCODINGS[said](path)
    report = check_dataset(root, workers=1)
    assert not report.ok
    assert said in report.text()
    assert report.empty_masks + report.full_masks == sum(count.found for count in report.counts) / 3


def test_a_few_empty_masks_are_counted_and_most_of_them_are_a_problem(root: Path) -> None:
    paths = sorted(root.glob("bbox_*_mask/*/*.png"))
    for number, path in enumerate(paths):
        if number == 2:
            report = check_dataset(root, workers=1)
            assert (report.ok, report.empty_masks, report.full_masks) == (True, 2, 0)
            assert "empty masks: 2; full masks: 0" in report.text()
        write_png(path, np.zeros((32, 16), np.uint8))
    assert f"{len(paths)} of {len(paths)} masks are empty masks" in check_dataset(root, workers=1).text()


def test_masks_of_people_who_fill_their_frames_are_counted_and_no_problem(root: Path) -> None:
    for path in root.glob("bbox_*_mask/*/*.png"):
        write_png(path, np.full((32, 16), 255, np.uint8))
    assert check_dataset(root, workers=1).ok


def skeleton(value: object) -> Callable[[Path], None]:
    return lambda path: scipy.io.savemat(path, {"new_joint": np.asarray(value)})


def one_joint(value: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        joints = scipy.io.loadmat(path)["new_joint"]
        joints[4] = value
        scipy.io.savemat(path, {"new_joint": joints})

    return change


POINT = np.tile([[100.0, 50, 0, 0.9]], (14, 1))
MUTATIONS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "nothing": ("frames", lambda _: None),
    "frame gone": ("frames", Path.unlink),
    "frame empty": ("frames", lambda path: path.write_bytes(b"") and None),
    "frame cut": ("frames", lambda path: path.write_bytes(path.read_bytes()[:-40]) and None),
    "frame of another size": ("frames", lambda path: write_png(path, np.zeros((5, 4, 3), np.uint8))),
    "mask gone": ("masks", Path.unlink),
    "mask of another size": ("masks", lambda path: write_png(path, np.zeros((5, 4), np.uint8))),
    "mask cut": ("masks", lambda path: path.write_bytes(path.read_bytes()[:-20]) and None),
    "mask of 0 and 1": ("masks", lambda path: write_png(path, person(path))),
    "mask full": ("masks", lambda path: write_png(path, np.full((32, 16), 255, np.uint8))),
    "skeleton gone": ("skeletons", Path.unlink),
    "skeleton cut": ("skeletons", lambda path: path.write_bytes(path.read_bytes()[:-9]) and None),
    "skeleton of text": ("skeletons", skeleton(["a"] * 14)),
    "skeleton of 13 joints": ("skeletons", skeleton(np.ones((13, 4)))),
    "skeleton of complex numbers": ("skeletons", skeleton(np.ones((14, 4)) * 1j)),
    "skeleton of one point": ("skeletons", skeleton(POINT)),
    "skeleton of zeros": ("skeletons", skeleton(np.zeros((14, 4)))),
    "skeleton of NaN": ("skeletons", skeleton(np.full((14, 4), np.nan))),
    "skeleton of 1e300": ("skeletons", skeleton(np.random.default_rng(0).normal(size=(14, 4)) * 1e300)),
    "skeleton of 1e37": ("skeletons", skeleton(np.random.default_rng(0).normal(size=(14, 4)) * 1e37)),
    "skeleton of 1e-42": ("skeletons", skeleton(np.random.default_rng(0).normal(size=(14, 4)) * 1e-42)),
    "joint of NaN": ("skeletons", one_joint(np.nan)),
    "joint of zeros": ("skeletons", one_joint(0)),
    "joint of infinity": ("skeletons", one_joint(np.inf)),
}


def used(table: Tracklets, out: Path) -> str:
    """Do what training, extraction and packing do with every file; what they refuse it with, if they do."""
    try:
        for row in range(len(table)):
            read_images(table, row, np.arange(table.lengths[row]))
        for rows in (table.train, table.test):
            for normalised in (True, False):
                store = load_skeletons(table, rows, normalised)
                assert store.values_MV4.isfinite().all()
        pack(table, out, workers=1)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_check_and_training_agree_on(mutation: str, everywhere: bool, root: Path, tmp_path: Path) -> None:
    table = read_mars(root)
    modality, change = MUTATIONS[mutation]
    rows = range(len(table)) if everywhere else [2]
    for path in [table.path(row, frame, modality) for row in rows for frame in range(table.lengths[row])]:  # type: ignore[arg-type]
        change(path)
    report, refused = check_dataset(root, workers=1), used(table, tmp_path / "pack")
    assert not (report.ok and refused), f"check says nothing, training says: {refused}"
    if not report.ok and not everywhere:
        assert "masks" in report.text() or all(str(root) in problem.sentence for problem in report.problems)
