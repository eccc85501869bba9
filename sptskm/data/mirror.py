"""Exchange left and right of skeletons in tensors. Legend: B clips, T frames, V joints, 4 = x, y, z, confidence."""

from torch import Tensor

from sptskm.data.skeletons import MIRRORED

_AXES = (-1.0, 1.0, 1.0, 1.0)


def mirrored(skeletons_B4TV: Tensor) -> Tensor:
    """Exchange left and right: x changes its sign, and each joint takes the place of its partner."""
    signs_4 = skeletons_B4TV.new_tensor(_AXES)
    return skeletons_B4TV[..., list(MIRRORED)] * signs_4[:, None, None]
