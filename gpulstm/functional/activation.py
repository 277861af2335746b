"""Activations of any array, with their pullbacks: those of gpulstm/cells/activation.py, and the GELU.

Half types are computed in float32.
"""

import math
from collections.abc import Callable
from typing import Any

from gpulstm.backend import Array, backend_of
from gpulstm.cells.activation import Activation
from gpulstm.dtypes import accumulator
from gpulstm.errors import ShapeError
from gpulstm.functional.checks import check_floats
from gpulstm.functional.needs import needs

# log(erfc(x) / t) + x^2 over t = 2 / (2 + x), 0 <= x <= 6, as a Chebyshev series: interpolated at 19 points from the
# C library's erfc. The error of erfc is below 2e-15.
_ERFC = (
    -0.49855022301265184, 0.5003364655513499, 0.0029079543748728987, -0.004807433804460292, 1.4741810740675934e-05,
    0.00010698213450346518, -6.275656652581025e-06, -2.655586204719799e-06, 4.146163640932869e-07,
    4.7388984079691086e-08, -1.8774034748597916e-08, 4.5312095011801626e-10, 5.993487566626882e-10,
    -8.983743737957604e-11, -9.488997672408616e-12, 4.407235541427138e-12, -2.7295417388317173e-13,
    -1.1341950770384445e-13, 2.6266635065827345e-14,
)  # fmt: skip


@needs({0: (0,)})
def activation(x: Array, *, form: Activation) -> tuple[Array, Callable]:
    """Apply an activation of gpulstm.cells.activation to each element: ``y, pullback = activation(x, form=form)``.

    x (...) -> y (...). ``pullback(dy)`` returns (dx,). Raises DTypeError for anything but a floating array.

    >>> from gpulstm.cells.activation import Activation
    >>> y, pullback = gl.functional.activation(np.array([-1.0, 2.0]), form=Activation("relu"))
    >>> y, pullback(np.ones(2))[0]
    (array([0., 2.]), array([0., 1.]))
    """
    dtype, xp = check_floats(x=x), backend_of(x).xp
    z = x.astype(accumulator(dtype), copy=False)

    def pullback(dy: Array) -> tuple[Array]:
        return (xp.asarray(dy * form.slope(xp, z), dtype=dtype),)

    return xp.asarray(form.forward(xp, z), dtype=dtype), pullback


@needs({0: (0,)})
def gelu(x: Array, *, approximate: str = "none") -> tuple[Array, Callable]:
    """Multiply each element x by Phi(x), the normal distribution function: ``y, pullback = gelu(x)``.

    Hendrycks & Gimpel 2016, as ``torch.nn.functional.gelu``: x (...) -> y (...). ``approximate`` is "none", or "tanh"
    for x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))). ``pullback(dy)`` returns (dx,). Raises ShapeError for another
    ``approximate``, DTypeError for anything but a floating array.

    >>> y, pullback = gl.functional.gelu(np.array([-1.0, 1.0]))
    >>> y
    array([-0.15865525,  0.84134475])
    """
    if approximate not in ("none", "tanh"):
        raise ShapeError(f"approximate: expected 'none' or 'tanh', got {approximate!r}")
    dtype, xp = check_floats(x=x), backend_of(x).xp
    z = x.astype(accumulator(dtype), copy=False)
    if approximate == "none":
        phi = 1 - 0.5 * _erfc(xp, z / math.sqrt(2))
    else:
        # (1 + tanh u) / 2 = 1 / (1 + e ** -2u), which loses no digits where tanh u is near -1.
        u = math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)
        small = xp.exp(-2 * abs(u))
        phi = xp.where(u < 0, small, 1) / (1 + small)

    def pullback(dy: Array) -> tuple[Array]:
        if approximate == "none":
            dphi = xp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        else:
            slope = 2 * small / (1 + small) ** 2  # (1 - tanh(u) ** 2) / 2
            dphi = slope * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z * z)
        return (xp.asarray(dy * (phi + z * dphi), dtype=dtype),)

    return xp.asarray(z * phi, dtype=dtype), pullback


def _erfc(xp: Any, x: Array) -> Array:
    """1 - erf(x); NumPy has no erf."""
    a = xp.minimum(abs(x), 6)  # above 6, erfc is below 3e-17
    t = 2 / (2 + a)
    u = (2 * t - 1.25) / 0.75  # [0.25, 1] -> [-1, 1]
    b, before = xp.zeros_like(u), xp.zeros_like(u)
    for coefficient in _ERFC[:0:-1]:  # Clenshaw's recurrence
        b, before = 2 * u * b - before + coefficient, b
    erfc = t * xp.exp(u * b - before + _ERFC[0] - a * a)
    return xp.where(x < 0, 2 - erfc, erfc)
