"""The functions behind a Tensor's operators; broadcasting is undone in the pullbacks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpulstm.backend import Array, backend_of
from gpulstm.functional.embedding import embedding
from gpulstm.functional.linear import product


def _shape(x: Array | float) -> tuple[int, ...]:
    return getattr(x, "shape", ())


def _unbroadcast(gradient: Array, x: Array | float) -> Array | None:
    """The gradient of x from that of x broadcast: summed over the axes that were repeated. None for a number."""
    if not hasattr(x, "shape"):
        return None
    shape = x.shape
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    repeated = tuple(extra + axis for axis, size in enumerate(shape) if size == 1 and gradient.shape[extra + axis] != 1)
    return gradient.sum(axis=(*range(extra), *repeated)).reshape(shape)


def add(x: Array | float, y: Array | float) -> tuple[Array, Callable]:
    """x + y."""
    return x + y, lambda dz: (_unbroadcast(dz, x), _unbroadcast(dz, y))


def subtract(x: Array | float, y: Array | float) -> tuple[Array, Callable]:
    """x - y."""
    return x - y, lambda dz: (_unbroadcast(dz, x), _unbroadcast(-dz, y))


def multiply(x: Array | float, y: Array | float) -> tuple[Array, Callable]:
    """x * y, elementwise."""
    return x * y, lambda dz: (_unbroadcast(dz * y, x), _unbroadcast(dz * x, y))


def divide(x: Array | float, y: Array | float) -> tuple[Array, Callable]:
    """x / y, elementwise."""
    return x / y, lambda dz: (_unbroadcast(dz / y, x), _unbroadcast(-dz * x / (y * y), y))


def power(x: Array, exponent: float) -> tuple[Array, Callable]:
    """x ** exponent for a number as exponent."""
    return x**exponent, lambda dz: (dz * exponent * x ** (exponent - 1), None)


def exp(x: Array) -> tuple[Array, Callable]:
    """e ** x."""
    y = backend_of(x).xp.exp(x)
    return y, lambda dy: (dy * y,)


def log(x: Array) -> tuple[Array, Callable]:
    """The natural logarithm."""
    return backend_of(x).xp.log(x), lambda dy: (dy / x,)


def tanh(x: Array) -> tuple[Array, Callable]:
    """The hyperbolic tangent."""
    y = backend_of(x).xp.tanh(x)
    return y, lambda dy: (dy * (1 - y * y),)


def sigmoid(x: Array) -> tuple[Array, Callable]:
    """1 / (1 + e ** -x)."""
    y = 0.5 * backend_of(x).xp.tanh(0.5 * x) + 0.5  # never overflows
    return y, lambda dy: (dy * y * (1 - y),)


def relu(x: Array) -> tuple[Array, Callable]:
    """max(x, 0); the derivative at 0 is 0."""
    return backend_of(x).xp.maximum(x, 0), lambda dy: (dy * (x > 0),)


def matmul(x: Array, y: Array) -> tuple[Array, Callable]:
    """x @ y of vectors, matrices, or stacks of matrices whose leading axes broadcast."""
    xp = backend_of(x, y).xp
    if x.ndim == y.ndim == 2:
        be = backend_of(x, y)
        return product(be, x, y), lambda dz: (product(be, dz, y.T), product(be, x.T, dz))

    def pullback(dz: Array) -> tuple[Array | None, Array | None]:
        # A vector is a matrix of one row (left) or one column (right), whose axis the result lacks.
        a = x[None, :] if x.ndim == 1 else x
        b = y[:, None] if y.ndim == 1 else y
        d = xp.expand_dims(dz, -2) if x.ndim == 1 else dz
        d = xp.expand_dims(d, -1) if y.ndim == 1 else d
        da, db = xp.matmul(d, xp.swapaxes(b, -1, -2)), xp.matmul(xp.swapaxes(a, -1, -2), d)
        da, db = _unbroadcast(da, a), _unbroadcast(db, b)
        return da.reshape(x.shape), db.reshape(y.shape)

    return xp.matmul(x, y), pullback


def index(x: Array, *, key: Any) -> tuple[Array, Callable]:
    """x[key] for any key that the array's library takes; a copy.

    The gradient is deterministic: elements picked more than once are added in a fixed order.
    """
    be = backend_of(x)
    parts = key if isinstance(key, tuple) else (key,)
    picks_once = all(
        part is None or part is Ellipsis or isinstance(part, (int, slice, np.integer)) or _is_mask(part) for part in parts
    )

    def pullback(dy: Array) -> tuple[Array]:
        if picks_once:
            dx = be.zeros(x.shape, x.dtype)
            dx[key] = dy
            return (dx,)
        positions = be.xp.arange(x.size).reshape(x.shape)[key].reshape(-1)
        _, back = embedding(positions, x.reshape(x.size, 1))
        return (back(dy.reshape(-1, 1))[1].reshape(x.shape),)

    return x[key].copy(), pullback


def _is_mask(part: Any) -> bool:
    return getattr(part, "dtype", None) == np.bool_


def reshape(x: Array, *, shape: tuple[int, ...]) -> tuple[Array, Callable]:
    """x with another shape of the same size; one -1 is worked out."""
    return x.reshape(shape), lambda dy: (dy.reshape(x.shape),)


def transpose(x: Array, *, axes: tuple[int, ...] | None = None) -> tuple[Array, Callable]:
    """x with its axes in the order given, reversed without one."""
    axes = tuple(reversed(range(x.ndim))) if axes is None else axes
    back = tuple(int(a) for a in np.argsort([a % x.ndim for a in axes]))
    return x.transpose(axes), lambda dy: (dy.transpose(back),)


def sum(x: Array, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> tuple[Array, Callable]:
    """The sum over the axes given, over all without one."""
    kept = x.sum(axis=axis, keepdims=True)
    y = kept if keepdims else x.sum(axis=axis)
    xp = backend_of(x).xp
    return xp.asarray(y), lambda dy: (xp.broadcast_to(dy.reshape(kept.shape), x.shape),)


def mean(x: Array, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> tuple[Array, Callable]:
    """The mean over the axes given, over all without one; NaN over no elements."""
    xp = backend_of(x).xp
    y = xp.asarray(x.mean(axis=axis, keepdims=keepdims))
    kept = tuple(1 if axis is None or a in _axes(axis, x.ndim) else size for a, size in enumerate(x.shape))
    count = x.size // max(y.size, 1)
    return y, lambda dy: (xp.broadcast_to((dy / count).reshape(kept), x.shape),)


def _axes(axis: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    return tuple(a % ndim for a in (axis if isinstance(axis, tuple) else (axis,)))


def concatenate(*arrays: Array, axis: int = 0) -> tuple[Array, Callable]:
    """The arrays one after the other along ``axis``."""
    xp = backend_of(*arrays).xp
    ends = np.cumsum([a.shape[axis] for a in arrays])[:-1].tolist()
    return xp.concatenate(arrays, axis=axis), lambda dy: tuple(xp.split(dy, ends, axis=axis))


def stack(*arrays: Array, axis: int = 0) -> tuple[Array, Callable]:
    """The arrays along a new axis."""
    xp = backend_of(*arrays).xp
    return xp.stack(arrays, axis=axis), lambda dy: _unstacked(xp, dy, axis, len(arrays))


def _unstacked(xp: Any, dy: Array, axis: int, count: int) -> Sequence[Array]:
    moved = xp.moveaxis(dy, axis, 0)
    return tuple(moved[k] for k in range(count))
