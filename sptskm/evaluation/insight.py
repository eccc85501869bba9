"""Explanations of trained streams: SSIN's attention, and the joints that matter to SMIN.

Training imports this, so the pictures, which need matplotlib, are in `report.insight_pictures`.
Shapes: T frames, H rows, W columns of a frame, h and w those of an attention map, V = 14 joints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Attention:
    """First attention map of SSIN in a clip of a tracklet; 1 is the value of a uniform map."""

    name: str
    """Of the tracklet."""
    frames_T3HW: Floats
    """Frames in 0..1, as the network receives them."""
    masks_THW: Floats
    attention_Thw: Floats
    strength: float
    """Learnt factor of the attended features in the sum with the unattended ones (gamma); 0 before training."""


@dataclass(frozen=True, eq=False)
class Joints:
    """Increase of the distances to other tracklets of the same identity when SMIN does not see a joint."""

    change_V: Floats
    """Mean over the tracklets, as a share of the distance with all joints."""
    error_V: Floats
    """Standard error of these means; NaN for one tracklet."""
    tracklets: int
    skeleton_V4: Floats
    """Skeleton of one of these tracklets, for the drawing."""


@dataclass(frozen=True, eq=False)
class Insight:
    """Explanations available for the streams of a report."""

    attention: Sequence[Attention] = ()
    joints: Joints | None = None


NOTHING: Final = Insight()
