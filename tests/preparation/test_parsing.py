"""Label maps from frames by JPPNet: each step, the whole, and the original's numbers.

Legend: N frames, H rows, W columns, C channels, L labels.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers.oracles import jppnet_by_rule, needs_shared, oracle
from numpy.typing import NDArray
from torch import Tensor

from sptskm.models import JPPNet
from sptskm.preparation.parsing import (
    COLOURS,
    FAST,
    LABELS,
    MEAN_BGR,
    PUBLISHED,
    FrameViews,
    averaged_logits,
    halved,
    labels_of_colours,
    mask_of,
    network_images,
    parse_frames,
    place_model,
    resize_tf1,
)

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

SMALL = FrameViews(size=64)
MIRRORED = [*range(14), 15, 14, 17, 16, 19, 18]
CPU, META = torch.device("cpu"), torch.device("meta")
f32 = np.float32


@pytest.fixture(scope="module")
def model() -> JPPNet:
    return jppnet_by_rule((1, 1, 1, 1), width=4, context=8)


def frames(count: int = 2, height: int = 40, width: int = 22) -> Bytes:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (count, -(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


def resized(x_HWC: Floats, height: int, width: int) -> Floats:
    """The definition of TensorFlow 1's bilinear resize, sample by sample in float32."""
    rows, columns = x_HWC.shape[:2]
    y_step, x_step = f32(rows) / f32(height), f32(columns) / f32(width)
    out = np.empty((height, width, x_HWC.shape[2]), f32)
    for i in range(height):
        y = f32(i) * y_step
        above, below = int(y), min(int(y) + 1, rows - 1)
        for j in range(width):
            x = f32(j) * x_step
            left, right = int(x), min(int(x) + 1, columns - 1)
            wx, wy = x - f32(left), y - f32(above)
            top = x_HWC[above, left] + (x_HWC[above, right] - x_HWC[above, left]) * wx
            bottom = x_HWC[below, left] + (x_HWC[below, right] - x_HWC[below, left]) * wx
            out[i, j] = top + (bottom - top) * wy
    return out


def original_order(model: JPPNet, frame_HW3: Bytes, views: FrameViews, *, mirror_first: bool = True) -> Floats:
    """Logits (H, W, L) of one frame, every step as published: nine maps enlarged, then averaged; mirrored; averaged."""
    height, width = frame_HW3.shape[:2]
    image, sides = frame_HW3.astype(f32) - np.array(MEAN_BGR, f32), []
    for mirrored in (False, True):
        maps = []
        for side in views.sides:
            if mirror_first:
                x = resized(image[:, ::-1] if mirrored else image, side, side)
            else:
                x = resized(image, side, side)[:, :: -1 if mirrored else 1]
            parsing = model(torch.from_numpy(x.transpose(2, 0, 1)[None].copy())).parsing
            maps += [resized(logits[0].permute(1, 2, 0).numpy(), height, width) for logits in parsing]
        mean = np.mean(maps, axis=0)
        sides.append(mean[..., MIRRORED][:, ::-1] if mirrored else mean)
    return np.asarray((sides[0] + sides[1]) / 2)


def error(found: Tensor | NDArray, wanted: NDArray) -> float:
    return float(np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize(
    ("old", "new"), [((7, 5), (13, 11)), ((13, 11), (7, 5)), ((12, 12), (37, 53)), ((5, 1), (5, 3))]
)
def test_resizing_follows_the_definition_bit_for_bit(old: tuple[int, int], new: tuple[int, int]) -> None:
    x_HWC = np.random.default_rng(0).standard_normal((*old, 3), f32)
    found = resize_tf1(torch.from_numpy(x_HWC).permute(2, 0, 1)[None], *new)
    np.testing.assert_array_equal(found[0].permute(1, 2, 0).numpy(), resized(x_HWC, *new))


def test_resizing_keeps_the_first_sample_and_repeats_the_last() -> None:
    line = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 1, 4)
    assert resize_tf1(line, 1, 8).flatten().tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert resize_tf1(line, 1, 2).flatten().tolist() == [0, 2]
    assert resize_tf1(line, 2, 4)[0, 0].tolist() == [[0, 1, 2, 3]] * 2
    assert resize_tf1(line, 1, 4).equal(line)


def test_resizing_leaves_its_input_alone() -> None:
    x = torch.rand(1, 2, 4, 4)
    before = x.clone()
    resize_tf1(x, 4, 4)
    resize_tf1(x, 9, 3)
    assert x.equal(before)


