"""Import MARS (Zheng et al., ECCV 2016): the same rows as `read_mars`, with every frame listed."""

from pathlib import Path

from sptskm.common.errors import DataError
from sptskm.data.manifest import NAMELESS, Entry
from sptskm.data.mars import read_clothes, read_mars
from sptskm.data.tracklets import ENDINGS, Modality, Tracklets


def mars(root: Path) -> list[Entry]:
    """Return the tracklets in the order of the tables, each with the list of its frames. Raises as `read_mars`."""
    table = read_mars(root)
    worn = read_clothes(root / "clothes.csv", table.keys_N.tolist())
    queries = set(table.test[table.query].tolist())
    splits = {number: split for split, number in NAMELESS.items()}
    entries = []
    for row, (key, pid) in enumerate(zip(table.keys_N.tolist(), table.pids_N.tolist(), strict=True)):
        split = "query" if row in queries else splits.get(pid, "gallery")
        frames, masks, skeleton = (_folder(root, table, row, modality) for modality in ENDINGS)
        stems = table.stems(row)
        if other := next((stem for stem in stems if stem[:4] != key[:4]), None):
            raise DataError(
                f"{root / 'info'}: {other} belongs to the tracklet of {key}, wanted names of one identity; "
                f"`sptskm check {root}` tells more"
            )
        entries.append(
            Entry(
                tracklet=key,
                pid="" if split in NAMELESS else str(pid),
                camera=str(table.camids_N[row]),
                split="train" if row < table.num_train else split,
                frames=tuple(f"{frames}/{stem}{ENDINGS['frames']}" for stem in stems),
                masks=masks,
                skeleton=skeleton,
                clothes=worn.get(key, ""),
            )
        )
    return entries


def _folder(root: Path, table: Tracklets, row: int, modality: Modality) -> str:
    home = table.folder(row, modality).relative_to(root).as_posix()
    return f"{home}/{table.keys_N[row][:4]}"
