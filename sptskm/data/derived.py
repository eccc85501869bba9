"""Keep a record of derived files: which method made a data set's masks and skeletons, and from which frames.

    prepared/masks/settings.json      the method: its name, the hash of its weights, its precision, its options
    prepared/masks/made-of/....json   for each tracklet the fingerprint of the frames that its masks were made from

Skeletons have the same files under prepared/skeletons. One method may make both, and is then noted in both places.
Files that users bring have no record: their method is unknown, and they are used as they are. A pack keeps the record
in `derived.json`.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, get_args

from sptskm.common.atomic import write_text
from sptskm.common.errors import DataError
from sptskm.common.reading import read_json

log = logging.getLogger(__name__)

Made = Literal["masks", "skeletons"]
Method = Mapping[str, Any]
"""`method` is its name, `weights` the hash of its weights, `precision` its number format; others are its options."""

MADE: tuple[Made, ...] = get_args(Made)
SIZES = "sizes"
"""Entry of a method beside its options: whether the sizes of its skeletons were kept, where `clips.scale` is auto."""
HOME = "prepared"
SETTINGS = "settings.json"
MADE_OF = "made-of"
PACKED = "derived.json"


@dataclass(frozen=True)
class Derived:
    """The record of a data set's masks and skeletons; files that users bring have no entry."""

    root: Path | None = None
    """The data set's folder, which holds the records of single tracklets; None for a pack."""
    methods: Mapping[Made, Method] = field(default_factory=dict)
    packed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Fingerprints of a pack, by kind and tracklet."""

    def frames(self, made: Made, folder: Path, key: str) -> str | None:
        """Return the fingerprint of the frames that a tracklet's files in `folder` were made from; None if unknown.

        Raises DataError for a record that cannot be read.
        """
        if self.root is None:
            return self.packed.get(made, {}).get(key)
        found = _read(record_of(self.root, made, folder, key))
        return None if found is None else str(found.get("frames"))


def home_of(root: Path) -> Path:
    """Return the folder of a data set, given that folder or its manifest."""
    return root if root.is_dir() else root.parent


def read_derived(root: Path) -> Derived:
    """Read the record of a data set in plain files. Raises DataError for a record that cannot be read."""
    methods: dict[Made, Method] = {}
    for made in MADE:
        found = _read(home_of(root) / HOME / made / SETTINGS)
        if found is not None:
            methods[made] = found
    return Derived(home_of(root), methods)


def read_packed(pack: Path, methods: Mapping[str, Any]) -> Derived:
    """Read the record of a pack; `methods` come from its summary. Raises DataError for a broken record."""
    packed = _read(pack / PACKED) or {}
    if not all(isinstance(value, dict) for value in (*packed.values(), *methods.values())):
        raise DataError(f"{pack / PACKED}: holds something else than fingerprints by kind and tracklet")
    return Derived(methods={made: methods[made] for made in MADE if made in methods}, packed=packed)


def write_method(root: Path, made: Made, method: Method) -> None:
    """Write the method that makes a data set's masks or skeletons to its record."""
    path = home_of(root) / HOME / made / SETTINGS
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(dict(method), indent=1))


def write_frames(root: Path, made: Made, folder: Path, key: str, fingerprint: str) -> None:
    """Write the fingerprint of the frames that a tracklet's files in `folder` are made from.

    Call it before the first of these files is written.
    """
    path = record_of(home_of(root), made, folder, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    named = key.encode(errors="backslashreplace").decode()  # for readers; a folder's name may be no valid text
    write_text(path, json.dumps({"tracklet": named, "frames": fingerprint}))


def record_of(home: Path, made: Made, folder: Path, key: str) -> Path:
    """Return the path of a tracklet's record.

    Two manifests in one folder may use the same name, so the path depends on the tracklet's folder too. That folder is
    taken relative to the data set, so that the data set can be moved.
    """
    place = os.path.relpath(folder, home)
    name = blake2b(f"{place}\0{key}".encode(errors="surrogateescape"), digest_size=10).hexdigest()
    return home / HOME / made / MADE_OF / f"{name}.json"


def fingerprint_frames(frames: Sequence[bytes | None]) -> str:
    """Return a short hash of the bytes of a tracklet's frames, in order; None stands for a missing frame."""
    digest = blake2b(digest_size=8)
    for content in frames:
        digest.update(f"{-1 if content is None else len(content)};".encode())
        digest.update(content or b"")
    return digest.hexdigest()


def describe_method(method: Method | None) -> str:
    """Describe a method in words, such as `jppnet (weights 1a2b, precision float16)`."""
    if not method:
        return "an unknown method"
    name = str(method.get("method", "an unknown method"))
    others = ", ".join(f"{key} {value}" for key, value in method.items() if key != "method")
    return f"{name} ({others})" if others else name


def method_differences(found: Mapping[Made, Method], wanted: Mapping[Made, Method]) -> str:
    """Describe which masks and skeletons come from different methods; empty if all agree or are unknown."""
    said = [
        f"{made} by {describe_method(found[made])} and by {describe_method(wanted[made])}"
        for made in MADE
        if found.get(made) and wanted.get(made) and _differ(found[made], wanted[made])
    ]
    return "; ".join(said)


def _differ(one: Method, other: Method) -> bool:
    """Return whether two methods give different results; what is not known of one of them is no difference."""
    if SIZES in one and SIZES in other and one[SIZES] != other[SIZES]:
        return True
    known = [_results_of(method) for method in (one, other)]
    return all(known) and known[0] != known[1]


def _results_of(method: Method) -> dict[str, Any]:
    """Return the settings that change a method's results; the engine is left out, it changes only the last bits."""
    return {name: value for name, value in method.items() if name not in ("engine", SIZES)}


def warn_of_methods(one: str, found: Mapping[Made, Method], other: str, wanted: Mapping[Made, Method]) -> None:
    """Log a warning if `one` (in words, such as "the gallery") and `other` have masks or skeletons by two methods.

    Results compared or fused across methods are less reliable. An unknown method counts as equal to any other.
    """
    if said := method_differences(found, wanted):
        log.warning("%s and %s have %s: compared across methods, results are worth less", one, other, said)


def methods_in(value: object) -> dict[Made, Method]:
    """Return the methods recorded in a feature file, a checkpoint or results; empty for any other value."""
    found = value if isinstance(value, dict) else {}
    return {made: found[made] for made in MADE if isinstance(found.get(made), dict)}


def _read(path: Path) -> dict[str, Any] | None:
    """Read the object in a JSON file; None if there is no file. Raises DataError, and OSError if it is unreadable."""
    try:
        return read_json(path, dict[str, Any])
    except FileNotFoundError:
        return None
