"""Checks of an estimator's numeric data, and a digest that identifies data."""

import hashlib
from typing import Any

import numpy as np

from gpulstm.errors import DTypeError, GpulstmError, ShapeError
from gpulstm.tape import Tensor


def digest_of(*parts: Any) -> str:
    """Return the SHA-256 of arrays, texts and lists of them; it identifies the data of a run."""
    known = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype != object:
            known.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        elif isinstance(part, list | tuple | np.ndarray):
            known.update(f"[{len(part)}".encode())
            for item in part:
                known.update(digest_of(item).encode())
        else:
            known.update(f"{type(part).__name__} {part}".encode("utf-8", "surrogatepass"))
    return known.hexdigest()


def numbers_2d(name: str, X: Any, *, one_axis: bool = False) -> np.ndarray:
    """Convert an array, a list or a data frame to a float64 table (N, D) of finite numbers.

    With ``one_axis`` the shape (N,) is accepted too and becomes (N, 1). Raises ShapeError for another shape, for a
    table without rows or columns, and for missing or infinite values (the message names the first); DTypeError for
    anything but real numbers.
    """
    if hasattr(X, "toarray"):
        raise DTypeError(f"{name}: expected a dense array, got a sparse one; call toarray()")
    try:
        array = np.asarray(X.data if isinstance(X, Tensor) else X)
        if array.dtype.kind == "c":
            raise ShapeError(f"{name}: expected real numbers; Complex data not supported")
        array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        if isinstance(error, GpulstmError):
            raise
        kind = DTypeError if isinstance(error, TypeError) else ShapeError
        raise kind(f"{name}: expected a table of numbers, got other data: {error}") from error
    if one_axis and array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise ShapeError(
            f"{name}: expected (N, D), got {array.shape}. Reshape your data: x[:, None] or x.reshape(1, -1)"
        )
    if array.shape[0] == 0:
        raise ShapeError(f"{name}: expected at least one row, got 0 sample(s) in {array.shape}")
    if array.shape[1] == 0:
        raise ShapeError(
            f"{name}: expected a column, got 0 feature(s) (shape={array.shape}) while a minimum of 1 is required."
        )
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        value = "NaN" if np.isnan(array[row, column]) else "infinity"
        raise ShapeError(f"{name}: expected finite numbers, got {value} in row {row}, column {column}")
    return array
