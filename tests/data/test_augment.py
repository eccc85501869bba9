"""Training augmentations. Legend: T frames, H rows, W columns, V joints."""

import numpy as np
import pytest
from numpy.typing import NDArray
from oracles import needs_shared, oracle

from sptskm.data.augment import (
    ANGLES_DEG,
    SCALES,
    SHIFTS,
    augment_frames,
    enlarged,
    expand_and_crop,
    move,
    random_move,
    resize,
)

STILL = np.array([[0, 0], [0, 0], [0, 0], [1, 1], [0, 0], [0, 0], [0, 0]], float)


def image(height: int = 32, width: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)


def skeletons(T: int = 5) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(T, 14, 4))


def drawing(**rows: tuple[float, float]) -> NDArray[np.float64]:
    """No movement but in the named rows."""
    draws = STILL.copy()
    for name, values in rows.items():
        draws[["Ax", "Ay", "Az", "S", "Tx", "Ty", "Tz"].index(name)] = values
    return draws


def test_enlargement_before_cropping_is_the_published_one() -> None:
    assert enlarged(256, 128) == (288, 144)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    np.testing.assert_array_equal(resize(image(), 32, 16), image())


def test_resizing_gives_masks_soft_borders() -> None:
    mask = np.zeros((8, 8, 4), np.uint8)
    mask[4:, :, 3] = 255
    larger = resize(mask, 16, 16)
    assert larger.shape == (16, 16, 4)
    assert set(np.unique(larger[..., 3])) > {0, 255}


def test_a_crop_is_a_part_of_the_enlarged_frame() -> None:
    larger = resize(image(), 36, 18)
    np.testing.assert_array_equal(expand_and_crop(image(), 32, 16, 4, 1), larger[4:36, 1:17])


def test_all_frames_of_a_clip_are_treated_alike() -> None:
    for seed in range(20):
        first, second = augment_frames([image(), image()], 32, 16, np.random.default_rng(seed))
        np.testing.assert_array_equal(first, second)


def test_every_augmentation_and_every_offset_occurs_and_nothing_else() -> None:
    plain, possible = image(), {}
    for top in range(5):
        for left in range(3):
            crop = expand_and_crop(plain, 32, 16, top, left)
            possible |= {crop.tobytes(): ("crop", top, left), crop[:, ::-1].tobytes(): ("flipped", top, left)}
    possible |= {plain.tobytes(): ("plain",), plain[:, ::-1].tobytes(): ("flip",)}
    rng = np.random.default_rng(0)
    seen = [possible[augment_frames([plain], 32, 16, rng)[0].tobytes()] for _ in range(600)]
    assert set(seen) == set(possible.values())
    whole = sum(what[0] in ("plain", "flip") for what in seen)
    flipped = sum(what[0] in ("flip", "flipped") for what in seen)
    assert abs(whole - 300) < 60
    assert abs(flipped - 300) < 60


def test_augmentation_follows_the_generator_and_leaves_its_input_alone() -> None:
    frame = image()
    a, b, c = (augment_frames([frame], 24, 12, np.random.default_rng(seed))[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    np.testing.assert_array_equal(frame, image())


def test_no_movement_moves_nothing() -> None:
    np.testing.assert_allclose(move(skeletons(), STILL), skeletons(), atol=1e-12)


@pytest.mark.parametrize(("row", "axis", "other"), [("Ax", 0, 1), ("Ay", 1, 2), ("Az", 2, 0)])
def test_a_rotation_turns_the_next_axis_towards_the_one_after_it(row: str, axis: int, other: int) -> None:
    third = 3 - axis - other
    points = np.concatenate([np.eye(3), np.zeros((3, 1))], axis=1)[None]
    turned = move(points, drawing(**{row: (90, 90)}))[0, :, :3]
    np.testing.assert_allclose(turned[axis], np.eye(3)[axis], atol=1e-12)
    np.testing.assert_allclose(turned[other], np.eye(3)[third], atol=1e-12)
    np.testing.assert_allclose(turned[third], -np.eye(3)[other], atol=1e-12)


def test_rotations_are_applied_z_then_y_then_x() -> None:
    point = np.array([[[1.0, 0, 0, 0]]])
    turned = move(point, drawing(Ax=(90, 90), Az=(90, 90)))[0, 0, :3]  # x -> y by z, then y -> z by x
    np.testing.assert_allclose(turned, [0, 0, 1], atol=1e-12)


def test_scale_and_shift_run_linearly_from_the_first_to_the_last_frame() -> None:
    moved = move(np.ones((5, 14, 4)), drawing(S=(1, 3), Tx=(0, 4), Tz=(-2, 2)))
    np.testing.assert_allclose(moved[:, 0, 0], [1, 2.5, 4, 5.5, 7])
    np.testing.assert_allclose(moved[:, 0, 1], [1, 1.5, 2, 2.5, 3])
    np.testing.assert_allclose(moved[:, 0, 2], [-1, 0.5, 2, 3.5, 5])


def test_confidence_and_the_input_are_untouched() -> None:
    given = skeletons()
    moved = random_move(given, np.random.default_rng(0))
    np.testing.assert_array_equal(moved[..., 3], given[..., 3])
    np.testing.assert_array_equal(given, skeletons())
    assert np.abs(moved - given)[..., :3].max() > 1e-3


def test_random_movement_draws_every_published_value_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[NDArray[np.float64]] = []
    monkeypatch.setattr("sptskm.data.augment.move", lambda x, draws: drawn.append(draws) or x)
    rng = np.random.default_rng(0)
    for _ in range(100):
        random_move(skeletons(), rng)
    values = np.stack(drawn)  # (100, 7, 2)
    for row, wanted in enumerate([ANGLES_DEG] * 3 + [SCALES] + [SHIFTS] * 3):
        for column in range(2):
            assert set(values[:, row, column]) == set(wanted)
    assert (values[..., 0] != values[..., 1]).any(axis=0).all(), "first and last frame are drawn separately"
    assert (ANGLES_DEG, SCALES) == ((-10, -5, 0, 5, 10), (0.9, 1, 1.1))
    assert SHIFTS == (-0.2, -0.1, 0, 0.1, 0.2)


@needs_shared
def test_movement_equals_the_original() -> None:
    arrays = oracle("smin_feeder.npz")
    moved = move(arrays["in"].transpose(1, 2, 0), arrays["draws_Ax_Ay_Az_S_Tx_Ty_Tz"])
    np.testing.assert_allclose(moved.transpose(2, 0, 1), arrays["out"], rtol=0, atol=1e-12)


@needs_shared
def test_resizing_and_cropping_equal_the_original() -> None:
    arrays = oracle("ssin_transforms.npz")
    rgbm = np.dstack([arrays["img_rgb_u8"], arrays["mask_u8"]])
    np.testing.assert_array_equal(resize(rgbm, 256, 128), arrays["resize_u8"])
    crop = expand_and_crop(rgbm, 256, 128, top=20, left=7)
    np.testing.assert_array_equal(crop, arrays["expandcrop_x7_y20"])
