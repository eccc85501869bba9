"""Training augmentations of frames and masks. Legend: B clips, T frames, H rows, W columns, C channels."""

from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from helpers.oracles import needs_shared, oracle
from numpy.typing import NDArray

from sptskm.data.augment import PLAIN, View, draw_view, enlarged_size, show, show_together


def image(height: int = 32, width: int = 16, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def shown(image: NDArray[np.uint8], view: View, height: int = 32, width: int = 16) -> NDArray[np.uint8]:
    out = np.zeros((height, width, *image.shape[2:]), np.uint8)
    show(image, view, out)
    return out


def test_enlargement_before_cropping_is_the_published_one() -> None:
    assert enlarged_size(256, 128) == (288, 144)


def test_a_plain_view_of_an_image_of_the_size_is_the_image() -> None:
    np.testing.assert_array_equal(shown(image(), PLAIN), image())


def test_resizing_gives_masks_soft_borders() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[4:] = 255
    larger = shown(mask, PLAIN, 16, 16)
    assert larger.shape == (16, 16)
    assert set(np.unique(larger)) > {0, 255}


@pytest.mark.parametrize("size", [(32, 16), (50, 20)])
def test_a_crop_is_a_part_of_the_enlarged_frame(size: tuple[int, int]) -> None:
    larger = cv2.resize(image(*size), (18, 36), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(shown(image(*size), View(1, 4, 1, 0)), larger[4:36, 1:17])
    np.testing.assert_array_equal(shown(image(*size), View(1, 4, 1, 1)), larger[4:36, 1:17][:, ::-1])


def test_frame_and_mask_are_treated_alike_and_left_alone() -> None:
    given = image()
    for view in (PLAIN, View(0, 0, 0, 1), View(1, 3, 2, 1)):
        together = shown(given, view)
        np.testing.assert_array_equal(shown(given[..., 1].copy(), view), together[..., 1])
    np.testing.assert_array_equal(given, image())


def test_every_view_and_every_offset_is_drawn_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    seen = Counter(draw_view(32, 16, rng) for _ in range(600))
    whole = {View(0, 0, 0, flip) for flip in (0, 1)}
    assert set(seen) == whole | {View(1, top, left, f) for top in range(5) for left in range(3) for f in (0, 1)}
    assert abs(sum(seen[view] for view in whole) - 300) < 60
    assert abs(sum(count for view, count in seen.items() if view.flipped) - 300) < 60


def test_a_view_follows_the_generator() -> None:
    a, b, c = (draw_view(256, 128, np.random.default_rng(seed)) for seed in (5, 5, 7))
    assert a == b != c


@pytest.mark.parametrize(("height", "width"), [(32, 16), (256, 128), (50, 37)])
def test_a_device_shows_a_batch_as_opencv_shows_its_images(height: int, width: int) -> None:
    tall, wide = enlarged_size(height, width)
    corners = [(top, left) for top in (0, 1, tall - height) for left in (0, 1, wide - width)]
    views = [PLAIN, View(0, 0, 0, 1), *(View(1, *corner, flip) for corner in corners for flip in (0, 1))]
    clips = np.stack([[image(height, width, seed=2 * n + t) for t in range(2)] for n in range(len(views))])
    found = show_together(torch.from_numpy(clips), torch.tensor(views, dtype=torch.int32))
    assert found.dtype == torch.uint8
    for clip, seen, view in zip(clips, found.numpy(), views, strict=True):
        for frame, alike in zip(clip, seen, strict=True):
            wanted = shown(frame, view, height, width).astype(int)
            # on every processor that was tried the bits are the same; OpenCV does not promise that
            assert np.abs(alike - wanted).max() <= (1 if view.enlarged else 0)
            assert (alike != wanted).mean() < 0.01


@needs_shared
def test_resizing_and_cropping_equal_the_original() -> None:
    arrays = oracle("ssin_transforms.npz")
    parts = (arrays["img_rgb_u8"], slice(3)), (arrays["mask_u8"], 3)
    for given, channels in parts:
        np.testing.assert_array_equal(shown(given, PLAIN, 256, 128), arrays["resize_u8"][..., channels])
        crop = shown(given, View(1, 20, 7, 0), 256, 128)
        np.testing.assert_array_equal(crop, arrays["expandcrop_x7_y20"][..., channels])
