"""The activations that cells may use, with their derivatives; the names are those of ONNX's recurrent operators.

================ ======================================== ============ ===========
name             of z                                     alpha        beta
================ ======================================== ============ ===========
relu             max(z, 0)
tanh             tanh(z)
sigmoid          1 / (1 + exp(-z))
affine           alpha * z + beta                         1            0
leaky_relu       z if z >= 0 else alpha * z               0.01
thresholded_relu z if z >= alpha else 0                   1
scaled_tanh      alpha * tanh(beta * z)                   1            1
hard_sigmoid     min(max(alpha * z + beta, 0), 1)         0.2          0.5
elu              z if z >= 0 else alpha * (exp(z) - 1)    1
softsign         z / (1 + abs(z))
softplus         log(1 + exp(z))
================ ======================================== ============ ===========

alpha and beta are the default values. ONNX has none for affine and scaled_tanh; those above make them the identity and
tanh. At a kink, the slope is that of the left side, as PyTorch's for relu. The C++ version is kernels/activation.cuh.
"""

import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gpulstm.backend import Array
from gpulstm.errors import ShapeError


@dataclass(frozen=True)
class Activation:
    """One of the functions above; alpha and beta None mean the defaults. Raises ShapeError for an unknown function.

    It unpacks to (name, alpha, beta), which ``of`` accepts. ``clip``, a number above 0, limits the input to [-clip,
    clip], as ONNX's attribute; outside, the slope is zero.
    """

    name: str
    alpha: float | None = None
    beta: float | None = None

    def __post_init__(self) -> None:
        if self.name not in _FORMS:
            raise ShapeError(f"activation: expected one of {', '.join(_FORMS)}, got {self.name!r}")
        for parameter in ("alpha", "beta"):
            given, usual = getattr(self, parameter), getattr(_FORMS[self.name], parameter)
            object.__setattr__(self, parameter, _checked(f"{parameter} of {self.name}", given, usual))

    def __iter__(self) -> Iterator[Any]:
        return iter((self.name, self.alpha, self.beta))

    def forward(self, xp: Any, z: Array, clip: float | None = None) -> Array:
        """Apply the function to an array of any shape; the result has the same dtype."""
        return _FORMS[self.name].forward(xp, _clipped(xp, z, clip), self.alpha, self.beta)

    def slope(self, xp: Any, z: Array, clip: float | None = None) -> Array:
        """The derivative at the pre-activation z."""
        slope = _FORMS[self.name].slope(xp, _clipped(xp, z, clip), self.alpha, self.beta)
        return slope if clip is None else slope * _as_number(abs(z) <= clip, z)

    def numbers(self, clip: float | None = None) -> tuple[float, ...]:
        """The numbers that define the same Activation in kernels/activation.cuh: its kind, alpha, beta and clip."""
        parameters = (0.0 if number is None else number for number in (self.alpha, self.beta, clip))
        return (float(NAMES.index(self.name)), *parameters)


def of(spec: Any) -> Activation:
    """Make an Activation from a name, a tuple (name, alpha, beta) or an Activation; raises ShapeError for others."""
    if isinstance(spec, str | Activation):
        return spec if isinstance(spec, Activation) else Activation(spec)
    if isinstance(spec, tuple | list) and 1 <= len(spec) <= 3 and isinstance(spec[0], str):
        return Activation(*spec)
    raise ShapeError(f"activation: expected a name or (name, alpha, beta), with {', '.join(_FORMS)}; got {spec!r}")


def check_clip(clip: Any) -> float | None:
    """Return clip as a number, or None for no limit; raises ShapeError unless it is above 0."""
    if clip is None:
        return None
    if not isinstance(clip, numbers.Real) or not 0 < float(clip) < math.inf:
        raise ShapeError(f"clip: expected a number above 0, or None, got {clip!r}")
    return float(clip)


def _checked(what: str, given: Any, usual: float | None) -> float | None:
    """Return alpha or beta as a number, or None if the function has no such parameter."""
    if given is None:
        return usual
    if usual is None:
        raise ShapeError(f"{what}: expected None, because this function has no such parameter, got {given!r}")
    if isinstance(given, bool) or not isinstance(given, numbers.Real) or not math.isfinite(given):
        raise ShapeError(f"{what}: expected a finite number, got {given!r}")
    return float(given)


