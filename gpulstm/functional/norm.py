"""Layer normalisation over the last axes, with its pullback; half types are computed in float32."""

from collections.abc import Callable

from gpulstm.backend import Array
from gpulstm.dtypes import accumulator
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_arrays, check_floats, check_shape
from gpulstm.functional.needs import needs


@needs({1: (0,)})
def layer_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, axes: int = 1, eps: float = 1e-5
) -> tuple[Array, Callable]:
    """Normalise rows to mean 0 and variance 1, then scale and shift them, as PyTorch's ``layer_norm``.

    ``y, pullback = layer_norm(x, weight, bias, axes=1)``: y = (x - mean) / sqrt(var + eps) * weight + bias over the
    last ``axes`` axes of x (..., n1, n2, ...) (Ba, Kiros & Hinton 2016). weight and bias (n1, n2, ...), or None for 1
    and 0. ``pullback(dy)`` returns (dx, dweight, dbias), with None for a weight or bias that is None. Raises ShapeError
    or DTypeError, naming the argument that does not fit.

    >>> y, pullback = gl.functional.layer_norm(np.array([[1.0, 3.0]]))
    >>> y.round(3)
    array([[-1.,  1.]])
    """
    backend = check_arrays(("weight", "bias"), x=x, weight=weight, bias=bias)
    dtype = check_floats(x=x, weight=weight, bias=bias)
    if not 1 <= axes <= x.ndim:
        raise ShapeError(f"x: expected at least {axes} axes, got {x.shape}")
    for name, array in (("weight", weight), ("bias", bias)):
        if array is not None:
            check_shape(name, array, x.shape[x.ndim - axes :], "the last axes of x")
    xp, wide = backend.xp, accumulator(dtype)
    row, rows = tuple(range(x.ndim - axes, x.ndim)), tuple(range(x.ndim - axes))
    centred = x.astype(wide, copy=False)
    centred = centred - centred.mean(axis=row, keepdims=True)
    scale = 1 / xp.sqrt((centred * centred).mean(axis=row, keepdims=True) + eps)  # (..., 1): 1 / standard deviation
    normal = centred * scale
    w = None if weight is None else weight.astype(wide, copy=False)
    y = normal.copy() if w is None else normal * w  # normal is kept for the pullback
    y = y if bias is None else y + bias.astype(wide, copy=False)

    def pullback(dy: Array) -> tuple[Array, Array | None, Array | None]:
        dy = dy.astype(wide, copy=False)
        dnormal = dy if w is None else dy * w
        along = normal * (dnormal * normal).mean(axis=row, keepdims=True)
        dx = scale * (dnormal - dnormal.mean(axis=row, keepdims=True) - along)
        dweight = None if w is None else xp.asarray((dy * normal).sum(axis=rows), dtype=dtype)
        dbias = None if bias is None else xp.asarray(dy.sum(axis=rows), dtype=dtype)
        return xp.asarray(dx, dtype=dtype), dweight, dbias

    return xp.asarray(y, dtype=dtype), pullback
