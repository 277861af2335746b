"""The affine map y = x W' + b over the last axis, and the matrix product that it uses."""

import math
from collections.abc import Callable

from gpulstm import engine
from gpulstm.backend import Array, Backend
from gpulstm.dtypes import accumulator
from gpulstm.errors import ShapeError
from gpulstm.explain import note_precision
from gpulstm.functional.checks import check_arrays, check_floats, check_shape
from gpulstm.functional.needs import needs
from gpulstm.precision import keeps_precision


def product(backend: Backend, a: Array, b: Array, out: Array | None = None) -> Array:
    """Multiply two matrices, a @ b, into pooled memory or ``out``; sums are in float32 at least."""
    if out is None:
        out = backend.empty((a.shape[0], b.shape[1]), a.dtype)
    backend.multiply(a, b, out)
    return out


def multiplied(
    backend: Backend, a: Array, b: Array, bias: Array | None = None, *, sums: bool = False, out: Array | None = None
) -> tuple[Array, Array | None]:
    """Compute a @ b + bias and, with ``sums``, the sum of each row of a -> (product, sums or None).

    ``out`` receives the product; it must be contiguous, and on the processor not of a half type. On the processor the
    engine's compiled product runs in the engine's threads. BLAS has threads of its own, which would compete with the
    engine's for a while after each product.
    """
    if a.dtype.itemsize == 2 and not backend.is_cuda:
        wide = accumulator(a.dtype)
        wider = None if bias is None else bias.astype(wide)
        y, rows = multiplied(backend, a.astype(wide), b.astype(wide), wider, sums=sums)
        return y.astype(a.dtype), None if rows is None else rows.astype(a.dtype)
    note_precision(backend.is_cuda, backend.name, a.dtype)
    compiled = None if backend.is_cuda else _compiled(a, b, sums)
    if compiled is None:
        out = product(backend, a, b, out)
        if bias is not None:
            out += bias
        # A sum over rows is a product too: it accumulates in float32 and runs on all cores.
        ones = backend.xp.ones((a.shape[1], 1), a.dtype) if sums else None
        return out, None if ones is None else product(backend, a, ones)[:, 0]
    (M, K), N = a.shape, b.shape[1]
    if out is None:
        out = backend.empty((M, N), a.dtype)
    rows = backend.empty((M,), a.dtype) if sums else None
    strides = [stride // a.itemsize for stride in (*a.strides, *b.strides)]
    bias = None if bias is None else backend.xp.ascontiguousarray(bias)
    compiled(a.ctypes.data, *strides[:2], b.ctypes.data, *strides[2:], bias, out, rows, M, N, K)
    return out, rows


def _compiled(a: Array, b: Array, sums: bool) -> Callable[..., None] | None:
    """The compiled product, or None if it does not take such arrays."""
    if not (a.size and b.size) or a.dtype != b.dtype:
        return None
    size = a.itemsize
    lies = a.strides[0] == size if sums else size in a.strides
    if not (lies and size in b.strides) or any(stride < size for stride in (*a.strides, *b.strides)):
        return None
    return engine.function("matmul", a.dtype)


@needs({0: (1,), 1: (0,)})
@keeps_precision
def linear(
    x: Array, weight: Array, bias: Array | None = None, *, input_gradient: bool = True
) -> tuple[Array, Callable]:
    """Compute y = x W' + b over the last axis, as PyTorch's ``linear``: ``y, pullback = linear(x, weight, bias)``.

    x (..., in), weight (out, in), bias (out,) or None -> y (..., out). ``pullback(dy)`` returns (dx, dweight, dbias);
    ``input_gradient=False`` skips the product for dx, which is None then. Raises ShapeError, DTypeError or DeviceError
    for arrays that do not fit each other.

    >>> y, pullback = gl.functional.linear(np.array([1.0, 2.0]), np.array([[3.0, 4.0]]), np.array([5.0]))
    >>> y
    array([16.])
    """
    backend = check_arrays(("bias",), x=x, weight=weight, bias=bias)
    check_floats(x=x, weight=weight, bias=bias)
    if weight.ndim != 2:
        raise ShapeError(f"weight: expected (out, in), got {weight.shape}")
    out_features, in_features = weight.shape
    if x.ndim == 0 or x.shape[-1] != in_features:
        raise ShapeError(f"x: expected (..., {in_features}) = (..., in), got {x.shape}")
    if bias is not None:
        check_shape("bias", bias, (out_features,), "(out,)")
    N = math.prod(x.shape[:-1])
    rows = x.reshape(N, in_features)
    y, _ = multiplied(backend, rows, weight.T, bias)

    def pullback(dy: Array) -> tuple[Array | None, Array, Array | None]:
        dy = dy.reshape(N, out_features)
        dx = multiplied(backend, dy, weight)[0].reshape(x.shape) if input_gradient else None
        dweight, dbias = multiplied(backend, dy.T, rows, sums=bias is not None)
        return dx, dweight, dbias

    return y.reshape(*x.shape[:-1], out_features), pullback
