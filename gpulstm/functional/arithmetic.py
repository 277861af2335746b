"""The arithmetic behind Tensor's operators: each function with its pullback, which undoes broadcasting.

Shapes follow NumPy's rules, but dtypes do not. All floating arrays of one operation must have the same dtype; numbers,
integers and booleans are converted to it. float32 with float64 is an error, so that nothing is widened silently. Half
types are summed in float32. Only floating arrays have gradients; a pullback returns None for anything else.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.backend import Array, Backend, backend_of
from gpulstm.dtypes import accumulator, is_floating
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional.checks import check_floats
from gpulstm.functional.linear import multiplied
from gpulstm.functional.needs import needs
from gpulstm.precision import keeps_precision

Operand = Any  # an array or a number


def _is_float(x: Any) -> bool:
    return hasattr(x, "dtype") and is_floating(x.dtype)


def checked_operands(name: str, *operands: Operand) -> tuple[Operand, ...]:
    """The operands, with NumPy scalars converted to Python numbers, which do not widen float32.

    Raises DTypeError for operands that are not numbers, ShapeError for shapes that do not broadcast, DeviceError for
    two devices.
    """
    backend_of(*operands)
    operands = tuple(x.item() if isinstance(x, np.generic) else x for x in operands)
    for x in operands:
        if not hasattr(x, "dtype") and not isinstance(x, bool | int | float):
            raise DTypeError(f"{name}: expected arrays or numbers, got {type(x).__name__}")
        if hasattr(x, "dtype") and x.dtype.kind not in "biuf" and not is_floating(x.dtype):
            raise DTypeError(f"{name}: expected arrays of numbers, got {x.dtype.name}")
    shapes = [x.shape for x in operands if hasattr(x, "shape")]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ShapeError(f"{name}: expected shapes that broadcast, got {' and '.join(map(str, shapes))}") from error
    return operands


def typed_operands(name: str, a: Operand, b: Operand) -> tuple[Operand, Operand, Callable[[Any], Array]]:
    """Both operands ready for a binary operation, and a function that gives its result the right dtype.

    Raises DTypeError for two floating dtypes, and what ``checked_operands`` raises.
    """
    xp = backend_of(a, b).xp
    a, b = checked_operands(name, a, b)
    dtypes = {x.dtype for x in (a, b) if _is_float(x)}
    if len(dtypes) > 1:
        raise DTypeError(f"{name}: expected one dtype, got {a.dtype} and {b.dtype}; convert one with astype")
    if not dtypes:
        return a, b, xp.asarray
    dtype = dtypes.pop()
    a, b = (x.astype(dtype, copy=False) if hasattr(x, "dtype") else x for x in (a, b))
    return a, b, lambda result: xp.asarray(result, dtype=dtype)


def undo_broadcast(x: Operand) -> Callable[[Array], Any]:
    """Make a function that reduces a gradient of the broadcast shape to x's shape: it sums over the repeated axes."""
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


@needs({})
def add(a: Operand, b: Operand) -> tuple[Array, Callable]:
    """``y, pullback = add(a, b)``: a + b. ``pullback(dy)`` returns (da, db)."""
    undo_a, undo_b = undo_broadcast(a), undo_broadcast(b)
    a, b, typed = typed_operands("add", a, b)
    return typed(a + b), lambda dy: (undo_a(dy), undo_b(dy))


@needs({})
def subtract(a: Operand, b: Operand) -> tuple[Array, Callable]:
    """``y, pullback = subtract(a, b)``: a - b. ``pullback(dy)`` returns (da, db)."""
    undo_a, undo_b = undo_broadcast(a), undo_broadcast(b)
    a, b, typed = typed_operands("subtract", a, b)
    return typed(a - b), lambda dy: (undo_a(dy), undo_b(-dy))


