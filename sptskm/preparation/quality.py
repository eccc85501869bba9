"""Measure the quality of masks and skeletons per frame, to find the bad frames of a data set.

The measures depend on what the files contain. Stored skeletons are centred at the hips and usually normalised: scaled
and turned about the vertical axis, by one factor and one angle per tracklet. Bone lengths and heights, as they change
within a tracklet, are therefore comparable; the place of a joint in the frame is unknown. Fitting scale and place of
every skeleton to its mask would hide the errors that matter. So only the height of a skeleton is compared with its
mask.
Legend: F frames, N frames of any kind, H rows, W columns, V = 14 joints, E = 13 bones, K points,
4 = x, y, z, confidence.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import ConfigError
from sptskm.data import Tracklets
from sptskm.data.files import read_frame, read_mask, read_or_none, read_skeletons
from sptskm.data.skeletons import EDGES, JOINTS
from sptskm.data.tracklets import Modality
from sptskm.data.usable import EMPTY, FULL, ways_down

Floats = NDArray[np.float64]
Measure = Literal[
    "no skeleton",
    "partial skeleton",
    "flat",
    "upside down",
    "still",
    "flipped",
    "total length",
    "bone length",
    "no mask",
    "empty mask",
    "full mask",
    "mask size",
    "height",
]
"""no skeleton: 1 where the file is missing or unreadable, or too few joints are left, see `sptskm.data.usable`.
partial skeleton: 1 where joints are missing, which are then masked. flat: 1 where all joints have the same depth, as
key points of pictures have. upside down: 1 where head and neck lie below knees and ankles (y is down).
still: 1 where no joint has moved against the hips since the valid frame before, as where a tracker was frozen.
flipped: 1 where left and right are exchanged, see `flips`; a tracklet flipped throughout is not seen.
total length: change of the sum of all bones since the valid frame before, relative to the tracklet's median.
bone length: the same for the single bone that changes most, relative to its own median.
no mask: 1 where the file is missing or unreadable. empty mask: 1 where less than 1 % is person, full mask: more
than 95 %. mask size: 1 where it is not the frame's.
height: |log| of the rows that the mask covers over the skeleton's height, against the tracklet's median of that: 0.1
is 10 % too tall or too short. Occlusion and bowing move it as well, so it only points at frames to look at.
A measure is NaN in a frame where it cannot be computed."""
MEASURES: tuple[Measure, ...] = get_args(Measure)

STILL = 1e-4
BEFORE = 2  # earlier frames that decide about the sides of a frame
_HIPS = [JOINTS.index("right hip"), JOINTS.index("left hip")]
_OTHER = {"left": "right", "right": "left"}
SWAPPED = [JOINTS.index(" ".join(_OTHER.get(word, word) for word in name.split())) for name in JOINTS]
"""Index of the opposite joint for each of the 14."""


@dataclass(frozen=True, eq=False)
class Quality:
    """Measures of one tracklet."""

    row: int
    key: str
    values: Mapping[Measure, Floats]
    """A value (F,) per frame for each measure taken; 0 is good."""

    def mean(self, measure: Measure) -> float:
        """Return the mean over the measured frames (for a measure of 0 and 1 their share), NaN without any."""
        return _over(np.mean, self.values.get(measure))

    def median(self, measure: Measure) -> float:
        """Return the median over the measured frames, NaN without any."""
        return _over(np.median, self.values.get(measure))

    def maximum(self, measure: Measure) -> float:
        """Return the value of the worst measured frame, NaN without any."""
        return _over(np.max, self.values.get(measure))


UNUSABLE: tuple[Measure, ...] = (
    *("no skeleton", "flat", "upside down", "still"),
    *("no mask", "empty mask", "full mask", "mask size"),
)
"""Measures of 0 and 1 that make a frame unusable for one of the streams."""
USABLE_SHARE = 0.5
"""Share of usable frames that a tracklet needs to be kept."""


def bad_frames(quality: Quality) -> int:
    """Count the frames of a tracklet that are bad by any measure of UNUSABLE."""
    flags = [np.nan_to_num(quality.values[name]) > 0 for name in UNUSABLE if name in quality.values]
    return int(np.any(flags, axis=0).sum()) if flags else 0


def is_bad(quality: Quality) -> bool:
    """Return whether less than USABLE_SHARE of a tracklet's frames are usable."""
    frames = max((len(values) for values in quality.values.values()), default=0)
    return frames - bad_frames(quality) < USABLE_SHARE * frames


