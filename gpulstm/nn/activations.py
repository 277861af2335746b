"""Activations as layers, for Sequential and for models that hold their activation in an attribute."""

from typing import Any

from gpulstm import checks, functional
from gpulstm.cells.activation import Activation
from gpulstm.errors import ShapeError
from gpulstm.functional import rearrange
from gpulstm.nn.arguments import as_tensor
from gpulstm.nn.functions import log_softmax, relu, sigmoid, softmax, tanh
from gpulstm.nn.module import Module
from gpulstm.tape import Tensor, apply

AXES = 64  # the most that an array of NumPy may have


class _SameShape(Module):
    """A layer whose output has its input's shape."""

    keeps_shape = True


class Tanh(_SameShape):
    """The hyperbolic tangent of each element."""

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...)."""
        return tanh(x)


class Sigmoid(_SameShape):
    """1 / (1 + e ** -x) of each element."""

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...)."""
        return sigmoid(x)


class ReLU(_SameShape):
    """max(x, 0) of each element."""

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...)."""
        return relu(x)


class _Formed(_SameShape):
    """One of the functions of cells.activation, with its numbers."""

    form: Activation

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...)."""
        return apply(functional.activation, x, form=self.form)


class LeakyReLU(_Formed):
    """x where it is above 0, else negative_slope * x; as ``torch.nn.LeakyReLU``."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope, self.form = negative_slope, Activation("leaky_relu", negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(_Formed):
    """x where it is above 0, else alpha * (e ** x - 1); as ``torch.nn.ELU`` (Clevert et al. 2016)."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha, self.form = alpha, Activation("elu", alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Softplus(_Formed):
    """log(1 + e ** x) of each element, a smooth ReLU; as ``torch.nn.Softplus`` with beta 1."""

    form = Activation("softplus")


class Softsign(_Formed):
    """x / (1 + abs(x)) of each element; as ``torch.nn.Softsign``."""

    form = Activation("softsign")


class GELU(_SameShape):
    """x times the normal distribution's Phi(x); as ``torch.nn.GELU`` (Hendrycks & Gimpel 2016).

    ``approximate="tanh"`` takes a formula with tanh in place of the error function.
    """

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ShapeError(f"approximate: want 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...)."""
        return apply(functional.gelu, x, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(_SameShape):
    """x * sigmoid(x) of each element, also called swish; as ``torch.nn.SiLU``."""

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...)."""
        x = as_tensor(x, "x")
        return x * sigmoid(x)


class Softmax(_SameShape):
    """e ** x divided by its sum along ``axis``; as ``torch.nn.Softmax``, with the last axis by default.

    Losses such as ``gl.cross_entropy`` take logits: a model that is trained with them has no Softmax at its end.
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = checks.integer("axis", axis, -AXES, AXES)

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...); raises ShapeError for an axis that x does not have."""
        return softmax(x, axis=self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class LogSoftmax(Softmax):
    """The logarithm of Softmax along ``axis``, exact also where that is 0; as ``torch.nn.LogSoftmax``."""

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...); raises ShapeError for an axis that x does not have."""
        return log_softmax(x, axis=self.axis)


class Flatten(Module):
    """The axes from ``start_axis`` to ``end_axis`` as one; as ``torch.nn.Flatten``, which leaves the first axis."""

    def __init__(self, start_axis: int = 1, end_axis: int = -1) -> None:
        self.start_axis = checks.integer("start_axis", start_axis, -AXES, AXES)
        self.end_axis = checks.integer("end_axis", end_axis, -AXES, AXES)

    def forward(self, x: Any) -> Tensor:
        """x (B, n1, n2, ...) -> (B, n1 * n2 * ...); raises ShapeError for axes that x does not have."""
        x = as_tensor(x, "x")
        ndim, ends = len(x.shape), (self.start_axis, self.end_axis)
        first, last = (axis + ndim if axis < 0 else axis for axis in ends)
        if not 0 <= first <= last < ndim:
            raise ShapeError(f"x: want axes {self.start_axis} to {self.end_axis}, got {x.shape}")
        size = 1
        for each in x.shape[first : last + 1]:
            size *= each
        return apply(rearrange.reshape, x, shape=(*x.shape[:first], size, *x.shape[last + 1 :]))

    def extra_repr(self) -> str:
        return f"start_axis={self.start_axis}, end_axis={self.end_axis}"
