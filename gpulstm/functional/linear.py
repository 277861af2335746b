"""The affine map y = x W' + b over the last axis, and the matrix product it is made of."""

import math
from collections.abc import Callable

from gpulstm.backend import Array, Backend
from gpulstm.dtypes import accumulator
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_arrays, check_floats, check_shape
from gpulstm.functional.needs import needs


def product(backend: Backend, a: Array, b: Array) -> Array:
    """a @ b of two matrices in pooled memory, accumulated in float32 at least.

    NumPy multiplies half types one number at a time; they go through float32 there. cuBLAS takes them as is.
    """
    if a.dtype.itemsize == 2 and not backend.is_cuda:
        wide = accumulator(a.dtype)
        return product(backend, a.astype(wide), b.astype(wide)).astype(a.dtype)
    out = backend.empty((a.shape[0], b.shape[1]), a.dtype)
    backend.xp.matmul(a, b, out=out)
    return out


@needs({0: (1,), 1: (0,)})
def linear(
    x: Array, weight: Array, bias: Array | None = None, *, input_gradient: bool = True
) -> tuple[Array, Callable]:
    """``y, pullback = linear(x, weight, bias)``: y = x W' + b, PyTorch's ``linear``.

    x (..., in), weight (out, in), bias (out,) or None -> y (..., out). ``pullback(dy)`` returns
    (dx, dweight, dbias); ``input_gradient=False`` saves the product for dx, which is None then.
    Raises ShapeError, DTypeError or DeviceError for arrays that do not fit each other.
    """
    backend = check_arrays(("bias",), x=x, weight=weight, bias=bias)
    check_floats(x=x, weight=weight, bias=bias)
    if weight.ndim != 2:
        raise ShapeError(f"weight: want (out, in), got {weight.shape}")
    out_features, in_features = weight.shape
    if x.ndim == 0 or x.shape[-1] != in_features:
        raise ShapeError(f"x: want (..., {in_features}) = (..., in), got {x.shape}")
    if bias is not None:
        check_shape("bias", bias, (out_features,), "(out,)")
    N = math.prod(x.shape[:-1])
    rows = x.reshape(N, in_features)
    y = product(backend, rows, weight.T)
    if bias is not None:
        y += bias

    def pullback(dy: Array) -> tuple[Array | None, Array, Array | None]:
        dy = dy.reshape(N, out_features)
        dx = product(backend, dy, weight).reshape(x.shape) if input_gradient else None
        dweight = product(backend, dy.T, rows)
        # A sum over rows is a product too: it accumulates in float32 and runs on all cores.
        dbias = None if bias is None else product(backend, backend.xp.ones((1, N), dy.dtype), dy)[0]
        return dx, dweight, dbias

    return y.reshape(*x.shape[:-1], out_features), pullback
