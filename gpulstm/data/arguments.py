"""Checks of the arrays and numbers given to the data sets."""

import numbers
from typing import Any

import numpy as np

from gpulstm.backend import CPU, Array, backend_of
from gpulstm.errors import DTypeError, ShapeError, TapeError
from gpulstm.tape import Tensor, raw

_ADVICE = "numbers or booleans"


def as_array(name: str, x: Any) -> Array:
    """Return x as a NumPy or CuPy array of real numbers or booleans, on its device, without a copy if possible.

    Takes arrays of any library, Tensors, lists, and anything NumPy reads as an array (a pandas column). Raises
    TapeError for a Tensor that requires a gradient, ShapeError for lists whose parts differ in length, and DTypeError
    for anything else.
    """
    if isinstance(x, Tensor) and x.requires_grad:
        raise TapeError(f"{name}: expected data, got a Tensor that requires_grad; call detach() first")
    if x is None or isinstance(x, str | bytes | dict | set | frozenset):
        raise DTypeError(f"{name}: expected an array or a list of {_ADVICE}, got {type(x).__name__}")
    try:
        other = any(hasattr(x, mark) for mark in ("__dlpack__", "__cuda_array_interface__"))
        array = raw(x) if other or isinstance(x, Tensor) else CPU.asarray(x)
    except ValueError as error:
        raise ShapeError(f"{name}: expected equal shapes in a list, got {_shortened(x)}") from error
    except TypeError as error:
        raise DTypeError(f"{name}: expected an array or a list of {_ADVICE}: {error}") from error
    backend_of(**{name: array})
    if not is_real(array.dtype):
        raise DTypeError(f"{name}: expected {_ADVICE}, got {array.dtype.name} in {_shortened(x)}")
    return array


def is_real(dtype: Any) -> bool:
    """Whether an element type is one of real numbers or booleans."""
    return dtype.kind in "biuf" or dtype.name == "bfloat16"


def held(name: str, value: Any, dtype: Any, of: str) -> Any:
    """Return the number if the element type ``dtype`` can hold it, else raise DTypeError.

    ``of`` names what has this type, for the message. Integer types hold whole numbers in their range, booleans 0 and 1.
    Floating types may round, but not to infinity or zero.
    """
    value = value.item() if isinstance(value, np.ndarray | np.generic) and value.ndim == 0 else value
    if isinstance(value, numbers.Real) and _fits(value, np.dtype(dtype)):
        return value
    raise DTypeError(f"{name}: expected a number that {dtype.name}, the type of {of}, can hold, got {value!r}")


def _fits(value: Any, dtype: np.dtype) -> bool:
    if dtype.kind == "b":
        return value in (0, 1)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return bool(np.isfinite(float(value)) and value == int(value) and info.min <= value <= info.max)
    with np.errstate(all="ignore"):
        rounded = float(np.asarray(float(value)).astype(dtype))
    return bool((np.isfinite(rounded) or not np.isfinite(float(value))) and (rounded != 0 or value == 0))


def _shortened(x: Any) -> str:
    text = f"{x!r}".replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "..."
