"""Check whether masks and skeletons were made from the frames that now lie beside them."""

from sptskm.common.errors import DataError
from sptskm.data.derived import Made, fingerprint_frames
from sptskm.data.files import read_retrying
from sptskm.data.tracklets import Tracklets


def fingerprint_of(table: Tracklets, row: int) -> str:
    """Return the fingerprint of a tracklet's current frames.

    A missing frame counts as missing. Raises DataError for a frame that cannot be read, because its content is unknown.
    """
    contents: list[bytes | None] = []
    for file in table.files(row, range(int(table.lengths[row])), "frames"):
        try:
            contents.append(read_retrying(file) if file.is_file() else None)
        except OSError as error:
            raise DataError(f"frame {file}: cannot be read ({error.strerror})") from error
    return fingerprint_frames(contents)


def is_stale(table: Tracklets, row: int, made: Made) -> bool:
    """Return whether a tracklet's masks or skeletons were, by their record, made from other frames.

    Returns False without a record.

    Raises DataError for frames or a record that cannot be read.
    """
    wanted = table.derived.frames(made, table.folder(row, made), str(table.keys_N[row]))
    return wanted is not None and wanted != fingerprint_of(table, row)
