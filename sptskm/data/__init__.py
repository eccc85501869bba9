"""Turn files into clips: tables of tracklets, splits, sampling, augmentation."""

from sptskm.data.dataset import read_any, read_dataset
from sptskm.data.mars import read_mars
from sptskm.data.splits import Split, hold_out, split_of
from sptskm.data.tracklets import Tracklets

__all__ = ["Split", "Tracklets", "hold_out", "read_any", "read_dataset", "read_mars", "split_of"]
