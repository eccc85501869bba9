"""The networks: nn.Modules and nothing else, and the loading of published weights."""

from sptskm.models.gait import Gait
from sptskm.models.jppnet import JPPNet
from sptskm.models.posehg3d import PoseHG3D, PoseMaps
from sptskm.models.smin import SMIN
from sptskm.models.ssin import SSIN
from sptskm.models.weights import (
    load_jppnet,
    load_posehg3d,
    load_pretrained,
    load_published,
    load_resnet,
    open_jppnet,
    open_posehg3d,
    read_state_dict,
)

__all__ = [
    "SMIN",
    "SSIN",
    "Gait",
    "JPPNet",
    "PoseHG3D",
    "PoseMaps",
    "load_jppnet",
    "load_posehg3d",
    "load_pretrained",
    "load_published",
    "load_resnet",
    "open_jppnet",
    "open_posehg3d",
    "read_state_dict",
]
