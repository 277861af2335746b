"""Element types and shapes in HDF5's messages: plain numbers and strings, and nothing else."""

import struct
from typing import Literal

import numpy as np

from gpulstm.dtypes import as_dtype

_MOST_AXES = 32  # HDF5's limit
_INTEGER, _FLOAT, _TEXT, _OPAQUE, _ENUM, _VARIABLE = 0, 1, 3, 5, 8, 9
# (size, place and bits of the exponent, place and bits of the fraction) -> name of the type.
_FLOATS = {
    (2, 10, 5, 0, 10): "float16",
    (2, 7, 8, 0, 7): "bfloat16",
    (4, 23, 8, 0, 23): "float32",
    (8, 52, 11, 0, 52): "float64",
}


def shape_of(space: bytes) -> tuple[int, ...] | None:
    """The shape in a dataspace message; None for anything but a number or an array."""
    if len(space) < 4 or space[0] not in (1, 2) or space[1] > _MOST_AXES:
        return None
    start = 8 if space[0] == 1 else 4
    if (space[0] == 2 and space[3] > 1) or len(space) < start + 8 * space[1]:
        return None
    return struct.unpack_from(f"<{space[1]}Q", space, start)


def array_type(kind: bytes, is_bfloat16: bool) -> np.dtype | None:
    """The element type in a datatype message; None for anything but numbers.

    ``is_bfloat16`` says that the file marks its elements of two opaque bytes as bfloat16, which HDF5 does not know.
    """
    if len(kind) < 8:
        return None
    group, flags, size = kind[0] & 15, kind[1], int.from_bytes(kind[4:8], "little")
    order: Literal["<", ">"] = ">" if flags & 1 else "<"
    if group == _OPAQUE and size == 2 and is_bfloat16:
        return as_dtype("bfloat16")
    if group == _ENUM and size == 1:  # as h5py keeps booleans
        return np.dtype(np.bool_)
    if group == _INTEGER and size in (1, 2, 4, 8) and kind[8:12] == struct.pack("<HH", 0, 8 * size):
        return np.dtype(f"{order}{'i' if flags & 8 else 'u'}{size}")
    if group == _FLOAT and not flags & 64 and len(kind) >= 16:  # 64: of a VAX
        name = _FLOATS.get((size, *kind[12:16]))
        if name == "bfloat16":
            return as_dtype(name) if order == "<" else None
        return np.dtype(name).newbyteorder(order) if name else None
    return None


def text_type(kind: bytes) -> int | None:
    """The size of a string in bytes, 0 for one of variable length, stored elsewhere; None for another type."""
    if len(kind) < 8:
        return None
    group, size = kind[0] & 15, int.from_bytes(kind[4:8], "little")
    if group == _VARIABLE and kind[1] & 15 == 1:
        return 0
    return size or None if group == _TEXT else None
