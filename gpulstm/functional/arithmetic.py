"""The arithmetic behind Tensor's operators: each function with its pullback, broadcasting undone.

Shapes follow NumPy's rules. Element types do not: the floating arrays of one operation have one dtype, which
numbers, integers and booleans take; float32 with float64 is an error, so that nothing is widened unseen.
Half types are summed in float32. What is no floating array has no gradient: its place holds None.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.backend import FLOATS, Array, Backend, accumulator, backend_of
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional.checks import check_floats
from gpulstm.functional.linear import product

Operand = Any  # an array or a number
Axis = int | tuple[int, ...] | None


def _is_float(x: Any) -> bool:
    return hasattr(x, "dtype") and x.dtype.name in FLOATS


def _operands(name: str, a: Operand, b: Operand) -> tuple[Operand, Operand, Callable[[Any], Array]]:
    """Both operands ready for a binary operation, and what gives its result the right dtype.

    Raises DTypeError for two floating types and for what is no number, ShapeError where shapes do not fit.
    """
    xp = backend_of(a, b).xp
    # NumPy's own scalars would widen float32; as Python's numbers they do not.
    a, b = (x.item() if isinstance(x, np.generic) else x for x in (a, b))
    for x in (a, b):
        if not hasattr(x, "dtype") and not isinstance(x, bool | int | float):
            raise DTypeError(f"{name}: want arrays or numbers, got {type(x).__name__}")
    try:
        np.broadcast_shapes(*(getattr(x, "shape", ()) for x in (a, b)))
    except ValueError as error:
        raise ShapeError(f"{name}: want shapes that broadcast, got {a.shape} and {b.shape}") from error
    dtypes = {x.dtype for x in (a, b) if _is_float(x)}
    if len(dtypes) > 1:
        raise DTypeError(f"{name}: want one dtype, got {a.dtype} and {b.dtype}; convert one with astype")
    if not dtypes:
        return a, b, xp.asarray
    dtype = dtypes.pop()
    a, b = (x.astype(dtype, copy=False) if hasattr(x, "dtype") else x for x in (a, b))
    return a, b, lambda result: xp.asarray(result, dtype=dtype)


def _undo_broadcast(x: Operand) -> Callable[[Array], Any]:
    """What turns a gradient of the broadcast shape into x's: sums over the axes that x was repeated on."""
    if not _is_float(x):
        return lambda gradient: None
    shape, dtype = x.shape, x.dtype

    def undo(gradient: Array) -> Array:
        if gradient.shape != shape:
            added = gradient.ndim - len(shape)
            repeated = tuple(added + k for k, n in enumerate(shape) if n == 1)
            wide = gradient.astype(accumulator(dtype), copy=False)
            gradient = wide.sum(axis=(*range(added), *repeated)).reshape(shape)
        return gradient.astype(dtype, copy=False)

    return undo


def add(a: Operand, b: Operand) -> tuple[Array, Callable]:
    """``y, pullback = add(a, b)``: a + b. ``pullback(dy)`` returns (da, db)."""
    undo_a, undo_b = _undo_broadcast(a), _undo_broadcast(b)
    a, b, typed = _operands("add", a, b)
    return typed(a + b), lambda dy: (undo_a(dy), undo_b(dy))


def subtract(a: Operand, b: Operand) -> tuple[Array, Callable]:
    """``y, pullback = subtract(a, b)``: a - b. ``pullback(dy)`` returns (da, db)."""
    undo_a, undo_b = _undo_broadcast(a), _undo_broadcast(b)
    a, b, typed = _operands("subtract", a, b)
    return typed(a - b), lambda dy: (undo_a(dy), undo_b(-dy))


def multiply(a: Operand, b: Operand) -> tuple[Array, Callable]:
    """``y, pullback = multiply(a, b)``: a * b. ``pullback(dy)`` returns (da, db)."""
    undo_a, undo_b = _undo_broadcast(a), _undo_broadcast(b)
    a, b, typed = _operands("multiply", a, b)
    return typed(a * b), lambda dy: (undo_a(typed(dy * b)), undo_b(typed(dy * a)))


