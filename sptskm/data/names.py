"""Names of tracklets, people, cameras and outfits, and of frames: one rule for all of them.

A label is what is written, without white space around it and in Unicode's composed form (NFC), so that the two ways of
writing an umlaut are one name. Capitals count: labels that differ in nothing else are two, and that is told. Control
characters and labels of more than 200 characters are refused. Names of files are taken as they are on disk.
"""

import re
import unicodedata
from collections.abc import Iterable

from sptskm.common.errors import DataError
from sptskm.data.forms import IMAGES

LONGEST = 200
"""Characters of a label."""
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def label(text: str, place: str) -> str:
    """Return a label as it counts. Raises DataError, which `place` begins, for one that cannot be shown or told."""
    text = unicodedata.normalize("NFC", text.strip())
    check_label(text, place)
    return text


def check_label(text: str, place: str, longest: int = LONGEST) -> None:
    """Raise DataError, which `place` begins, for control characters and for more than `longest` characters."""
    if len(text) > longest:
        raise DataError(f"{place} has a name of {len(text)} characters ({text[:20]}...), wanted at most {longest}")
    check_names([text], place)


def check_names(names: Iterable[str], source: str) -> None:
    """Raise DataError, which `source` begins, for a name with control characters."""
    for name in names:
        if found := _CONTROLS.search(name):
            raise DataError(f"{source} has the control character {found[0]!a} in a name, wanted none")


def bare_name(name: str) -> str:
    """Return the name of an image without folders and ending: the name of its frame."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return last.rpartition(".")[0] if last.lower().endswith(IMAGES) else last


def alike(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of different labels that differ in nothing but capitals."""
    seen: dict[str, str] = {}
    pairs = []
    for text in sorted(set(labels)):
        first = seen.setdefault(text.casefold(), text)
        if first != text:
            pairs.append((first, text))
    return pairs


def natural(text: str) -> tuple[list[tuple[int, str]], str]:
    """A key that sorts 2 before 10, whatever their length; no two texts have the same."""
    parts = re.split(r"([0-9]+)", text)
    digits = [part.lstrip("0") for part in parts]
    return [
        (-1, part) if place % 2 == 0 else (len(digits[place]), digits[place]) for place, part in enumerate(parts)
    ], text
