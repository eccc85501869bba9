"""Check numbers that come from outside: they are validated, never cast."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sptskm.common.errors import DataError

INT32 = (-(2**31), 2**31 - 1)
INT64 = (-(2**63), 2**63 - 1)


def whole_numbers(
    array: NDArray[Any], source: str, low: int = INT64[0], high: int = INT64[1], unit: str = "row"
) -> NDArray[np.int64]:
    """Return an array of whole numbers from `low` to `high` as int64.

    Floats are accepted if every one is whole. Raises DataError, with `source` at its beginning, for an array of another
    type and for the first wrong value, with its place counted from 1.
    """
    wanted = f"wanted whole numbers from {low} to {high}" if (low, high) != INT64 else "wanted whole numbers of 64 bits"
    if array.dtype.kind not in "iuf":
        raise DataError(f"{source}: holds {_kind(array)}, {wanted}")
    fits = (array >= low) & (array <= high)
    if array.dtype.kind == "f":
        values = array.astype(np.float64)
        # 2.0**63 is no int64, though it is the float next to the largest one
        fits = (values >= low) & (values < float(high) + 1) & (values < 2.0**63) & (values == np.floor(values))
    if not fits.all():
        place = np.argwhere(~fits)[0]
        named = (
            f"{unit} {place[0] + 1}" + "".join(f", column {at + 1}" for at in place[1:]) if len(place) else "the value"
        )
        raise DataError(f"{source}: {named} is {array[tuple(place)]}, {wanted}")
    return array.astype(np.int64)


def _kind(array: NDArray[Any]) -> str:
    names = {"b": "truth values", "c": "complex numbers", "O": "cells", "U": "text", "S": "text", "V": "a structure"}
    return names.get(array.dtype.kind, str(array.dtype))