def test_network_images_are_blue_green_red_minus_their_means() -> None:
    frame = np.array([[[[10, 20, 30], [0, 0, 255]]]], np.uint8)
    wanted = frame.astype(f32) - np.array(MEAN_BGR, f32)
    np.testing.assert_array_equal(network_images(torch.from_numpy(frame)).permute(0, 2, 3, 1).numpy(), wanted)


def test_published_views_are_three_sizes_and_the_mirror_image() -> None:
    assert (PUBLISHED.sides, PUBLISHED.mirrored) == ((384, 288, 480), True)
    assert (FAST.sides, FAST.mirrored) == ((384,), False)


@torch.inference_mode()
def test_logits_are_those_of_the_published_order(model: JPPNet) -> None:
    both = frames()
    found_NLHW = averaged_logits(torch.from_numpy(both), model, SMALL)
    for frame, found in zip(both, found_NLHW, strict=True):
        assert error(found.permute(1, 2, 0), original_order(model, frame, SMALL)) <= 1e-5


@torch.inference_mode()
def test_the_comparison_would_notice_mirroring_after_resizing(model: JPPNet) -> None:
    frame = frames(1)
    found = averaged_logits(torch.from_numpy(frame), model, SMALL)[0].permute(1, 2, 0)
    assert error(found, original_order(model, frame[0], SMALL, mirror_first=False)) > 1e-4


@torch.inference_mode()
def test_a_mirrored_frame_has_the_mirrored_logits_with_left_and_right_exchanged(model: JPPNet) -> None:
    plain = averaged_logits(torch.from_numpy(frames()), model, SMALL)
    mirrored = averaged_logits(torch.from_numpy(frames()[:, :, ::-1].copy()), model, SMALL)
    torch.testing.assert_close(mirrored, plain[:, MIRRORED].flip(3), rtol=0, atol=1e-5 * float(plain.abs().max()))


@torch.inference_mode()
def test_fewer_views_are_the_mean_over_those_alone(model: JPPNet) -> None:
    frame = torch.from_numpy(frames(1))
    large, small = (averaged_logits(frame, model, FrameViews(64, (scale,), False)) for scale in (1.0, 0.75))
    both = averaged_logits(frame, model, FrameViews(64, (1.0, 0.75), False))
    torch.testing.assert_close(both, (large + small) / 2)
    assert not large.allclose(small)


def test_labels_are_the_largest_logits_and_do_not_depend_on_the_batch(model: JPPNet) -> None:
    some = frames(3)
    labels_NHW = parse_frames(some, model, SMALL)
    assert (labels_NHW.shape, labels_NHW.dtype) == ((3, 40, 22), np.uint8)
    assert len(np.unique(labels_NHW)) >= 3
    for frame, labels_HW in zip(some, labels_NHW, strict=True):
        logits_HWL = averaged_logits(torch.from_numpy(frame[None]), model, SMALL)[0].permute(1, 2, 0).detach()
        clear = np.diff(np.sort(logits_HWL.numpy(), axis=2)[..., -2:], axis=2)[..., 0] > 1e-3
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(labels_HW[clear], logits_HWL.argmax(dim=2).numpy()[clear])


@pytest.mark.parametrize("bad", [frames()[0], frames().astype(f32), frames()[..., :2]])
def test_what_are_no_frames_is_one_sentence(model: JPPNet, bad: NDArray) -> None:
    with pytest.raises(ValueError, match=r"frames are \w+ \(.*\), wanted uint8 \(frames, height, width, 3\)"):
        parse_frames(bad, model, SMALL)


def test_logits_without_a_value_are_refused() -> None:
    broken = jppnet_by_rule((1, 1, 1, 1), width=4, context=8)
    torch.nn.init.constant_(broken.parsing3.last.bias, torch.inf)
    with pytest.raises(ValueError, match=r"logits are not finite, .* where --precision float16 is too narrow"):
        parse_frames(frames(1), broken, SMALL)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_for_gpus(model: JPPNet, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"{dtype} on the device cpu, wanted float32 there"):
        place_model(model, CPU, dtype)
    assert place_model(model, CPU) is model


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.05)])
def test_half_precision_is_near_float32_also_with_variances_that_it_cannot_hold(
    dtype: torch.dtype, tolerance: float
) -> None:
    model = jppnet_by_rule((1, 1, 1, 1), width=4, context=8)
    norm = model.get_submodule("backbone.stage3.0.bn_b")
    norm.running_var += 1e6
    norm.weight *= 1e3
    wanted = averaged_logits(torch.from_numpy(frames()), model, SMALL).numpy()
    assert error(averaged_logits(torch.from_numpy(frames()), halved(model, dtype), SMALL), wanted) <= tolerance


