"""Apply one rule to all names: of tracklets, people, cameras, outfits and frames.

A label is the text without white space around it and in Unicode's composed form (NFC), so that the two ways of writing
an umlaut give one name. Capitals count: labels that differ only in capitals are two names, and a warning says so.
Control characters and labels of more than 200 characters are refused. File names are used as they are on disk.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from sptskm.common.errors import DataError
from sptskm.common.paths import control_in
from sptskm.data.forms import IMAGES

LONGEST = 200
"""Largest number of characters in a label."""


def label(text: str, place: str) -> str:
    """Return the normalised form of a label. Raises DataError as `check_label` does."""
    text = unicodedata.normalize("NFC", text.strip())
    check_label(text, place)
    return text


def check_label(text: str, place: str, longest: int = LONGEST) -> None:
    """Raise DataError, starting with `place`, for control characters or more than `longest` characters."""
    if len(text) > longest:
        raise DataError(f"{place} has a name of {len(text)} characters ({text[:20]}...), wanted at most {longest}")
    check_names([text], place)


def check_names(names: Iterable[str], source: str) -> None:
    """Raise DataError, starting with `source`, for a name with control characters."""
    for name in names:
        if found := control_in(name):
            raise DataError(f"{source} has the control character {found!a} in a name, wanted none")


def bare_name(name: str) -> str:
    """Return the name of an image without folders and ending, which is the name of its frame."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return last.rpartition(".")[0] if last.lower().endswith(IMAGES) else last


def check_known(text: str, place: str) -> None:
    """Raise DataError, which `place` begins, for what programs write where nothing is known: nan, and numbers below 0.

    Taken for a name, it would make one person, camera or outfit of all that are unknown.
    """
    if text in ("nan", "NaN") or re.fullmatch(r"-[0-9]+(\.[0-9]*)?", text):
        raise DataError(f"{place} is {text}, wanted a name, or nothing where it is not known")


def check_listed(frames: Sequence[str], place: str) -> None:
    """Raise DataError, which `place` begins, for a frame in a list that is no image or is listed twice."""
    if others := [frame for frame in frames if not frame.lower().endswith(IMAGES)]:
        raise DataError(f"{place} lists the frame {others[0]!r}, wanted {', '.join(IMAGES)}")
    if len(set(frames)) < len(frames):
        raise DataError(f"{place} lists the frame {Counter(frames).most_common(1)[0][0]!r} twice, wanted each once")


def alike(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of labels that differ only in capitals."""
    seen: dict[str, str] = {}
    pairs = []
    for text in sorted(set(labels)):
        first = seen.setdefault(text.casefold(), text)
        if first != text:
            pairs.append((first, text))
    return pairs


def natural(text: str) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key that puts 2 before 10, for numbers of any length; different texts have different keys."""
    parts = re.split(r"([0-9]+)", text)
    digits = [part.lstrip("0") for part in parts]
    return [
        (-1, part) if place % 2 == 0 else (len(digits[place]), digits[place]) for place, part in enumerate(parts)
    ], text
