"""From frames to skeletons, step by step; S rows and columns of a crop, J = 16 joints, V = 14 joints."""

import cv2
import numpy as np
import pytest
import torch
from helpers.oracles import fill, needs_shared, oracle
from numpy.typing import NDArray
from torch import Tensor

from sptskm.data.skeletons import EDGE_TOTAL, EDGES, JOINTS, normalise
from sptskm.models import PoseHG3D, PoseMaps
from sptskm.preparation.parsing import halved
from sptskm.preparation.pose import (
    MEAN,
    MIRRORED_JOINTS,
    STD,
    Decoded,
    crop,
    crop_affine,
    decode_maps,
    estimate_skeletons,
    flip_averaged,
    joints_of,
    network_input,
    whole_frame,
)

Bytes = NDArray[np.uint8]

# column and row of the peaks of a person who stands upright, in MPII's order
STANDING = (
    *((26, 58), (26, 46), (27, 33), (37, 33), (38, 46), (38, 58)),
    *((32, 33), (32, 20), (32, 14), (32, 6)),
    *((21, 35), (22, 25), (25, 15), (39, 15), (42, 25), (43, 35)),
)


def frames(number: int, height: int, width: int, seed: int = 0) -> Bytes:
    """Smooth pictures, so that interpolation is no matter of single pixels."""
    small = np.random.default_rng(seed).integers(0, 256, (number, 8, 6, 3), dtype=np.uint8)
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC) for image in small])


def maps_with_peaks(peaks: tuple[tuple[int, int], ...], height: float = 0.8) -> PoseMaps:
    """One crop's maps with one positive pixel a joint; the depth there is the joint's number / 100."""
    hm, depth = torch.full((1, 16, 64, 64), -1.0), torch.full((1, 16, 64, 64), 9.0)
    for joint, (column, row) in enumerate(peaks):
        hm[0, joint, row, column] = height
        depth[0, joint, row, column] = joint / 100
    return PoseMaps(hm, depth)


def tiny() -> PoseHG3D:
    return fill(PoseHG3D((1, 1, 1, 1), width=4))


