"""Read key points in JSON: OpenPose's frames, COCO's lists of results (also of AlphaPose), plain nested lists.

Legend: F frames, K key points, C = channels; `shape` is (K, C).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.common.reading import decode_text, parsed_json
from sptskm.data.names import bare_name

Floats = NDArray[np.float64]

_OPENPOSE = "pose_keypoints_2d"
_FORMS = f"OpenPose's people with {_OPENPOSE}, COCO's list of results, or lists of numbers"


def points(path: Path, content: bytes, shape: tuple[int, int], channels: str) -> NDArray[Any]:
    """Read a file of one frame or one tracklet: (F, K, C), but plain lists in their own shape.

    OpenPose's frame gives the person of the highest mean confidence, or NaN; a list of results gives one frame for each
    image, in the order of their names. Raises DataError.
    """
    value = _parsed(path, content)
    if isinstance(value, dict):
        return _openpose(path, value, shape, channels)
    if _is_results(value):
        return np.array(list(_by_image(path, value, shape, channels).values())).reshape(-1, *shape)
    return _numbers(path, value, "the file")


def results(path: Path, content: bytes, shape: tuple[int, int], channels: str) -> dict[str, Floats]:
    """Read key points (K, C) by the names of images, without folder and ending, in their order. Raises DataError."""
    value = _parsed(path, content)
    if not _is_results(value):
        raise DataError(f"key points {path}: {_told(value)}, wanted COCO's list of results")
    return _by_image(path, value, shape, channels)


def _parsed(path: Path, content: bytes) -> Any:
    source = f"key points {path}"
    return parsed_json(decode_text(content, source), source, object, finite=False)


def _is_results(value: Any) -> bool:
    """Return whether it is a list of objects; an empty list is one of images without any person."""
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _openpose(path: Path, value: dict[str, Any], shape: tuple[int, int], channels: str) -> Floats:
    people = value.get("people")
    if not isinstance(people, list):
        raise DataError(f"key points {path}: {_told(value)}, wanted {_FORMS}")
    if channels != "xyc":
        raise DataError(f"key points {path}: OpenPose writes the channels xyc, wanted {channels}")
    found = [_person(path, f"person {i}", person, _OPENPOSE, shape) for i, person in enumerate(people)]
    if not found:
        return np.full((1, *shape), np.nan)
    return max(found, key=lambda points_KC: _mean_confidence(points_KC, channels))[None]


def _by_image(path: Path, entries: list[Any], shape: tuple[int, int], channels: str) -> dict[str, Floats]:
    best: dict[str, tuple[float, str, Floats]] = {}
    for i, entry in enumerate(entries):
        points_KC = _person(path, f"result {i}", entry, "keypoints", shape)
        image = entry.get("file_name", entry.get("image_id"))
        if not isinstance(image, str | int) or isinstance(image, bool):
            raise DataError(f"key points {path}: result {i} names no image, wanted a file_name or an image_id")
        name, score = bare_name(str(image)), entry.get("score", _mean_confidence(points_KC, channels))
        if not isinstance(score, int | float) or isinstance(score, bool):
            raise DataError(f"key points {path}: result {i} has the score {score!r}, wanted a number")
        if name in best and best[name][1] != str(image):
            raise DataError(f"key points {path}: has {best[name][1]} and {image}, wanted one image named {name}")
        score = -math.inf if math.isnan(score) else float(score)  # a person without a score ranks last
        if name not in best or score > best[name][0]:
            best[name] = score, str(image), points_KC
    return {name: best[name][2] for name in sorted(best, key=_order)}


def _person(path: Path, who: str, person: Any, key: str, shape: tuple[int, int]) -> Floats:
    if not isinstance(person, dict) or key not in person:
        raise DataError(f"key points {path}: {who} has no {key}")
    values = _numbers(path, person[key], who)
    if values.size != shape[0] * shape[1]:
        wanted = f"{shape[0] * shape[1]} ({shape[0]} points of {shape[1]})"
        raise DataError(f"key points {path}: {who} has {values.size} numbers, wanted {wanted}")
    return values.reshape(shape)


def _numbers(path: Path, value: Any, who: str) -> Floats:
    """Convert nested lists to an array; null becomes NaN."""
    try:
        _check_kinds(value)
        return np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"key points {path}: {who} holds something else than even lists of numbers") from None


def _check_kinds(value: Any) -> None:
    """Raise TypeError for texts and booleans within lists, which numpy would take for numbers."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, list):
            _check_kinds(item)
        elif item is not None and (isinstance(item, bool) or not isinstance(item, int | float)):
            raise TypeError


def _mean_confidence(points_KC: Floats, channels: str) -> float:
    """Return the mean confidence, 0 without any. A point with NaN was not found (OpenPose writes zeros)."""
    return float(np.nan_to_num(points_KC[:, channels.index("c")]).mean()) if "c" in channels else 0.0


def _order(name: str) -> tuple[bool, int, str, str]:
    """Return a sort key: numbers by value, before names."""
    digits = name.lstrip("0") if name.isdecimal() else ""
    return not name.isdecimal(), len(digits), digits, name


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return f"holds {', '.join(value) or 'nothing'}"
    return f"holds a {type(value).__name__}"
