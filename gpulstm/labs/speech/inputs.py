"""Checks of the Transcriber's data: waves and texts; and the tokens of a text."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gpulstm.errors import DTypeError, GpulstmError, ShapeError
from gpulstm.tape import Tensor


def waves_in(X: Any, dtype: str) -> list[np.ndarray]:
    """Convert a list of waves (N_k,), or an array (waves, N), to arrays of this dtype.

    Raises ShapeError for an empty list, for a wave without samples or of another shape, and for samples that are NaN or
    infinite; DTypeError for anything but real numbers.
    """
    X = X.data if isinstance(X, Tensor) else X
    if hasattr(X, "toarray"):
        raise DTypeError("X: expected a list of waves, got a sparse array; call toarray()")
    if isinstance(X, str | bytes | dict) or not hasattr(X, "__len__"):
        raise DTypeError(f"X: expected a list of waves, each an array (N,), got {type(X).__name__}")
    if len(X) == 0:
        raise ShapeError("X: expected at least one wave, got 0 sample(s)")
    return [_wave(f"X[{k}]", wave, dtype) for k, wave in enumerate(X)]


def _wave(name: str, wave: Any, dtype: str) -> np.ndarray:
    try:
        array = np.asarray(wave.data if isinstance(wave, Tensor) else wave)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
        if array.dtype.kind == "c":
            raise ShapeError(f"{name}: expected real numbers, the samples of a wave; Complex data not supported")
        if array.dtype.kind not in "iuf":
            raise DTypeError(f"{name}: expected real numbers, the samples of a wave, got {array.dtype}")
    except (TypeError, ValueError) as error:
        if isinstance(error, GpulstmError):
            raise
        raise DTypeError(f"{name}: expected the samples of a wave, got {type(wave).__name__}: {error}") from error
    if array.ndim != 1 or array.size == 0:
        one = ". Reshape your data: for one wave pass [wave]" if array.ndim == 0 else ""
        raise ShapeError(f"{name}: expected (N,) with N > 0 samples, one channel, got {array.shape}{one}")
    with np.errstate(over="ignore"):
        array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise ShapeError(
            f"{name}: expected finite samples, got NaN or infinity at {int(np.argmin(np.isfinite(array)))}"
        )
    return array


def texts_in(y: Any, count: int) -> list[str]:
    """Return the ``count`` texts, with single spaces between words.

    Raises ShapeError for another number of texts, DTypeError for anything but strings.
    """
    if y is None:
        raise ShapeError("y: expected a list of texts: fit requires y to be passed, but the target y is None")
    if isinstance(y, str | bytes | dict) or not hasattr(y, "__len__"):
        raise DTypeError(f"y: expected a list of texts, one for each wave, got {type(y).__name__}")
    if len(y) != count:
        raise ShapeError(f"y: expected {count} texts, one for each wave in X, got {len(y)}")
    for k, text in enumerate(y):
        if not isinstance(text, str):
            raise DTypeError(f"y[{k}]: expected a string, got {text!r:.60}")
    return [" ".join(text.split()) for text in y]


def split(text: str, level: str) -> list[str]:
    """Split a text into tokens: words or characters."""
    return text.split() if level == "word" else list(text)


def joined(tokens: Sequence[str], level: str) -> str:
    """Join tokens to a text, with single spaces between words."""
    return " ".join(" ".join(tokens).split() if level == "word" else "".join(tokens).split())


def steps_needed(tokens: Sequence[str]) -> int:
    """Return the fewest steps that CTC needs for the tokens: one each, and a blank between equal neighbours."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))
