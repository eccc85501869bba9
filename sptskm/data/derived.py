"""The record of derived files: which method made a data set's masks and skeletons, and of which frames.

    prepared/masks/settings.json      the method: its name, the hash of its weights, its precision, its options
    prepared/masks/made-of/....json   for each tracklet the fingerprint of the frames that its masks were made of

The same for skeletons; one method may make both, and is then noted in both places. Files that somebody brought have no
record: their method is unknown, and they are taken as they are. A pack keeps the record in `derived.json`.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, get_args

from sptskm.atomic import write_text
from sptskm.common.reading import read_json
from sptskm.data.errors import DataError

log = logging.getLogger(__name__)

Made = Literal["masks", "skeletons"]
Method = Mapping[str, Any]
"""`method` is its name, `weights` the hash of its weights, `precision` its number format; others are its options."""

MADE: tuple[Made, ...] = get_args(Made)
HOME = "prepared"
SETTINGS = "settings.json"
MADE_OF = "made-of"
PACKED = "derived.json"


@dataclass(frozen=True)
class Derived:
    """What is on record of the masks and skeletons of a data set; nothing for those that somebody brought."""

    root: Path | None = None
    """The data set's folder, in which the records of single tracklets lie."""
    methods: Mapping[Made, Method] = field(default_factory=dict)
    packed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Fingerprints by kind and tracklet, of a pack."""

    def frames(self, made: Made, folder: Path, key: str) -> str | None:
        """Return the fingerprint of the frames that a tracklet's files in `folder` were made of; None if unknown.

        Raises DataError for a record that cannot be read.
        """
        if self.root is None:
            return self.packed.get(made, {}).get(key)
        found = _read(record_of(self.root, made, folder, key))
        return None if found is None else str(found.get("frames"))


def home_of(root: Path) -> Path:
    """Return the folder of a data set that is named by its folder or by its manifest."""
    return root if root.is_dir() else root.parent


def read_derived(root: Path) -> Derived:
    """Read what is known of a data set in files. Raises DataError for a record that cannot be read."""
    methods: dict[Made, Method] = {}
    for made in MADE:
        found = _read(home_of(root) / HOME / made / SETTINGS)
        if found is not None:
            methods[made] = found
    return Derived(home_of(root), methods)


def read_packed(pack: Path, methods: Mapping[str, Any]) -> Derived:
    """Read what is known of a pack, whose summary tells the methods. Raises DataError for a broken record."""
    packed = _read(pack / PACKED) or {}
    if not all(isinstance(value, dict) for value in (*packed.values(), *methods.values())):
        raise DataError(f"{pack / PACKED}: holds something else than fingerprints by kind and tracklet")
    return Derived(methods={made: methods[made] for made in MADE if made in methods}, packed=packed)


def write_method(root: Path, made: Made, method: Method) -> None:
    """Note the method of a data set's masks or skeletons."""
    path = home_of(root) / HOME / made / SETTINGS
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(dict(method), indent=1))


def write_frames(root: Path, made: Made, folder: Path, key: str, fingerprint: str) -> None:
    """Note of which frames a tracklet's files in `folder` are made, before the first of them is."""
    path = record_of(home_of(root), made, folder, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    named = key.encode(errors="backslashreplace").decode()  # for people; a folder's name may be no text
    write_text(path, json.dumps({"tracklet": named, "frames": fingerprint}))


def record_of(home: Path, made: Made, folder: Path, key: str) -> Path:
    """Return the file in which a tracklet's record lies.

    Manifests of one folder may use a name twice, so where the files lie counts too; relative to the data set, which
    may be moved.
    """
    place = os.path.relpath(folder, home)
    name = blake2b(f"{place}\0{key}".encode(errors="surrogateescape"), digest_size=10).hexdigest()
    return home / HOME / made / MADE_OF / f"{name}.json"


def fingerprint(frames: Sequence[bytes | None]) -> str:
    """Return a short hash of the bytes of a tracklet's frames, in order; None is a frame that is not there."""
    digest = blake2b(digest_size=8)
    for content in frames:
        digest.update(f"{-1 if content is None else len(content)};".encode())
        digest.update(content or b"")
    return digest.hexdigest()


def told(method: Method | None) -> str:
    """Return a method in words, such as `jppnet (weights 1a2b, precision float16)`."""
    if not method:
        return "an unknown method"
    others = ", ".join(f"{name} {value}" for name, value in method.items() if name != "method")
    return f"{method.get('method')} ({others})" if others else str(method.get("method"))


def differences(found: Mapping[Made, Method], wanted: Mapping[Made, Method]) -> str:
    """Return in words which masks and skeletons come from different methods; empty where all agree or are unknown."""
    said = [
        f"{made} by {told(found[made])} and by {told(wanted[made])}"
        for made in MADE
        if found.get(made) and wanted.get(made) and _results_of(found[made]) != _results_of(wanted[made])
    ]
    return "; ".join(said)


def _results_of(method: Method) -> dict[str, Any]:
    """Return what tells one method's results from another's; engines of one network differ in the last bits alone."""
    return {name: value for name, value in method.items() if name != "engine"}


def warn_of_methods(one: str, found: Mapping[Made, Method], other: str, wanted: Mapping[Made, Method]) -> None:
    """Say in a line when `one` (in words, such as "the gallery") and `other` have masks or skeletons by two methods.

    What is compared or fused across methods is worth less than the same by one. Unknown methods are taken for the same.
    """
    if said := differences(found, wanted):
        log.warning("%s and %s have %s: compared across methods, results are worth less", one, other, said)


def methods_in(value: object) -> dict[Made, Method]:
    """Return the methods in what was read from a file of features, a checkpoint or results; none of what is no such."""
    found = value if isinstance(value, dict) else {}
    return {made: found[made] for made in MADE if isinstance(found.get(made), dict)}


def _read(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, None where there is no file. Raises DataError, and OSError when unreadable."""
    try:
        return read_json(path, dict[str, Any])
    except FileNotFoundError:
        return None
