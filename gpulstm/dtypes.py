"""Element types: those that have gradients, their names, and the wider ones that sums are kept in."""

import functools
import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpulstm.errors import DTypeError

FLOATS = ("float32", "float64", "float16", "bfloat16")


def as_dtype(dtype: Any) -> np.dtype:
    """Return the floating NumPy dtype that a name, a NumPy dtype or a type stands for.

    Names are "float32", "float64", "float16" and "bfloat16" (with ml_dtypes). Raises DTypeError for anything else.

    >>> gl.as_dtype("float32")
    dtype('float32')
    """
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            dtype = importlib.import_module("ml_dtypes").bfloat16
        except ImportError as error:
            raise DTypeError("dtype 'bfloat16' needs the package ml_dtypes (pip install ml_dtypes)") from error
    try:
        result = np.dtype(dtype)
    except TypeError as error:
        raise DTypeError(f"dtype: expected float32, float64, float16 or bfloat16, got {dtype!r}") from error
    if result.name not in FLOATS:
        raise DTypeError(f"dtype: expected float32, float64, float16 or bfloat16, got {result.name}")
    return result if result.isnative else result.newbyteorder("=")


def to_dtype(dtype: Any) -> np.dtype:
    """A NumPy dtype of any kind from a name, "bfloat16" too, or a type; raises DTypeError for anything else."""
    if isinstance(dtype, str) and dtype == "bfloat16":
        return as_dtype(dtype)
    try:
        result = np.dtype(dtype)
    except TypeError as error:
        raise DTypeError(f"dtype: expected one of NumPy's, got {dtype!r}") from error
    return result if result.isnative else result.newbyteorder("=")


@functools.cache
@functools.lru_cache(maxsize=64)  # the name of a type is slow to find
def is_floating(dtype: np.dtype) -> bool:
    """Whether it is one of FLOATS, the types that have gradients."""
    return dtype.name in FLOATS


def accumulator(dtype: Any) -> np.dtype:
    """The dtype that sums and cell states are kept in: float64 for float64, float32 for everything else."""
    return np.dtype(np.float64 if np.dtype(dtype) == np.float64 else np.float32)


def cast(arrays: Iterable[Any], dtype: Any) -> tuple:
    """Arrays in another dtype, those that have it already as they are; None stays None."""
    return tuple(None if a is None else a.astype(dtype, copy=False) for a in arrays)
