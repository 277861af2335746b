"""Activations as layers, for Sequential and for models that keep their activation in an attribute."""

from typing import Any

from gpulstm import checks, functional
from gpulstm.cells.activation import Activation
from gpulstm.errors import ShapeError
from gpulstm.functional import rearrange
from gpulstm.nn.arguments import as_tensor
from gpulstm.nn.functions import log_softmax, relu, sigmoid, softmax, tanh
from gpulstm.nn.module import Module
from gpulstm.tape import Tensor, apply

AXES = 64  # the most axes that a NumPy array may have


class _SameShape(Module):
    """A layer whose output has the shape of its input."""

    keeps_shape = True


class Tanh(_SameShape):
    """Applies the hyperbolic tangent to each element, as ``torch.nn.Tanh``: x (...) -> (...).

    Raises DTypeError for anything but a floating array.

    >>> gl.Tanh()(np.array([0.0, 1.0]))
    Tensor([0.        , 0.76159416], dtype=float64, device=cpu)
    """

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...)."""
        return tanh(x)


class Sigmoid(_SameShape):
    """Applies 1 / (1 + e ** -x) to each element, as ``torch.nn.Sigmoid``: x (...) -> (...).

    Raises DTypeError for anything but a floating array.

    >>> gl.Sigmoid()(np.array([0.0, 1.0]))
    Tensor([0.5       , 0.73105858], dtype=float64, device=cpu)
    """

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...)."""
        return sigmoid(x)


class ReLU(_SameShape):
    """Applies max(x, 0) to each element, as ``torch.nn.ReLU``: x (...) -> (...).

    Raises DTypeError for anything but a floating array.

    >>> gl.ReLU()(np.array([-1.0, 2.0]))
    Tensor([0., 2.], dtype=float64, device=cpu)
    """

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...)."""
        return relu(x)


class _Formed(_SameShape):
    """One of the functions of cells.activation, with its parameters."""

    form: Activation

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...)."""
        return apply(functional.activation, x, form=self.form)


class LeakyReLU(_Formed):
    """Returns x where x >= 0, else negative_slope * x, as ``torch.nn.LeakyReLU``: x (...) -> (...).

    Raises ShapeError unless negative_slope is a finite number, DTypeError for anything but a floating array.

    >>> gl.LeakyReLU(0.1)(np.array([-1.0, 2.0]))
    Tensor([-0.1,  2. ], dtype=float64, device=cpu)
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope, self.form = negative_slope, Activation("leaky_relu", negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(_Formed):
    """Returns x where x >= 0, else alpha * (e ** x - 1), as ``torch.nn.ELU``: x (...) -> (...).

    Clevert et al. 2016. Raises ShapeError unless alpha is finite, DTypeError for anything but a floating array.

    >>> gl.ELU()(np.array([-1.0, 2.0]))
    Tensor([-0.63212056,  2.        ], dtype=float64, device=cpu)
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha, self.form = alpha, Activation("elu", alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Softplus(_Formed):
    """Applies log(1 + e ** x), a smooth ReLU, to each element, as ``torch.nn.Softplus`` with beta 1: x (...) -> (...).

    Raises DTypeError for anything but a floating array.

    >>> gl.Softplus()(np.array([0.0, 2.0]))
    Tensor([0.69314718, 2.12692801], dtype=float64, device=cpu)
    """

    form = Activation("softplus")


class Softsign(_Formed):
    """Applies x / (1 + abs(x)) to each element, as ``torch.nn.Softsign``: x (...) -> (...).

    Raises DTypeError for anything but a floating array.

    >>> gl.Softsign()(np.array([-1.0, 3.0]))
    Tensor([-0.5 ,  0.75], dtype=float64, device=cpu)
    """

    form = Activation("softsign")


class GELU(_SameShape):
    """Multiplies each element x by Phi(x), the normal distribution function, as ``torch.nn.GELU``: x (...) -> (...).

    ``approximate="tanh"`` uses a formula with tanh instead of the error function (Hendrycks & Gimpel 2016). Raises
    ShapeError for another value, DTypeError for anything but a floating array.

    >>> gl.GELU()(np.array([-1.0, 1.0]))
    Tensor([-0.15865525,  0.84134475], dtype=float64, device=cpu)
    """

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ShapeError(f"approximate: expected 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...)."""
        return apply(functional.gelu, x, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(_SameShape):
    """Applies x * sigmoid(x), also called swish, to each element, as ``torch.nn.SiLU``: x (...) -> (...).

    Raises DTypeError for anything but a floating array.

    >>> gl.SiLU()(np.array([-1.0, 1.0]))
    Tensor([-0.26894142,  0.73105858], dtype=float64, device=cpu)
    """

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...)."""
        x = as_tensor(x, "x")
        return x * sigmoid(x)


class Softmax(_SameShape):
    """Computes e ** x divided by its sum along ``axis``, as ``torch.nn.Softmax``: x (...) -> (...).

    The default is the last axis. Losses such as ``gl.cross_entropy`` take logits, so a model trained with them needs no
    Softmax at its end. Raises ShapeError for an axis that x does not have, DTypeError unless x is floating.

    >>> gl.Softmax()(np.array([0.0, 0.0]))
    Tensor([0.5, 0.5], dtype=float64, device=cpu)
    """

    def __init__(self, axis: int = -1) -> None:
        self.axis = checks.integer("axis", axis, -AXES, AXES)

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...); raises ShapeError for an axis that x does not have."""
        return softmax(x, axis=self.axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class LogSoftmax(Softmax):
    """Computes the logarithm of Softmax along ``axis`` without underflow, as ``torch.nn.LogSoftmax``: x (...) -> (...).

    Raises ShapeError for an axis that x does not have, DTypeError for anything but a floating array.

    >>> gl.LogSoftmax()(np.array([0.0, 1000.0]))
    Tensor([-1000.,     0.], dtype=float64, device=cpu)
    """

    def forward(self, x: Any) -> Tensor:
        """x (...) -> (...); raises ShapeError for an axis that x does not have."""
        return log_softmax(x, axis=self.axis)


class Flatten(Module):
    """Joins the axes from ``start_axis`` to ``end_axis`` into one, as ``torch.nn.Flatten``.

    x (B, n1, n2, ...) -> (B, n1 * n2 * ...) by default. Raises ShapeError for axes that x does not have.

    >>> gl.Flatten()(np.zeros((2, 3, 4))).shape
    (2, 12)
    """

    def __init__(self, start_axis: int = 1, end_axis: int = -1) -> None:
        self.start_axis = checks.integer("start_axis", start_axis, -AXES, AXES)
        self.end_axis = checks.integer("end_axis", end_axis, -AXES, AXES)

    def forward(self, x: Any) -> Tensor:
        """x (B, n1, n2, ...) -> (B, n1 * n2 * ...); raises ShapeError for axes that x does not have."""
        x = as_tensor(x, "x")
        ndim, ends = len(x.shape), (self.start_axis, self.end_axis)
        first, last = (axis + ndim if axis < 0 else axis for axis in ends)
        if not 0 <= first <= last < ndim:
            raise ShapeError(f"x: expected axes {self.start_axis} to {self.end_axis}, got {x.shape}")
        size = 1
        for each in x.shape[first : last + 1]:
            size *= each
        return apply(rearrange.reshape, x, shape=(*x.shape[:first], size, *x.shape[last + 1 :]))

    def extra_repr(self) -> str:
        return f"start_axis={self.start_axis}, end_axis={self.end_axis}"