def bilinear(frame_HW3: Bytes, matrix_23: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The crop by definition: every pixel looked up where the inverse matrix says, black outside."""
    inverse = np.linalg.inv(np.vstack([matrix_23, [0, 0, 1]]))
    height, width = frame_HW3.shape[:2]
    padded = np.zeros((height + 2, width + 2, 3))
    padded[1:-1, 1:-1] = frame_HW3
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    u = np.clip(inverse[0, 0] * x + inverse[0, 2], -1, width) + 1
    v = np.clip(inverse[1, 1] * y + inverse[1, 2], -1, height) + 1
    left, top = np.minimum(u.astype(int), width), np.minimum(v.astype(int), height)
    a, b = (u - left)[..., None], (v - top)[..., None]
    upper = (1 - a) * padded[top, left] + a * padded[top, left + 1]
    lower = (1 - a) * padded[top + 1, left] + a * padded[top + 1, left + 1]
    return (1 - b) * upper + b * lower


def test_a_frame_of_mars_gets_black_columns_and_keeps_its_pixels() -> None:
    given = frames(2, 256, 128)
    crops = crop(given, *whole_frame(256, 128))
    np.testing.assert_array_equal(crops[:, :, 64:192], given)
    assert not crops[:, :, :64].any()
    assert not crops[:, :, 192:].any()


@pytest.mark.parametrize(("height", "width"), [(90, 40), (317, 200), (120, 300)])
def test_other_frames_are_scaled_bilinearly_to_fit(height: int, width: int) -> None:
    given = frames(1, height, width)
    centre, side = whole_frame(height, width)
    wanted = bilinear(given[0], crop_affine(centre, side, 256, 256), 256)
    found = crop(given, centre, side)[0]
    # OpenCV 5 only rounds; 4.x looks between pixels in steps of 1/32, which is up to 4 grey levels
    assert np.abs(found - wanted).max() <= 4.5
    assert np.abs(found - wanted).mean() < 0.5
    assert (found.max(axis=2) > 0).mean() > 0.3


def test_the_centre_of_the_square_goes_to_the_centre_of_the_crop_and_its_side_to_the_width() -> None:
    matrix = crop_affine((30.0, 70.0), 50.0, 64, 48)
    ends = np.array([[30.0, 70.0, 1], [5.0, 70.0, 1], [55.0, 70.0, 1]]).T
    np.testing.assert_allclose(matrix @ ends, [[32, 0, 64], [24, 24, 24]], atol=1e-12)
    with pytest.raises(ValueError, match="side 0, wanted a positive number"):
        crop_affine((0.0, 0.0), 0, 64, 64)


def test_the_input_is_normalised_in_the_order_of_the_bytes() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    wanted = ((crops / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32).transpose(0, 3, 1, 2)
    found = network_input(crops)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)
    assert MEAN == (0.485, 0.456, 0.406)
    assert STD == (0.229, 0.224, 0.225)


def test_joints_are_read_at_the_first_maximum_with_the_depth_found_there() -> None:
    maps = maps_with_peaks(STANDING)
    maps.hm_NJHW[0, 9, 40, 3] = maps.hm_NJHW[0, 9, 6, 33] = 0.8
    found = decode_maps(maps)
    assert found.peaks_NJ2[0].tolist() == [list(peak) for peak in STANDING]
    torch.testing.assert_close(found.confidence_NJ, torch.full((1, 16), 0.8))
    wanted = torch.tensor([[(x - 32) / 64, (y - 33) / 64, (j - 6) / 100] for j, (x, y) in enumerate(STANDING)])
    torch.testing.assert_close(found.points_NJ3[0], wanted, rtol=0, atol=1e-6)
    assert found.points_NJ3.dtype == torch.float32
    assert found.points_NJ3[0, 6].tolist() == [0, 0, 0]


def test_crops_of_a_batch_are_decoded_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = PoseMaps(*torch.randn(2, 5, 16, 64, 64, generator=generator))
    together = decode_maps(maps)
    for index in range(5):
        alone = decode_maps(PoseMaps(*(part[index : index + 1] for part in maps)))
        assert all(torch.equal(a, b[index : index + 1]) for a, b in zip(alone, together, strict=True))


def test_maps_in_half_precision_are_decoded_in_single() -> None:
    maps = maps_with_peaks(STANDING)
    found = decode_maps(PoseMaps(*(part.bfloat16() for part in maps)))
    assert found.points_NJ3.dtype == torch.float32
    torch.testing.assert_close(found.points_NJ3[..., :2], decode_maps(maps).points_NJ3[..., :2], rtol=0, atol=0)


def test_mirroring_joints_exchanges_left_and_right() -> None:
    names = ("ankle", "knee", "hip", "hip", "knee", "ankle", *range(4), *("wrist", "elbow", "shoulder"))
    names += names[:9:-1]
    assert sorted(MIRRORED_JOINTS) == list(range(16))
    for joint, mirrored in enumerate(MIRRORED_JOINTS):
        assert names[joint] == names[mirrored]
        assert (joint == mirrored) == (joint in (6, 7, 8, 9))
        assert MIRRORED_JOINTS[mirrored] == joint


def test_a_mirrored_crop_gives_the_mirrored_average() -> None:
    model = tiny()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, averaged, of_mirror = model(x), flip_averaged(model, x), flip_averaged(model, x.flip(3))
    for single, mean, mirror in zip(plain, averaged, of_mirror, strict=True):
        assert not torch.allclose(single, mean, atol=1e-3)
        torch.testing.assert_close(mirror.flip(3)[:, MIRRORED_JOINTS], mean)


class Echo(PoseHG3D):
    """Finds a joint where the crop is bright: left ankle at the first channel's pixel, right ankle at the second's."""

    def forward(self, x_N3HW: Tensor) -> PoseMaps:
        hm = x_N3HW.new_zeros(len(x_N3HW), 16, *x_N3HW.shape[2:])
        hm[:, 5], hm[:, 0] = x_N3HW[:, 0], x_N3HW[:, 1]
        return PoseMaps(hm, hm + 1)


def test_flip_averaging_returns_the_mirror_image_to_its_place() -> None:
    x = torch.zeros(1, 3, 64, 64)
    x[0, 0, 10, 3] = x[0, 1, 20, 50] = 1
    maps = flip_averaged(Echo((1, 1, 1, 1), 4), x)
    hm = torch.zeros(16, 64, 64)
    hm[[5, 0], 10, 3] = hm[[0, 5], 20, 50] = 0.5
    torch.testing.assert_close(maps.hm_NJHW[0], hm)
    torch.testing.assert_close(maps.depth_NJHW[0], hm + 1)


def decoded(confidence: float = 0.8) -> Decoded:
    return decode_maps(maps_with_peaks(STANDING, confidence))


def test_the_fourteen_joints_are_where_their_names_say() -> None:
    out = joints_of(decoded())[0]
    height = dict(zip(JOINTS, out[:, 1], strict=True))
    assert height["head"] < height["neck"] < height["right shoulder"] < height["right elbow"] < height["right wrist"]
    for side in ("right", "left"):
        assert height[f"{side} hip"] < height[f"{side} knee"] < height[f"{side} ankle"]
    for joint, x in zip(JOINTS, out[:, 0], strict=True):
        assert np.sign(x) == {"right": -1, "left": 1}.get(joint.split()[0], 0)
    np.testing.assert_array_equal(out[:, 3], np.float32(0.8))


@pytest.mark.parametrize(("peak", "confidence"), [(0.25, 0.25), (1.0, 1.0), (1.7, 1.0)])
def test_confidence_is_the_peak_up_to_one(peak: float, confidence: float) -> None:
    assert (joints_of(decoded(peak))[..., 3] == np.float32(confidence)).all()


@pytest.mark.parametrize("peak", [0.0, -0.3, np.nan])
def test_a_joint_without_a_positive_peak_is_nan_and_no_other(peak: float) -> None:
    found = decoded()
    found.confidence_NJ[0, 11] = peak
    out = joints_of(found)[0]
    assert np.isnan(out[JOINTS.index("right elbow")]).all()
    assert np.isfinite(np.delete(out, JOINTS.index("right elbow"), axis=0)).all()


def test_without_a_pelvis_there_is_no_skeleton_in_that_frame() -> None:
    both = Decoded(*(part.repeat(2, *[1] * (part.ndim - 1)) for part in decoded()))
    both.confidence_NJ[1, 6] = 0
    out = joints_of(both)
    assert np.isfinite(out[0]).all()
    assert np.isnan(out[1]).all()


def test_skeletons_are_ready_for_their_normalisation() -> None:
    out = normalise(joints_of(decoded()))
    bones = [np.linalg.norm(out[0, a, :3] - out[0, b, :3]) for a, b in EDGES]
    assert sum(bones) == pytest.approx(EDGE_TOTAL)


@pytest.mark.parametrize("flip", [False, True])
def test_frames_become_skeletons_by_the_steps_one_after_the_other(flip: bool) -> None:
    model, given = tiny(), frames(3, 96, 48)
    with torch.no_grad():
        model.hm.bias += 5  # so that every joint is found
        x = torch.from_numpy(network_input(crop(given, (24.0, 48.0), 96.0)))
        wanted = joints_of(decode_maps(flip_averaged(model, x) if flip else model(x)))
    found = estimate_skeletons(given, model, flip=flip)
    assert found.shape == (3, 14, 4)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, wanted)


def test_the_models_number_format_is_used() -> None:
    model, given = tiny().double(), frames(2, 64, 64)
    found = estimate_skeletons(given, model)
    single = estimate_skeletons(given, model.float())
    np.testing.assert_allclose(found, single, atol=1e-4)


def test_views_are_frames_too_and_none_is_no_skeleton() -> None:
    model, given = tiny(), frames(2, 64, 32)
    np.testing.assert_array_equal(
        estimate_skeletons(given[..., ::-1], model), estimate_skeletons(given[..., ::-1].copy(), model)
    )
    assert estimate_skeletons(given[:0], model).shape == (0, 14, 4)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (np.zeros((64, 32, 3), np.uint8), r"uint8 \(64, 32, 3\)"),
        (np.zeros((1, 64, 32), np.uint8), r"uint8 \(1, 64, 32\)"),
        (np.zeros((1, 64, 32, 3), np.float32), r"float32 \(1, 64, 32, 3\)"),
    ],
)
def test_other_arrays_are_refused(wrong: Bytes, found: str) -> None:
    with pytest.raises(ValueError, match=f"frames are {found}, wanted uint8"):
        estimate_skeletons(wrong, tiny())


def test_half_precision_finds_the_same_joints() -> None:
    model, x_N3SS = tiny(), torch.from_numpy(network_input(frames(2, 256, 256)))
    with torch.inference_mode():
        wanted = model(x_N3SS)
        found = halved(model, torch.float16)(x_N3SS.half())
    for maps, exact in zip(found, wanted, strict=True):
        assert maps.dtype == torch.float16
        assert float((maps - exact).abs().max() / exact.abs().max()) <= 0.01


def test_maps_that_are_no_numbers_are_refused_instead_of_joints_left_out() -> None:
    model = tiny()
    torch.nn.init.constant_(model.depth.bias, torch.inf)
    with pytest.raises(ValueError, match=r"pose maps are not finite, .* where --precision float16 is too narrow"):
        estimate_skeletons(frames(1, 64, 32), model)


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training mode, wanted model\.eval"):
        estimate_skeletons(frames(1, 64, 32), tiny().train())


@needs_shared
def test_decoding_gives_the_numbers_of_the_original_code() -> None:
    given = oracle("posehg3d_decode.npz")
    found = decode_maps(PoseMaps(torch.from_numpy(given["hm"]), torch.from_numpy(given["depth"])))
    np.testing.assert_array_equal(found.confidence_NJ[..., None].numpy(), given["conf"])
    np.testing.assert_array_equal(found.points_NJ3.numpy(), given["preds_3d"])
    there = given["conf"][..., 0] > 0  # one map is 0 everywhere, and has no peak to be at
    np.testing.assert_array_equal(found.peaks_NJ2.numpy()[there], given["pos_xy"][there])


@needs_shared
@pytest.mark.parametrize("case", [0, 1, 2])
def test_crops_are_those_of_the_original_code(case: int) -> None:
    arrays = oracle("posehg3d_decode.npz")
    given = {name: arrays[f"affine{case}/{name}"] for name in ("center", "scale", "size", "fwd", "inv")}
    x, y = given["center"].tolist()
    width, height = given["size"].tolist()
    matrix = crop_affine((x, y), float(given["scale"].flat[0]), width, height)
    np.testing.assert_allclose(matrix, given["fwd"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(cv2.invertAffineTransform(matrix), given["inv"], rtol=0, atol=1e-12)
