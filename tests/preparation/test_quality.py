"""Every measure sees the defect it is for, planted into generated walkers, and no other.

Shapes: F frames, V = 14 joints, 4 = x, y, z, confidence.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sptskm.cli import main
from sptskm.common.console import table as text_table
from sptskm.data import Tracklets, read_dataset, read_mars
from sptskm.data.files import read_mask, read_skeleton
from sptskm.data.skeletons import EDGES, JOINTS, normalise
from sptskm.preparation.formats import write_mask, write_skeleton
from sptskm.preparation.quality import (
    MEASURES,
    SUMMARY,
    SWAPPED,
    Measure,
    Quality,
    flips,
    heights,
    measure,
    quality_summary,
    skeleton_values,
    worst,
)

Floats = NDArray[np.float64]
FRAME = 4
SKELETON_MEASURES = {
    "partial skeleton",
    "flat",
    "upside down",
    "still",
    "no skeleton",
    "flipped",
    "total length",
    "bone length",
}


@pytest.fixture(scope="module")
def clean(walkers: Path) -> list[Quality]:
    """The measures of every tracklet as it was generated."""
    table = read_mars(walkers)
    return measure(table, range(len(table)))


@pytest.fixture
def copied(walkers: Path, tmp_path: Path) -> Tracklets:
    """The table of a copy that may be changed."""
    root = tmp_path / "copy"
    shutil.copytree(walkers, root)
    return read_mars(root)


def whole_row(clean: list[Quality]) -> int:
    """A training tracklet in which every skeleton was found."""
    return next(quality.row for quality in clean if quality.maximum("no skeleton") == 0)


def skeletons_of(table: Tracklets, row: int) -> Floats:
    frames = range(int(table.lengths[row]))
    return np.stack([read_skeleton(table.path(row, frame, "skeletons")) for frame in frames]).astype(np.float64)


def changed(before: Quality, after: Quality, tolerance: float = 1e-6) -> set[Measure]:
    """The measures of which any frame's value is another one."""
    assert list(before.values) == list(after.values) == list(MEASURES)
    return {
        name
        for name in MEASURES
        if not np.allclose(before.values[name], after.values[name], atol=tolerance, equal_nan=True)
    }


def without_skeleton(table: Tracklets, row: int) -> None:
    table.path(row, FRAME, "skeletons").unlink()


def nan_skeleton(table: Tracklets, row: int) -> None:
    skeleton = read_skeleton(table.path(row, FRAME, "skeletons"))
    skeleton[4:12, 1] = np.nan
    write_skeleton(table.path(row, FRAME, "skeletons"), skeleton)


def zero_skeleton(table: Tracklets, row: int) -> None:
    write_skeleton(table.path(row, FRAME, "skeletons"), np.zeros((14, 4)))


def broken_skeleton(table: Tracklets, row: int) -> None:
    table.path(row, FRAME, "skeletons").write_bytes(b"x" * 300)


@pytest.mark.parametrize("plant", [without_skeleton, nan_skeleton, zero_skeleton, broken_skeleton])
def test_frames_without_a_skeleton_are_seen(
    clean: list[Quality], copied: Tracklets, plant: Callable[[Tracklets, int], None]
) -> None:
    row = whole_row(clean)
    plant(copied, row)
    (after,) = measure(copied, [row])
    assert after.values["no skeleton"].tolist() == [frame == FRAME for frame in range(copied.lengths[row])]
    assert after.mean("no skeleton") == pytest.approx(1 / copied.lengths[row])
    for name in ("flipped", "total length", "bone length", "height"):
        assert np.isnan(after.values[name][FRAME]), "it cannot be measured there"
    assert after.maximum("flipped") == 0
    masks = {"no mask", "empty mask", "full mask", "mask size"}
    assert not masks & changed(clean[row], after)


def test_a_joint_that_is_missing_makes_a_partial_skeleton_that_is_measured(
    clean: list[Quality], copied: Tracklets
) -> None:
    row = whole_row(clean)
    path = copied.path(row, FRAME, "skeletons")
    skeleton = read_skeleton(path)
    skeleton[4] = 0
    write_skeleton(path, skeleton)
    (after,) = measure(copied, [row])
    assert np.flatnonzero(after.values["partial skeleton"]).tolist() == [FRAME]
    assert after.maximum("no skeleton") == 0
    assert not np.isnan(after.values["total length"][FRAME])


