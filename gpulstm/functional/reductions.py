"""Reductions over axes: sum, mean, max, min and cumsum with their pullbacks; argmax, argmin, any and all without one.

``axis`` is an int, several ints, or None for all axes. Half types are summed in float32.
"""

import math
from collections.abc import Callable

import numpy as np

from gpulstm.backend import Array, backend_of
from gpulstm.dtypes import accumulator, is_floating
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_axis, check_floats
from gpulstm.functional.elementwise import select
from gpulstm.functional.needs import needs

Axis = int | tuple[int, ...] | None


@needs({})
def sum(a: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Callable]:
    """``y, pullback = sum(a, axis=axis)``: the sum over one axis, several or all. ``pullback(dy)`` returns (da,)."""
    backend = backend_of(a)
    axes = _axes(a, axis)
    wide = a.astype(accumulator(a.dtype), copy=False) if is_floating(a.dtype) else a
    y = backend.xp.asarray(wide.sum(axis=axes, keepdims=keepdims))
    y = y.astype(a.dtype, copy=False) if is_floating(a.dtype) else y
    shape, dtype = a.shape, a.dtype
    kept = tuple(1 if k in axes else n for k, n in enumerate(shape))

    def pullback(dy: Array) -> tuple[Array]:
        da = backend.empty(shape, dtype)
        da[...] = dy.reshape(kept)
        return (da,)

    return y, pullback


@needs({})
def mean(a: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Callable]:
    """``y, pullback = mean(a, axis=axis)``: the mean over one axis, several or all; nan for no elements.

    ``pullback(dy)`` returns (da,). Raises DTypeError unless a is a floating array.
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
    """The axes counted from 0. Raises ShapeError for an axis that a does not have and for one given twice."""
    if axis is None:
        return tuple(range(a.ndim))
    want = f"axes of {a.shape}, each once"
    axes = tuple(check_axis(k, a.ndim, want) for k in (axis if isinstance(axis, tuple | list) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ShapeError(f"axis: expected {want}, got {axis}")
    return axes


def _extremum(name: str) -> Callable:
    """Make max or min."""
    at_extremum = "argmax" if name == "max" else "argmin"

    @needs({})
    def extremum(a: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, Callable]:
        axes = _axes(a, axis)
        _check_some(name, a, axes)
        backend, shape = backend_of(a), a.shape
        xp = backend.xp
        kept = tuple(1 if k in axes else n for k, n in enumerate(shape))
        y = xp.asarray(getattr(a, name)(axis=axes, keepdims=True), dtype=a.dtype)
        if axis is not None and not isinstance(axis, tuple | list):
            (k,) = axes
            first = getattr(_comparable(a), at_extremum)(axis=k, keepdims=True)
            places = xp.arange(shape[k]).reshape(tuple(-1 if n == k else 1 for n in range(a.ndim)))
            chosen, count = places == first, 1
        else:
            chosen = (a == y) | ((a != a) & (y != y))  # nan is the extremum of elements that include a nan
            count = chosen.sum(axis=axes, keepdims=True)

        def pullback(dy: Array) -> tuple[Array]:
            each = xp.asarray(dy.reshape(kept) / count, dtype=dy.dtype)
            return (select(chosen, each, 0, dy.dtype),)

        return y if keepdims else y.reshape(_without(shape, axes)), pullback

    extremum.__name__ = name
    extremum.__doc__ = f"""``y, pullback = {name}(a, axis=axis)``: over one axis, several or all; nan if there is one.

    ``pullback(dy)`` returns (da,). As in PyTorch, along one axis the first {name} gets the gradient (``torch.{name}``);
    over all axes or several, equal ones share it evenly (``torch.a{name}``). Raises ShapeError for no elements.
    """
    return extremum


max, min = _extremum("max"), _extremum("min")


def _position(name: str) -> Callable:
    """Make argmax or argmin."""

    def position(a: Array, *, axis: int | None = None, keepdims: bool = False) -> tuple[Array, None]:
        if isinstance(axis, tuple | list):
            raise ShapeError(f"axis: expected one axis or None, got {axis!r}")
        axes = _axes(a, axis)
        _check_some(name, a, axes)
        place = getattr(_comparable(a), name)(axis=axis, keepdims=keepdims)
        return backend_of(a).xp.asarray(place, dtype=np.int64), None

    position.__name__, position.__doc__ = name, f"NumPy's ``{name}``, int64: the first of equal ones, or the first nan."
    return position


argmax, argmin = _position("argmax"), _position("argmin")


def _truth(name: str) -> Callable:
    """Make any or all."""

    def truth(a: Array, *, axis: Axis = None, keepdims: bool = False) -> tuple[Array, None]:
        holds = a if a.dtype == np.bool_ else a != 0
        return backend_of(a).xp.asarray(getattr(holds, name)(axis=_axes(a, axis), keepdims=keepdims)), None

    truth.__name__, truth.__doc__ = name, f"NumPy's ``{name}``: nonzero elements count as True."
    return truth


any, all = _truth("any"), _truth("all")


@needs({})
def cumsum(a: Array, *, axis: int) -> tuple[Array, Callable]:
    """``y, pullback = cumsum(a, axis=axis)``: the cumulative sum along an axis. ``pullback(dy)`` returns (da,)."""
    (k,) = _axes(a, axis)
    xp, narrow = backend_of(a).xp, a.dtype
    wide = accumulator(narrow) if is_floating(narrow) else None
    backwards = (slice(None),) * k + (slice(None, None, -1),)

    def pullback(dy: Array) -> tuple[Array]:
        return (xp.cumsum(dy[backwards], axis=k, dtype=wide)[backwards].astype(narrow, copy=False),)

    y = xp.cumsum(a, axis=k, dtype=wide)
    return y if wide is None else y.astype(narrow, copy=False), pullback


def _comparable(a: Array) -> Array:
    """The array in a dtype that CuPy's reductions support."""
    return a.astype(accumulator(a.dtype)) if a.dtype.name == "bfloat16" else a


def _check_some(name: str, a: Array, axes: tuple[int, ...]) -> None:
    if a.size == 0 and 0 in (a.shape[k] for k in axes):
        raise ShapeError(f"{name}: expected at least one element along the axis, got {a.shape}")


def _without(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for k, n in enumerate(shape) if k not in axes)
