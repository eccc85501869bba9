"""Read MATLAB files (.mat up to version 7) that were written outside this process."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError
from sptskm.common.reading import read_bytes

_NUMBERS = frozenset({"double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"})
_EXPANSION = 1100  # a deflated byte cannot become more bytes than that


def read_mat(path: Path, *names: str) -> NDArray[Any]:
    """Return the first of the variables `names` that a .mat file has, an array of numbers.

    Raises OSError, and DataError for another file, for one without such a variable or with two of a name, for cells,
    structures, text and other classes, and for an array that is larger than what the file holds.
    """
    import scipy.io

    content = read_bytes(path)
    try:
        listed = scipy.io.whosmat(io.BytesIO(content))
    except Exception as error:  # a damaged file makes scipy raise almost anything
        raise DataError(f"{path}: not a readable .mat file ({_in_one_line(error)})") from error
    held = [name for name, _, _ in listed]
    wanted = " or ".join(names)
    name = next((name for name in names if name in held), None)
    if name is None:
        raise DataError(f"{path}: holds {', '.join(held)[:200] or 'nothing'}, wanted the variable {wanted}")
    if held.count(name) > 1:
        raise DataError(f"{path}: holds the variable {name} twice, wanted it once")
    shape, kind = next((shape, kind) for found, shape, kind in listed if found == name)
    if kind not in _NUMBERS:
        raise DataError(f"{path}: {name} is of MATLAB's class {kind}, wanted an array of numbers")
    if math.prod(shape) > len(content) * _EXPANSION:
        raise DataError(
            f"{path}: {name} promises {shape} numbers, more than the {len(content):,} bytes of the file hold"
        )
    try:
        found = scipy.io.loadmat(io.BytesIO(content), variable_names=[name], verify_compressed_data_integrity=True)
    except Exception as error:
        raise DataError(f"{path}: not a readable .mat file ({_in_one_line(error)})") from error
    return np.asarray(found[name])


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