@pytest.fixture
def tf32() -> Iterator[None]:
    """TF32 allowed, and afterwards as it was."""
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_off_the_cpu_float32_is_not_tf32(dtype: torch.dtype) -> None:
    place_model(torch.nn.Conv2d(1, 1, 1), CPU)
    assert torch.backends.cudnn.allow_tf32
    place_model(torch.nn.Conv2d(1, 1, 1), META, dtype)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.usefixtures("tf32")
def test_off_the_cpu_half_precision_is_for_convolutions_alone() -> None:
    model = place_model(JPPNet((1, 1, 1, 1), 4, 8), META, torch.float16)
    for name, value in model.state_dict().items():
        assert value.dtype == (torch.float32 if ".bn" in name else torch.float16), name
    assert model.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    outputs = model(torch.zeros(2, 3, 64, 64, device="meta", dtype=torch.float16))
    assert {maps.dtype for stages in outputs for maps in stages} == {torch.float16}


@pytest.mark.parametrize(("size", "scales"), [(384, ()), (8, (1.0, 0.5))])
def test_views_without_a_picture_are_refused(size: int, scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=rf"size {size} at scales \(.*\), wanted scales of 8 pixels or more"):
        FrameViews(size, scales)


def test_a_mask_is_everything_but_the_background() -> None:
    labels = np.array([[0, 6, 13], [19, 0, 1]], np.uint8)
    mask = mask_of(labels)
    assert mask.tolist() == [[0, 255, 255], [255, 0, 255]]
    assert mask.dtype == np.uint8


def test_every_label_has_a_name_and_a_colour_of_its_own() -> None:
    assert len(LABELS) == len(set(LABELS)) == len(set(COLOURS)) == 20
    assert (LABELS[0], LABELS[6], LABELS[13]) == ("background", "dress", "face")
    for left, right in ((14, 15), (16, 17), (18, 19)):
        assert LABELS[left].replace("left", "right") == LABELS[right]


def test_a_picture_in_the_labels_colours_gives_its_labels_back() -> None:
    labels_HW = np.random.default_rng(0).integers(0, 20, (30, 17), dtype=np.uint8)
    picture = np.array(COLOURS, np.uint8)[labels_HW]
    found = labels_of_colours(picture)
    np.testing.assert_array_equal(found, labels_HW)
    assert found.dtype == np.uint8


def test_colours_of_no_label_are_refused_with_their_place() -> None:
    picture = np.zeros((4, 5, 3), np.uint8)
    for colour in ((1, 0, 0), (255, 255, 255)):
        picture[2, 3] = colour
        with pytest.raises(ValueError, match=rf"\({', '.join(map(str, colour))}\) at row 2, column 3 is no label's"):
            labels_of_colours(picture)
    with pytest.raises(ValueError, match=r"the picture is uint8 \(4, 5\), wanted uint8 \(height, width, 3\)"):
        labels_of_colours(picture[..., 0])


@needs_shared
@pytest.mark.parametrize("case", range(5))
def test_resizing_is_that_of_tensorflow_bit_for_bit(case: int) -> None:
    arrays = oracle("tf_ops.npz")
    wanted = arrays[f"resize{case}/bilinear"]
    found = resize_tf1(torch.from_numpy(arrays[f"resize{case}/x"]).permute(0, 3, 1, 2), *wanted.shape[1:3])
    np.testing.assert_array_equal(found.permute(0, 2, 3, 1).numpy(), wanted)


@needs_shared
def test_network_inputs_are_those_of_the_original_bit_for_bit() -> None:
    arrays = oracle("jppnet_small.npz")
    images = network_images(torch.from_numpy(arrays["image_rgb_u8"][None, ..., ::-1].copy()))
    both = torch.cat([images, images.flip(3)])
    for name, side in (("100", 96), ("075", 72), ("125", 120)):
        found = resize_tf1(both, side, side).permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(found, arrays[f"input_{name}"])


@needs_shared
@torch.inference_mode()
def test_logits_and_labels_are_those_of_the_original() -> None:
    arrays = oracle("jppnet_small.npz")
    frame, wanted = arrays["image_rgb_u8"][None, ..., ::-1].copy(), arrays["logits_all"]
    found = averaged_logits(torch.from_numpy(frame), jppnet_by_rule(), FrameViews(size=96))[0].permute(1, 2, 0).numpy()
    assert error(found, wanted) <= 1e-5
    clear = np.diff(np.sort(wanted, axis=2)[..., -2:], axis=2)[..., 0] > 1e-3
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found.argmax(axis=2)[clear], arrays["pred_all"][clear])