def _clipped(xp: Any, z: Array, clip: float | None) -> Array:
    return z if clip is None else xp.minimum(xp.maximum(z, -clip), clip)


def _as_number(condition: Array, z: Array) -> Array:
    """1 where the condition is True and 0 elsewhere, in the dtype of z."""
    return condition.astype(z.dtype)


def _sigmoid(xp: Any, z: Array, a: Any = None, b: Any = None) -> Array:
    return 0.5 * xp.tanh(0.5 * z) + 0.5  # the same function as 1 / (1 + exp(-z)), and never overflows


def _sigmoid_slope(xp: Any, z: Array, a: Any, b: Any) -> Array:
    s = _sigmoid(xp, z)
    return s * (1 - s)


def _tanh_slope(xp: Any, z: Array, a: Any, b: Any) -> Array:
    return 1 - xp.tanh(z) ** 2


def _piecewise_slope(z: Array, left: Any) -> Array:
    """1 where z is above zero, ``left`` elsewhere."""
    above = _as_number(z > 0, z)
    return above + (1 - above) * left


def _hard_sigmoid_slope(xp: Any, z: Array, a: Any, b: Any) -> Array:
    y = a * z + b
    return a * _as_number((y > 0) & (y < 1), z)


def _softsign_slope(xp: Any, z: Array, a: Any, b: Any) -> Array:
    s = 1 / (1 + abs(z))
    return s * s


@dataclass(frozen=True)
class _Form:
    """A function and its slope, both called with (xp, z, alpha, beta), and the default parameters, or None."""

    forward: Callable[[Any, Array, Any, Any], Array]
    slope: Callable[[Any, Array, Any, Any], Array]
    alpha: float | None = None
    beta: float | None = None


_FORMS = {
    "relu": _Form(
        lambda xp, z, a, b: xp.maximum(z, 0),
        lambda xp, z, a, b: _piecewise_slope(z, 0),
    ),
    "tanh": _Form(lambda xp, z, a, b: xp.tanh(z), _tanh_slope),
    "sigmoid": _Form(_sigmoid, _sigmoid_slope),
    "affine": _Form(
        lambda xp, z, a, b: a * z + b,
        lambda xp, z, a, b: xp.zeros_like(z) + a,
        alpha=1.0,
        beta=0.0,
    ),
    "leaky_relu": _Form(
        lambda xp, z, a, b: xp.maximum(z, 0) + a * xp.minimum(z, 0),
        lambda xp, z, a, b: _piecewise_slope(z, a),
        alpha=0.01,
    ),
    "thresholded_relu": _Form(
        lambda xp, z, a, b: z * _as_number(z >= a, z),
        lambda xp, z, a, b: _as_number(z >= a, z),
        alpha=1.0,
    ),
    "scaled_tanh": _Form(
        lambda xp, z, a, b: a * xp.tanh(b * z),
        lambda xp, z, a, b: a * b * _tanh_slope(xp, b * z, a, b),
        alpha=1.0,
        beta=1.0,
    ),
    "hard_sigmoid": _Form(
        lambda xp, z, a, b: xp.minimum(xp.maximum(a * z + b, 0), 1),
        _hard_sigmoid_slope,
        alpha=0.2,
        beta=0.5,
    ),
    "elu": _Form(
        lambda xp, z, a, b: xp.maximum(z, 0) + a * xp.expm1(xp.minimum(z, 0)),
        lambda xp, z, a, b: _piecewise_slope(z, a * xp.exp(-abs(z))),
        alpha=1.0,
    ),
    "softsign": _Form(lambda xp, z, a, b: z / (1 + abs(z)), _softsign_slope),
    "softplus": _Form(
        lambda xp, z, a, b: xp.maximum(z, 0) + xp.log1p(xp.exp(-abs(z))),
        _sigmoid,
    ),
}
NAMES = tuple(_FORMS)  # in the order of ActivationKind of kernels/activation.cuh
