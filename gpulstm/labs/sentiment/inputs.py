"""Checks of the SequenceClassifier's data: labels, texts and sequences of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.errors import DTypeError, ShapeError
from gpulstm.labs.inputs import numbers_2d


def labels_of(y: Any) -> np.ndarray:
    """Return the labels as an array (N,). Raises ShapeError for another shape and for missing labels."""
    if y is None:
        raise ShapeError("y: expected labels; requires y to be passed, but the target y is None")
    try:
        labels = np.asarray(y)
    except ValueError as error:
        raise ShapeError(f"y: expected (N,) labels, got lists of unequal lengths: {error}") from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not len(labels):
        raise ShapeError(f"y: expected (N,) labels, got {labels.shape}")
    if labels.dtype.kind in "OU":  # NumPy turns a missing label among strings into "nan"
        given = np.asarray(y, object).reshape(-1)
        is_text = np.array([isinstance(label, str) for label in given])
        if is_text.any() and not is_text.all():
            n = int(is_text.argmin())
            raise ShapeError(f"y[{n}]: expected a string, like the other labels, got {given[n]!r:.40}")
    if labels.dtype == object:
        labels = np.array(labels.tolist())
    if labels.dtype.kind not in "biufU":
        words = "; Complex data not supported" if labels.dtype.kind == "c" else ""
        raise ShapeError(f"y: expected numbers or strings, got {labels.dtype}{words}")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise ShapeError("y: expected finite labels, got NaN or infinity")
        if (labels != np.round(labels)).any():
            raise ShapeError("y: Unknown label type: expected classes, got continuous numbers")
    return labels


def is_texts(X: Any) -> bool:
    """Return whether X is a list, an array or a column of texts."""
    items = X.tolist() if hasattr(X, "tolist") and getattr(X, "ndim", 1) == 1 else X
    return isinstance(items, list | tuple) and any(isinstance(item, str) for item in items)


def texts_of(X: Any) -> list[str]:
    """Return the texts of X. Raises DTypeError for anything but a list of texts."""
    if isinstance(X, str) or (not isinstance(X, Sequence | np.ndarray) and not hasattr(X, "tolist")):
        raise DTypeError(f"X: expected a list of texts, got {type(X).__name__}")
    texts = X.tolist() if hasattr(X, "tolist") else list(X)
    for n, text in enumerate(texts):
        if not isinstance(text, str):
            raise DTypeError(f"X[{n}]: expected a string, got {text!r:.40}")
    if not texts:
        raise ShapeError("X: expected at least one text, got none")
    return texts


def arrays_of(X: Any) -> tuple[list[np.ndarray], tuple[int, ...] | None]:
    """Return the sequences (T, D) of X as float64, and their common shape if X is one array, else None.

    Raises ShapeError and DTypeError.
    """
    if isinstance(X, list | tuple) and len(X) and hasattr(X[0], "ndim") and X[0].ndim in (1, 2):
        return _several(X), None
    if isinstance(X, list | tuple) and len({len(one) if hasattr(one, "__len__") else 0 for one in X}) > 1:
        return _several(X), None
    try:
        array = X if hasattr(X, "toarray") else np.asarray(X)
    except ValueError as error:
        raise ShapeError(f"X: expected sequences (T,) or (T, D) of numbers, got other data: {error}") from error
    if array.dtype.kind in "SU" or (array.dtype == object and any(isinstance(one, str) for one in array.flat)):
        raise DTypeError(
            f"X: expected sequences of numbers, or texts in a plain list, got texts or bytes {array.shape}"
        )
    if array.ndim == 3:
        flat = numbers_2d("X", array.reshape(len(array), -1))
        return list(flat.reshape(array.shape)), array.shape[1:]
    table = numbers_2d("X", array)
    return [row[:, None] for row in table], table.shape[1:]


def _several(X: Sequence[Any]) -> list[np.ndarray]:
    """Return sequences of different lengths."""
    arrays = [numbers_2d(f"X[{n}]", one, one_axis=True) for n, one in enumerate(X)]
    if len(sizes := sorted({array.shape[1] for array in arrays})) > 1:
        raise ShapeError(f"X: expected sequences (T, D) with the same D, got {sizes}")
    return arrays


def check_count(count: int, labels: int) -> None:
    if count != labels:
        raise ShapeError(f"y: expected {count} labels, one for each sequence of X, got {labels}")
