"""Softmax and its logarithm along an axis, with their pullbacks; half types are computed in float32."""

from collections.abc import Callable

import numpy as np

from gpulstm.backend import Array, accumulator, backend_of
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_floats
from gpulstm.functional.needs import needs


@needs({}, outputs=(0,))
def softmax(a: Array, *, axis: int = -1) -> tuple[Array, Callable]:
    """``y, pullback = softmax(a, axis=-1)``: exp(a) / sum(exp(a)) along the axis, without overflow.

    a (...) -> y (...). ``pullback(dy)`` returns (da,). As in PyTorch, a row is nan if it holds nan or +inf, or
    nothing but -inf. Raises DTypeError for what is no floating array, ShapeError for an axis that a does not have.
    """
    along, wide = _checked(a, axis)
    xp = backend_of(a).xp
    _, exps, total = _exponentials(a.astype(wide, copy=False), along)
    y = xp.asarray(exps / total, dtype=a.dtype)

    def pullback(dy: Array) -> tuple[Array]:
        p, dp = y.astype(wide, copy=False), dy.astype(wide, copy=False)
        da = p * (dp - (dp * p).sum(axis=along, keepdims=True))
        return (xp.asarray(da, dtype=dy.dtype),)

    return y, pullback


@needs({}, outputs=(0,))
def log_softmax(a: Array, *, axis: int = -1) -> tuple[Array, Callable]:
    """``y, pullback = log_softmax(a, axis=-1)``: a - log(sum(exp(a))) along the axis; exact where softmax(a) is 0.

    a (...) -> y (...). ``pullback(dy)`` returns (da,). Raises as ``softmax``, and is nan where softmax is.
    """
    along, wide = _checked(a, axis)
    xp = backend_of(a).xp
    shifted, _, total = _exponentials(a.astype(wide, copy=False), along)
    with np.errstate(divide="ignore"):  # the sum of nothing is 0
        y = xp.asarray(shifted - xp.log(total), dtype=a.dtype)

    def pullback(dy: Array) -> tuple[Array]:
        dp = dy.astype(wide, copy=False)
        da = dp - xp.exp(y.astype(wide, copy=False)) * dp.sum(axis=along, keepdims=True)
        return (xp.asarray(da, dtype=dy.dtype),)

    return y, pullback


def _checked(a: Array, axis: int) -> tuple[tuple[int, ...], np.dtype]:
    """(the axis as a tuple: () for an array of no dimension; the type that is computed in)."""
    wide = accumulator(check_floats(a=a))
    ndim = max(a.ndim, 1)  # as in PyTorch, a number has axis 0
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer) or not -ndim <= axis < ndim:
        raise ShapeError(f"axis: want one axis of {a.shape}, from {-ndim} to {ndim - 1}, got {axis!r}")
    return (() if a.ndim == 0 else (int(axis) % ndim,)), wide


def _exponentials(x: Array, along: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """(x without its largest, that to the power of e, the sum of that) along the axis."""
    xp = backend_of(x).xp
    with np.errstate(invalid="ignore"):  # inf - inf: nan, and no warning
        largest = x.max(axis=along, keepdims=True) if x.size else x.sum(axis=along, keepdims=True)
        shifted = xp.asarray(x - largest)
    exps = xp.asarray(xp.exp(shifted))
    return shifted, exps, xp.asarray(exps.sum(axis=along, keepdims=True))
