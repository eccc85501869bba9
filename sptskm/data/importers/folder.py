"""Import folders of frames, one per tracklet, whose paths name person and camera: `<pid>/<camera>/<tracklet>`."""

import re
from collections.abc import Iterator
from pathlib import Path

from sptskm.common.errors import DataError
from sptskm.config import ConfigError
from sptskm.data.importers.listing import subfolders
from sptskm.data.manifest import UNSAID, Entry, images

PATTERN = "{pid}/{camera}/{tracklet}"
EXAMPLES = "{tracklet} is a folder of frames without labels, {pid}_{camera}_{tracklet} one called anna_door_1"
PARTS = ("pid", "camera", "tracklet", "clothes", "time")


def folder(root: Path, pattern: str = PATTERN) -> list[Entry]:
    """Return one entry, without a split, for every folder at the depth of `pattern`.

    In a folder's name, each part ends at the character that follows it in the pattern; the last part takes the rest.
    With `{pid}_{camera}_{tracklet}`, anna_door_2_b is tracklet 2_b of anna at the camera door. Entries are named by
    their paths. Without `{pid}`, nobody is known: the entries are junk, to be embedded and searched. Raises ConfigError
    for an invalid pattern, DataError for a folder that does not match or has no images, and FileNotFoundError.
    """
    wanted = ("pid", "camera") if "{pid}" in pattern else ("tracklet",)
    if missing := [part for part in wanted if f"{{{part}}}" not in pattern]:
        raise ConfigError(
            f"--pattern {pattern}: lacks {{{missing[0]}}}, wanted {{pid}} and {{camera}}, "
            "or {tracklet} without labels"
        )
    unlabelled = {} if "{pid}" in pattern else {"camera": UNSAID, "split": "junk"}
    if repeated := [part for part in PARTS if pattern.count(f"{{{part}}}") > 1]:
        raise ConfigError(f"--pattern {pattern}: has {{{repeated[0]}}} twice, wanted it once")
    levels = [_expression(level) for level in pattern.split("/")]
    entries = []
    for path, parts in _walk(root, "", pattern, levels):
        if not images(root / path):
            raise DataError(f"{root / path}: holds no images, wanted a folder of frames as {pattern} says")
        entries.append(Entry(**{"pid": "", "split": "", **unlabelled, **parts, "tracklet": path, "frames": path}))
    if not entries:
        raise DataError(f"{root}: holds no folder as --pattern {pattern} says; {EXAMPLES}")
    return entries


def _walk(root: Path, above: str, pattern: str, levels: list[re.Pattern[str]]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the paths below `root` with the parts found in their names."""
    for name in subfolders(root / above):
        path = f"{above}/{name}" if above else name
        found = levels[0].fullmatch(name)
        if found is None:
            raise DataError(f"{root / path}: is not called as {pattern} says; set --pattern, or move it away")
        if len(levels) == 1:
            yield path, found.groupdict()
        else:
            yield from (
                (below, {**found.groupdict(), **parts}) for below, parts in _walk(root, path, pattern, levels[1:])
            )


def _expression(level: str) -> re.Pattern[str]:
    """Build the regular expression for the folder names of one level of the pattern."""
    pieces = re.split(r"\{(\w*)\}", level)  # signs, part, signs, part, ..., signs
    expression = re.escape(pieces[0])
    names = pieces[1::2]
    for number, (part, signs) in enumerate(zip(names, pieces[2::2], strict=True), start=1):
        is_last = number == len(names)
        if part not in PARTS:
            raise ConfigError(f"--pattern: knows no {{{part}}}, wanted some of {', '.join(PARTS)}")
        if not signs and not is_last:
            raise ConfigError(f"--pattern: {level} has nothing behind {{{part}}}, wanted a sign that ends it")
        expression += f"(?P<{part}>{'.+' if is_last else f'[^{re.escape(signs[0])}]+'}){re.escape(signs)}"
    return re.compile(expression)