def divide(a: Operand, b: Operand) -> tuple[Array, Callable]:
    """``y, pullback = divide(a, b)``: a / b. ``pullback(dy)`` returns (da, db)."""
    undo_a, undo_b = _undo_broadcast(a), _undo_broadcast(b)
    a, b, typed = _operands("divide", a, b)
    y = typed(a / b)
    return y, lambda dy: (undo_a(typed(dy / b)), undo_b(typed(-dy * y / b)))


def negative(a: Array) -> tuple[Array, Callable]:
    """``y, pullback = negative(a)``: -a. ``pullback(dy)`` returns (da,)."""
    return backend_of(a).xp.asarray(-a), lambda dy: (-dy,)


def power(a: Operand, b: Operand) -> tuple[Array, Callable]:
    """``y, pullback = power(a, b)``: a ** b. ``pullback(dy)`` returns (da, db).

    As in PyTorch, da is 0 where b is 0, and db is 0 where a is 0 and b is not negative.
    """
    undo_a, undo_b = _undo_broadcast(a), _undo_broadcast(b)
    has_da, has_db = _is_float(a), _is_float(b)
    xp = backend_of(a, b).xp
    a, b, typed = _operands("power", a, b)
    y = typed(a**b)

    def pullback(dy: Array) -> tuple[Array | None, Array | None]:
        da = db = None
        with np.errstate(divide="ignore", invalid="ignore"):  # infinite slopes, as at the root of 0
            if has_da:
                exponent = xp.where(b == 0, 1, b - 1) if hasattr(b, "dtype") else b - 1 if b else 1
                da = undo_a(typed(dy * (b * a**exponent)))
            if has_db:
                log_a = xp.log(xp.where((a == 0) & (b >= 0), 1, a))
                db = undo_b(typed(dy * y * log_a))
        return da, db

    return y, pullback


def matmul(a: Array, b: Array) -> tuple[Array, Callable]:
    """``y, pullback = matmul(a, b)``: a @ b, with NumPy's rules for vectors and for stacks of matrices.

    a (..., n, k), b (..., k, m) -> y (..., n, m); a vector (k,) stands for a row on the left, a column on the
    right. ``pullback(dy)`` returns (da, db). Raises ShapeError unless the inner sizes agree.
    """
    backend = backend_of(a, b)
    check_floats(a=a, b=b)
    if 0 in (a.ndim, b.ndim) or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ShapeError(f"matmul: want (..., n, k) @ (..., k, m), got {a.shape} @ {b.shape}")
    left = a if a.ndim > 1 else a[None, :]
    right = b if b.ndim > 1 else b[:, None]
    undo_left, undo_right = _undo_broadcast(left), _undo_broadcast(right)
    try:
        y = _products(backend, left, right)
    except ValueError as error:
        raise ShapeError(f"matmul: want stacks that broadcast, got {a.shape} @ {b.shape}") from error
    full = y.shape
    shape = full[: -2 if a.ndim == 1 else -1] + (full[-1:] if b.ndim > 1 else ())

    def pullback(dy: Array) -> tuple[Array, Array]:
        dy = dy.reshape(full)
        dleft = undo_left(_products(backend, dy, right.swapaxes(-1, -2)))
        if right.ndim == 2:  # one product instead of one for each matrix of the stack, and no sum over them
            n = math.prod(left.shape[:-1])
            rows, drows = left.reshape(n, left.shape[-1]), dy.reshape(n, dy.shape[-1])
            dright = product(backend, rows.T, drows)
        else:
            dright = undo_right(_products(backend, left.swapaxes(-1, -2), dy))
        return dleft.reshape(a.shape), dright.reshape(b.shape)

    return y.reshape(shape), pullback


def _products(backend: Backend, left: Array, right: Array) -> Array:
    """left @ right for stacks of matrices; as one product where the right one is shared."""
    if right.ndim == 2:
        rows = left.reshape(math.prod(left.shape[:-1]), left.shape[-1])
        return product(backend, rows, right).reshape(*left.shape[:-1], right.shape[1])
    wide = accumulator(left.dtype)
    y = backend.xp.matmul(left.astype(wide, copy=False), right.astype(wide, copy=False))
    return y.astype(left.dtype, copy=False)


