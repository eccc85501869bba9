"""Turn public data sets and plain folders into the entries of a manifest.

Each layout has one function: it takes the root of the data set and returns entries with paths relative to that root.
Only lists and folders are read, no images.
"""

from sptskm.data.importers.ccvid import ccvid
from sptskm.data.importers.folder import folder
from sptskm.data.importers.lsvid import lsvid
from sptskm.data.importers.mars import mars
from sptskm.data.importers.two_cameras import ilidsvid, prid2011

__all__ = ["ccvid", "folder", "ilidsvid", "lsvid", "mars", "prid2011"]
