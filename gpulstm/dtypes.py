"""Element types: those that support gradients, their names, and the wider types for sums."""

import functools
import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpulstm.errors import DTypeError

FLOATS = ("float32", "float64", "float16", "bfloat16")


def as_dtype(dtype: Any) -> np.dtype:
    """Convert a name, a type or a NumPy dtype to a floating NumPy dtype.

    Names are "float32", "float64", "float16" and "bfloat16" (needs ml_dtypes). Raises DTypeError for anything else.

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
    """Convert a name, also "bfloat16", or a type to any NumPy dtype; raises DTypeError for anything else."""
    if isinstance(dtype, str) and dtype == "bfloat16":
        return as_dtype(dtype)
    try:
        result = np.dtype(dtype)
    except TypeError as error:
        raise DTypeError(f"dtype: expected a NumPy dtype, got {dtype!r}") from error
    return result if result.isnative else result.newbyteorder("=")


@functools.cache
@functools.lru_cache(maxsize=64)  # dtype.name is slow
def is_floating(dtype: np.dtype) -> bool:
    """Whether it is one of FLOATS, the types that support gradients."""
    return dtype.name in FLOATS


def accumulator(dtype: Any) -> np.dtype:
    """The dtype of sums and cell states: float64 for float64, float32 for everything else."""
    return np.dtype(np.float64 if np.dtype(dtype) == np.float64 else np.float32)


def cast(arrays: Iterable[Any], dtype: Any) -> tuple:
    """Convert arrays to another dtype, without a copy if they already have it; None stays None."""
    return tuple(None if a is None else a.astype(dtype, copy=False) for a in arrays)
