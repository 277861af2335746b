"""What a NumPy array must be to be taken as its numbers alone, and how one in another byte order is read."""

from typing import Any

import numpy as np

from gpulstm.errors import DTypeError


def check_plain(x: Any, name: str = "array") -> None:
    """Raises DTypeError for an array of NumPy that means more than its numbers: masked, structured, a matrix, a
    quantity with a unit. What it means besides would be lost in silence."""
    if not isinstance(x, np.ndarray):
        if isinstance(x, list | tuple) and x and isinstance(x[0], np.ndarray):
            for item in x:
                check_plain(item, name)
        return
    if isinstance(x, np.ma.MaskedArray):
        way = "fill it with x.filled(value), or split it into x.data and x.mask"
    elif type(x) not in (np.ndarray, np.memmap):
        way = "np.asarray(x) gives its numbers alone"
    elif x.dtype.names is not None:
        raise DTypeError(f"{name}: expected one type of number, got {x.dtype}; choose a field, x[{x.dtype.names[0]!r}]")
    else:
        return
    raise DTypeError(f"{name}: expected a plain array, got a {type(x).__name__}, which would lose information; {way}")


def native(x: Any) -> Any:
    """An array of NumPy in this machine's byte order, with the same numbers; all else as it is.

    Arrays from FITS, netCDF and other files are often in the other order, which no product or kernel takes.
    """
    foreign = isinstance(x, np.ndarray) and not x.dtype.isnative
    return x.astype(x.dtype.newbyteorder("=")) if foreign else x