def test_flat_and_upside_down_skeletons_and_tracklets_that_stand_still_are_seen(
    clean: list[Quality], copied: Tracklets
) -> None:
    row = whole_row(clean)
    paths = [copied.path(row, frame, "skeletons") for frame in range(copied.lengths[row])]
    skeleton = read_skeleton(paths[0])
    skeleton[:, 1] *= -1
    skeleton[:, 2] = 0
    for path in paths:
        write_skeleton(path, skeleton)
    (after,) = measure(copied, [row])
    for name in ("flat", "upside down", "still"):
        assert clean[row].maximum(name) == 0  # type: ignore[arg-type]
        assert after.mean(name) == 1  # type: ignore[arg-type]


def test_frames_with_exchanged_sides_are_seen_and_nothing_else_is(clean: list[Quality], copied: Tracklets) -> None:
    row = whole_row(clean)
    for frame in (FRAME, FRAME + 1):
        path = copied.path(row, frame, "skeletons")
        write_skeleton(path, read_skeleton(path)[SWAPPED])
    (after,) = measure(copied, [row])
    assert np.flatnonzero(after.values["flipped"]).tolist() == [FRAME, FRAME + 1]
    # left and right bones of one person are not quite equal
    assert changed(clean[row], after) == {"flipped", "bone length"}


def test_no_generated_walker_is_flipped_and_every_planted_flip_is_found(clean: list[Quality], walkers: Path) -> None:
    table = read_mars(walkers)
    assert all(not quality.maximum("flipped") > 0 for quality in clean)
    rng, seen = np.random.default_rng(0), 0
    for quality in clean:
        found = np.flatnonzero(quality.values["no skeleton"] == 0)
        if len(found) < 7:
            continue
        skeletons, start = skeletons_of(table, quality.row), int(rng.integers(len(found) - 3))
        chosen = found[start : start + 3]
        skeletons[chosen] = skeletons[chosen][:, SWAPPED]
        np.testing.assert_array_equal(np.flatnonzero(flips(skeletons) > 0), chosen, err_msg=quality.key)
        seen += 1
    assert seen > 40


def test_a_person_who_changes_in_size_is_seen_by_lengths_and_height_alone(
    clean: list[Quality], copied: Tracklets
) -> None:
    row, before = whole_row(clean), clean[whole_row(clean)]
    path = copied.path(row, FRAME, "skeletons")
    skeleton = read_skeleton(path)
    write_skeleton(path, np.concatenate([skeleton[:, :3] * 1.5, skeleton[:, 3:]], axis=1))
    (after,) = measure(copied, [row])
    assert changed(before, after) == {"total length", "bone length", "height"}
    assert set(np.argsort(after.values["total length"][1:])[-2:] + 1) == {FRAME, FRAME + 1}
    assert after.maximum("total length") == pytest.approx(0.5, abs=0.1)
    assert before.maximum("total length") < 0.3
    assert np.nanargmax(after.values["height"]) == FRAME


def test_one_bone_that_grows_is_seen_by_that_measure_most(clean: list[Quality], copied: Tracklets) -> None:
    row = whole_row(clean)
    path = copied.path(row, FRAME, "skeletons")
    skeleton = read_skeleton(path)
    wrist, elbow = JOINTS.index("left wrist"), JOINTS.index("left elbow")
    skeleton[wrist, :3] += 4 * (skeleton[wrist, :3] - skeleton[elbow, :3])
    write_skeleton(path, skeleton)
    (after,) = measure(copied, [row])
    assert after.maximum("bone length") > 3 > clean[row].maximum("bone length")
    assert after.maximum("flipped") == after.maximum("no skeleton") == 0


