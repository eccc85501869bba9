"""Generate a data set in the layout of MARS: walkers whose identity is in how they move."""

from sptskm.synthetic.casting import Sizes
from sptskm.synthetic.writer import DEMO, TINY, write_dataset

__all__ = ["DEMO", "TINY", "Sizes", "write_dataset"]
