"""Checks that a NumPy array is nothing but its numbers, and converts arrays in another byte order."""

from typing import Any

import numpy as np

from gpulstm.errors import DTypeError


def check_plain(x: Any, name: str = "array") -> None:
    """Raise DTypeError for a NumPy array that is more than its numbers: masked, structured, a matrix, with a unit.

    The other information, such as the mask, would be lost silently.
    """
    if not isinstance(x, np.ndarray):
        if isinstance(x, list | tuple) and x and isinstance(x[0], np.ndarray):
            for item in x:
                check_plain(item, name)
        return
    if isinstance(x, np.ma.MaskedArray):
        way = "fill it with x.filled(value), or split it into x.data and x.mask"
    elif type(x) not in (np.ndarray, np.memmap):
        way = "np.asarray(x) keeps only its numbers"
    elif x.dtype.names is not None:
        raise DTypeError(f"{name}: expected one type of number, got {x.dtype}; choose a field, x[{x.dtype.names[0]!r}]")
    else:
        return
    raise DTypeError(f"{name}: expected a plain array, got a {type(x).__name__}, which would lose information; {way}")


def native(x: Any) -> Any:
    """Convert a NumPy array to this machine's byte order, with the same numbers; anything else is unchanged.

    Arrays from FITS, netCDF and other files often have the other byte order, which kernels cannot read.
    """
    foreign = isinstance(x, np.ndarray) and not x.dtype.isnative
    return x.astype(x.dtype.newbyteorder("=")) if foreign else x
