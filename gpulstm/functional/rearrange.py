"""Indexing, reshaping, transposing and joining arrays, with the pullbacks."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpulstm import checks
from gpulstm.backend import CPU, Array, Backend, backend_of
from gpulstm.errors import DTypeError, ShapeError
from gpulstm.functional.checks import check_arrays, check_axis
from gpulstm.functional.embedding import embedding
from gpulstm.functional.needs import needs


@needs({}, view=True)
def index(a: Array, *, key: Any) -> tuple[Array, Callable]:
    """``y, pullback = index(a, key=key)``: a[key], with NumPy's rules. ``pullback(dy)`` returns (da,).

    The gradients of an element that is taken several times are summed, in a fixed order. An index outside of a raises
    IndexError in NumPy; CuPy wraps indices in an array around.
    """
    backend = backend_of(a)
    parts = key if isinstance(key, tuple) else (key,)
    key = tuple(index_part(a, part) for part in parts)
    once = all(part is None or part is Ellipsis or _takes_once(part) for part in key)
    y, shape, dtype = backend.xp.asarray(a[key]), a.shape, a.dtype

    def pullback(dy: Array) -> tuple[Array]:
        if once:
            da = backend.zeros(shape, dtype)
            da[key] = dy
            return (da,)
        # The number in a of each element of y. The gradient of an embedding then sums the gradients of each element.
        positions = backend.xp.arange(math.prod(shape)).reshape(shape)[key]
        table = backend.zeros((math.prod(shape), 1), dtype)
        _, gradient = embedding(positions.reshape(-1), table)
        return (gradient(dy.reshape(-1, 1))[1].reshape(shape),)

    return y, pullback


def index_part(a: Array, part: Any) -> Any:
    """One part of a key for a, with a list as an array. Raises DeviceError for an array on another device."""
    backend = backend_of(tensor=a, key=part if hasattr(part, "dtype") else None)
    return backend.asarray(part) if isinstance(part, list) else part


def _takes_once(part: Any) -> bool:
    """Whether this part of a key takes no element twice: a number, a slice, a mask."""
    return isinstance(part, int | np.integer | slice) or getattr(part, "dtype", None) == np.bool_


@needs({}, view=True)
def reshape(a: Array, *, shape: tuple[int, ...]) -> tuple[Array, Callable]:
    """``y, pullback = reshape(a, shape=shape)``: the same elements in C order; one size may be -1.

    ``pullback(dy)`` returns (da,). Raises ShapeError for a shape with another number of elements.
    """
    before = a.shape
    shape = tuple(checks.integer("shape", n, -1, 2**63, words="sizes, one of which may be -1") for n in shape)
    try:
        y = a.reshape(shape)
    except ValueError as error:
        raise ShapeError(f"reshape: expected a shape of as many elements as {before}, got {shape}") from error
    return y, lambda dy: (dy.reshape(before),)


@needs({}, view=True)
def squeeze(a: Array, *, axis: int | tuple[int, ...] | None = None) -> tuple[Array, Callable]:
    """``y, pullback = squeeze(a, axis=axis)``: a without the given axes of size 1, or without all such axes.

    ``pullback(dy)`` returns (da,). Raises ShapeError for an axis that a does not have or whose size is not 1.
    """
    gone = {k for k, n in enumerate(a.shape) if n == 1}
    if axis is not None:
        want = f"axes of size 1 of {a.shape}"
        given = {check_axis(k, a.ndim, want) for k in (axis if isinstance(axis, tuple | list) else (axis,))}
        if not given <= gone:
            raise ShapeError(f"axis: expected {want}, got {axis}")
        gone = given
    return reshape(a, shape=tuple(n for k, n in enumerate(a.shape) if k not in gone))


@needs({}, view=True)
def expand_dims(a: Array, *, axis: int) -> tuple[Array, Callable]:
    """``y, pullback = expand_dims(a, axis=axis)``: a with a new axis of size 1. ``pullback(dy)`` returns (da,)."""
    axis = check_axis(axis, a.ndim + 1, f"one of {a.ndim + 1} axes")
    return reshape(a, shape=(*a.shape[:axis], 1, *a.shape[axis:]))


@needs({}, view=True)
def transpose(a: Array, *, axes: tuple[int, ...] | None = None) -> tuple[Array, Callable]:
    """``y, pullback = transpose(a, axes=axes)``: axis k of y is axis axes[k] of a; None reverses all.

    ``pullback(dy)`` returns (da,). Raises ShapeError unless the axes are a permutation of all of them.
    """
    axes = tuple(reversed(range(a.ndim))) if axes is None else tuple(axes)
    want = f"the {a.ndim} axes of {a.shape} in some order"
    whole = [axis for axis in axes if isinstance(axis, int | np.integer) and -a.ndim <= axis < a.ndim]
    order = [check_axis(axis, a.ndim, want, name="transpose") for axis in whole]
    if len(order) != len(axes) or sorted(order) != list(range(a.ndim)):
        raise ShapeError(f"transpose: expected {want}, got {axes}")
    inverse = sorted(range(a.ndim), key=order.__getitem__)
    return a.transpose(order), lambda dy: (dy.transpose(inverse),)


@needs({})
def concatenate(*arrays: Array, axis: int = 0) -> tuple[Array, Callable]:
    """``y, pullback = concatenate(a, b, ..., axis=axis)``: the arrays joined along an existing axis.

    ``pullback(dy)`` returns (da, db, ...). Raises ShapeError for arrays that differ in the size of another axis, and
    DTypeError for different dtypes.
    """
    backend = _check_alike("concatenate", arrays)
    ndim = arrays[0].ndim
    axis = check_axis(axis, ndim, f"an axis of {arrays[0].shape}")
    sizes = [a.shape[axis] for a in arrays if a.ndim == ndim]
    others = {(*a.shape[:axis], *a.shape[axis + 1 :]) for a in arrays}
    if len(others) > 1 or len(sizes) < len(arrays):
        raise ShapeError(f"concatenate: expected shapes equal except on axis {axis}, got {[a.shape for a in arrays]}")

    def pullback(dy: Array) -> tuple[Array, ...]:
        rest, parts, start = (slice(None),) * axis, [], 0
        for size in sizes:
            parts.append(dy[(*rest, slice(start, start + size))])
            start += size
        return tuple(parts)

    return backend.xp.concatenate(arrays, axis=axis), pullback


@needs({})
def stack(*arrays: Array, axis: int = 0) -> tuple[Array, Callable]:
    """``y, pullback = stack(a, b, ..., axis=axis)``: the arrays along a new axis, which is axis ``axis`` of y.

    ``pullback(dy)`` returns (da, db, ...). Raises ShapeError for arrays of different shapes, DTypeError for
    different dtypes.
    """
    backend = _check_alike("stack", arrays)
    shape = arrays[0].shape
    axis = check_axis(axis, len(shape) + 1, f"one of {len(shape) + 1} axes")
    for a in arrays:
        if a.shape != shape:
            raise ShapeError(f"stack: expected one shape, got {shape} and {a.shape}")
    if len(arrays) == 1:  # a layer's last states: this takes a tenth of the time
        before = (slice(None),) * axis
        return arrays[0].copy()[(*before, None)], lambda dy: (dy[(*before, 0)],)
    xp = backend.xp
    return xp.stack(arrays, axis=axis), lambda dy: tuple(map(xp.asarray, xp.moveaxis(dy, axis, 0)))


def _check_alike(name: str, arrays: tuple[Array, ...]) -> Backend:
    """The backend of all arrays. Raises ShapeError if there are none, DTypeError for different dtypes."""
    if not arrays:
        raise ShapeError(f"{name}: expected at least one array, got none")
    plain = all(type(a) is np.ndarray and a.dtype.isnative for a in arrays)
    backend = CPU if plain else check_arrays(**{f"arrays[{k}]": a for k, a in enumerate(arrays)})
    for a in arrays:
        if a.dtype != arrays[0].dtype:
            raise DTypeError(f"{name}: expected {arrays[0].dtype}, as the first, got {a.dtype}; convert with astype")
    return backend
