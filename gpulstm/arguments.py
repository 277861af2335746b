"""Checks of array arguments: one device for all, writable memory, lists; the errors name the argument."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpulstm.backend import CPU, Array, Backend, CupyBackend, backend_of
from gpulstm.errors import DeviceError, DTypeError, GpulstmError, ShapeError
from gpulstm.explain import record_move


def one_backend(fn: Callable, given: Sequence[Any], arrays: list[Any]) -> Backend:
    """Return the backend of all ``arrays``, the raw arrays of the arguments ``given`` to ``fn``.

    If some are on a GPU, a NumPy array is moved there: ``arrays`` is updated, and ``gl.explain()`` lists the move.
    Raises DTypeError for anything but an array, and DeviceError for a Tensor or CuPy array on another device. Both name
    the argument of ``fn``. A Tensor that requires_grad, such as a weight, decides which device is the right one.
    """
    try:
        return backend_of(*arrays)
    except (DTypeError, DeviceError):
        names = input_names(fn, len(given))
    for name, x, array in zip(names, given, arrays, strict=True):
        if not (hasattr(array, "dtype") or array is None or isinstance(array, bool | int | float)):
            raise DTypeError(f"{name}: expected an array or a Tensor, got {type(x).__name__}; make one with gl.tensor")
    named = list(zip(names, given, arrays, range(len(given)), strict=True))
    named.sort(key=lambda item: not getattr(item[1], "requires_grad", False))
    on_gpu = [array for array in arrays if hasattr(array, "__cuda_array_interface__")]
    if on_gpu:
        for name, x, array, k in named:
            if not hasattr(x, "requires_grad"):  # a Tensor stays on its device
                arrays[k] = moved(name, array, backend_of(on_gpu[0]))
    return backend_of(**{name: arrays[k] for name, *_, k in named})


def moved(name: str, array: Any, backend: Backend) -> Any:
    """Move a NumPy array to the GPU of ``backend`` and tell ``gl.explain()``; anything else is returned unchanged."""
    if not isinstance(backend, CupyBackend) or type(array) is not np.ndarray:
        return array
    record_move(name, array.shape, array.dtype, backend.name)
    return backend.asarray(array)


def input_names(fn: Callable, count: int) -> list[str]:
    """The names of the function's first ``count`` positional arguments; those of ``*names`` are names[0], ..."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # a built-in function
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:count]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "inputs")
    return names + [f"{rest}[{k}]" for k in range(count - len(names))]


def array_of_list(name: str, x: Any, dtype: np.dtype | None) -> np.ndarray:
    """Convert a number or a list to an array, with the dtype that NumPy chooses.

    Raises ShapeError for rows of different lengths and DTypeError for numbers that an integer ``dtype`` cannot hold.
    """
    try:
        array = CPU.asarray(x)
    except ValueError as error:
        raise ShapeError(
            f"{name}: expected equal lengths in a list, got {x!r:.60}; see gl.data.pad_sequences"
        ) from error
    if dtype is None or dtype.kind not in "iu" or array.dtype.kind not in "iuf":
        return array
    if array.size and not np.can_cast(array.dtype, dtype):
        info = np.iinfo(dtype)
        exact = bool((np.isfinite(array) & (array == np.trunc(array))).all())
        if not (exact and info.min <= int(array.min()) and int(array.max()) <= info.max):
            raise DTypeError(f"{name}: expected whole numbers from {info.min} to {info.max} for {dtype}, got {x!r:.60}")
    return array


def renamed(error: GpulstmError, name: str) -> GpulstmError:
    """The same error with another argument name at the start of its message."""
    return type(error)(f"{name}: {str(error).partition(': ')[2]}")


def check_writable(name: str, array: Array) -> None:
    """Raise DTypeError for a read-only array, such as one from np.broadcast_to or a memory-mapped np.load."""
    if not getattr(array.flags, "writeable", True):  # CuPy's are never read-only
        raise DTypeError(f"{name}: expected a writable array, got a read-only one; copy it with array.copy()")
