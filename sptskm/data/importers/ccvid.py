"""Import CCVID (Gu et al., CVPR 2022) as Simple-CCReID reads it: three lists of `folder pid clothes`."""

import re
from pathlib import Path

from sptskm.common.errors import DataError
from sptskm.data.importers.listing import lines_of_words
from sptskm.data.manifest import Entry

SPLITS = ("train", "query", "gallery")
OTHER_CAMERAS = 12  # added in session 3; sessions 1 and 2 share their cameras


def ccvid(root: Path) -> list[Entry]:
    """Return the tracklets `session{1,2,3}/<pid>_<walk>` listed in train.txt, query.txt and gallery.txt.

    The walk serves as the camera; walks of session 3 count as other cameras. Outfits are numbered within a person, so
    their names begin with the identity. Raises FileNotFoundError, and DataError naming the line at fault.
    """
    entries = []
    for split in SPLITS:
        for place, (folder, pid, clothes) in lines_of_words(root / f"{split}.txt", "folder pid clothes"):
            found = re.fullmatch(r"session([0-9]+)/[^/_]+_([0-9]+)/?", folder)
            if not found:
                raise DataError(f"{place} has the folder {folder}, wanted session<number>/<pid>_<walk>")
            session, walk = map(int, found.groups())
            camera = walk + OTHER_CAMERAS * (session == 3)
            name = folder.rstrip("/")
            entries.append(Entry(name, pid, str(camera), split, frames=name, clothes=f"{pid}_{clothes}"))
    return entries