@needs({0: (1,), 1: (0,)})
def multiply(a: Operand, b: Operand) -> tuple[Array, Callable]:
    """``y, pullback = multiply(a, b)``: a * b. ``pullback(dy)`` returns (da, db)."""
    undo_a, undo_b = undo_broadcast(a), undo_broadcast(b)
    a, b, typed = typed_operands("multiply", a, b)
    return typed(a * b), lambda dy: (undo_a(typed(dy * b)), undo_b(typed(dy * a)))


@needs({1: (0, 1)}, outputs=(1,))
def divide(a: Operand, b: Operand) -> tuple[Array, Callable]:
    """``y, pullback = divide(a, b)``: a / b. ``pullback(dy)`` returns (da, db)."""
    undo_a, undo_b = undo_broadcast(a), undo_broadcast(b)
    a, b, typed = typed_operands("divide", a, b)
    y = typed(a / b)
    return y, lambda dy: (undo_a(typed(dy / b)), undo_b(typed(-dy * y / b)))


@needs({})
def negative(a: Array) -> tuple[Array, Callable]:
    """``y, pullback = negative(a)``: -a. ``pullback(dy)`` returns (da,)."""
    return backend_of(a).xp.asarray(-a), lambda dy: (-dy,)


@needs({0: (0, 1), 1: (0, 1)}, outputs=(1,))
def power(a: Operand, b: Operand) -> tuple[Array, Callable]:
    """``y, pullback = power(a, b)``: a ** b. ``pullback(dy)`` returns (da, db).

    As in PyTorch, da is 0 where b is 0, and db is 0 where a is 0 and b is not negative.
    """
    undo_a, undo_b = undo_broadcast(a), undo_broadcast(b)
    has_da, has_db = _is_float(a), _is_float(b)
    xp = backend_of(a, b).xp
    a, b, typed = typed_operands("power", a, b)
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


@needs({0: (1,), 1: (0,)})
@keeps_precision
def matmul(a: Array, b: Array) -> tuple[Array, Callable]:
    """``y, pullback = matmul(a, b)``: a @ b, with NumPy's rules for vectors and for stacks of matrices.

    a (..., n, k), b (..., k, m) -> y (..., n, m); a vector (k,) counts as a row on the left and as a column on the
    right. ``pullback(dy)`` returns (da, db). Raises ShapeError unless the inner sizes agree.
    """
    backend = backend_of(a, b)
    check_floats(a=a, b=b)
    if 0 in (a.ndim, b.ndim) or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ShapeError(f"matmul: expected (..., n, k) @ (..., k, m), got {a.shape} @ {b.shape}")
    left = a if a.ndim > 1 else a[None, :]
    right = b if b.ndim > 1 else b[:, None]
    undo_left, undo_right = undo_broadcast(left), undo_broadcast(right)
    try:
        y = _products(backend, left, right)
    except ValueError as error:
        raise ShapeError(f"matmul: expected stacks that broadcast, got {a.shape} @ {b.shape}") from error
    full = y.shape
    shape = full[: -2 if a.ndim == 1 else -1] + (full[-1:] if b.ndim > 1 else ())

    def pullback(dy: Array) -> tuple[Array, Array]:
        dy = dy.reshape(full)
        dleft = undo_left(_products(backend, dy, right.swapaxes(-1, -2)))
        if right.ndim == 2:  # one product instead of one for each matrix of the stack, and no sum over them
            n = math.prod(left.shape[:-1])
            rows, drows = left.reshape(n, left.shape[-1]), dy.reshape(n, dy.shape[-1])
            dright, _ = multiplied(backend, rows.T, drows)
        else:
            dright = undo_right(_products(backend, left.swapaxes(-1, -2), dy))
        return dleft.reshape(a.shape), dright.reshape(b.shape)

    return y.reshape(shape), pullback


def _products(backend: Backend, left: Array, right: Array) -> Array:
    """left @ right for stacks of matrices; one product if the right matrix is shared."""
    if right.ndim == 2:
        rows = left.reshape(math.prod(left.shape[:-1]), left.shape[-1])
        return multiplied(backend, rows, right)[0].reshape(*left.shape[:-1], right.shape[1])
    return backend.matmul(left, right)
