"""The argument checks that the functions of this folder share: arrays, dtypes, shapes, axes and indices."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpulstm import checks
from gpulstm.backend import Array, Backend, backend_of
from gpulstm.dtypes import FLOATS, is_floating
from gpulstm.errors import DTypeError, ShapeError

REDUCTIONS = ("mean", "sum", "none")


def check_arrays(optional: Sequence[str] = (), **arrays: Array | None) -> Backend:
    """The backend that all the arrays belong to; the arguments named in ``optional`` may be None.

    Raises DTypeError, naming the argument, if it is not a NumPy or CuPy array in this machine's byte order, and
    DeviceError for arrays on different devices.
    """
    backend = backend_of(**arrays)
    for name, array in arrays.items():
        if not hasattr(array, "dtype") and not (array is None and name in optional):
            raise DTypeError(f"{name}: expected a NumPy or CuPy array, got {type(array).__name__}")
    return backend


def check_floats(**arrays: Array | None) -> np.dtype:
    """The floating dtype that all the arrays share; None is skipped.

    Raises DTypeError, naming the argument, if it is not an array, not floating, or of another dtype than the first.
    """
    first, dtype = "", None
    for name, array in arrays.items():
        if array is None:
            continue
        if type(array) is not np.ndarray or not array.dtype.isnative:
            check_arrays(**{name: array})
        if not is_floating(array.dtype):
            way = f"; convert it with {name}.astype('float32')" if array.dtype.kind in "biu" else ""
            raise DTypeError(f"{name}: expected {', '.join(FLOATS)}, got {array.dtype.name}{way}")
        if dtype is None:
            first, dtype = name, array.dtype
        elif array.dtype != dtype:
            got = array.dtype.name
            raise DTypeError(f"{name}: expected {dtype.name} as {first} has, got {got}; convert one with astype")
    if dtype is None:
        raise DTypeError(f"{next(iter(arrays))}: expected an array, got None")
    return dtype


def check_shape(name: str, array: Array, want: tuple[int, ...], words: str) -> None:
    """Raises ShapeError unless the array has the shape ``want``, described by ``words``."""
    if array.shape != want:
        raise ShapeError(f"{name}: expected {want} = {words}, got {array.shape}")


def check_axis(axis: Any, ndim: int, want: str, name: str = "axis") -> int:
    """The axis counted from 0, of an array with ``ndim`` axes. Raises ShapeError if there is no such axis."""
    return checks.integer(name, axis, -ndim, ndim, words=want) % ndim


def checked(pullback: Callable[..., tuple], names: Sequence[str], outputs: tuple) -> Callable[..., tuple]:
    """Wrap a pullback so that it checks its arguments, the gradients of the outputs of these names.

    Each must be None or a floating array of the output's shape. Raises ShapeError or DTypeError otherwise, and
    ShapeError for a wrong number of them.
    """
    shapes = [output.shape for output in outputs]

    def run(*cotangents: Array | None) -> tuple:
        if len(cotangents) != len(shapes):
            want = ", ".join(f"d{name}" for name in names)
            raise ShapeError(f"pullback: expected {want}, each an array or None, got {len(cotangents)}")
        for name, shape, given in zip(names, shapes, cotangents, strict=True):
            if given is None:
                continue
            if not (hasattr(given, "dtype") and is_floating(given.dtype)):
                got = getattr(given, "dtype", type(given).__name__)
                raise DTypeError(f"d{name}: expected an array of {', '.join(FLOATS)}, got {got}")
            if given.shape != shape:
                check_shape(f"d{name}", given, shape, f"the shape of {name}")
        return pullback(*cotangents)

    return run


def check_reduction(reduction: str) -> None:
    """Raises ShapeError unless it is one of REDUCTIONS."""
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        raise ShapeError(f"reduction: expected {', '.join(REDUCTIONS)}, got {reduction!r}")


def check_indices(name: str, indices: Array, size: int, of: str, ignore: int | None = None) -> Array:
    """The integer array as int64, every element in 0 <= index < size or equal to ``ignore``.

    Raises DTypeError unless they are integers, and ShapeError with one bad index and its position. On CUDA this costs
    one reduction over the indices and one wait for the device, since 8 bytes are copied to the host.
    """
    if indices.dtype.kind not in "iu":
        raise DTypeError(f"{name}: expected integers, got {indices.dtype.name}")
    xp = backend_of(indices).xp
    indices = indices.astype(np.int64, copy=False)
    if indices.size == 0:
        return indices
    used: Any = indices if ignore is None else xp.where(indices == ignore, 0, indices)
    # Read as unsigned, a negative index is larger than any size, so one maximum finds every index out of range.
    if int(used.view(np.uint64).max()) >= size:
        host = backend_of(indices).to_numpy(used)
        where = np.argwhere((host < 0) | (host >= size))[0].tolist()
        bad, at = host[tuple(where)], where[0] if len(where) == 1 else tuple(where)
        raise ShapeError(f"{name}: expected 0 <= index < {size}, the {of}, got {bad} at {at}")
    return indices
