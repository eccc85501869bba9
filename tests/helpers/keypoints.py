"""Key points of walkers as other tools have them."""

import numpy as np

from sptskm.data.skeletons import JOINTS
from sptskm.preparation.layouts import LAYOUTS
from sptskm.synthetic.walkers import draw_walker, pose


def seen_by_kinect(layout: str, frames: int, seed: int) -> np.ndarray:
    """Return a walk (F, K, 3) in metres in the sensor's own axes: x to the left, y up, z away."""
    walker = draw_walker(np.random.default_rng(seed))
    joints_FV3 = pose(walker.body, walker.gait, np.arange(frames) / 2)[:, : len(JOINTS)] + np.array([0.1, 0.0, 2.0])
    names = [{"shoulder centre": "neck"}.get(name, name) if layout == "kinect-20" else name for name in LAYOUTS[layout]]
    points_FK3 = np.full((frames, len(names), 3), 0.5)
    for joint, place in enumerate(JOINTS):
        points_FK3[:, names.index(place)] = joints_FV3[:, joint]
    return points_FK3 * [-1, -1, 1]


def upright(points_FKC: np.ndarray, layout: str) -> np.ndarray:
    """Return random key points (F, K, C) with the legs so far below all others that they are of somebody who stands."""
    names = LAYOUTS[layout]
    legs = [place for place, name in enumerate(names) if name.endswith(("knee", "ankle"))]
    found_FKC = points_FKC.copy()
    found_FKC[..., legs, 1] += 9 * np.ptp(points_FKC[..., :2])
    return found_FKC
