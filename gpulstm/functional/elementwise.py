"""Elementwise functions, with their pullbacks: exponentials, activations, choices between two arrays, casts.

NaN stays NaN, and gradients at corners and ties are PyTorch's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm.backend import Array, backend_of
from gpulstm.backend import device as find_device
from gpulstm.dtypes import accumulator, is_floating
from gpulstm.errors import DTypeError
from gpulstm.functional.arithmetic import Operand, checked_operands, typed_operands, undo_broadcast
from gpulstm.functional.checks import check_floats
from gpulstm.functional.needs import needs


def select(condition: Array, a: Operand, b: Operand, dtype: np.dtype) -> Array:
    """a where the condition holds, else b, as ``dtype``."""
    backend = backend_of(condition)
    return backend.where(condition, backend.xp.asarray(a, dtype=dtype), b)


@needs({}, outputs=(0,))
def exp(x: Array) -> tuple[Array, Callable]:
    """``y, pullback = exp(x)``. ``pullback(dy)`` returns (dx,)."""
    y = _elementwise("exp", x)
    return y, lambda dy: (dy * y,)


@needs({0: (0,)})
def log(x: Array) -> tuple[Array, Callable]:
    """``y, pullback = log(x)``: the natural logarithm. ``pullback(dy)`` returns (dx,)."""
    return _elementwise("log", x), lambda dy: (dy / x,)


@needs({}, outputs=(0,))
def tanh(x: Array) -> tuple[Array, Callable]:
    """``y, pullback = tanh(x)``. ``pullback(dy)`` returns (dx,)."""
    y = _elementwise("tanh", x)
    return y, lambda dy: (dy * (1 - y * y),)


@needs({}, outputs=(0,))
def sigmoid(x: Array) -> tuple[Array, Callable]:
    """``y, pullback = sigmoid(x)``: 1 / (1 + exp(-x)). ``pullback(dy)`` returns (dx,)."""
    dtype, xp = check_floats(x=x), backend_of(x).xp
    wide = x.astype(accumulator(dtype), copy=False)
    y = xp.asarray(0.5 * xp.tanh(0.5 * wide) + 0.5, dtype=x.dtype)  # never overflows
    return y, lambda dy: (dy * (y * (1 - y)),)


@needs({}, outputs=(0,))
def relu(x: Array) -> tuple[Array, Callable]:
    """``y, pullback = relu(x)``: max(x, 0). ``pullback(dy)`` returns (dx,), 0 where x is 0, as in PyTorch."""
    check_floats(x=x)
    xp = backend_of(x).xp
    y = xp.asarray(xp.maximum(x, 0), dtype=x.dtype)
    return y, lambda dy: (select(y <= 0, 0, dy, dy.dtype),)


@needs({}, outputs=(0,))
def sqrt(x: Array) -> tuple[Array, Callable]:
    """``y, pullback = sqrt(x)``: the square root, nan below 0. ``pullback(dy)`` returns (dx,), infinite at 0."""
    y = _elementwise("sqrt", x)
    xp = backend_of(x).xp

    def pullback(dy: Array) -> tuple[Array]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (xp.asarray(dy / (2 * y), dtype=dy.dtype),)

    return y, pullback


@needs({0: (0,)})
def absolute(x: Array) -> tuple[Array, Callable]:
    """``y, pullback = absolute(x)``: |x|. ``pullback(dy)`` returns (dx,), 0 where x is 0 or nan."""
    xp = backend_of(x).xp

    def pullback(dy: Array) -> tuple[Array]:
        return (select(x > 0, dy, select(x < 0, -dy, 0, dy.dtype), dy.dtype),)

    return xp.asarray(abs(x)), pullback


@needs({})
def clip(x: Array, *, min: float | None = None, max: float | None = None) -> tuple[Array, Callable]:
    """``y, pullback = clip(x, min=0, max=1)``: x limited to the bounds; one of them may be None.

    ``pullback(dy)`` returns (dx,), 0 outside the bounds. Raises DTypeError for bounds that are not numbers.
    """
    bounds = [x.item() if isinstance(x, np.generic) else x for x in (min, max)]
    for name, bound in zip(("min", "max"), bounds, strict=True):
        if bound is not None and not isinstance(bound, int | float):
            raise DTypeError(
                f"{name}: expected a number or None, got {type(bound).__name__}; use gl.maximum or gl.minimum"
            )
    if bounds == [None, None]:
        raise DTypeError("clip: expected min, max or both, got neither")
    xp = backend_of(x).xp
    low, high = bounds
    y, inside = x, True
    if low is not None:
        y, inside = xp.maximum(y, low), inside & (x >= low)
    if high is not None:
        y, inside = xp.minimum(y, high), inside & (x <= high)
    dtype = x.dtype if is_floating(x.dtype) else y.dtype
    return xp.asarray(y, dtype=dtype), lambda dy: (select(inside, dy, 0, dy.dtype),)


def _extremum(name: str, is_less: str) -> Callable:
    """Make maximum or minimum; ``is_less(a, b)`` holds where a is not chosen."""

    @needs({0: (0, 1), 1: (0, 1)})
    def extremum(a: Operand, b: Operand) -> tuple[Array, Callable]:
        undo_a, undo_b = undo_broadcast(a), undo_broadcast(b)
        a, b, typed = typed_operands(name, a, b)
        xp = backend_of(a, b).xp
        unchosen = getattr(xp, is_less)

        def pullback(dy: Array) -> tuple[Array | None, Array | None]:
            half = select(xp.equal(a, b), 0.5 * dy, dy, dy.dtype)
            return (
                undo_a(select(unchosen(a, b), 0, half, dy.dtype)),
                undo_b(select(unchosen(b, a), 0, half, dy.dtype)),
            )

        return typed(getattr(xp, name)(a, b)), pullback

    extremum.__name__ = name
    extremum.__doc__ = f"``y, pullback = {name}(a, b)``. ``pullback(dy)`` returns (da, db), half each where a equals b."
    return extremum


maximum, minimum = _extremum("maximum", "less"), _extremum("minimum", "greater")


@needs({0: (1, 2)})
def where(condition: Array, a: Operand, b: Operand) -> tuple[Array, Callable]:
    """``y, pullback = where(condition, a, b)``: a where the condition is True, else b, all three broadcast.

    ``pullback(dy)`` returns (None, da, db). Raises DTypeError unless the condition is bool.
    """
    if getattr(condition, "dtype", None) != np.bool_:
        got = getattr(condition, "dtype", type(condition).__name__)
        raise DTypeError(f"condition: expected an array of bool, got {got}; use a comparison such as x > 0")
    undo_a, undo_b = undo_broadcast(a), undo_broadcast(b)
    checked_operands("where", condition, a, b)
    a, b, typed = typed_operands("where", a, b)
    xp = backend_of(condition, a, b).xp
    kinds = [x.dtype if hasattr(x, "dtype") else x for x in (a, b)]
    floats = [kind for kind in kinds if isinstance(kind, np.dtype) and is_floating(kind)]
    dtype = typed(xp.zeros((), floats[0] if floats else np.result_type(*kinds))).dtype

    def pullback(dy: Array) -> tuple[None, Array | None, Array | None]:
        return None, undo_a(select(condition, dy, 0, dy.dtype)), undo_b(select(condition, 0, dy, dy.dtype))

    return select(condition, a, b, dtype), pullback


@needs({})
def astype(a: Array, *, dtype: Any) -> tuple[Array, Callable]:
    """``y, pullback = astype(a, dtype=dtype)``: a copy as ``dtype``. ``pullback(dy)`` returns (da,) in a's dtype."""
    before = a.dtype
    return a.astype(dtype), lambda dy: (dy.astype(before),)


@needs({})
def copy(a: Array) -> tuple[Array, Callable]:
    """``y, pullback = copy(a)``: a copy in new memory. ``pullback(dy)`` returns (da,)."""
    return a.copy(), lambda dy: (dy,)


@needs({})
def move(a: Array, *, device: str) -> tuple[Array, Callable]:
    """``y, pullback = move(a, device="cuda:0")``: a on that device. ``pullback(dy)`` returns (da,), moved back."""
    here, there = backend_of(a), find_device(device).backend
    with there:
        return there.asarray(a), lambda dy: (here.asarray(dy),)


def _elementwise(name: str, x: Array) -> Array:
    check_floats(x=x)
    xp = backend_of(x).xp
    return xp.asarray(getattr(xp, name)(x), dtype=x.dtype)
