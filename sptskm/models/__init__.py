"""The networks: nn.Modules and nothing else, and the loading of published weights."""

from sptskm.models.smin import SMIN
from sptskm.models.ssin import SSIN
from sptskm.models.weights import Loaded, load_published, load_resnet, read_state_dict

__all__ = ["SMIN", "SSIN", "Loaded", "load_published", "load_resnet", "read_state_dict"]