class Worst(NamedTuple):
    """A frame (0-based) of a tracklet (a row of the table), and its value by some measure."""

    row: int
    frame: int
    value: float


def measure(
    table: Tracklets,
    rows: Iterable[int],
    modalities: Collection[Modality] = ("frames", "masks", "skeletons"),
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[Quality]:
    """Compute every measure that `modalities` allow for the tracklets in `rows`; `progress` may wrap the iteration.

    `mask size` needs frames and masks, `height` masks and skeletons; frames alone give nothing. Missing or unreadable
    files are measured as such and raise nothing (`sptskm.data.check` tells why). Raises ValueError without masks and
    skeletons.
    """
    if not {"masks", "skeletons"} & set(modalities):
        raise ConfigError(f"modalities are {', '.join(modalities) or 'none'}, wanted masks or skeletons among them")
    return [_measured(table, int(row), set(modalities)) for row in progress(rows)]


SUMMARY = ("measure", "frames", "mean", "median", "maximum", "worst tracklet")
"""Header of `quality_summary`'s rows."""


def quality_summary(qualities: Sequence[Quality]) -> list[tuple[str, ...]]:
    """Return a row of text for each measure taken, for a table with the header `SUMMARY`; values in percent.

    For measures of 0 and 1 the mean is the share of frames with 1. The worst tracklet has the highest mean.
    """
    taken = [measure for measure in MEASURES if any(measure in quality.values for quality in qualities)]
    return [_summed(measure, qualities) for measure in taken]


def _summed(measure: Measure, qualities: Sequence[Quality]) -> tuple[str, ...]:
    pooled = np.concatenate([quality.values.get(measure, np.array([])) for quality in qualities])
    means = [(quality.mean(measure), quality.key) for quality in qualities]
    mean, key = max(((mean, key) for mean, key in means if mean > 0), default=(0.0, "-"), key=lambda pair: pair[0])
    numbers = [_over(reduce, pooled) for reduce in (np.mean, np.median, np.max)]
    told = ["-" if np.isnan(number) else f"{100 * number:.1f} %" for number in numbers]
    return measure, str(np.count_nonzero(~np.isnan(pooled))), *told, f"{key} ({mean:.1%})" if mean else key


def worst(qualities: Sequence[Quality], count: int = 6) -> dict[Measure, list[Worst]]:
    """Return the worst frames for each measure with a value above 0, worst first; ties in the order of the table.

    Each tracklet gives at most one frame, so that one bad tracklet does not hide the others.
    """
    found = {measure: _worst(measure, qualities)[:count] for measure in MEASURES}
    return {measure: frames for measure, frames in found.items() if frames}


def _worst(measure: Measure, qualities: Iterable[Quality]) -> list[Worst]:
    frames = []
    for quality in qualities:
        if (value := quality.maximum(measure)) > 0:
            frames.append(Worst(quality.row, int(np.nanargmax(quality.values[measure])), value))
    return sorted(frames, key=lambda frame: (-frame.value, frame.row))


def _measured(table: Tracklets, row: int, modalities: set[Modality]) -> Quality:
    values: dict[Measure, Floats] = {}
    frames, rows_F = range(int(table.lengths[row])), None
    if "masks" in modalities:
        masks = [_Mask.read(table, row, frame, "frames" in modalities) for frame in frames]
        rows_F = np.array([mask.rows for mask in masks])
        values |= _mask_values(masks, "frames" in modalities)
    if "skeletons" in modalities:
        skeletons_FV4 = read_skeletons(table, row, frames, strict=False).astype(np.float64)
        values |= skeleton_values(skeletons_FV4)
        values |= _shape_values(skeletons_FV4)
        if rows_F is not None:
            values["height"] = heights(skeletons_FV4, rows_F)
    return Quality(row, str(table.keys_N[row]), {name: values[name] for name in MEASURES if name in values})


class _Mask(NamedTuple):
    """Facts kept of a mask, as whole masks of long tracklets would need too much memory. NaN without a mask."""

    share: float
    rows: float
    """Rows from the uppermost to the lowest pixel of the person, as a share of the height."""
    other_size: float

    @classmethod
    def read(cls, table: Tracklets, row: int, frame: int, compare: bool) -> "_Mask":
        mask_HW = read_or_none(read_mask, *table.files(row, [frame], "masks"))
        if mask_HW is None:
            return cls(np.nan, np.nan, np.nan)
        image = read_or_none(read_frame, *table.files(row, [frame], "frames")) if compare else None
        other = np.nan if image is None else float(image.shape[:2] != mask_HW.shape)
        filled = np.flatnonzero(mask_HW.any(axis=1))
        rows = (filled[-1] + 1 - filled[0]) / len(mask_HW) if len(filled) else np.nan
        return cls(float((mask_HW > 0).mean()), float(rows), other)


def _mask_values(masks: Sequence[_Mask], compared: bool) -> dict[Measure, Floats]:
    share_F, _, other_F = np.array(masks, np.float64).T
    values: dict[Measure, Floats] = {
        "no mask": np.isnan(share_F).astype(float),
        "empty mask": np.where(np.isnan(share_F), np.nan, share_F < EMPTY),
        "full mask": np.where(np.isnan(share_F), np.nan, share_F > FULL),
    }
    return values | {"mask size": other_F} if compared else values


def skeleton_values(skeletons_FV4: Floats) -> dict[Measure, Floats]:
    """Compute the measures of one tracklet's skeletons (F, 14, 4); a frame with a NaN has no skeleton.

    Units and normalisation do not matter, but the scale must be the same for all frames.
    """
    missing_F = np.isnan(skeletons_FV4).any(axis=(1, 2))
    points_FV3 = _rooted(skeletons_FV4)
    ends = np.array(EDGES)
    bones_FE = np.linalg.norm(points_FV3[:, ends[:, 0]] - points_FV3[:, ends[:, 1]], axis=2)
    return {
        "no skeleton": missing_F.astype(float),
        "flipped": flips(skeletons_FV4),
        "total length": _jumps(bones_FE.sum(axis=1, keepdims=True)),
        "bone length": _jumps(bones_FE),
    }


def flips(skeletons_FV4: Floats) -> Floats:
    """Return 1 in frames (F,) whose left and right are exchanged against most of the tracklet, 0 in others.

    Each frame is oriented so that its 14 joints, relative to the middle of the hips, are nearer to the two valid frames
    before it in their own orientation (sum of distances). The minority orientation is the exchanged one. With two
    frames, one broken frame seldom turns the following ones. The result is unreliable where the person moves farther
    between frames than hips and shoulders are wide, or turns by half. NaN without a skeleton, and for all frames if
    there are fewer than three.
    """
    found_F = np.full(len(skeletons_FV4), np.nan)
    points_FV3 = _rooted(skeletons_FV4)
    valid = np.flatnonzero(~np.isnan(points_FV3).any(axis=(1, 2)))
    if len(valid) < 3:
        return found_F
    turned_NV3 = points_FV3[valid]
    exchanged_N = np.zeros(len(valid))
    for i, points_V3 in enumerate(turned_NV3.copy()):
        before = turned_NV3[max(0, i - BEFORE) : i]
        far, far_exchanged = (np.linalg.norm(p - before, axis=2).sum() for p in (points_V3, points_V3[SWAPPED]))
        if far_exchanged < far:
            exchanged_N[i], turned_NV3[i] = 1, points_V3[SWAPPED]
    found_F[valid] = exchanged_N if exchanged_N.mean() <= 0.5 else 1 - exchanged_N
    return found_F


def heights(skeletons_FV4: Floats, rows_F: Floats) -> Floats:
    """Compute the measure `height` (F,) from skeletons and the rows that masks cover, in any consistent units."""
    y_FV = _rooted(skeletons_FV4)[..., 1]
    tall_F = y_FV.max(axis=1) - y_FV.min(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_F = np.log(rows_F / tall_F)
    measured_F = np.isfinite(ratio_F)
    ratio_F[~measured_F] = np.nan
    return np.abs(ratio_F - np.median(ratio_F[measured_F])) if measured_F.any() else ratio_F


def _rooted(skeletons_FV4: Floats) -> Floats:
    """Return the joints (F, V, 3) relative to the middle of the hips; a frame with any NaN is NaN."""
    points_FV3 = skeletons_FV4[..., :3] - skeletons_FV4[:, _HIPS, :3].mean(axis=1, keepdims=True)
    points_FV3[np.isnan(skeletons_FV4).any(axis=(1, 2))] = np.nan
    return points_FV3


def _jumps(lengths_FE: Floats) -> Floats:
    """Return the largest change (F,) since the valid frame before, relative to each column's median.

    Bones are rigid, so a gap in between does not matter. NaN if there is no frame before.
    """
    jumps_F = np.full(len(lengths_FE), np.nan)
    valid = np.flatnonzero(~np.isnan(lengths_FE).any(axis=1))
    if len(valid) < 2:
        return jumps_F
    median_E = np.median(lengths_FE[valid], axis=0)
    median_E[median_E == 0] = np.inf  # ignores a bone that usually has no length
    jumps_F[valid[1:]] = (abs(np.diff(lengths_FE[valid], axis=0)) / median_E).max(axis=1)
    return jumps_F


def _shape_values(skeletons_FV4: Floats) -> dict[Measure, Floats]:
    """Return the measures of single skeletons; `skeleton_values` returns those of changes between frames."""
    has_F, known_FV = ~np.isnan(skeletons_FV4).any(axis=(1, 2)), skeletons_FV4[..., 3] != 0
    points_FV3 = _rooted(skeletons_FV4)
    return {
        "partial skeleton": _where(has_F, known_FV.any(axis=1) & ~known_FV.all(axis=1)),
        "flat": _where(has_F, np.ptp(points_FV3[..., 2], axis=1) == 0),
        "upside down": _where(has_F, ways_down(points_FV3)[:, 1] < 0),
        "still": _still(points_FV3),
    }


def _still(points_FV3: Floats) -> Floats:
    """Return 1 if no joint moved by STILL of the person's extent since the valid frame before; NaN without one."""
    found_F = np.full(len(points_FV3), np.nan)
    valid = np.flatnonzero(~np.isnan(points_FV3).any(axis=(1, 2)))
    if len(valid) > 1:
        moved = np.linalg.norm(np.diff(points_FV3[valid], axis=0), axis=2).max(axis=1)
        found_F[valid[1:]] = moved <= STILL * np.median(np.ptp(points_FV3[valid], axis=1).max(axis=1))
    return found_F


def _where(measured_F: Any, flags_F: Any) -> Floats:
    return np.where(measured_F, np.asarray(flags_F, float), np.nan)


def _over(reduce: Callable[[Floats], np.floating[Any]], values_F: Floats | None) -> float:
    known = np.array([]) if values_F is None else values_F[~np.isnan(values_F)]
    return float(reduce(known)) if len(known) else np.nan