def test_masks_that_are_missing_broken_empty_or_full_are_seen_each_by_its_measure(
    clean: list[Quality], copied: Tracklets
) -> None:
    rows = [quality.row for quality in clean if quality.maximum("no skeleton") == 0][:4]
    mask = read_mask(copied.path(rows[0], FRAME, "masks"))
    copied.path(rows[0], FRAME, "masks").unlink()
    copied.path(rows[1], FRAME, "masks").write_bytes(b"x")
    write_mask(copied.path(rows[2], FRAME, "masks"), np.zeros_like(mask))
    write_mask(copied.path(rows[3], FRAME, "masks"), np.full_like(mask, 255))
    for name, after in zip(("no mask", "no mask", "empty mask", "full mask"), measure(copied, rows), strict=True):
        marks = {other: np.flatnonzero(after.values[other] == 1).tolist() for other in MEASURES if "mask" in other}
        assert marks == {other: [FRAME] if other == name else [] for other in marks}
        assert not SKELETON_MEASURES & changed(clean[after.row], after)


@pytest.mark.parametrize(
    ("share", "wanted"),
    [(0.005, "empty mask"), (0.015, None), (0.9, None), (0.97, "full mask")],
)
def test_masks_are_empty_below_one_percent_and_full_above_95(
    clean: list[Quality], copied: Tracklets, share: float, wanted: str | None
) -> None:
    row = whole_row(clean)
    mask = np.zeros(read_mask(copied.path(row, FRAME, "masks")).shape, np.uint8)
    mask.ravel()[: int(share * mask.size)] = 255
    write_mask(copied.path(row, FRAME, "masks"), mask)
    (after,) = measure(copied, [row], ["masks"])
    assert {name for name in after.values if after.maximum(name) > 0} == ({wanted} if wanted else set())


def test_a_mask_of_another_size_is_seen_and_nothing_else_is(clean: list[Quality], copied: Tracklets) -> None:
    row = whole_row(clean)
    path = copied.path(row, FRAME, "masks")
    write_mask(path, np.kron(read_mask(path), np.ones((2, 2), np.uint8)))
    (after,) = measure(copied, [row])
    assert changed(clean[row], after) == {"mask size"}
    assert np.flatnonzero(after.values["mask size"]).tolist() == [FRAME]


