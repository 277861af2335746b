"""Softmax and its logarithm along an axis, with their pullbacks; half types are computed in float32."""

from collections.abc import Callable

import numpy as np

from gpulstm import checks
from gpulstm.backend import Array, backend_of
from gpulstm.dtypes import accumulator
from gpulstm.functional.checks import check_floats
from gpulstm.functional.needs import needs


@needs({}, outputs=(0,))
def softmax(x: Array, *, axis: int = -1) -> tuple[Array, Callable]:
    """Compute exp(x) / sum(exp(x)) along an axis without overflow: ``y, pullback = softmax(x, axis=-1)``.

    x (...) -> y (...). ``pullback(dy)`` returns (dx,). As in PyTorch, a row is nan if it holds nan or +inf, or only
    -inf. Raises DTypeError for anything but a floating array, ShapeError for an axis that x does not have.

    >>> y, pullback = gl.functional.softmax(np.array([0.0, 0.0]))
    >>> y
    array([0.5, 0.5])
    """
    along, wide = _checked(x, axis)
    xp = backend_of(x).xp
    _, exps, total = _exponentials(x.astype(wide, copy=False), along)
    y = xp.asarray(exps / total, dtype=x.dtype)

    def pullback(dy: Array) -> tuple[Array]:
        p, dp = y.astype(wide, copy=False), dy.astype(wide, copy=False)
        dx = p * (dp - (dp * p).sum(axis=along, keepdims=True))
        return (xp.asarray(dx, dtype=dy.dtype),)

    return y, pullback


@needs({}, outputs=(0,))
def log_softmax(x: Array, *, axis: int = -1) -> tuple[Array, Callable]:
    """Compute x - log(sum(exp(x))) along an axis, without underflow: ``y, pullback = log_softmax(x, axis=-1)``.

    x (...) -> y (...). ``pullback(dy)`` returns (dx,). Raises as ``softmax``, and is nan where softmax is.

    >>> y, pullback = gl.functional.log_softmax(np.array([0.0, 1000.0]))
    >>> y
    array([-1000.,     0.])
    """
    along, wide = _checked(x, axis)
    xp = backend_of(x).xp
    shifted, _, total = _exponentials(x.astype(wide, copy=False), along)
    with np.errstate(divide="ignore"):  # an empty sum is 0
        y = xp.asarray(shifted - xp.log(total), dtype=x.dtype)

    def pullback(dy: Array) -> tuple[Array]:
        dp = dy.astype(wide, copy=False)
        dx = dp - xp.exp(y.astype(wide, copy=False)) * dp.sum(axis=along, keepdims=True)
        return (xp.asarray(dx, dtype=dy.dtype),)

    return y, pullback


def _checked(x: Array, axis: int) -> tuple[tuple[int, ...], np.dtype]:
    """Check the arguments -> (the axis as a tuple, () for a 0-d array; the dtype of the computation)."""
    wide = accumulator(check_floats(x=x))
    ndim = max(x.ndim, 1)  # as in PyTorch, a number has axis 0
    axis = checks.integer("axis", axis, -ndim, ndim, f"one axis of {x.shape}, from {-ndim} to {ndim - 1}")
    return (() if x.ndim == 0 else (axis % ndim,)), wide


def _exponentials(x: Array, along: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """(x - max, exp(x - max), the sum of exp(x - max)) along the axis."""
    xp = backend_of(x).xp
    with np.errstate(invalid="ignore"):  # inf - inf is nan, without a warning
        largest = x.max(axis=along, keepdims=True) if x.size else x.sum(axis=along, keepdims=True)
        shifted = xp.asarray(x - largest)
    exps = xp.asarray(xp.exp(shifted))
    return shifted, exps, xp.asarray(exps.sum(axis=along, keepdims=True))
