"""Checks of arrays by the names of the arguments they are: one device for all, memory that can be written to."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from gpulstm.backend import Array, Backend, backend_of
from gpulstm.errors import DeviceError, DTypeError


def one_backend(fn: Callable, given: Sequence[Any], arrays: Sequence[Array | float | None]) -> Backend:
    """The backend of all arrays that ``fn`` is called with: the raw arrays of what was ``given``.

    Raises DTypeError for what is no array and DeviceError for one on another device, both with its name in ``fn``.
    What is learnt, a Tensor that requires_grad, is where it should be; the others are to be moved.
    """
    try:
        return backend_of(*arrays)
    except (DTypeError, DeviceError):
        named = list(zip(_names(fn, len(given)), given, arrays, strict=True))
    for name, x, array in named:
        if not (hasattr(array, "dtype") or array is None or isinstance(array, bool | int | float)):
            raise DTypeError(f"{name}: want an array or a Tensor, got {type(x).__name__}; make one with gl.tensor")
    named.sort(key=lambda item: not getattr(item[1], "requires_grad", False))
    return backend_of(**{name: array for name, _, array in named})


def _names(fn: Callable, count: int) -> list[str]:
    """What the function calls its first ``count`` positional arguments; those of ``*names`` are names[0], ..."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # a built-in function
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:count]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "inputs")
    return names + [f"{rest}[{k}]" for k in range(count - len(names))]


def check_writable(name: str, array: Array) -> None:
    """Raises DTypeError for a read-only array, such as one that np.load mapped or np.broadcast_to made."""
    if not getattr(array.flags, "writeable", True):  # CuPy's are never read-only
        raise DTypeError(f"{name}: want memory that can be written to, got a read-only array; copy it: array.copy()")