def test_a_mask_that_is_cut_off_is_seen_by_the_height_alone(clean: list[Quality], copied: Tracklets) -> None:
    row = whole_row(clean)
    path = copied.path(row, FRAME, "masks")
    mask = read_mask(path)
    mask[len(mask) // 2 :] = 0
    write_mask(path, mask)
    (after,) = measure(copied, [row])
    assert changed(clean[row], after, tolerance=0.05) == {"height"}
    assert np.nanargmax(after.values["height"]) == FRAME
    assert after.maximum("height") > 0.4


def test_generated_people_have_masks_of_the_right_size(clean: list[Quality]) -> None:
    for name in ("no mask", "full mask", "mask size"):
        assert {quality.maximum(name) for quality in clean} == {0}  # type: ignore[arg-type]
    empty = {quality.key[:4] for quality in clean if quality.maximum("empty mask") > 0}
    assert empty <= {"00-1"}, "junk shows nobody"


def test_what_is_measured_depends_on_the_modalities(walkers: Path) -> None:
    table = read_mars(walkers)
    for modalities, wanted in (
        (["skeletons"], SKELETON_MEASURES),
        (["frames", "skeletons"], SKELETON_MEASURES),
        (["masks"], {"no mask", "empty mask", "full mask"}),
        (["frames", "masks"], {"no mask", "empty mask", "full mask", "mask size"}),
        (["masks", "skeletons"], set(MEASURES) - {"mask size"}),
    ):
        (quality,) = measure(table, [0], modalities)  # type: ignore[arg-type]
        assert set(quality.values) == wanted
        assert {len(values) for values in quality.values.values()} == {table.lengths[0]}
    assert np.isnan(measure(table, [0], ["masks"])[0].mean("height"))
    for modalities, found in ((["frames"], "frames"), ([], "none")):
        with pytest.raises(ValueError, match=f"modalities are {found}, wanted masks or skeletons among them"):
            measure(table, [0], modalities)  # type: ignore[arg-type]


def test_progress_goes_along_with_the_tracklets(walkers: Path) -> None:
    seen: list[int] = []

    def watched(rows: Iterable[int]) -> Iterator[int]:
        for row in rows:
            yield row
            seen.append(row)

    found = measure(read_mars(walkers), [3, 1], ["skeletons"], watched)
    assert [quality.row for quality in found] == seen == [3, 1]
    assert [quality.key for quality in found] == read_mars(walkers).keys_N[[3, 1]].tolist()


def walk(frames: int = 9) -> Floats:
    """A rigid person who strides a little, off the origin, in pixels."""
    person = np.array(
        [
            *([0, -0.9, 0], [0, -0.6, 0]),
            *([-0.2, -0.55, 0], [-0.25, -0.3, 0], [-0.25, -0.1, -0.1]),
            *([0.2, -0.55, 0], [0.25, -0.3, 0], [0.25, -0.1, -0.1]),
            *([-0.1, 0, 0], [-0.1, 0.4, -0.1], [-0.1, 0.8, 0]),
            *([0.1, 0, 0], [0.1, 0.4, 0.1], [0.1, 0.8, 0.2]),
        ]
    )
    points = np.stack([100 * person + [50 + 3 * frame, 40, 7 * frame] for frame in range(frames)])
    return np.concatenate([points, np.ones((frames, 14, 1))], axis=2)


def test_a_rigid_person_is_perfect_wherever_it_stands_and_in_whatever_units() -> None:
    for skeletons in (walk(), normalise(walk())):
        for name, values in skeleton_values(skeletons).items():
            np.testing.assert_allclose(values[1:], 0, atol=1e-12, err_msg=name)
            assert np.isnan(values[0]) == name.endswith("length"), "there is no frame before the first"


def test_lengths_are_compared_across_a_gap() -> None:
    skeletons = walk()
    skeletons[5:, :, :3] *= 1.2
    skeletons[3:5] = np.nan
    values = skeleton_values(skeletons)
    assert np.isnan(values["total length"][[0, 3, 4]]).all()
    assert values["total length"][5] == pytest.approx(0.2 / 1.2)  # in units of the median, which is large
    np.testing.assert_allclose(values["total length"][[1, 2, 6, 7, 8]], 0, atol=1e-12)


def test_a_bone_without_length_is_no_reason_to_fail() -> None:
    skeletons = walk()
    skeletons[:, 0, :3] = skeletons[:, 1, :3]
    skeletons[4, 0, 1] -= 10
    assert np.isfinite(skeleton_values(skeletons)["bone length"][1:]).all()


def test_the_fewer_are_the_exchanged_ones_and_two_frames_are_too_few() -> None:
    skeletons = walk(7)
    skeletons[2:] = skeletons[2:, SWAPPED]
    assert flips(skeletons).tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert np.isnan(flips(skeletons[1:3])).all()
    skeletons[0] = np.nan
    assert np.array_equal(flips(skeletons), [np.nan, 1, 0, 0, 0, 0, 0], equal_nan=True)


def test_one_broken_frame_hardly_ever_turns_the_frames_behind_it(clean: list[Quality], walkers: Path) -> None:
    table, rng, turned = read_mars(walkers), np.random.default_rng(1), 0
    whole = [quality.row for quality in clean if quality.maximum("no skeleton") == 0]
    for row in whole * 3:
        skeletons = skeletons_of(table, row)
        broken = int(rng.integers(2, len(skeletons) - 2))
        skeletons[broken, :, :3] += rng.normal(0, 0.25, (14, 3))
        turned += np.delete(flips(skeletons), broken).any()
    assert len(whole) > 30
    assert turned <= 2, "one frame before, instead of two, would turn every fifteenth"


def test_exchanging_sides_exchanges_left_and_right_alone() -> None:
    assert [JOINTS[joint] for joint in SWAPPED[:3]] == ["head", "neck", "left shoulder"]
    assert np.array(SWAPPED)[SWAPPED].tolist() == list(range(14))
    mirrored = {frozenset((SWAPPED[a], SWAPPED[b])) for a, b in EDGES}
    assert mirrored == {frozenset(edge) for edge in EDGES}


def test_heights_are_told_against_the_tracklet_s_own_ratio() -> None:
    rows = np.full(9, 0.8)
    np.testing.assert_allclose(heights(walk(), rows), 0, atol=1e-12)
    rows[2], rows[3] = 0.4, np.nan
    found = heights(walk(), rows)
    assert found[2] == pytest.approx(np.log(2))
    assert np.isnan(found[3])
    assert np.isnan(heights(walk(), np.full(9, np.nan))).all()


def quality(row: int, **values: list[float]) -> Quality:
    """A tracklet with made-up values, by measures with _ for the space."""
    arrays = {name.replace("_", " "): np.array(numbers) for name, numbers in values.items()}
    return Quality(row, f"tracklet {row}", arrays)  # type: ignore[arg-type]


MADE_UP = [
    quality(3, flipped=[0, 1, 1], height=[0.1, np.nan, 0.3]),
    quality(5, flipped=[0, 0, 0], height=[np.nan, np.nan, np.nan]),
    quality(8, flipped=[0, 0, 1], height=[0.2, 0.9, 0.4]),
]


def test_the_summary_pools_frames_and_names_the_worst_tracklet() -> None:
    assert quality_summary(MADE_UP) == [
        ("flipped", "9", "33.3 %", "0.0 %", "100.0 %", "tracklet 3 (66.7%)"),
        ("height", "5", "38.0 %", "30.0 %", "90.0 %", "tracklet 8 (50.0%)"),
    ]
    assert quality_summary(MADE_UP[1:2]) == [
        ("flipped", "3", "0.0 %", "0.0 %", "0.0 %", "-"),
        ("height", "0", "-", "-", "-", "-"),
    ]
    assert quality_summary([]) == []


def test_the_summary_makes_a_table(clean: list[Quality]) -> None:
    lines = text_table(SUMMARY, quality_summary(clean)).splitlines()
    assert [line.split("  ")[0].strip() for line in lines[2:]] == list(MEASURES)
    assert len({len(line) for line in lines}) == 1


def test_the_worst_frames_come_one_from_a_tracklet_and_the_worst_first() -> None:
    assert worst(MADE_UP) == {"flipped": [(3, 1, 1.0), (8, 2, 1.0)], "height": [(8, 1, 0.9), (3, 2, 0.3)]}
    assert worst(MADE_UP, count=1) == {"flipped": [(3, 1, 1.0)], "height": [(8, 1, 0.9)]}
    assert worst(MADE_UP[1:2]) == {}


def test_a_manifest_without_tracklets_of_no_use_is_written_and_says_how_much_that_was(
    walkers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, lines = read_mars(walkers), ["tracklet,pid,camera,split,frames"]
    for row in range(3):
        for modality, ending in (("frames", ""), ("masks", "_mask"), ("skeletons", "_joint3d")):
            (tmp_path / f"t{row}{ending}").mkdir()
            for file in table.files(row, range(4), modality):
                shutil.copy(Path(str(file)), tmp_path / f"t{row}{ending}")
        lines.append(f"t{row},p{row},c1,train,t{row}")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    for number, path in enumerate(sorted((tmp_path / "t1_mask").iterdir())):
        if number < 3:
            write_mask(path, np.zeros_like(read_mask(path)))
    next((tmp_path / "t2_joint3d").iterdir()).unlink()
    words = ["check", str(tmp_path / "m.csv"), "--quality", "--out", str(tmp_path / "q")]
    assert main([*words, "--drop-bad", str(tmp_path / "good.csv")]) == 0
    said = capsys.readouterr().out
    assert (
        "good.csv: 2 of 3 tracklets; 1 with 4 frames left out, as less than 50% of their frames are of use: t1" in said
    )
    assert [str(key) for key in read_dataset(tmp_path / "good.csv").keys_N] == ["t0", "t2"]
    for wrong in (tmp_path / "m.csv", tmp_path / "q" / "good.csv", tmp_path / "good.txt"):
        assert main([*words, "--drop-bad", str(wrong)]) == 2
    assert main(["check", str(tmp_path / "m.csv"), "--drop-bad", str(tmp_path / "good.csv")]) == 2


def test_skeletons_without_frames_are_not_bad_for_want_of_masks(
    walkers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, lines = read_mars(walkers), ["tracklet,pid,camera,split,skeleton"]
    for row in range(3):
        np.save(
            tmp_path / f"{row}.npy", np.stack([read_skeleton(path) for path in table.files(row, range(8), "skeletons")])
        )
        lines.append(f"{row},{row},a,train,{row}.npy")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    assert main(["check", str(tmp_path / "m.csv"), "--quality", "--drop-bad", str(tmp_path / "good.csv")]) == 0
    told = capsys.readouterr().out
    assert "good.csv: 3 of 3 tracklets" in told
    assert "mask" not in told