def sum(a: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Callable]:
    """``y, pullback = sum(a, axis=axis)``: over an axis, several, or all. ``pullback(dy)`` returns (da,)."""
    backend = backend_of(a)
    axes = _axes(a, axis)
    wide = a.astype(accumulator(a.dtype), copy=False) if _is_float(a) else a
    y = backend.xp.asarray(wide.sum(axis=axes, keepdims=keepdims))
    y = y.astype(a.dtype, copy=False) if _is_float(a) else y
    shape, dtype = a.shape, a.dtype
    kept = tuple(1 if k in axes else n for k, n in enumerate(shape))

    def pullback(dy: Array) -> tuple[Array]:
        da = backend.empty(shape, dtype)
        da[...] = dy.reshape(kept)
        return (da,)

    return y, pullback


def mean(a: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Callable]:
    """``y, pullback = mean(a, axis=axis)``: as ``sum``, divided by how many are summed; nan for none.

    Raises DTypeError for what is no floating array.
    """
    check_floats(a=a)
    count = math.prod(a.shape[k] for k in _axes(a, axis))
    scale = 1 / count if count else math.nan
    wide, narrow = accumulator(a.dtype), a.dtype  # the sum of many float16 may be over its range
    total, spread = sum(a.astype(wide, copy=False), axis=axis, keepdims=keepdims)
    y = backend_of(a).xp.asarray(total * scale, dtype=narrow)

    def pullback(dy: Array) -> tuple[Array]:
        (da,) = spread(dy.astype(wide, copy=False) * scale)
        return (da.astype(narrow, copy=False),)

    return y, pullback


def _axes(a: Array, axis: Axis) -> tuple[int, ...]:
    """The axes counted from 0; raises ShapeError for one that a does not have and for one given twice."""
    if axis is None:
        return tuple(range(a.ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(k % a.ndim for k in given if -a.ndim <= k < a.ndim)
    if len(set(axes)) != len(given):
        raise ShapeError(f"axis: want axes of {a.shape}, each once, got {axis}")
    return axes


def exp(a: Array) -> tuple[Array, Callable]:
    """``y, pullback = exp(a)``. ``pullback(dy)`` returns (da,)."""
    y = _elementwise("exp", a)
    return y, lambda dy: (dy * y,)


def log(a: Array) -> tuple[Array, Callable]:
    """``y, pullback = log(a)``: the natural logarithm. ``pullback(dy)`` returns (da,)."""
    return _elementwise("log", a), lambda dy: (dy / a,)


def tanh(a: Array) -> tuple[Array, Callable]:
    """``y, pullback = tanh(a)``. ``pullback(dy)`` returns (da,)."""
    y = _elementwise("tanh", a)
    return y, lambda dy: (dy * (1 - y * y),)


def sigmoid(a: Array) -> tuple[Array, Callable]:
    """``y, pullback = sigmoid(a)``: 1 / (1 + exp(-a)). ``pullback(dy)`` returns (da,)."""
    xp = backend_of(a).xp
    wide = a.astype(accumulator(check_floats(a=a)), copy=False)
    y = xp.asarray(0.5 * xp.tanh(0.5 * wide) + 0.5, dtype=a.dtype)  # never overflows
    return y, lambda dy: (dy * (y * (1 - y)),)


def relu(a: Array) -> tuple[Array, Callable]:
    """``y, pullback = relu(a)``: max(a, 0). ``pullback(dy)`` returns (da,), 0 where a is 0, as in PyTorch."""
    check_floats(a=a)
    xp = backend_of(a).xp
    y = xp.asarray(xp.maximum(a, 0), dtype=a.dtype)
    return y, lambda dy: (xp.where(y > 0, dy, xp.zeros((), dy.dtype)),)


def _elementwise(name: str, a: Array) -> Array:
    check_floats(a=a)
    xp = backend_of(a).xp
    return xp.asarray(getattr(xp, name)(a), dtype=a.dtype)
