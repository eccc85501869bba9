"""Read a data set from its path: a folder in the MARS layout, a manifest, or a pack."""

from dataclasses import replace
from pathlib import Path

from sptskm.common.errors import DataError
from sptskm.common.paths import exists, is_file
from sptskm.common.tables import FORMS, form_of
from sptskm.data.derived import read_derived
from sptskm.data.manifest import read_manifest, read_unlabelled
from sptskm.data.mars import read_mars
from sptskm.data.packs.contents import SUMMARY
from sptskm.data.packs.reading import read_pack
from sptskm.data.tracklets import Tracklets


def read_dataset(place: str | Path, test: bool = True, labelled: bool | None = True) -> Tracklets:
    """Read the table of a data set; without `test` no file of its test part is opened.

    A file is read as a manifest, a folder with `pack.json` as a pack, any other folder as the MARS layout. Without
    `labelled` a manifest is read by `read_unlabelled`; None: if it has no splits. Raises DataError or FileNotFoundError
    naming the file at fault.
    """
    place = Path(place)
    if place.is_dir() or not (place.is_file() or is_manifest(place)):
        if is_file(place / SUMMARY):
            return read_pack(place, test)
        _refuse_folder_of_manifests(place)
        table = read_mars(place, test)
    else:
        form_of(place)
        table = read_manifest(place, test) if labelled else read_unlabelled(place, even_with_splits=labelled is False)
    return replace(table, derived=read_derived(place))


def _refuse_folder_of_manifests(place: Path) -> None:
    """Raise DataError for a folder that is no data set, but holds a manifest, as prepared and imported data do."""
    if not exists(place / "info") and (found := sorted(path for path in place.glob("manifest.*") if is_manifest(path))):
        raise DataError(f"{place}: is a folder without the tables of MARS (info), wanted its manifest, {found[0]}")


def is_manifest(path: Path) -> bool:
    """Return whether a path has the ending of a manifest."""
    return path.suffix.lower() in FORMS


def read_any(place: str | Path) -> Tracklets:
    """Read the table of a data set of which only the files matter, not who they show.

    A manifest without a split then needs only tracklet and frames, as for extraction. Raises as `read_dataset`.
    """
    return read_dataset(place, labelled=None)
