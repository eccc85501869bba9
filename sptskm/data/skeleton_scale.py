"""Decide whether the skeletons of a data set have a size: metres from a depth sensor, or any unit of an estimator.

Legend: F frames, V joints, N tracklets.
"""

import logging
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.data.files import read_skeletons
from sptskm.data.skeletons import edge_total
from sptskm.data.tracklets import Tracklets

log = logging.getLogger(__name__)

Scale = Literal["tracklet", "metric", "auto"]

LOOKED_AT = 60
"""Tracklets that are measured, evenly spaced over a table: the same ones in training and in the final job."""
SHORTEST, TALLEST = 2.0, 7.0
"""Metres that the 13 bones of a person, from a child that walks to a giant, sum to; an adult's are 173 inches."""
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
ONE_SIZE = 1e-3
"""Relative spread of the sums below which skeletons were brought to one size before."""
ANOTHER_UNIT = 5.0
"""Factor from the sizes of people beyond which a tracklet is of another unit, or no recording at all."""
PLAUSIBLE = 0.9
"""Least share of the tracklets with a person's size."""
_METRIC = ("blazepose", "kinect", "human36m")
"""Methods and layouts whose key points in space are in metres or another unit of length."""
_NOT_METRIC = ("pose-hg-3d",)


def unit_of(scale: Scale, table: Tracklets) -> float | None:
    """Return the factor that brings the skeletons of a data set to metres, or None where every tracklet gets one size.

    `scale` is clips.scale. With "auto" the record of the method decides, and the sums of bones must fit a person; where
    users brought skeletons without a record, the sums decide alone. The log says what was found.
    """
    if scale == "tracklet":
        return None
    if scale == "metric":
        return 1.0
    unit, why = _found(table)
    if unit is None:
        log.warning("skeletons: %s, so that every tracklet is brought to one size and only proportions are left", why)
        return None
    log.info("skeletons: %s, so that sizes are kept", why)
    return UNITS[unit]


def _found(table: Tracklets) -> tuple[str | None, str]:
    """Return the unit, None without one, and the reason in words."""
    method = table.derived.methods.get("skeletons", {})
    name = f"{method.get('method', '')} {method.get('as', '')}".replace("imported ", "").strip()
    if name.startswith(_NOT_METRIC) or (method.get("method") == "imported" and name and "z" not in name.split()[-1]):
        return None, f"made by {name}, which has no size"
    totals_N = _totals(table)
    if not len(totals_N):
        return None, "no skeleton could be measured"
    middle = float(np.median(totals_N))
    if np.ptp(totals_N) <= ONE_SIZE * middle:
        return None, f"all have a sum of bones of {middle:.3g}"
    known = f"made by {name}, " if name.startswith(_METRIC) else ""
    if unit := unit_of_totals(totals_N):
        return unit, f"{known}with a sum of bones of {middle:.3g} {unit}"
    return None, f"{known}with a sum of bones of {middle:.3g}, which is no person's in any of {', '.join(UNITS)}"


def check_size(skeletons_FV4: NDArray[np.floating[Any]], unit: float, where: str) -> None:
    """Raise DataError for a tracklet that cannot be in the unit of the others, whose sizes are kept in metres."""
    points_FV3 = skeletons_FV4[np.isfinite(skeletons_FV4).all(axis=(1, 2)), :, :3].astype(np.float64)
    if not len(points_FV3):
        return
    total = edge_total(points_FV3)
    if not SHORTEST / ANOTHER_UNIT < total < TALLEST * ANOTHER_UNIT:
        raise DataError(
            f"{where}: has a sum of bones of {total / unit:.4g}, wanted the unit of the others, whose bones sum to "
            f"{SHORTEST / unit:g} to {TALLEST / unit:g}"
        )


def unit_of_totals(totals_N: NDArray[np.float64]) -> str | None:
    """Return the unit in which nine in ten of these sums of bones are those of people; None without one."""
    for unit, factor in UNITS.items():
        if len(totals_N) and np.mean((totals_N * factor > SHORTEST) & (totals_N * factor < TALLEST)) >= PLAUSIBLE:
            return unit
    return None


def _totals(table: Tracklets) -> NDArray[np.float64]:
    totals = []
    for row in np.unique(np.linspace(0, len(table) - 1, min(LOOKED_AT, len(table))).round().astype(int)).tolist():
        skeletons_FV4 = read_skeletons(table, row, range(int(table.lengths[row])), strict=False)
        points_FV3 = skeletons_FV4[np.isfinite(skeletons_FV4).all(axis=(1, 2)), :, :3].astype(np.float64)
        try:
            totals.append(edge_total(points_FV3) if len(points_FV3) else np.nan)
        except DataError:  # without extent, which loading reports
            totals.append(np.nan)
    found_N = np.array(totals, np.float64)
    return found_N[np.isfinite(found_N)]
